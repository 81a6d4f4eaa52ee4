"""Files that miue wrote and reads back, damaged: one message with the file and the way out, or they are made again."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from miue import data
from miue.attacks import attack
from miue.cli import main as cli
from miue.core import files
from miue.core.errors import Damaged, UserError, of_process
from miue.core.run import Run
from miue.core.types import Budget, Perturbation
from miue.grid import bench as grid
from miue.testing import tiny
from miue.workflows import protect as jobs
from miue.workflows.job import Job
from pictures import coloured, hashes

pytestmark = pytest.mark.slow  # together a minute

ATTACK = "mi-ue:surrogate=small-cnn:width=4,epochs=2,steps=2,step_size=2.0"
RECIPE = "quick:net=small-cnn:width=4,epochs=1,batch=16"
PLAN = f'data = "in"\ntest = "test"\nattacks = ["{ATTACK}"]\nrecipes = ["{RECIPE}"]\n'
QUIET = ("--device", "cpu", "--quiet")
ASKED = ("--clean", "in", "--test", "test", "--recipe", RECIPE, "--seeds", "1", *QUIET)
COMMANDS = {
    "protect": ("protect", "in", "out", "--attack", ATTACK, *QUIET),
    "overwrite": ("protect", "in", "out", "--attack", ATTACK, "--overwrite", *QUIET),
    "evaluate": ("evaluate", "out", *ASKED, "--keep-victims"),
    "analyze": ("analyze", "out", *ASKED, "--estimator", "agreement"),
    "detect": ("detect", "out", "--clean", "in", *QUIET),
    "verify": ("verify", "out"),
    "compare": ("verify", "out", "--clean", "in"),
    "preview": ("preview", "out", "--clean", "in", "--to", "preview.png"),
    "grid": ("grid", "plan.toml", *QUIET),
    "show": ("grid", "plan.toml", "--show", *QUIET),
}
RECORD, CELL = "out.private/run.json", "plan/cells/*.json"
CHECKPOINT, TRAINED = "out.private/checkpoint/checkpoint.safetensors", "out.private/trained/*.safetensors"
REFUSED = [
    *((RECORD, command) for command in ("protect", "overwrite", "evaluate", "analyze", "detect", "compare", "preview")),
    ("out.private/outputs.json", "overwrite"),
    ("out.private/outputs.json", "verify"),
    ("out.private/manifest.jsonl", "verify"),
    ("out.private/perturbation-*", "protect"),
    ("out.private/victims/*.json", "evaluate"),
    ("out.private/analysis/*/*.json", "analyze"),
    (CELL, "grid"),
    (CELL, "show"),
    ("plan/perturbations/*.json", "grid"),
    ("plan/perturbations/*.safetensors", "grid"),
    ("plan.toml", "grid"),
]
REMADE = [
    ("out.private/outputs.json", "protect"),
    ("out.private/manifest.jsonl", "protect"),
    (CHECKPOINT, "protect"),
    ("out.private/checkpoint/surrogate.safetensors", "analyze"),
    (TRAINED, "analyze"),
]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "list": lambda content: b"[]",
}


def miue(command: str) -> int | str | None:
    """The command's exit code, in this process."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["miue", *COMMANDS[command]])
        cli.main()
    signal.signal(signal.SIGTERM, handler)
    return ended.value.code or 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where everything was done once."""
    place = tmp_path_factory.mktemp("whole")
    coloured(place / "in", per_class=14)
    coloured(place / "test", seed=1)
    (place / "plan.toml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert [miue(name) for name in ("protect", "analyze", "grid", "verify")] == [0, 0, 0, 0]
        assert miue("evaluate") in (0, 3)
    return place


@pytest.fixture
def place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may damage."""
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def opened(place: Path, pattern: str) -> list[Path]:
    """The files of a pattern, once all that would spare a command reading them is away."""
    finished = {
        CHECKPOINT: "out.private/perturbation-*",
        TRAINED: "out.private/analysis/*/*.json",
        "plan/perturbations/*": CELL,
    }
    for path in place.glob(next((done for key, done in finished.items() if Path(pattern).match(key)), "nothing")):
        path.unlink()
    files = sorted(place.glob(pattern))
    assert files
    return files


