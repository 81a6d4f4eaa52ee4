"""Estimators on samples whose mutual information is known: bias and spread over dimension and truth.

Writes benchmarks/results/known_answers.json after every cell; a second run goes on with the cells that are missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean, stdev
from typing import Any

import torch
from common import RESULTS, record

import miue
from miue.mi import estimator, known
from miue.types import KnownPairs, UserError

N, SEEDS, NEURAL_SEEDS = 1000, 3, 2
NATS = (0.0, 0.5, 2.0, 5.0)
ALWAYS = ("ksg", "ksg:rank=None", "sliced:slices=50", "sliced:directions=shared,slices=50", "class-conditional:noise=0")
WITH_CLASSES = (*ALWAYS, "label")
NEURAL = ("infonce", "mine", "smile")
Sampler = Callable[[torch.Generator], KnownPairs]


def families(run: miue.Run) -> Iterator[tuple[str, int, float, Sampler, tuple[str, ...]]]:
    """Name, dimension, truth in nats, how to draw, which estimators."""
    for d in (1, 10, 64, 512):
        for nats in NATS:
            yield "dense", d, nats, partial(known.gaussian_pairs, N, d, nats), ALWAYS
    for d, nats in ((d, nats) for d in (10, 64) for nats in NATS):
        yield "lowrank", d, nats, partial(known.gaussian_pairs, N, d, nats, spread_over=4), ALWAYS
    for d, nats in ((d, nats) for d in (1, 10) for nats in NATS):
        yield "warp", d, nats, lambda g, d=d, nats=nats: known.warped(known.gaussian_pairs(N, d, nats, g)), ALWAYS
    for level, model in enumerate(known.LEVELS):
        truth = model.nats(run.rng("truth", level))
        for d in (10, 64, 512):
            names = WITH_CLASSES + (NEURAL if d == 10 and level in (0, 2) else ())
            yield "class", d, truth[0], lambda g, m=model, d=d, t=truth: m.sample(N, d, g, t), names


def cell(name: str, draw: Sampler, run: miue.Run) -> dict[str, Any]:
    """Values over seeds, each with a sample of its own."""
    values, began = [], time.process_time()
    for seed in range(NEURAL_SEEDS if name in NEURAL else SEEDS):
        pairs = draw(run.rng("sample", seed))
        try:
            values.append(estimator(name)(pairs.x, pairs.y, run.reseeded(seed), pairs.labels).nats)
        except UserError as error:
            return {"refused": str(error)}
    seconds = (time.process_time() - began) / len(values)
    return {"values": values, "bias": fmean(values) - pairs.nats, "spread": stdev(values), "seconds": seconds}


def main() -> None:
    torch.set_num_threads(1)
    run = miue.Run(seed=0, device_name="cpu")
    settings = {"n": N, "seeds": SEEDS, "neural_seeds": NEURAL_SEEDS, "estimators": [*WITH_CLASSES, *NEURAL]}
    path = RESULTS / "known_answers.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    cells = kept["cells"] if kept.get("settings") == settings else []
    done = {(c["family"], c["d"], c["nats"], c["estimator"]) for c in cells}
    for family, d, nats, draw, names in families(run):
        for name in names:
            if (family, d, nats, name) not in done:
                cells.append({"family": family, "d": d, "nats": nats, "estimator": name, **cell(name, draw, run)})
        print(record("known_answers", run, settings=settings, cells=cells), family, d, f"{nats:.2f}", flush=True)


if __name__ == "__main__":
    main()
