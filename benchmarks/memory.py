"""Peak memory and time of an attack at several sizes of a set, with its deltas in memory and in files.

Every size is one fresh process for each way; what is measured already is not measured again. Pictures are drawn at
random, because only their number matters here. python benchmarks/memory.py --counts 2000 8000 --side 32
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from common import RESULTS, head, record

import miue

PROBE = """
import json, pathlib, sys, time
import numpy as np, torch
import miue
attack, folder, count, side, memory = sys.argv[1], pathlib.Path(sys.argv[2]), *map(int, sys.argv[3:6])
def status(name):
    return int(pathlib.Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0]) / 1024
images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8))
names = tuple(map(str, range(10)))
data = miue.ImageSet(images, torch.arange(count) % 10, names, "random")
run = miue.Run(0, "cpu", keep=folder, memory=memory)
method = miue.attack(attack)
method(data.select(torch.arange(200)), miue.Budget(8), miue.Run(0, "cpu"))
before, start, cpu = status("VmRSS"), time.perf_counter(), time.process_time()
pathlib.Path("/proc/self/clear_refs").write_text("5")
delta = method(data, miue.Budget(8), run).delta
print(json.dumps({
    "seconds": time.perf_counter() - start, "processor": time.process_time() - cpu,
    "more_megabytes": status("VmHWM") - before, "perturbation_megabytes": delta.nbytes / 2**20,
    "digest": miue.core.files.tensor_digest(delta),
}))
"""
ATTACK = "em:lasting,epochs=3,colour=0,surrogate=small-cnn:width=4,restarts=0,channels=rgb"  # little work a byte
WAYS = {"memory": 2**40, "files": 0}


def once(attack: str, count: int, side: int, way: str, folder: Path) -> dict[str, Any]:
    """Seconds and peak MB of a fresh process."""
    with TemporaryDirectory(dir=folder) as kept:
        words = (attack, kept, count, side, WAYS[way])
        command = [sys.executable, "-c", PROBE, *map(str, words)]
        ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 8000, 32000])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--attack", default=ATTACK)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(), help="where state and files lie; on a real disk")
    asked = parser.parse_args()
    path = RESULTS / "memory.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    facts = {"attack": asked.attack, "side": asked.side, "repeats": asked.repeats}
    lines = old.get("lines", []) if old.get("commit") == head() and facts.items() <= old.items() else []
    for count in asked.counts:
        if any(line["pictures"] == count for line in lines):
            continue
        ways = [way for _ in range(asked.repeats) for way in WAYS]
        runs = [(way, once(asked.attack, count, asked.side, way, asked.folder)) for way in ways]
        if len({run["digest"] for _, run in runs}) > 1:
            raise SystemExit(f"{count} pictures: the two ways make other noise")
        for way in WAYS:
            own = [run for other, run in runs if other == way]
            names = ("seconds", "processor", "more_megabytes", "perturbation_megabytes")
            lines.append({"pictures": count, "way": way} | {name: median(run[name] for run in own) for name in names})
            print(lines[-1], flush=True)
        record("memory", miue.Run(), **facts, lines=lines)


if __name__ == "__main__":
    main()
