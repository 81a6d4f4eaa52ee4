"""The printed commands: parsed by the command line itself, they ask for what the records have."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

import miue
from miue import data
from miue.cli import main as cli
from miue.core.run import Run
from miue.data.rights import Rights
from miue.evaluation import evaluation
from miue.evaluation.records import Outcome, VictimRun
from miue.report.content import Code, Text
from miue.report.evidence import Evidence
from miue.report.repeat import repeat
from miue.testing import Stopping
from miue.trace import Tracing
from miue.victims.recipe import Recipe
from miue.victims.recipes import RECIPES, recipe
from miue.workflows import add as additions
from miue.workflows import protect as jobs
from miue.workflows.job import Job
from miue.workflows.record import RunRecord, fingerprint_with
from pictures import coloured


class Parsed(Exception):
    """The work that a command would do."""


def parsed(command: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the command line makes of a command, which is not carried out."""

    def stop(*given: Any, **options: Any) -> None:
        raise Parsed(options if options else given[0])

    with monkeypatch.context() as patch, pytest.raises(Parsed) as caught:
        patch.setattr(jobs, "carry_out", stop)
        patch.setattr(additions, "carry_out", stop)
        patch.setattr(miue, "evaluate", lambda *places, **options: stop(places=places, **options))
        typer.main.get_command(cli.app)(command[1:], standalone_mode=False)
    return caught.value.args[0]


def printed(out: Path, verb: str) -> list[list[str]]:
    """The commands of a verb in the report."""
    (code,) = (block for block in repeat(Evidence.of(out), False).blocks if isinstance(block, Code))
    return [words for line in code.lines if (words := shlex.split(line))[1] == verb]


def remarks(out: Path) -> str:
    """The remarks beside the commands."""
    return " ".join(block.text for block in repeat(Evidence.of(out), False).blocks if isinstance(block, Text))


