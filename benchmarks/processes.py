"""Two processes (gloo on a CPU) against one: the same method on the same pictures, the same victims.

Writes benchmarks/results/processes.json.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

from common import record

import miue
from miue.evaluate import train_victim
from miue.jobs import attacked
from miue.run import launch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attack", default="mi-ue:drawings")
    parser.add_argument("--per-class", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/processes"))
    options = parser.parse_args()
    clean, test = miue.data.shapes(options.per_class), miue.data.shapes(100, split="test")
    method, recipe, rows = miue.attack(options.attack), miue.recipe("quick"), []
    for processes in (1, 2):
        run = miue.Run(0, "cpu", keep=options.work / str(processes), quiet=False)
        start = time.monotonic()
        made = launch(partial(attacked, method, clean, miue.Budget()), run, processes)
        seconds = time.monotonic() - start
        protected = made.apply(clean)
        for seed in range(options.seeds):
            run = miue.Run(seed, "cpu", quiet=False)
            victim = train_victim("protected", protected, test, recipe, run, options.work)
            rows.append({"processes": processes, "attack_seconds": seconds, **victim.model_dump()})
            print(processes, seed, victim.last, flush=True)
    still = {str(p): int((made.delta.flatten(1) == 0).all(1).sum()) for p in (2,)}
    print(record("processes", miue.Run(), attack=options.attack, unmoved_rows=still, runs=rows))


if __name__ == "__main__":
    main()
