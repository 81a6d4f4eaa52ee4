"""The default preset against a trainer with leaked pairs, who fits a linear inverse to some of them.

Pictures, seeds, victim and perturbations are those of lasting.toml, in whose folder they lie; the clean victims beside
them are those of its record. What is measured already is not measured again.
python benchmarks/leaked.py [--pairs 50 200 1000] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from common import RESULTS, ROOT, record

import miue
from miue import publish
from miue.core.types import ImageSet
from miue.evaluation.adaptive import defended
from miue.evaluation.victim import train_victim
from miue.grid.bench import Bench
from miue.grid.plan import Grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    run = miue.Run(quiet=False)
    bench = Bench.of(Grid.from_file(ROOT / "benchmarks" / "lasting.toml"), run)
    (attack,), (recipe,) = bench.grid.attacks, bench.grid.recipes
    path, facts = RESULTS / "leaked.json", {"attack": attack, "recipe": recipe, "sets": bench.sets.model_dump()}
    before = json.loads(path.read_text()) if path.exists() else {}
    runs = before.get("runs", []) if facts.items() <= before.items() else []
    for seed in range(options.seeds):
        protected: ImageSet | None = None
        for pairs in options.pairs:
            if any((line["seed"], line["pairs"]) == (seed, pairs) for line in runs):
                continue
            protected = protected or published(bench, attack, seed)
            with TemporaryDirectory() as folder:
                # of every class as many originals as are needed, and the defense draws the pairs from them
                each = -(-pairs // len(bench.clean.classes))
                publish.export(bench.clean.first_per_class(each), Path(folder, "leaked"))
                victim = defended(miue.recipe(recipe), f"inverse:clean={folder}/leaked,pairs={pairs}")
                result = train_victim("protected", protected, bench.test, victim, run.reseeded(seed), None)
            kept = {key: getattr(result, key) for key in ("last", "best", "best_epoch", "seconds", "device")}
            runs.append({"seed": seed, "pairs": pairs, **kept})
            print(runs[-1], record("leaked", run, **facts, runs=runs), flush=True)


def published(bench: Bench, attack: str, seed: int) -> ImageSet:
    """The protected set of one seed; the attack runs if its perturbation is not there."""
    cell = next(cell for cell in bench.cells.values() if (cell.attack, cell.seed) == (attack, seed))
    if error := bench.make(cell):
        raise SystemExit(error)
    return bench.protected(cell)


if __name__ == "__main__":
    main()
