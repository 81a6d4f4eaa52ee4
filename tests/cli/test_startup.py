"""What a command imports before it does anything: a help text costs no second of imports."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from miue.cli import main as cli

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


def started(code: str) -> dict[str, Any]:
    """Heavy modules, processor seconds and peak memory of a fresh process that runs `code`."""
    ended = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code, names=HEAVY)], capture_output=True, text=True, check=True
    )
    return json.loads(ended.stderr.splitlines()[-1])


def command(*words: str) -> str:
    return f"sys.argv = {['miue', *words]!r}; from miue.cli.main import main; main()"


@pytest.mark.parametrize("words", [("--help",), ("--version",), *((verb, "--help") for verb in VERBS)], ids=" ".join)
def test_help_needs_no_heavy_module(words: tuple[str, ...]):
    start = started(command(*words))
    assert start["modules"] == [] and start["megabytes"] < 80, start
    assert start["seconds"] < 1.0, start  # measured at 0.2 to 0.4 on a quiet machine


def test_importing_the_package_imports_nothing_heavy():
    start = started("import miue")
    assert start["modules"] == [] and start["seconds"] < 0.3, start


def test_names_of_the_package_are_imported_when_they_are_used():
    assert "torch" in started("import miue; miue.Budget")["modules"]
    assert started("import miue; assert 'Budget' in dir(miue); assert 'protect' in miue.__all__")["modules"] == []
