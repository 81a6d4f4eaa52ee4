"""A small set, the first pictures of every class: an attack, its controls, a few seeds, two CPU cores.

python benchmarks/small.py NAME ATTACK [--seeds 3] [--recipe quick:epochs=24] [--channels jpeg:quality=75 ...]
Writes benchmarks/results/NAME.json. Killed? The same command goes on (its state lies in --work).
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from statistics import fmean

import torch
from common import cifar10, record

import miue
from miue.core.method import own_budget
from miue.data.quality import ssim
from miue.evaluation.victim import train_victim

NAMES = {"cifar10": "CIFAR-10 (JPEG)", "shapes": "Shapes"}


def visibility(clean: miue.ImageSet, protected: miue.ImageSet) -> dict[str, float | None]:
    """How large the changes of the first 500 pictures are, and their mean SSIM."""
    rows = torch.arange(min(500, len(clean)))
    clean, protected = clean.select(rows), protected.select(rows)
    pairs = zip(*(part.images.permute(0, 2, 3, 1).numpy() for part in (clean, protected)), strict=True)
    return vars(miue.data.measure(clean, protected)) | {"ssim": fmean(ssim(a, b) or 1 for a, b in pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("attack")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="work on this seed alone, write no record")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--test-per-class", type=int, help="test pictures a class (default: all; shapes: 100)")
    parser.add_argument("--data", default="cifar10", choices=["cifar10", "shapes"])
    parser.add_argument("--channels", nargs="*", default=[])
    parser.add_argument("--work", type=Path, default=Path("build/small"))
    options = parser.parse_args()
    if options.data == "cifar10":
        clean, test = cifar10("train", options.per_class), cifar10("test", options.test_per_class)
    else:
        clean, test = miue.data.shapes(options.per_class), miue.data.shapes(options.test_per_class or 100, split="test")
    method, recipe = miue.attack(options.attack), miue.recipe(options.recipe)
    budget = own_budget(method, clean.shape)
    work = options.work / hashlib.sha256(f"{method!r} {budget} {clean.digest}".encode()).hexdigest()[:16]
    rows, seconds, quality = [], [], []
    for seed in range(options.seeds) if options.only is None else [options.only]:
        run = miue.Run(seed, keep=work / str(seed), quiet=False)
        kept = run.keep / "perturbation.safetensors"
        if not kept.is_file():
            start = time.monotonic()
            made = method(clean, budget, run)
            made.save(kept)
            (run.keep / "seconds").write_text(str(time.monotonic() - start))
        seconds.append(float((run.keep / "seconds").read_text()))
        protected = miue.Perturbation.load(kept).apply(clean)
        quality.append(visibility(clean, protected))
        shared = miue.Run(seed, keep=options.work, quiet=False)
        control = miue.attacks.Noise(cells=getattr(method, "cells", 0))
        evaluation = miue.Evaluation(recipes=[recipe], seeds=1, noise=control)
        outcome = evaluation(clean, test, protected, budget, shared, options.attack)
        found = [("png", r) for r in outcome.runs]
        for channel in options.channels:  # the noise control says nothing new here
            for role, data in (("clean", clean), ("protected", protected)):
                arrived = miue.data.through(data, channel)
                found.append((channel, train_victim(role, arrived, test, recipe, shared, options.work)))
        rows += [r.model_dump() | {"channel": channel} for channel, r in found]
        print(seed, {f"{channel} {r.role}": round(r.last, 4) for channel, r in found}, flush=True)
    if options.only is not None:
        return
    summary = {}
    for channel in dict.fromkeys(r["channel"] for r in rows):
        for role in ("clean", "noise", "protected"):
            last = [r["last"] for r in rows if r["channel"] == channel and r["role"] == role]
            if last:
                summary[f"{channel} {role}"] = fmean(last)
    path = record(
        options.name,
        miue.Run(),
        data=f"{NAMES[options.data]}, {options.per_class} pictures per class",
        test=f"{len(test)} pictures",
        quality=quality,
        data_digest=clean.digest,
        attack=options.attack,
        method=repr(method),
        budget=str(budget),
        recipe=recipe.described(),
        attack_seconds=seconds,
        summary=summary,
        reported={"MI-UE, all 50,000 pictures, ResNet-18 (paper)": 0.0995},
        runs=rows,
    )
    print(path, summary)


if __name__ == "__main__":
    main()
