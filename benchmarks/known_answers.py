"""Estimators on samples whose mutual information is known: bias and spread over dimension and truth.

python benchmarks/known_answers.py [--n 1000]       -> results/known_answers.json, for another n known_answers_N.json
The record is written after every sample; a second run goes on with the cells that are missing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean, stdev
from typing import Any

import torch
from common import RESULTS, record

import miue
from miue.core.errors import UserError
from miue.mi import estimator, known
from miue.mi.estimate import KnownPairs

N, SEEDS, NEURAL_SEEDS = 1000, 3, 2  # n of the whole table; of others a part is measured
NATS = (0.0, 0.5, 2.0, 5.0)
ALWAYS = ("ksg", "ksg:rank=None", "sliced:slices=50", "sliced:directions=shared,slices=50", "class-conditional:noise=0")
WITH_CLASSES = (*ALWAYS, "agreement")
NEURAL = ("infonce", "mine", "smile")
Sampler = Callable[[torch.Generator], KnownPairs]


def families(n: int, run: miue.Run) -> Iterator[tuple[str, int, float, Sampler, tuple[str, ...]]]:
    """Name, dimension, truth in nats, how to draw, which estimators."""
    for d in (1, 10, 64, 512) if n == N else (10, 512):
        for nats in NATS:
            neural = NEURAL if n != N and d == 10 and nats >= 2 else ()
            yield "dense", d, nats, partial(known.gaussian_pairs, n, d, nats), ALWAYS + neural
    for d, nats in ((d, nats) for d in (10, 64) for nats in NATS if n == N):
        yield "lowrank", d, nats, partial(known.gaussian_pairs, n, d, nats, spread_over=4), ALWAYS
    for d, nats in ((d, nats) for d in (1, 10) for nats in NATS if n == N):
        yield "warp", d, nats, lambda g, d=d, nats=nats: known.warped(known.gaussian_pairs(n, d, nats, g)), ALWAYS
    for level, model in enumerate(known.LEVELS):
        truth = model.nats(run.rng("truth", level))
        for d in (10, 64, 512):
            names = WITH_CLASSES + (NEURAL if d == 10 and level in (0, 2) and n == N else ())
            yield "class", d, truth[0], lambda g, m=model, d=d, t=truth: m.sample(n, d, g, t), names


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=N)
    n = parser.parse_args().n
    torch.set_num_threads(1)
    run = miue.Run(seed=0, device_name="cpu")
    settings = {"n": n, "seeds": SEEDS, "neural_seeds": NEURAL_SEEDS, "estimators": [*WITH_CLASSES, *NEURAL]}
    name = "known_answers" if n == N else f"known_answers_{n}"
    path = RESULTS / f"{name}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    cells = kept["cells"] if kept.get("settings") == settings else []
    done = {(c["family"], c["d"], c["nats"], c["estimator"]) for c in cells}
    for family, d, nats, draw, names in families(n, run):
        for text in names:
            if (family, d, nats, text) not in done:
                cells.append({"family": family, "d": d, "nats": nats, "estimator": text, **cell(text, draw, run)})
        print(record(name, run, settings=settings, cells=cells), family, d, f"{nats:.2f}", flush=True)


if __name__ == "__main__":
    main()