def told(captured: pytest.CaptureFixture[str], files: list[Path], place: Path) -> str:
    """The one message of a command that ended, which names one of the files."""
    text = captured.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("miue: ")]
    assert len(lines) == 1 and "Traceback" not in text, text
    assert any(path.relative_to(place).as_posix() in lines[0] for path in files), text
    return lines[0]


@pytest.mark.parametrize("damage", [*DAMAGES, "folder"])
@pytest.mark.parametrize(("pattern", "command"), REFUSED)
def test_one_message(pattern: str, command: str, damage: str, place: Path, capsys: pytest.CaptureFixture[str]):
    files = opened(place, pattern)
    for path in files:
        content = path.read_bytes()
        path.unlink()
        path.mkdir() if damage == "folder" else path.write_bytes(DAMAGES[damage](content))
    capsys.readouterr()
    before = hashes(place / "out")
    assert miue(command) == 2
    text = told(capsys, files, place)
    assert pattern == "plan.toml" or "move it away" in text or "bring it back" in text or "once more" in text
    assert hashes(place / "out") == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("pattern", "command"), REMADE)
def test_made_again(pattern: str, command: str, damage: str, place: Path, caplog: pytest.LogCaptureFixture):
    before, files = hashes(place), opened(place, pattern)
    for path in files:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with caplog.at_level(logging.INFO, "miue"):
        assert miue(command) == 0
    quiet = pattern.endswith("outputs.json") or (pattern.endswith("manifest.jsonl") and damage == "empty")
    assert quiet or "damaged" in caplog.text
    after = hashes(place)
    same = [name for name in before if name.startswith(("out/", "out.private/manifest", "out.private/outputs"))]
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


@pytest.mark.parametrize(("pattern", "command"), REMADE)
def test_a_folder_is_not_replaced(pattern: str, command: str, place: Path, capsys: pytest.CaptureFixture[str]):
    files = opened(place, pattern)
    for path in files:
        path.unlink()
        path.mkdir()
    capsys.readouterr()
    assert miue(command) == 2
    told(capsys, files, place)


def test_a_manifest_that_lacks_whole_lines_is_not_verified(place: Path, capsys: pytest.CaptureFixture[str]):
    path = place / "out.private" / "manifest.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    assert miue("verify") == 2
    assert "only 21 lines" in told(capsys, [path], place)
    assert (miue("protect"), miue("verify")) == (0, 0)
    assert path.read_text() == "".join(lines)


def test_facts_of_a_perturbation_are_made_with_it_again(place: Path):
    record = opened(place, "plan/perturbations/*.json")[0]
    record.unlink()
    assert miue("grid") == 0 and record.is_file()


def test_an_output_that_is_cut_off_is_written_again(tmp_path: Path, run: Run):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "in.npz", images=pixels, labels=[0, 1] * 3)
    job = Job(source=str(tmp_path / "in.npz"), out=tmp_path / "out", method="noise", canvas=8)
    jobs.carry_out(job, run)
    before, path = hashes(job.out), job.out / "in.npz"
    path.write_bytes(path.read_bytes()[:100])
    jobs.carry_out(job, run)
    assert hashes(job.out) == before


@pytest.mark.parametrize("lost", [2, 4])
def test_one_of_several_surrogates_is_lost(lost: int, run: Run, keeping: Run):
    method = attack("sep:surrogate=small-cnn:width=4,epochs=4,checkpoints=2,batch=4,steps=1")
    assert keeping.keep
    wanted = method(tiny(), Budget(8), keeping).delta
    for path in keeping.keep.glob("noise-*"):
        path.unlink()
    (keeping.keep / f"surrogate-{lost}.safetensors").write_bytes(b"")
    assert torch.equal(method(tiny(), Budget(8), keeping).delta, wanted)