def splits(root: Path, **options: Any) -> Path:
    """Pictures in two splits."""
    for i, name in enumerate(("train", "test")):
        coloured(root / name, seed=options.pop("seed", 0) + i, **options)
    return root


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"budget": "l2:1.3", "seed": 7, "format": "webp", "max_pixels": 1000, "frames": "first"},
        {"budget": "none", "rights": Rights(value="no-training", creator="A. B.", path="/photos/")},
        {"rights": Rights(value="no-mining", no_search=True)},
        {"trace": Tracing(strength=3, keys=2, unmeasured=True)},
        {"trace": Tracing(alone=True)},
    ],
    ids=lambda settings: ",".join(settings) or "usual",
)
def test_the_command_protects_in_the_same_way(
    tmp_path: Path, run: Run, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    source = splits(tmp_path / "in put", per_class=2)
    out, method = tmp_path / "the out", "cuda" if settings.get("budget") == "none" else "noise"
    given = {"source": str(source), "out": out, "method": method, "canvas": 8, "split": "train"} | settings
    jobs.carry_out(Job(**given), run)
    monkeypatch.chdir(tmp_path.parent)
    (command,) = printed(out, "protect")
    job, record = parsed(command, monkeypatch), RunRecord.of(out)
    looked = job.scan()
    assert job.out == out.resolve() and job.settings(looked) == record.settings and job.rules == record.source.rules
    assert fingerprint_with(job.noise(looked, job.settings(looked)), record.settings.rights) == record.fingerprint


def test_the_commands_add_the_same_pictures(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    source, new = coloured(tmp_path / "in", per_class=2), splits(tmp_path / "new", per_class=1, seed=5)
    jobs.carry_out(Job(source=str(source), out=tmp_path / "out", method="noise", canvas=8), run)
    additions.add(tmp_path / "out", new, split="train", run=run)
    with pytest.raises(KeyboardInterrupt):
        additions.add(tmp_path / "out", new, split="test", run=Stopping(0, "cpu", after=1))
    monkeypatch.chdir(tmp_path.parent)
    record, commands = RunRecord.of(tmp_path / "out"), printed(tmp_path / "out", "add")
    asked = [parsed(command, monkeypatch) for command in commands]
    assert [each.fingerprint for each in asked] == [part.fingerprint for part in record.added] and len(asked) == 2


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations without training: every victim has an accuracy that follows from its role."""

    def trained(sets: object, work: dict[str, Any], run: Run) -> list[VictimRun]:
        return [
            VictimRun(
                role=job.role, victim=job.victim.victim, defense=job.victim.defense, seed=job.seed, data="d",
                last=(last := 0.1 if job.role == "protected" else 0.9), best=last, best_epoch=1, train=1, seconds=1,
            )
            for job in work.values()
        ]  # fmt: skip

    monkeypatch.setattr(evaluation, "trained", trained)
    monkeypatch.setattr(evaluation, "check_victims", lambda *_: 0)


@pytest.fixture
def out(tmp_path: Path, run: Run) -> Path:
    """A protected part of a set, with space for tests beside it."""
    source = splits(tmp_path / "in", per_class=6)
    job = Job(source=str(source), out=tmp_path / "out", method="noise", canvas=8, split="train")
    jobs.carry_out(job, run)
    return job.out


def asked(out: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(out.parent.parent)
    return [parsed(command, monkeypatch) for command in printed(out, "evaluate")]


NET = (
    "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, classes, image_shape):\n        pass\n"
)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("nets", [[None], ["resnet18", "vit-tiny"], ["nets.py:Net", "speedrun"]], ids=str)
def test_the_command_evaluates_in_the_same_way(
    out: Path, run: Run, nets: list[str | None], monkeypatch: pytest.MonkeyPatch
):
    (out.parent / "nets.py").write_text(NET)
    texts = [net and net.replace("nets.py", str(out.parent / "nets.py")) for net in nets]
    for name in (*RECIPES, "quick:epochs=3,lr=0.05", "papers:crops=true,weight_decay=0.001"):
        recipes = [recipe(name, net) for net in texts]
        defenses = ("none",) if name == "small" else ("at:eps=3", "gray+jpeg:quality=20", "adaptive")
        miue.evaluate(out, out.parent / "in", split="train", recipes=recipes, defenses=defenses, seeds=1, run=run)
        again = asked(out, monkeypatch)
        assert [each for call in again for each in call["recipes"]] == recipes, name
        assert {(*call["defenses"], call["seeds"], call["run"].seed) for call in again} == {(*defenses, 1, 1)}, name
        assert len(again) == 1 or nets[0] == "nets.py:Net"  # not read for a report, so it is spelt by itself
        shutil.rmtree(data.private_of(out) / "outcomes")


@pytest.mark.usefixtures("untrained")
def test_the_command_names_the_same_pictures_seeds_and_channel(
    out: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    given: dict[str, Any] = {"seeds": 2, "threshold": 0.123456789, "channel": "resize:share=0.5+jpeg:quality=75"}
    given |= {"test": splits(tmp_path / "more", per_class=6, seed=9), "test_split": "test"}
    given |= {"split": "train", "canvas": 16}
    miue.evaluate(out, tmp_path / "in", **given, run=Run(5, "cpu", quiet=True))
    (call,) = asked(out, monkeypatch)
    assert call["places"] == (out.resolve(), str(tmp_path / "in")) and call["run"].seed == 5
    assert {name: call[name] for name in given} == given | {"test": str(given["test"])}
    assert call["defenses"] == ["gray", "jpeg:quality=75"] and call["recipes"] == [RECIPES["quick"]]
    assert "(--test)" not in remarks(out)
    (path,) = (data.private_of(out) / "outcomes").glob("*.json")
    Outcome.load(path).model_copy(update={"inputs": {}}).save(path)  # as earlier versions wrote it
    (call,) = asked(out, monkeypatch)
    assert call["places"][1] == str(tmp_path / "in") and call["split"] == "train" and call["test"] is None
    assert "(--test), give them again" in remarks(out)


@pytest.mark.usefixtures("untrained")
def test_recipes_that_no_command_gives_are_told(out: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    for each in (Recipe(net="small-cnn", epochs=3), Recipe(augment=(), source=RECIPES["papers"].source)):
        miue.evaluate(out, out.parent / "in", split="train", recipes=[each], seeds=1, run=run)
        assert not asked(out, monkeypatch)
        assert "a recipe that was made in Python; no command gives it" in remarks(out)
    miue.evaluate(out, out.parent / "in", split="train", recipes=["fast:net=wrn", "quick"], seeds=1, run=run)
    assert [call["recipes"] for call in asked(out, monkeypatch)] == [[recipe("fast", "wrn")], [RECIPES["quick"]]]
