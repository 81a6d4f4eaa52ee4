"""Mutual information of discrete variables, from a table of counts or probabilities."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def counts(a: Int[Tensor, "*n"], b: Int[Tensor, "*n"], rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Table of how often each pair of values occurs."""
    return torch.bincount((a * columns + b).flatten(), minlength=rows * columns).reshape(rows, columns).double()


def entropy(p: Float[Tensor, "*shape"]) -> float:
    """-sum p log p, nats; p is normalised first."""
    p = p / p.sum()
    return float(-torch.xlogy(p, p).sum())


def plug_in(table: Float[Tensor, "a b"]) -> float:
    """I = H(row) + H(column) - H(table), nats, of the table as a distribution. Biased upwards for counts."""
    return entropy(table.sum(1)) + entropy(table.sum(0)) - entropy(table)


def miller_madow(table: Float[Tensor, "a b"]) -> float:
    """Expected excess of `plug_in` over the truth: (K_ab - K_a - K_b + 1) / 2n, K the occupied cells; nats."""
    cells = int((table > 0).sum()) - int((table.sum(1) > 0).sum()) - int((table.sum(0) > 0).sum()) + 1
    return cells / (2 * float(table.sum()))