@pytest.mark.parametrize("name", ["cache", "canvas"])
def test_a_canvas_that_cannot_be_kept(name: str, place: Path, capsys: pytest.CaptureFixture[str]):
    """It is never read back: what an earlier run left there is replaced."""
    source = data.scan(place / "in")
    private = place / "out.private"
    wrong = private / "canvas" if name == "canvas" else private / "canvas" / f"{source.digest}-3x8.u8"
    wrong.mkdir(parents=True) if name == "cache" else wrong.write_bytes(b"")
    next(private.glob("perturbation-*")).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["miue.data.read"], "_IN_MEMORY", 0)
        assert miue("protect") == 2
    told(capsys, [wrong], place)


def test_an_old_canvas_is_replaced(place: Path):
    source = data.scan(place / "in")
    old = place / "canvas" / f"{source.digest}-3x8.u8"
    old.parent.mkdir()
    old.write_bytes(b"old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["miue.data.read"], "_IN_MEMORY", 0)
        assert torch.equal(data.read(source, cache=old.parent).images, data.read(source).images)


def test_several_processes_end_in_one_message(place: Path, capsys: pytest.CaptureFixture[str]):
    wrong = place / "two.private" / "checkpoint" / "checkpoint-1of2-0.safetensors"
    wrong.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMMANDS, "two", ("protect", "in", "two", "--attack", ATTACK, "--processes", "2", *QUIET))
        assert miue("two") == 2
    told(capsys, [wrong], place)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("OSError: [Errno 28] No space left on device: 'a/b'", OSError(28, "No space left on device: 'a/b'")),
        ("IsADirectoryError: [Errno 21] Is a directory: 'a'", IsADirectoryError(21, "Is a directory: 'a'")),
        ("miue.core.errors.Damaged: a: b; c", UserError("a: b; c")),
        ("ValueError: 3", None),
    ],
)
def test_what_another_process_ended_in(line: str, wanted: Exception | None):
    error = of_process(f"-- Process 1 terminated\nTraceback\n  File x\n{line}\n")
    assert (type(error), str(error)) == (type(wanted), str(wanted))


def test_a_damaged_file_is_the_fault_of_no_cell():
    for error in (Damaged("a file"), OSError(28, "full")):
        with pytest.raises(type(error)):
            grid._reraise_transient(error)
    grid._reraise_transient(UserError("a setting"))


def test_a_perturbation_of_values_beyond_its_budget(tmp_path: Path):
    path, made = tmp_path / "a.safetensors", Perturbation(torch.full((1, 3, 2, 2), 8, dtype=torch.int8), Budget(8), "x")
    made.save(path)
    path.write_bytes(path.read_bytes()[:-12] + b"\x7f" * 12)
    with pytest.raises(Damaged, match=r"a\.safetensors: .*left its budget"):
        Perturbation.load(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize(
    ("command", "pattern", "folder"),
    [
        ("evaluate", "out.private/victims/*.json", "victims"),
        ("evaluate", "out.private/victims/*.json", "trained"),
        ("analyze", "out.private/analysis/*/*.json", "analysis"),
        ("grid", CELL, "cells"),
        ("grid", "plan/perturbations/*.safetensors", "perturbations"),
    ],
)
def test_a_disk_that_takes_no_more(
    command: str, pattern: str, folder: str, code: int, place: Path, capsys: pytest.CaptureFixture[str]
):
    """It is the fault of no cell, and the message tells the file, which the system does not."""
    for path in opened(place, pattern):
        path.unlink()
    flush = files._flush

    def full(part: Path) -> None:
        if folder in part.parts:
            raise OSError(code, os.strerror(code))
        flush(part)

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_flush", full)
        assert miue(command) == 1
    text = capsys.readouterr().err
    assert re.search(rf"^miue: .*{os.strerror(code)}: '.*/{folder}/.*'; the same command goes on", text, re.MULTILINE)
    assert "Traceback" not in text
    assert not [path for path in place.glob(CELL) if json.loads(path.read_text())["error"]]
