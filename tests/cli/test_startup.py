"""What a command imports before it does anything: a help text costs no second of imports."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from miue.cli import catalogue
from miue.cli import main as cli
from pictures import coloured

pytestmark = pytest.mark.slow  # together a minute

HEAVY = (
    "torch",
    "torch._dynamo",
    "lightning_fabric",
    "torchvision",
    "skimage",
    "sklearn",
    "timm",
    "matplotlib",
    "numpy",
)
LISTING = ("attacks", "defenses", "recipes", "networks", "estimators")
VERBS = sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands)  # type: ignore
PROBE = """
import json, pathlib, sys, time
try:
    {code}
except SystemExit:
    pass
status = pathlib.Path("/proc/self/status")  # of this process alone: getrusage counts what it was forked from, too
lines = status.read_text().splitlines() if status.exists() else []
peak = sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
names = [name for name in {names!r} if name in sys.modules]
print(json.dumps({{"modules": names, "seconds": time.process_time(), "megabytes": peak}}), file=sys.stderr)
"""


def started(code: str, folder: Path | None = None) -> dict[str, Any]:
    """Heavy modules, processor seconds and peak memory of a fresh process that runs `code`."""
    ended = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code, names=HEAVY)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ended.stderr.splitlines()[-1])


def command(*words: str) -> str:
    return f"sys.argv = {['miue', *words]!r}; from miue.cli.main import main; main()"


QUICK = [("--help",), ("--version",), *((verb, "--help") for verb in VERBS), *((verb,) for verb in LISTING)]


@pytest.mark.parametrize("words", [*QUICK, ("attacks", "--json")], ids=" ".join)
def test_help_and_lists_need_no_heavy_module(words: tuple[str, ...]):
    start = started(command(*words))
    assert start["modules"] == [] and start["megabytes"] < 80, start
    assert start["seconds"] < 1.0, start  # measured at 0.13 to 0.19 on a quiet machine


def test_importing_the_package_imports_nothing_heavy():
    start = started("import miue")
    assert start["modules"] == [] and start["seconds"] < 0.3, start


def test_names_of_the_package_are_imported_when_they_are_used():
    assert "torch" in started("import miue; miue.Budget")["modules"]
    assert started("import miue; assert 'Budget' in dir(miue); assert 'protect' in miue.__all__")["modules"] == []


def test_the_lists_are_those_of_the_classes():
    assert catalogue.PLACE.read_text(encoding="utf-8") == catalogue.current(), "run make docs"


# --- verbs that compute import what they need, and no more ---


@cache
def needed_to_train() -> frozenset[str]:
    """What torch's optimizers import by themselves: torch._dynamo, in the versions that we know."""
    return frozenset(started("import torch; torch.optim.SGD([torch.zeros(1)])")["modules"])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with pictures in `in` and protected ones in `out`; the heavy modules that `protect` imported."""
    folder = tmp_path_factory.mktemp("startup")
    coloured(folder / "in", 8)
    words = ("protect", "in", "out", "--attack", "noise", "--canvas", "8", "--device", "cpu")
    return folder, started(command(*words), folder)["modules"]


def test_protecting_imports_torch_and_no_more(published: tuple[Path, list[str]]):
    folder, modules = published
    assert (folder / "out").is_dir() and modules == ["torch", "numpy"]


def test_verifying_imports_torch_and_no_more(published: tuple[Path, list[str]]):
    for words in (("verify", "out"), ("verify", "out", "--clean", "in")):
        assert started(command(*words), published[0])["modules"] == ["torch", "numpy"]


@pytest.mark.parametrize(
    "words",
    [
        ("detect",),
        ("evaluate", "--victim", "small-cnn:width=4", "--recipe", "quick:epochs=1", "--seeds", "1", "--workers", "1"),
    ],
    ids=lambda words: words[0],
)
def test_training_imports_what_the_optimizer_needs_and_no_more(published: tuple[Path, list[str]], words: tuple):
    verb, *options = words
    start = started(command(verb, "out", "--clean", "in", "--device", "cpu", *options), published[0])
    assert set(start["modules"]) == {"torch", "numpy", *needed_to_train()}
    assert needed_to_train() <= {"torch", "torch._dynamo", "numpy"}
