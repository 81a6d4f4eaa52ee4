"""The fast recipe beside the one of 200 epochs, on clean pictures: the first of every class, 3 seeds.

python benchmarks/fast.py [--seeds 3] [--only SEED] [--net small-resnet:width=8]      -> results/fast.json
Killed? The same command goes on (its state lies in --work). --only works on one seed and writes no record.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import cifar10, record

import miue
from miue.evaluation.victim import train_victim

RECIPES = ("papers-200", "fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="work on this seed alone, write no record")
    parser.add_argument("--net", default="small-resnet:width=8")
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--work", type=Path, default=Path("build/fast"))
    options = parser.parse_args()
    clean, test = cifar10("train", options.per_class), cifar10("test")
    recipes = {name: miue.recipe(name, options.net) for name in RECIPES}
    runs = []
    for seed in range(options.seeds) if options.only is None else [options.only]:
        for name, recipe in recipes.items():
            run = miue.Run(seed, quiet=False)
            found = train_victim("clean", clean, test, recipe, run, options.work)
            runs.append({"recipe": name} | found.model_dump())
            print(seed, name, f"{found.last:.2%} in {found.seconds:.0f} s", flush=True)
    if options.only is not None:
        return
    path = record(
        "fast",
        miue.Run(),
        data=f"CIFAR-10 (JPEG), {options.per_class} pictures per class",
        data_digest=clean.digest,
        test=f"{len(test)} pictures",
        net=options.net,
        recipes={name: recipe.described() for name, recipe in recipes.items()},
        runs=runs,
    )
    print(path)


if __name__ == "__main__":
    main()
