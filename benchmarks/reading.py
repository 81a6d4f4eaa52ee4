"""What reading a set costs: seconds and memory of scan and read, before and after, in turn.

python benchmarks/reading.py EARLIER_CHECKOUT/src src [--source TABLE_OR_FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from common import CIFAR, record
from startup import commit

import miue

PROBE = """
import json, pathlib, sys, time
from miue import data
import miue.data.scan, miue.data.read
peak = lambda: int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
first, start, cpu = peak(), time.perf_counter(), time.process_time()
source = data.scan(sys.argv[1])
middle = time.perf_counter()
pictures = data.read(source)
end = time.perf_counter()
print(json.dumps({
    "pictures": len(pictures), "megabytes": pictures.images.nbytes / 2**20, "digest": pictures.digest + source.digest,
    "scan": middle - start, "read": end - middle, "both": end - start, "processor": time.process_time() - cpu,
    "more_memory": peak() - first,
}))
"""


def once(source: Path, code: Path) -> dict[str, float]:
    """Seconds and MB of a fresh process."""
    command = [sys.executable, "-c", PROBE, str(source)]
    environment = os.environ | {"PYTHONPATH": str(code.resolve())}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--source", type=Path, default=CIFAR / "train.parquet")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    sides = {"before": asked.before, "after": asked.after}
    runs = [(side, once(asked.source, code)) for _ in range(asked.repeats) for side, code in sides.items()]
    if len(same := {run["digest"] for _, run in runs}) > 1:
        raise SystemExit(f"they do not read the same pictures: {same}")
    names = ("scan", "read", "both", "processor", "more_memory")
    lines = {side: {name: median(r[name] for s, r in runs if s == side) for name in names} for side in sides}
    every = {side: [run["both"] for other, run in runs if other == side] for side in sides}
    facts = {"pictures": runs[0][1]["pictures"], "megabytes": runs[0][1]["megabytes"], "repeats": asked.repeats}
    commits = {side: commit(code) for side, code in sides.items()}
    faster = {name: lines["before"][name] / lines["after"][name] for name in ("both", "processor")}
    print(lines, every, faster)
    print(record("reading", miue.Run(), commits=commits, **facts, **lines, seconds=every, faster=faster))


if __name__ == "__main__":
    main()
