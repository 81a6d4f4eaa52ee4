"""Photographs: Imagenette as a folder of its JPEG files, protected at native size, victims at several sizes.

python benchmarks/photos.py NAME ATTACK [--per-class 400] [--canvas 64] [--sizes 64 128] [--defenses none gray ...]
Writes benchmarks/results/NAME.json, victim by victim. Killed? The same command goes on (its state lies in --work).
"""

from __future__ import annotations

import argparse
import resource
from collections import Counter
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq
from common import IMAGENETTE, record

import miue
from miue import data
from miue.core.files import write_atomically
from miue.evaluation.adaptive import defended
from miue.evaluation.victim import train_victim


def exported(split: str, per_class: int, folder: Path) -> Path:
    """The first JPEG files of every class, in class folders, as they are in the table."""
    if not IMAGENETTE.is_dir():
        raise SystemExit(f"{IMAGENETTE}: no Imagenette parquet files here; set MIUE_IMAGENETTE to their folder")
    done: Counter[int] = Counter()
    for batch in pq.ParquetFile(IMAGENETTE / f"{split}.parquet").iter_batches(512):
        for row in batch.to_pylist():
            label = row["label"]
            done[label] += 1
            path = folder / f"class {label}" / f"{done[label]:04}.jpg"
            if done[label] <= per_class and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, row["image"]["bytes"])
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("attack")
    parser.add_argument("--per-class", type=int, default=400)
    parser.add_argument("--test-per-class", type=int, default=200)
    parser.add_argument("--canvas", type=int)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--defenses", nargs="+", default=["none", "gray", "jpeg:quality=75"])
    parser.add_argument("--recipe", default="quick:net=small-resnet:width=16,epochs=18")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("build/photos"))
    options = parser.parse_args()
    clean = exported("train", options.per_class, options.work / f"train-{options.per_class}")
    test = exported("val", options.test_per_class, options.work / f"val-{options.test_per_class}")
    rows, outputs = [], []
    for seed in range(options.seeds):
        run = miue.Run(seed, quiet=False)
        out = options.work / f"{options.name}-{seed}"
        protected = miue.protect(clean, out, options.attack, canvas=options.canvas, run=run)
        written = protected.written
        assert written is not None
        outputs.append(
            {
                "seed": seed,
                "seconds": protected.seconds,
                "canvas": protected.settings.canvas,
                "megabytes": written.bytes_out / 1e6,
                "growth": written.bytes_out / written.bytes_in,
                "psnr": written.psnr and written.psnr.model_dump(),
                "ssim": written.ssim and written.ssim.model_dump(),
                # of the whole process so far: only before the first victim is it that of protecting
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
        for side in options.sizes:
            tests = data.read(data.scan(str(test)), side)
            sets = {"clean": data.read(data.scan(str(clean)), side), "protected": data.read(data.scan(str(out)), side)}
            for defense, (role, pictures) in product(options.defenses, sets.items()):
                recipe = defended(miue.recipe(options.recipe), defense)
                victim = train_victim(role, pictures, tests, recipe, run, options.work)
                rows.append(victim.model_dump() | {"side": side, "defense": defense})
                print(seed, side, role, defense, f"{victim.last:.1%}", flush=True)
                record(
                    options.name,
                    miue.Run(),
                    data=f"Imagenette, {options.per_class} pictures per class",
                    test=f"{options.test_per_class} pictures per class",
                    attack=options.attack,
                    recipe=miue.recipe(options.recipe).described(),
                    outputs=outputs,
                    runs=rows,
                )


if __name__ == "__main__":
    main()
