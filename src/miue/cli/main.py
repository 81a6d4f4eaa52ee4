"""The verbs. Parses, calls, prints; the work is done in workflows and below.

Each verb imports what it needs: `--help` answers at once.
"""

from __future__ import annotations

import errno
import logging
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import miue
from miue.cli import examples, holding, listing, looking, owning, streams, tracing
from miue.cli.codes import FAILED_CHECKS, FAILED_INPUTS, INTERRUPTED, USAGE
from miue.cli.options import (
    Channel,
    Config,
    Defenses,
    Device,
    FindTrace,
    Json,
    KeepVictims,
    Originals,
    Out,
    Quiet,
    RecipeName,
    SameCanvas,
    Seed,
    Split,
    Test,
    TestSplit,
    Threshold,
    Victims,
    Workers,
)  # fmt: skip
from miue.core.errors import ToldElsewhere, UserError
from miue.core.launcher import started
from miue.core.progress import write_line, write_note


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"miue {metadata.version('miue')}")
        raise typer.Exit
    return wanted


app = typer.Typer(
    name="miue",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Make a labelled set of pictures unlearnable, and prove on your own data whether it works.\n\n"
    "Start with `miue demo`. Then: `miue protect PICTURES OUT`, `miue evaluate OUT --clean PICTURES`.",
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


app.command()(owning.protect)


@app.command()
def evaluate(
    out: Out,
    clean: Originals,
    test: Test = None,
    victim: Victims = None,
    recipe_name: RecipeName = "quick",
    seeds: Annotated[int, typer.Option(help="Victims per role; the spread over them is shown.")] = 3,
    threshold: Threshold = 0.25,
    defense: Defenses = None,
    channel: Channel = None,
    keep_victims: KeepVictims = None,
    trace: FindTrace = False,
    split: Split = None,
    test_split: TestSplit = None,
    canvas: SameCanvas = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 0,
    config: Config = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Prove what a protection is worth: train victims on clean, noisy and protected pictures, test on clean ones.

    What is evaluated is read back from OUT. By default trainers train plainly, turn all pictures grey, or save them as
    JPEG of quality 75; each may also stop at the best epoch. Exit code 3 where one of them breaks the protection,
    nothing can be said, or the trace is not found.
    """
    from miue.cli import show
    from miue.core.run import Run
    from miue.victims.recipes import recipe

    outcome = miue.evaluate(
        out,
        clean,
        recipes=[recipe(recipe_name, net) for net in victim or [None]],
        **({"defenses": defense} if defense else {}),
        seeds=seeds,
        threshold=threshold,
        channel=channel,
        test=test,
        split=split,
        test_split=test_split,
        canvas=canvas,
        keep_victims=keep_victims,
        trace=trace,
        run=Run(seed, device, quiet=quiet, workers=workers),
    )
    show.outcome(outcome, json)
    raise typer.Exit(0 if outcome.passed else FAILED_CHECKS)


@app.command()
def preview(
    out: Out,
    clean: Annotated[str, typer.Option(help="The original pictures.")],
    to: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("preview.png"),
    count: Annotated[int, typer.Option("--count", "-n", help="How many pictures.")] = 8,
    split: Split = None,
) -> None:
    """Draw a few pictures: original above protected above the difference, ten times amplified. Keep it private."""
    write_line(str(miue.preview(out, clean, to, count=count, split=split)))


@app.command(name="grid")
def grid_command(
    plan: Annotated[
        Path, typer.Argument(help="TOML file: data, test, attacks, defenses, recipes, seeds (docs/grid.md).")
    ],
    only_show: Annotated[bool, typer.Option("--show", help="Measure nothing, print the leaderboard.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells, measure nothing.")] = False,
    shard: Annotated[str, typer.Option(help="Only this part of the cells: 2/4 is the second of four.")] = "1/1",
    retry: Annotated[bool, typer.Option("--retry", help="Measure cells that failed once more.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Share the cells among the workers of Ray.")] = False,
    device: Device = "auto",
    workers: Workers = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure what survives what: attacks x defenses x recipes x seeds, one record a cell.

    Nothing is measured twice: stopped or killed, the same command goes on where it was. Exit code 1 if a cell failed.
    """
    from miue.cli import show
    from miue.core.run import Run
    from miue.grid import bench as grid
    from miue.grid.workers import parse_shard, work

    run, wanted = Run(device_name=device, quiet=quiet, workers=workers), grid.Grid.from_file(plan)
    if only_show:
        show.board(grid.standing(wanted, run), json)
        return
    part, bench = parse_shard(shard), grid.Bench.of(wanted, run)
    if dry_run:
        show.cells(bench.states(part), json)
        return
    records = work(bench, part, retry, ray)
    show.board(grid.standing(wanted, run), json)
    raise typer.Exit(FAILED_INPUTS if any(record.error for record in records) else 0)


app.add_typer(owning.rights, name="rights")
app.add_typer(tracing.app, name="trace")
for verb in (*looking.VERBS, *owning.VERBS, *holding.VERBS, *examples.VERBS, *listing.VERBS):
    app.command()(verb)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: a user's mistake gives one message and exit code 2, never a traceback."""
    streams.prepare()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT, too: background jobs of a shell start with it ignored
        signal.signal(number, _interrupt)
    try:
        if (place := started()) and sys.argv[1:2] != ["protect"]:
            raise UserError(
                f"{' '.join(sys.argv[1:2])} works in one process, and {place.world} were started: start it without "
                "torchrun and srun; victims on several machines are the work of `miue grid --ray`"
            )
        app()
    except ToldElsewhere:
        sys.exit(USAGE)
    except UserError as error:
        write_note(f"miue: {error}")
        sys.exit(error.code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("miue: stopped; the same command goes on where it was", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader has closed the pipe
        streams.close()
    except OSError as error:
        print(f"miue: {error}; the same command goes on once that is mended", file=sys.stderr)
        closed = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST)
        sys.exit(USAGE if error.errno in closed else FAILED_INPUTS)


if __name__ == "__main__":
    main()
