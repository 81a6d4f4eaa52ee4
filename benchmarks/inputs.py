"""What unusual inputs cost, before and after, each line in turn on both sides: benchmarks/results/inputs.json.

    python benchmarks/inputs.py EARLIER_CHECKOUT/src src [LINE ...]

Lines that are named are measured (again); the others stay as the record has them. A command is stopped after LIMIT
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import RESULTS, record
from PIL import Image
from startup import commit

import miue

LIMIT = 300
PROBE = """
import pathlib, sys
from miue.cli import main
main = getattr(main, "main", main)  # of either layout
sys.argv = ["miue", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code or 0
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def photographs(folder: Path, width: int, height: int, count: int) -> None:
    """Smooth pictures as JPEG, in two classes."""
    rng = np.random.default_rng(0)
    for at in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
        path = folder / f"class{at % 2}" / f"{at}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=92)


def small(folder: Path, classes: int, each: int, side: int) -> None:
    """Random pictures as PNG."""
    rng = np.random.default_rng(0)
    for at in range(classes):
        (folder / f"class{at:04d}").mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"class{at:04d}/{i}.png")


def films(folder: Path) -> None:
    """Two classes of four pictures, and three sparse films of 1.5 GB in one of them."""
    small(folder, 2, 4, 32)
    for at in range(3):
        with (folder / "class0000" / f"{at}.mov").open("wb") as file:
            file.write(b"\x00\x00\x00\x14ftypqt  ")
            file.truncate(1_500_000_000)


Line = tuple[Callable[[Path], None], list[list[str]]]
PROTECT, VERIFY = ["protect", "in", "out", "--attack", "noise"], ["verify", "out", "--clean", "in"]
DRY, DETECT = ["protect", "in", "dry", "--dry-run"], ["detect", "out", "--clean", "in"]
LINES: dict[str, Line] = {
    "two pictures of 12 MP": (lambda at: photographs(at, 4000, 3000, 2), [PROTECT, VERIFY]),
    "eight pictures of 12 MP": (lambda at: photographs(at, 4000, 3000, 8), [PROTECT, VERIFY]),
    "eight pictures of 24 MP": (lambda at: photographs(at, 6000, 4000, 8), [PROTECT, VERIFY]),
    "20,000 pictures of 16 x 16": (lambda at: small(at, 10, 2000, 16), [PROTECT, VERIFY]),
    "three films of 1.5 GB": (films, [PROTECT, VERIFY]),
    "2,000 classes of 3": (
        lambda at: small(at, 2000, 3, 100),
        [DRY, PROTECT, DETECT],
    ),
}


def once(command: list[str], source: Path, folder: Path) -> dict[str, Any]:
    """Seconds, processor seconds and peak memory of one command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(source.resolve())}
    try:
        words = [sys.executable, "-c", PROBE, *command]
        ended = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
        peak = int(ended.stderr.split()[-1]) / 1024
    except subprocess.TimeoutExpired:
        peak = None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.monotonic() - start
    return {"seconds": round(seconds, 2), "processor": round(cpu, 2), "megabytes": peak, "stopped": peak is None}


def measured(name: str, sides: dict[str, Path], repeats: int) -> list[dict[str, Any]]:
    """Each command of a line, both sides in turn, medians over repeats."""
    make, commands = LINES[name]
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with TemporaryDirectory() as folder:
        make(Path(folder) / "in")
        for repeat in range(repeats):
            for side, source in sides.items():
                work = Path(folder) / f"{side}{repeat}"  # a new place: taking files away slows a disk for a while
                work.mkdir()
                (work / "in").symlink_to(Path(folder) / "in")
                for command in commands:
                    verb = " ".join(word for word in command if word in ("protect", "verify", "detect", "--dry-run"))
                    runs.setdefault((verb, side), []).append(once(command, source, work))
                    print(name, verb, side, runs[verb, side][-1], flush=True)
    lines = []
    for (verb, side), found in runs.items():
        middle = {key: median(run[key] for run in found) for key in ("seconds", "processor")}
        stopped = any(run["stopped"] for run in found)
        peak = None if stopped else median(run["megabytes"] for run in found)
        lines.append({"line": name, "verb": verb, "side": side, **middle, "megabytes": peak, "stopped": stopped})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("lines", nargs="*", default=list(LINES), metavar="LINE", help="; ".join(LINES))
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    sides = {"before": asked.before, "after": asked.after}
    commits = {side: commit(source) for side, source in sides.items()}
    path = RESULTS / "inputs.json"
    lines = json.loads(path.read_text())["lines"] if path.exists() else []
    for name in asked.lines:
        fresh = [line | {"commit": commits[line["side"]]} for line in measured(name, sides, asked.repeats)]
        lines = [line for line in lines if line["line"] != name] + fresh
        record("inputs", miue.Run(), repeats=asked.repeats, limit=LIMIT, lines=lines)


if __name__ == "__main__":
    main()
