"""`evaluate` with one and with several workers: seconds and records, in turns on the same published folder.

Every run begins without records. Two modes: the machine as it is, and with one busy process beside it.
Writes benchmarks/results/workers.json.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from common import CIFAR, cifar10, record

import miue
from miue import data, publish

BUSY = "while True: pass"
MADE = "victims", "trained", "outcomes", "locks"  # what an evaluation leaves in the private folder


def command(out: Path, clean: Path, test: str, workers: int, options: argparse.Namespace) -> list[str]:
    """The command line of one run."""
    asked = ["--recipe", options.recipe, "--seeds", str(options.seeds), "--workers", str(workers), "--device", "cpu"]
    return [sys.executable, "-m", "miue.cli.main", "evaluate", str(out), "--clean", str(clean), "--test", test, *asked]


def records(private: Path) -> dict[str, str]:
    """The records of the victims, without their seconds."""
    paths = sorted((private / "victims").glob("*.json"))
    return {path.name: re.sub(r'"seconds": ?[\d.e-]+', "", path.read_text()) for path in paths}


def run_once(line: list[str], private: Path) -> tuple[float, dict[str, str]]:
    """Seconds of one run from nothing, and what it recorded."""
    for name in MADE:
        shutil.rmtree(private / name, ignore_errors=True)
    start = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode not in (0, 3):  # 3: the verdict is not "protected", which is not asked here
        raise SystemExit(done.stderr)
    return time.monotonic() - start, records(private)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shapes", action="store_true", help="the built-in set instead of CIFAR-10")
    parser.add_argument("--record", default="workers", help="name of the record")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        clean, out, test = Path(folder, "clean"), Path(folder, "out"), str(Path(folder, "test"))
        train = data.shapes(options.per_class) if options.shapes else cifar10("train", options.per_class)
        publish.export(train, clean)
        if options.shapes:
            publish.export(data.shapes(max(options.per_class // 5, 1), split="test"), Path(test))
        else:
            test = str(CIFAR / "test.parquet")
        miue.protect(clean, out, "ops", run=miue.Run(0, "cpu"))
        private, kept = data.private_of(out), []
        for busy in (False, True):
            for _ in range(options.repeats):
                for workers in options.workers:
                    beside = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
                    try:
                        spent, made = run_once(command(out, clean, test, workers, options), private)
                    finally:
                        if beside:
                            beside.kill()
                            beside.wait()
                    name = f"{workers} workers" + ", one busy process" * busy
                    seconds.setdefault(name, []).append(spent)
                    kept.append(made)
                    print(f"{name}: {spent:.1f} s", flush=True)
    facts = {
        "recipe": options.recipe,
        "pictures": len(train),
        "victims": len(kept[0]),
        "same_records": all(made == kept[0] for made in kept),
        "seconds": seconds,
        "medians": {name: median(values) for name, values in seconds.items()},
    }
    print(record(options.record, miue.Run(0, "cpu"), **facts))


if __name__ == "__main__":
    main()
