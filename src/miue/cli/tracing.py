"""The verbs of `miue trace`: questions, judge, reveal, check; and the options of `protect` that put a trace in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miue.cli.codes import FAILED_CHECKS
from miue.cli.options import Device, Json, Out, Split

if TYPE_CHECKING:
    from miue.trace import Tracing
    from miue.workflows.job import Job

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Test whether somebody's classifier was trained on a set that was protected with `--trace`.\n\n"
    "First `miue trace questions OUT DIR --base PICTURES`, then ask the suspect, then "
    "`miue trace judge OUT --answers answers.csv`.",
)


def settings(
    trace: bool, alone: bool, strength: int | None, keys: int, beacon: str | None, unmeasured: bool, attack: str
) -> Tracing | None:
    """The settings of a trace from the options of `protect`; None without one. Raises UserError."""
    from miue.core.errors import UserError
    from miue.trace import Tracing
    from miue.workflows.job import Job

    if not (trace or alone):
        if beacon or unmeasured or (strength, keys) != (Tracing.strength, Tracing.keys):
            raise UserError("--beacon and the options of a trace need one; add --trace")
        return None
    if alone and attack != Job.method:
        raise UserError(f"--trace-only is the mark without an attack; leave --attack {attack} out, or give --trace")
    return Tracing(strength=strength, keys=keys, beacon=beacon or "", alone=alone, unmeasured=unmeasured)


def committed(job: Job) -> None:
    """Draw the secret of a job and print the commitment."""
    from miue.cli import show
    from miue.workflows.protect import commit

    assert job.trace  # a job without a trace names no number
    show.lines(
        f"commitment: {commit(job)}",
        f"It names the public number {job.trace.named!r}. Publish it where its date can be proved, before that number",
        "is known. Nothing else was written. Then run the same command with the value: --beacon HEX.",
    )


@app.command()
def questions(
    out: Out,
    folder: Annotated[Path, typer.Argument(help="A new folder for the questions.", metavar="DIR")],
    base: Annotated[str, typer.Option(help="Clean pictures, never published, at least 100: a folder of folders.")],
    count: Annotated[int, typer.Option(help="Questions; 300 are a first look.")] = 1000,
    size: Annotated[int | None, typer.Option(help="Side of the questions in pixels [the canvas of the set].")] = None,
    amplitude: Annotated[int, typer.Option(help="Grey levels of the random fields.")] = 16,
    seed: Annotated[int, typer.Option(help="A public number; the same gives the same questions.")] = 0,
    split: Split = None,
    json: Json = False,
) -> None:
    """Write questions for suspects: lossless pictures with random fields. They contain no secret."""
    from miue.cli import show
    from miue.workflows.questions import TABLE
    from miue.workflows.questions import questions as make

    asked = make(out, folder, base, count=count, size=size, amplitude=amplitude, seed=seed, split=split)
    texts = (
        f"{asked.count} questions of {asked.size} x {asked.size} pixels in {folder}; they contain no secret",
        f"Ask the suspect about each picture ({folder}/{TABLE} lists them). Write its answers to a table with a column",
        "`question`, and either a column `label` with class names or one column of scores for every class.",
        f"Next: miue trace judge {out} --answers answers.csv",
    )
    show.record(asked, texts, json)


@app.command()
def judge(
    out: Out,
    answers: Annotated[Path | None, typer.Option(help="The suspect's answers: CSV or parquet.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Or its weights: safetensors, or a saved state dict.")] = None,
    net: Annotated[str | None, typer.Option(help="The network of the weights: a name, or `your_file.py:Net`.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="The folder of questions: needed with weights, or if several lists were made.")
    ] = None,
    suspect: Annotated[str | None, typer.Option(help="A name for the records [that of the file].")] = None,
    suspects: Annotated[int, typer.Option(help="How many will be judged in all; fixed by the first judgement.")] = 1,
    alpha: Annotated[float, typer.Option(help="Chance of any false accusation; fixed by the first judgement.")] = 1e-3,
    labels: Annotated[str, typer.Option(help="`known`, or `unknown` if they mean other classes.")] = "known",
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="With weights: use labels, as if it showed no scores.")
    ] = False,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Reveal keys one by one, and keep secret what is not needed.")
    ] = False,
    direct: Annotated[
        bool, typer.Option("--direct", help="With weights: ask the keys themselves too, half of the level each.")
    ] = False,
    gradient: Annotated[bool, typer.Option("--gradient", help="With weights: test gradients, too.")] = False,
    base: Annotated[
        str | None,
        typer.Option(help="For --direct and --gradient: the clean pictures that the questions were made of."),
    ] = None,
    split: Split = None,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="A network of your own: nothing is counted, nothing kept.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Judge a suspect by its answers. Exit code 0 whatever comes out: evidence of use, or no evidence."""
    from miue.cli import checks
    from miue.core.errors import UserError
    from miue.core.run import Run
    from miue.workflows import trace as work

    if (answers is None) == (weights is None):
        raise UserError("give either --answers FILE or --weights FILE --net NAME")
    if labels not in ("known", "unknown"):
        raise UserError(f"labels {labels!r}: allowed are known and unknown")
    common = {"suspect": suspect, "suspects": suspects, "alpha": alpha, "rehearsal": rehearsal}
    run = Run(device_name=device)
    if answers is not None:
        if direct or gradient or labels_only or net or base:
            raise UserError("--net, --direct, --gradient, --base and --labels-only need --weights")
        judgement = work.judge_answers(
            out, answers, unknown=labels == "unknown", sequential=sequential, asked=questions, **common
        )
    else:
        assert weights is not None  # one of the two was given
        if net is None or questions is None:
            raise UserError("--weights needs --net NAME and --questions DIR")
        if labels != "known":
            raise UserError(
                "--labels unknown is for answers in a file: outputs of --weights are in the order of the classes"
            )
        if direct and sequential:
            raise UserError("--direct and --sequential are two tests; choose one")
        judgement = work.judge_weights(
            out,
            weights,
            net,
            asked=questions,
            labels_only=labels_only,
            sequential=sequential,
            gradient=gradient,
            direct=direct,
            base=base,
            split=split,
            run=run,
            **common,
        )
    checks.judgement(judgement, json)


