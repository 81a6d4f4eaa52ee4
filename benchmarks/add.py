"""Pictures that are added later, beside all at once: victims on the whole set and on the added part alone.

python benchmarks/add.py [--seeds 3] [--only 0] [--attack em:lasting] [--per-class 500] [--share 0.2]
CIFAR-10 as JPEG files in class folders. The first pictures of every class are protected, the last ones are added with
the state that is kept of them. Beside it: all at once, the added part left clean, and clean pictures.
Writes benchmarks/results/add.json. Killed? The same command goes on (its state lies in --work).
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import torch
from common import CIFAR, cifar10, record

import miue
from miue import data
from miue.core.files import write_atomically
from miue.evaluation.adaptive import defended
from miue.evaluation.victim import train_victim
from miue.workflows.originals import originals


def exported(per_class: int, first: int, folder: Path) -> dict[str, Path]:
    """JPEG files as they are in the table: all of them, the first of every class, and the others."""
    folders, done = {name: folder / name for name in ("all", "first", "later")}, Counter[int]()
    if not CIFAR.is_dir():
        raise SystemExit(f"{CIFAR}: no CIFAR-10 parquet files here; set MIUE_CIFAR10 to their folder")
    for batch in pq.ParquetFile(CIFAR / "train.parquet").iter_batches(2048):
        for row in batch.to_pylist():
            picture, label = (row.get("image") or row.get("img"))["bytes"], row["label"]
            done[label] += 1
            if done[label] > per_class:
                continue
            for name in ("all", "first" if done[label] <= first else "later"):
                path = folders[name] / f"class {label}" / f"{done[label]:04}.jpg"
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, picture, flush=False)
    return folders


def published(out: Path, source: data.Source) -> miue.ImageSet:
    """Published pictures in the order of their originals, with the same class names as the test set."""
    pictures = data.scan_output(out)
    rows = miue.publish.align(source, pictures)
    assert bool((rows >= 0).all())
    return data.read(pictures, 32, grey=False).select(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", default="em:lasting")
    parser.add_argument("--recipe", default="quick:net=small-resnet:width=8,epochs=15")
    parser.add_argument("--defenses", nargs="+", default=["none"])
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--share", type=float, default=0.2, help="part of every class that is added")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="work on this seed alone, write no record")
    parser.add_argument("--name", default="add")
    parser.add_argument("--work", type=Path, default=Path("build/add"))
    options = parser.parse_args()
    first = options.per_class - int(options.per_class * options.share)
    folders, test, rows, costs = exported(options.per_class, first, options.work / "pictures"), cifar10("test"), [], []
    recipe = miue.recipe(options.recipe)
    for seed in range(options.seeds) if options.only is None else [options.only]:
        run, at = miue.Run(seed, "cpu", quiet=False), options.work / f"{options.name}-{seed}"
        miue.protect(folders["first"], at / "grown", options.attack, run=run)
        grown = miue.add(at / "grown", folders["later"], run=run)
        once = miue.protect(folders["all"], at / "once", options.attack, run=run)
        source = originals(at / "grown", str(folders["first"]), None)
        clean = data.read(source, 32, grey=False)
        later = torch.tensor([number >= 10 * first for number in range(len(clean))])
        whole = data.scan(str(folders["all"]))
        order = {entry.sha256: row for row, entry in enumerate(whole.usable)}
        sets = {
            "clean": clean,
            "all at once": published(at / "once", whole).select(torch.tensor([order[e.sha256] for e in source.usable])),
            "added later": published(at / "grown", source),
        }
        both = sets["added later"].images.clone()
        both[later] = clean.images[later]
        sets["added part left clean"] = clean.with_images(both)
        levels = {
            name: float((sets[name].images[later].int() - clean.images[later].int()).abs().amax((1, 2, 3)).max())
            for name in ("all at once", "added later")
        }
        costs.append(
            {
                "seed": seed,
                "once": dict(once.seconds),
                "first": dict(grown.seconds),
                "later": dict(grown.added[0].seconds),
                "levels": levels,
            }
        )
        for defense in options.defenses:
            victim = recipe if defense == "none" else defended(recipe, defense)
            for on, select in (("whole", torch.ones_like(later)), ("added part", later)):
                for name, pictures in sets.items():
                    if on == "added part" and name == "added part left clean":
                        continue
                    part = miue.ImageSet(pictures.images[select], pictures.labels[select], test.classes, name)
                    role = "clean" if name == "clean" else "protected"
                    r = train_victim(role, part, test, victim, miue.Run(seed, "cpu", quiet=False), options.work)
                    rows.append(r.model_dump() | {"set": name, "on": on, "pictures": len(part)})
                    print(seed, defense, on, name, f"{r.last:.4f} {r.best:.4f}", flush=True)
    if options.only is not None:
        return
    summary = {
        f"{on} {name}": fmean(r["last"] for r in rows if (r["on"], r["set"]) == (on, name))
        for on, name in dict.fromkeys((r["on"], r["set"]) for r in rows)
    }
    path = record(
        options.name,
        miue.Run(0, "cpu"),
        data=f"CIFAR-10 (JPEG), {options.per_class} pictures per class",
        test=f"{len(test)} pictures",
        attack=options.attack,
        recipe=recipe.described(),
        first=first,
        later=options.per_class - first,
        seeds=len(costs),
        costs=costs,
        summary=summary,
        runs=rows,
    )
    print(path, summary)


if __name__ == "__main__":
    main()
