"""Run a grid, or go on with it, and write benchmarks/results/NAME.json once all of its cells have a record.

python benchmarks/grid.py [NAME] [--plan benchmarks/NAME.toml] [--shard 1/2] [--retry] [--partial]

Cells that the record holds already are taken over: a new row costs its own cells only, on whatever machine. Delete the
record to measure all of them again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, head, outdated, record

import miue
from miue.evaluation.records import VictimRun
from miue.grid.bench import Bench, kept, standing
from miue.grid.plan import Cell, Grid
from miue.grid.records import CellRecord, Craft
from miue.grid.workers import parse_shard, work
from miue.victims.recipe import Recipe

TOLD = ("attack", "budget", "defense", "recipe", "share", "which", "leaked", "seed", "error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="grid")
    parser.add_argument("--plan", type=Path, help="benchmarks/NAME.toml if it is not given")
    parser.add_argument("--shard", type=parse_shard, default=(1, 1))
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--partial", action="store_true", help="write the record of what is there, and measure nothing")
    options = parser.parse_args()
    run, plan = miue.Run(quiet=False), Grid.from_file(options.plan or ROOT / "benchmarks" / f"{options.name}.toml")
    bench = Bench.of(plan, run)
    before = taken_over(bench, RESULTS / f"{options.name}.json")
    if not options.partial:
        work(bench, options.shard, options.retry)
    board = standing(plan, run)
    if not options.partial and board.measured + len(board.failed) < board.cells:
        print(f"{board.measured} of {board.cells} cells measured; no record yet")
        return
    records = bench.records()
    path = record(
        options.name,
        run,
        plan=plan.model_dump(exclude={"out"}),
        sets=bench.sets.model_dump(),
        methods={r.attack: r.method for r in records},
        training={f"{r.recipe} + {r.defense}": r.training for r in records},
        runs=[before.get(r.key) or told(r) for r in records],
        board=board.model_dump(),
    )
    print(path)


def told(cell: CellRecord) -> dict[str, Any]:
    """A cell as the record holds it, with the commit and the precision that it was measured with."""
    victim = cell.victim.model_dump() if cell.victim else {}
    craft = cell.craft and cell.craft.model_dump()
    made = {"craft": craft, "commit": head(), "precision": _precision(cell.machine)}
    return {key: getattr(cell, key) for key in TOLD} | victim | made


def taken_over(bench: Bench, path: Path) -> dict[str, dict[str, Any]]:
    """Put the cells of a record of the same pictures, methods and recipes among those of a grid; by their keys."""
    if not path.is_file():
        return {}
    there = json.loads(path.read_text())
    if any(there["sets"][key] != getattr(bench.sets, key) for key in ("data", "test")):
        return {}
    known = {tuple(run.get(key) for key in TOLD[:-1]): run for run in there["runs"] if not run["error"]}
    unnamed = there["plan"]["budget"] == bench.grid.budget  # the budgets of a record whose cells do not name theirs
    found = {}
    for key, cell in bench.cells.items():
        rest = (cell.training.defense, cell.recipe, *vars(cell.partial).values(), cell.seed)
        run = known.get((cell.attack, str(cell.budget or ""), *rest))
        run = run or (known.get((cell.attack, None, *rest)) if unnamed else None)
        if run and outdated(cell.attack, there["day"]):
            continue
        if run and _same(cell, there):
            taken = _record(bench, cell, run, there["machine"])
            if not (here := kept(bench.grid, cell)):
                bench.put(cell, taken)
            if not here or here.victim == taken.victim:  # else it was measured again
                found[key] = {"commit": there["commit"], "precision": _precision(there["machine"])} | run
    return found


def _precision(machine: dict[str, str]) -> str:
    return machine["precision"].partition(":")[0]


def _same(cell: Cell, there: dict[str, Any]) -> bool:
    usual, training = (json.loads(json.dumps(recipe.described())) for recipe in (Recipe(), cell.training))
    known = [usual | earlier for earlier in there["training"].values()]  # a record may be older than a field
    return there["methods"][cell.attack] == cell.method and training in known


def _record(bench: Bench, cell: Cell, run: dict[str, Any], machine: dict[str, str]) -> CellRecord:
    victim = VictimRun(**{key: run[key] for key in VictimRun.model_fields if key in run})
    craft = run["craft"] and Craft(**run["craft"])
    return bench.blank(cell).model_copy(update={"victim": victim, "craft": craft, "machine": machine})


if __name__ == "__main__":
    main()
