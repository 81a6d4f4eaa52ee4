"""One measurement: the value of an estimator with its spread and nulls, the same way for all estimators."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.mi.estimate import Estimate, Estimator

TELLING = 19  # fewest shuffles that can give p = 0.05


def measure(
    estimator: Estimator,
    x: Float[Tensor, "n dx"],
    y: Float[Tensor, "n dy"],
    run: Run,
    labels: Int[Tensor, "n"] | None = None,
    halves: int = 20,
    shuffles: int = 19,
) -> Estimate:
    """Return the estimate with its spread, its value at half the sample, and the nulls of shuffled pairs, in nats.

    spread = sd(n/2) / sqrt(2) over `halves` random halves, since the variance falls as 1/n. Halves are drawn without
    replacement: a bootstrap repeats rows, and nearest neighbours mistake repeated rows for information. Halves overlap,
    so the standard error is rough. It does not cover another training run of the network behind the features.
    null: y shuffled among all rows; what remains is the estimator's bias. null_within: y shuffled among rows of one
    class; what remains is the information through the label, and bias; needs labels. p = (1 + #{null >= value}) /
    (1 + shuffles), for 19 shuffles or more. Halves are estimated with the rank and the bins of the whole sample.
    """
    if halves < 2 or shuffles < 1:
        raise UserError(f"halves={halves}, shuffles={shuffles}: at least 2 and 1")
    if settled := getattr(estimator, "settled", None):
        estimator = settled(labels, len(x))
    whole = estimator(x, y, run, labels)
    values = []
    for i in range(halves):
        rows = _half(len(x), labels, run.rng("mi", "half", i))
        half = estimator(x[rows], y[rows], run, None if labels is None else labels[rows])
        values.append(half.nats)
    mean, spread = _moments(values)
    spread /= math.sqrt(2)
    nulls = _shuffled(estimator, x, y, run, labels, None, shuffles)
    within = None if labels is None else _shuffled(estimator, x, y, run, labels, labels, shuffles)
    above = sum(value >= whole.nats for value in nulls)
    notes = whole.notes
    if math.isfinite(whole.ceiling) and whole.nats > 0.85 * whole.ceiling:
        notes += ("saturated: close to its ceiling",)
    if abs(whole.nats - mean) > max(3 * spread, 0.05 * abs(whole.nats)):
        notes += (f"not converged: {mean:.3f} from half the rows",)
    return replace(
        whole,
        spread=spread,
        half=mean,
        null=_moments(nulls)[0],
        null_within=None if within is None else _moments(within)[0],
        p=(1 + above) / (1 + shuffles) if shuffles >= TELLING else None,
        notes=notes,
    )


def shuffled_rows(n: int, within: Int[Tensor, "n"] | None, generator: torch.Generator) -> Int[Tensor, "n"]:
    """Random order of n rows; with `within` (labels), rows are only exchanged within their class."""
    order = torch.randperm(n, generator=generator)
    if within is None:
        return order
    rows = torch.empty(n, dtype=torch.long)
    # the rows of a class in order take the rows of that class in random order
    within = within.cpu()
    rows[within.argsort(stable=True)] = order[within[order].argsort(stable=True)]
    return rows


def _shuffled(
    estimator: Estimator, x: Tensor, y: Tensor, run: Run, labels: Tensor | None, within: Tensor | None, count: int
) -> list[float]:
    kind = "all" if within is None else "class"
    orders = (shuffled_rows(len(x), within, run.rng("mi", "shuffle", kind, i)) for i in range(count))
    return [estimator(x, y[order.to(y.device)], run, labels).nats for order in orders]


def _half(n: int, labels: Tensor | None, generator: torch.Generator) -> Int[Tensor, "m"]:
    """Random half of the rows without replacement; half of every class if labels are given."""
    order = torch.randperm(n, generator=generator)
    if labels is not None:
        order = order[labels.cpu()[order].argsort(stable=True)][::2]
        return order.sort().values
    return order[: n // 2].sort().values


def _moments(values: list[float]) -> tuple[float, float]:
    sample = torch.tensor(values, dtype=torch.float64)
    return float(sample.mean()), float(sample.std()) if len(values) > 1 else 0.0