@app.command()
def reveal(
    out: Out,
    file: Annotated[Path, typer.Argument(help="A new file for the disclosure.")],
    suspect: Annotated[str | None, typer.Option(help="The verdict on this one alone [all].")] = None,
    json: Json = False,
) -> None:
    """Write what others need to repeat the judgements. The keys in it are worthless from then on."""
    from miue.cli import show
    from miue.workflows.disclosure import reveal as disclose

    shown = disclose(out, file, suspect=suspect)
    opened = shown.opened
    count = "all" if opened.master else str(len(opened.keys))
    texts = (
        f"{count} of {len(opened.parameters.names)} keys are shown in {file}, and the answers of {len(shown.answers)}",
        "Whoever reads it can remove those marks, or teach them to another model.",
        f"Next: miue trace check {file} --answers answers.csv --notice {out}/PROTECTED.md --questions DIR",
    )
    show.record(shown, texts, json)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The disclosure of an owner.")],
    answers: Annotated[
        Path | None, typer.Option(help="A suspect's own answers [those that the disclosure states].")
    ] = None,
    notice: Annotated[Path | None, typer.Option(help="The PROTECTED.md that was published, or its folder.")] = None,
    questions: Annotated[
        list[Path] | None, typer.Option(help="A folder of questions that was asked; once for each list.")
    ] = None,
    json: Json = False,
) -> None:
    """Repeat all judgements of a disclosure, without the private folder. Exit code 3 where something does not match."""
    from miue.cli import checks
    from miue.workflows.disclosure import check_disclosure

    checked = check_disclosure(file, answers, notice=notice, questions=questions or ())
    checks.checked(checked, json)
    raise typer.Exit(0 if checked.same else FAILED_CHECKS)
