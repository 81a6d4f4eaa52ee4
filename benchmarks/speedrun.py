"""Victims with few passes: what they reach on clean pictures, and what that costs on one core.

python benchmarks/speedrun.py ROW [--seed 0] [--work build/speedrun]      -> a row of results/speedrun.json
python benchmarks/speedrun.py --list

Killed? The same command goes on after the last finished epoch; what an unfinished one had cost is not counted. Pin it
to a core (`taskset -c 1`) with OMP_NUM_THREADS=1: seconds are those of the processor, with wall seconds beside them.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import CIFAR, IMAGENETTE, RESULTS, head, record
from torch.utils.flop_counter import FlopCounterMode

import miue
from miue import nets
from miue.core.files import write_atomically
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import watched_fit


@dataclass(frozen=True)
class Row:
    """A victim, and the pictures that it learns."""

    train: Path
    test: Path
    canvas: int
    recipe: str

    def read(self, path: Path) -> miue.ImageSet:
        if not path.exists():
            raise SystemExit(f"{path} is missing; set MIUE_CIFAR10 or MIUE_IMAGENETTE to the folder of such files")
        return miue.data.read(miue.data.scan(str(path)), self.canvas)


def _cifar(recipe: str) -> Row:
    return Row(CIFAR / "train.parquet", CIFAR / "test.parquet", 32, recipe)


def _imagenette(canvas: int, recipe: str) -> Row:
    return Row(IMAGENETTE / "train.parquet", IMAGENETTE / "val.parquet", canvas, recipe)


ROWS = {
    "cifar10": _cifar("speedrun"),
    "cifar10-12": _cifar("speedrun:epochs=12"),
    "cifar10-narrow": _cifar("speedrun:net=speedrun:width=32"),
    "cifar10-resnet18": _cifar("papers:epochs=15"),
    # about ten minutes of one core that multiplies bf16
    "imagenette-64": _imagenette(64, "speedrun:net=speedrun:width=32,epochs=12,batch=128"),
    "imagenette-128": _imagenette(128, "speedrun:net=speedrun:width=16,epochs=8,batch=128"),
}


@dataclass
class Clock:
    """Seconds of this process since the last look."""

    def __post_init__(self) -> None:
        self.last = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime, time.monotonic()

    def lap(self) -> dict[str, float]:
        before, self.last = self.last, self._now()
        return {name: round(b - a, 1) for name, a, b in zip(("processor", "wall"), before, self.last, strict=True)}


def operations(recipe: miue.Recipe, data: miue.ImageSet, run: miue.Run) -> float:
    """Floating-point operations of one picture, forward and backward, as torch counts them."""
    with run.seeded("operations"):
        net = run.place(nets.build(recipe.net, data.shape, len(data.classes))).train()
    batches, y = Batches(data, run), torch.eye(len(data.classes))
    rows = torch.arange(min(recipe.batch, len(data)))
    with FlopCounterMode(display=False) as counter:
        recipe.loss(net, batches.take(rows), run.put(y[data.labels[rows]]), run.rng("operations"), 0.0).backward()
    return counter.get_total_flops() / len(rows)


def measure(name: str, seed: int, work: Path) -> dict[str, Any]:
    """Train the victim of a row, or go on with it."""
    row, clock, commit = ROWS[name], Clock(), head()
    recipe, keep = miue.recipe(row.recipe), work / f"{name}-{seed}"
    train, test = row.read(row.train), row.read(row.test)
    run = miue.Run(seed, "cpu", keep=keep, quiet=False)
    spent, path = {"reading": clock.lap()}, keep / "seconds.json"
    epochs = json.loads(path.read_text()) if path.exists() else {}
    tests = Batches(test, run)

    def watch(epoch: int, net: nets.Classifier) -> float:
        learning = clock.lap()
        share = accuracy(net, tests, run)
        epochs[str(epoch)] = {"learning": learning, "testing": clock.lap(), "accuracy": share}
        write_atomically(path, json.dumps(epochs).encode())
        run.say(f"{name}, epoch {epoch}: {share:.2%}, {learning}")
        return share

    flops = operations(recipe, train, run)
    clock.lap()
    net, shares = watched_fit(train, recipe, run, watch)
    clock.lap()
    views = accuracy(net, tests, run, crops=True)
    spent |= {
        part: {kind: sum(epochs[str(e)][part][kind] for e in shares) for kind in ("processor", "wall")}
        for part in ("learning", "testing")
    }
    return {
        "row": name,
        "seed": seed,
        "data": train.name,
        "digest": train.digest,
        "images": len(train),
        "tested": len(test),
        "canvas": row.canvas,
        "recipe": row.recipe,
        "described": recipe.described(),
        "passes": recipe.epochs,
        "accuracies": shares,
        "last": shares[recipe.epochs],
        "six_views": views,
        "seconds": spent | {"six views": clock.lap()},
        "operations": flops * len(train) * recipe.epochs,
        "commit": commit,
        "device": run.machine["device"],
        "precision": run.machine["precision"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", choices=list(ROWS))
    parser.add_argument("--list", action="store_true", help="print the rows with their recipes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/speedrun"))
    options = parser.parse_args()
    if options.list or not options.row:
        print("\n".join(f"{name}: {row.recipe}, {row.canvas} px" for name, row in ROWS.items()))
        return
    made = measure(options.row, options.seed, options.work)
    path = RESULTS / "speedrun.json"
    before = json.loads(path.read_text())["rows"] if path.is_file() else []
    others = [r for r in before if (r["row"], r["seed"]) != (options.row, options.seed)]
    places = list(ROWS)
    rows = sorted([*others, made], key=lambda r: (places.index(r["row"]), r["seed"]))
    print(record("speedrun", miue.Run(0, "cpu"), rows=rows))


if __name__ == "__main__":
    main()
