"""Run a grid, or go on with it, and write benchmarks/results/NAME.json once all of its cells have a record.

python benchmarks/grid.py [NAME] [--plan benchmarks/grid.toml] [--shard 1/2] [--retry]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from common import CIFAR, ROOT, record

import miue
from miue.grid import Bench, parse_shard, standing, work
from miue.plan import Grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="grid")
    parser.add_argument("--plan", type=Path, default=ROOT / "benchmarks" / "grid.toml")
    parser.add_argument("--shard", type=parse_shard, default=(1, 1))
    parser.add_argument("--retry", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("MIUE_CIFAR10", str(CIFAR))
    run, plan = miue.Run(quiet=False), Grid.load(options.plan)
    bench = Bench.of(plan, run)
    work(bench, options.shard, options.retry, say=print)
    board = standing(plan, run)
    if board.measured + len(board.failed) < board.cells:
        print(f"{board.measured} of {board.cells} cells measured; no record yet")
        return
    records = bench.records()
    told = ("attack", "defense", "recipe", "share", "which", "leaked", "seed", "error")
    path = record(
        options.name,
        run,
        plan=plan.model_dump(exclude={"out"}),
        sets=bench.sets.model_dump(),
        methods={r.attack: r.method for r in records},
        training={f"{r.recipe} + {r.defense}": r.training for r in records},
        runs=[
            {key: getattr(r, key) for key in told}
            | (r.victim.model_dump() if r.victim else {})
            | {"craft": r.craft and r.craft.model_dump()}
            for r in records
        ],
        board=board.model_dump(),
    )
    print(path)


if __name__ == "__main__":
    main()
