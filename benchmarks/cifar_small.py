"""CIFAR-10 (JPEG), the first 500 pictures of every class: an attack, its controls, three seeds, two CPU cores.

python benchmarks/cifar_small.py NAME ATTACK [--seeds 3] [--recipe quick:epochs=24] [--channels jpeg:75 ...]
Writes benchmarks/results/NAME.json. Killed? The same command goes on (its state lies in --work).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean

from common import cifar10, record

import miue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("attack")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="quick:epochs=24")
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--channels", nargs="*", default=[])
    parser.add_argument("--work", type=Path, default=Path("build/cifar_small"))
    options = parser.parse_args()
    clean, test = cifar10("train", options.per_class), cifar10("test")
    method, recipe, budget = miue.attack(options.attack), miue.recipe(options.recipe), miue.Budget()
    rows, seconds = [], []
    for seed in range(options.seeds):
        run = miue.Run(seed, keep=options.work / f"{options.name}-{seed}", quiet=False)
        kept = run.keep / "perturbation.safetensors"
        if not kept.is_file():
            start = time.monotonic()
            made = method(clean, budget, run)
            made.save(kept)
            (run.keep / "seconds").write_text(str(time.monotonic() - start))
        seconds.append(float((run.keep / "seconds").read_text()))
        protected = miue.Perturbation.load(kept).apply(clean)
        for channel in [None, *options.channels]:
            sets = [miue.data.through(s, channel) if channel else s for s in (clean, protected)]
            proof = miue.Proof(recipes=[recipe], seeds=1, noise=miue.Noise(cells=getattr(method, "cells", 0)))
            shared = miue.Run(seed, keep=options.work, quiet=False)
            outcome = proof(sets[0], test, sets[1], budget, shared, options.attack, channel)
            rows += [r.model_dump() | {"channel": channel or "png"} for r in outcome.runs]
            print(seed, channel, {r.role: round(r.last, 4) for r in outcome.runs}, flush=True)
    summary = {}
    for channel in dict.fromkeys(r["channel"] for r in rows):
        for role in ("clean", "noise", "protected"):
            summary[f"{channel} {role}"] = fmean(
                r["last"] for r in rows if r["channel"] == channel and r["role"] == role
            )
    path = record(
        options.name,
        miue.Run(),
        data=f"CIFAR-10 (JPEG), first {options.per_class} per class",
        test="all 10,000 test pictures",
        data_digest=clean.digest,
        attack=options.attack,
        method=repr(method),
        budget="linf 8",
        recipe=recipe.described(),
        attack_seconds=seconds,
        summary=summary,
        reported={"MI-UE, all 50,000 pictures, ResNet-18 (paper)": 0.0995},
        runs=rows,
    )
    print(path, summary)


if __name__ == "__main__":
    main()
