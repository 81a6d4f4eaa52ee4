"""Two processes (gloo on a CPU) against one: the same method on the same pictures, a victim per attack seed.

Writes benchmarks/results/processes.json.
"""

from __future__ import annotations

import argparse
from functools import partial

from common import record

import miue
from miue.core.launch import launch
from miue.evaluation.victim import train_victim
from miue.workflows.protect import attacked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attack", default="mi-ue:drawings")
    parser.add_argument("--per-class", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    clean, test = miue.data.shapes(options.per_class), miue.data.shapes(100, split="test")
    method, recipe, rows = miue.attack(options.attack), miue.recipe("quick"), []
    unmoved = 0
    for seed in range(options.seeds):
        run = miue.Run(seed, "cpu", quiet=False)
        for processes in (1, 2):
            made = launch(partial(attacked, method, clean, miue.Budget()), run, processes)
            unmoved += int((made.delta.flatten(1) == 0).all(1).sum())
            victim = train_victim("protected", made.apply(clean), test, recipe, run, None)
            rows.append({"processes": processes, **victim.model_dump()})
            print(processes, seed, victim.last, flush=True)
    facts = {"attack": options.attack, "per_class": options.per_class, "unmoved_rows": unmoved}
    print(record("processes", miue.Run(), **facts, runs=rows))


if __name__ == "__main__":
    main()
