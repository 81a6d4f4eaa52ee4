"""Victims side by side: seconds of `evaluate` or `grid`, in turns with an earlier version and with one worker.

Every run begins without records. Two modes: the machine as it is, and with one busy process beside it.
python benchmarks/workers.py [--verb grid] [--before CHECKOUT of an earlier version] [--workers 1 2]
Writes benchmarks/results/workers.json, or workers_grid.json, after every round. The same command on the same commit and
machine goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from common import CIFAR, RESULTS, cifar10, head, record

import miue
from miue import data, publish
from miue.core.files import digest

Seconds = dict[str, list[float]]

BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # it ends with this script
LEFT = "victims", "trained", "outcomes", "locks", "cells"  # what both verbs leave in their folder
PLAN = """
data = "{clean}"
test = "{test}"
out = "{out}"
attacks = ["ops"]
recipes = ["{recipe}"]
seeds = {seeds}
"""


@dataclass(frozen=True)
class Way:
    """One way to train the same victims."""

    name: str
    source: Path
    module: str
    words: tuple[str, ...]
    """Options that only this way has."""

    def seconds(self, line: list[str]) -> float:
        """Seconds of `miue LINE`."""
        start = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", self.module, *line],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(self.source)},
        )
        if ended.returncode not in (0, 3):  # 3: the verdict is not "protected", which is not asked here
            raise SystemExit(ended.stderr)
        return time.monotonic() - start


def ways(options: argparse.Namespace) -> list[Way]:
    """The ways that are compared: the earlier version first, where there is one."""
    here = Path(miue.__file__).parents[1]
    new = [Way(f"{n} workers", here, "miue.cli.main", ("--workers", str(n))) for n in options.workers]
    if options.before is None:
        return new
    head = ["git", "-C", str(options.before), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    module = "miue.cli.main" if (options.before / "src/miue/cli").is_dir() else "miue.cli"
    return [Way(commit, options.before.resolve() / "src", module, ()), *new]


def records(private: Path) -> str:
    """A digest of the records of the victims, without their seconds."""
    paths = sorted((private / "victims").glob("*.json"))
    return digest(*((path.name, re.sub(r'"seconds": ?[\d.e-]+', "", path.read_text())) for path in paths))


def named(way: Way, mode: str) -> str:
    return way.name + ", one busy process" * (mode == "busy")


def rounds(seconds: Seconds, mode: str, compared: list[Way]) -> int:
    """Rounds of a mode that are complete."""
    return min(len(seconds.get(named(way, mode), [])) for way in compared)


@contextmanager
def beside(mode: str) -> Iterator[None]:
    """One busy process beside the block, in the mode that has it."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if mode == "busy" else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def earlier(place: str, facts: dict[str, Any], run: miue.Run) -> tuple[Seconds, set[str]]:
    """Seconds and digests of the record of the same comparison at this commit on this machine."""
    path = RESULTS / f"{place}.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    usual = {**facts, "commit": head(), "machine": run.machine}
    if any(known.get(key) != json.loads(json.dumps(value)) for key, value in usual.items()):
        return {}, set()
    return known["seconds"], set(known["records"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", choices=["evaluate", "grid"], default="evaluate")
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--before", type=Path, help="checkout of an earlier version, which is timed, too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=["free", "busy"], default=["free", "busy"])
    parser.add_argument("--shapes", action="store_true", help="the built-in set instead of CIFAR-10")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        clean, test = Path(folder, "clean"), str(Path(folder, "test"))
        train = data.shapes(options.per_class) if options.shapes else cifar10("train", options.per_class)
        publish.export(train, clean)
        if options.shapes:
            publish.export(data.shapes(max(options.per_class // 5, 1), split="test"), Path(test))
        else:
            test = str(CIFAR / "test.parquet")
        compared = ways(options)
        lines: dict[str, tuple[list[str], Path]] = {}
        for number, way in enumerate(compared):
            out = Path(folder, f"out-{number}")
            if options.verb == "evaluate":
                way.seconds(["protect", str(clean), str(out), "--attack", "ops", "--device", "cpu"])
                asked = ["--clean", str(clean), "--test", test, "--recipe", options.recipe]
                asked += ["--seeds", str(options.seeds), "--device", "cpu", *way.words]
                asked += ["--defense", "none"] if way.words else []  # earlier versions train plainly without it
                lines[way.name] = ["evaluate", str(out), *asked], data.private_of(out)
            else:
                plan = Path(folder, f"plan-{number}.toml")
                plan.write_text(
                    PLAN.format(clean=clean, test=test, out=out, recipe=options.recipe, seeds=options.seeds)
                )
                lines[way.name] = ["grid", str(plan), "--device", "cpu", *way.words], out
        facts = {
            "verb": options.verb,
            "recipe": options.recipe,
            "pictures": len(train),
            "ways": [way.name for way in compared],
        }
        place, run = "workers" if options.verb == "evaluate" else "workers_grid", miue.Run(0, "cpu")
        seconds, same = earlier(place, facts, run)
        for mode in options.modes:
            while (done := rounds(seconds, mode, compared)) < options.repeats:
                print(f"{mode}, round {done + 1}", flush=True)
                for way in compared:
                    line, private = lines[way.name]
                    for name in LEFT:
                        shutil.rmtree(private / name, ignore_errors=True)
                    with beside(mode):
                        spent = way.seconds(line)
                    seconds.setdefault(named(way, mode), []).append(spent)
                    if way.words:
                        same.add(records(private))
                    print(f"{named(way, mode)}: {spent:.1f} s", flush=True)
                medians = {name: median(values) for name, values in seconds.items()}
                record(place, run, **facts, records=sorted(same), seconds=seconds, medians=medians)
    if len(same) > 1:
        raise SystemExit("victims of the same seeds have other records")


if __name__ == "__main__":
    main()
