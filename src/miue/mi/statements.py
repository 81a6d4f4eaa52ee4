"""The statements of the theory that can be checked on given features: bound and measured value."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.files import Record
from miue.core.run import Run
from miue.mi import theory
from miue.mi._features import needed, one_scale, paired, residual
from miue.mi.agreement import Agreement
from miue.mi.class_conditional import ClassConditional

MOST = 512  # largest number of rows whose pairs are compared: no n x n matrix of all rows


class Statement(Record):
    """A statement of the theory on given features: its `bound`, the `measured` value, and whether it holds."""

    text: str
    bound: float
    measured: float
    holds: bool


def statements(
    x: Float[Tensor, "n dx"],
    y: Float[Tensor, "n dy"],
    labels: Int[Tensor, "n"],
    run: Run,
    noise: float = 0.1,
    tau: float = 0.1,
) -> list[Statement]:
    """Return the statements of the theory on these features, each with its bound and value in nats.

    x: features of clean pictures, y: of protected ones, in the same rows. The first two hold for every sample. The
    others are about the true value and are tested on estimates: if one does not hold, the estimate is wrong. noise: as
    in `ClassConditional`. tau: temperature of the pairwise loss.
    """
    x, y = paired(x, y, run)
    labels = needed(labels, len(x), run, "statements")
    estimate = ClassConditional(noise=noise)(x, y, run, labels)
    within = estimate.parts["within"]
    through = within + min(estimate.parts["label from x"], estimate.parts["label from y"])
    fano = Agreement()(x, y, run, labels).parts["fano"]
    hadamard, trace, simple = _noise_floor(y, labels, noise)
    at = f"at a noise floor of {noise:g}"
    return [
        _identity(y, labels),
        _loss(y, labels, tau),
        _below(f"I(z; z'|Y) <= 1/2 log det(I + Sigma/s^2), {at}", hadamard, within),
        _below(f"1/2 log det(I + Sigma/s^2) <= d/2 log(1 + tr Sigma/(d s^2)), {at}", trace, hadamard),
        _below(f"d/2 log(1 + tr Sigma/(d s^2)) <= tr Sigma/(2 s^2), {at}", simple, trace),
        _below(f"I(z; z') <= I(z; z'|Y) + min(I(z; Y), I(z'; Y)), {at}", through, estimate.nats),
        Statement(
            text=f"I(z; z') >= what a classifier on z proves (Fano), {at}",
            bound=fano,
            measured=estimate.nats,
            holds=estimate.nats >= fano,
        ),
    ]


def _below(text: str, bound: float, measured: float) -> Statement:
    return Statement(text=text, bound=bound, measured=measured, holds=measured <= bound + theory.SLACK * (1 + bound))


def _identity(y: Tensor, labels: Tensor) -> Statement:
    """Statement of the identity for the class in which the two sides differ most."""
    checks = [theory.cosine_trace(y[labels == c][:MOST]) for c in range(int(labels.max()) + 1)]
    worst = max(checks, key=lambda check: abs(check.bound - check.measured))
    text = "tr Sigma_y = 1 - mean cosine within the class, features of length 1 (the class that differs most)"
    return Statement(text=text, bound=worst.bound, measured=worst.measured, holds=worst.holds)


def _loss(y: Tensor, labels: Tensor, tau: float) -> Statement:
    """Statement of the loss bound, on the same number of rows of every class, sorted by class."""
    counts = labels.bincount()
    each = min(int(counts.min()), max(MOST // len(counts), 2))
    rows = torch.cat([(labels == c).nonzero().flatten()[:each] for c in range(len(counts))])
    check = theory.similarity_bound(y[rows], len(counts), tau)
    text = f"similarity loss <= log C + tr Sigma/tau, tau = {tau:g}"
    return Statement(text=text, bound=check.bound, measured=check.measured, holds=check.holds)


def _noise_floor(y: Tensor, labels: Tensor, noise: float) -> tuple[float, float, float]:
    """Return the three bounds; Sigma is the mean covariance within classes, on the scale of the estimator.

    log det is concave, so log det of the mean is at least the mean over classes: the bound stays valid.
    """
    y, c = one_scale(y), int(labels.max()) + 1
    rest = residual(y, labels, c)
    sigma, d = rest.T @ rest / (len(y) - c) / noise**2, y.shape[1]
    log_det = float(torch.linalg.slogdet(torch.eye(d, dtype=y.dtype, device=y.device) + sigma).logabsdet)
    trace = float(sigma.trace())
    return 0.5 * log_det, d / 2 * math.log1p(trace / d), trace / 2
