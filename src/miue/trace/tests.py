"""Exact tests, as pure functions of arrays in float64: signs, assignment, and wealth that may be stopped at any time.

All of them compare a statistic of (answers, key) with the same statistic of keys that were equally likely to be drawn.
The only randomness that they rely on is that of our own key, so the p-value is exact for every suspect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, factorial, lgamma, log

import numpy as np
import torch
from jaxtyping import Float64, Int8
from torch import Tensor

from miue.core.errors import UserError

DRAWS, FEWER = 999_999, 99_999
WORK = 2e9  # coins drawn in one test: beyond that `FEWER` draws are made
LEAST_ASSIGNMENTS = 10_000
MOST_ENUMERATED = factorial(9)
_ROWS = 16_384  # counterfactual keys at a time
_TIES = 1e-12  # sums that differ by less than this share count as equal, against us


@dataclass(frozen=True)
class Test:
    """The result of one test."""

    statistic: float
    z: float
    """The statistic in standard deviations under the null; 0 if nothing varies."""
    p: float
    draws: int
    """Counterfactual keys that it was compared with; 0 for a test without any."""
    bound: bool = False
    """True if p is the closed bound exp(-z^2 / 2), below what the draws can show."""

    __test__ = False  # no class of tests for pytest


def response(answers: Float64[Tensor, "q l"], signs: Int8[Tensor, "q *cells"]) -> Float64[Tensor, "l d"]:
    """G[l] = (1/Q) sum_q a_q[l] R_q: how every output responds to every cell. Answers are centred over questions."""
    centred = answers - answers.mean(0)
    return centred.T @ signs.flatten(1).double() / len(answers)


def sign_test(
    weights: Float64[Tensor, "k d"], keys: Int8[Tensor, "k *cells"], generator: torch.Generator, draws: int = 0
) -> Test:
    """Compare T = sum_k <G_k, s_k> with its values for fresh fair signs.

    weights: the response of the output that belongs to each key. p = (1 + number of draws with T_b >= T) / (draws + 1).
    If none reaches T, the smaller of that and Hoeffding's exp(-T^2 / (2 |G|^2)). draws 0: as many as WORK allows.
    """
    flat = weights.flatten().numpy()
    statistic = float(flat @ keys.flatten().double().numpy())
    draws = draws or _affordable(flat.size)
    size = float(np.sqrt(flat @ flat))
    reached = _reached(flat, statistic - _TIES * float(np.abs(flat).sum()), generator, draws)
    return _result(statistic, statistic / size if size else 0.0, reached, draws, hoeffding=size > 0)


def _result(statistic: float, z: float, reached: int, draws: int, hoeffding: bool = False) -> Test:
    p = (1 + reached) / (draws + 1)
    bound = exp(-z * z / 2) if hoeffding and not reached and z > 0 else 1.0
    return Test(statistic, z, min(p, bound), draws, bound < p)


def _affordable(coins: float | int) -> int:
    return DRAWS if coins * DRAWS <= WORK else FEWER


def _codes(blocks: int, rows: int, generator: torch.Generator) -> np.ndarray:
    """Random bytes, eight a draw, [blocks, rows]: each stands for eight signs of one row."""
    words = torch.empty(blocks, -(-rows // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.numpy().view(np.uint8)[:, :rows]


def _tables(weights: np.ndarray) -> np.ndarray:
    """For every eight weights the sums over their 256 sign vectors: [blocks, 256, *rest]."""
    blocks = -(-len(weights) // 8)
    padded = np.zeros((blocks * 8, *weights.shape[1:]))
    padded[: len(weights)] = weights
    every = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * 2.0 - 1
    return np.einsum("vb,nb...->nv...", every, padded.reshape(blocks, 8, *weights.shape[1:]))


def _sums(tables: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """sum_k w_k e_k for every row of codes."""
    total = np.zeros((codes.shape[1], *tables.shape[2:]))
    part = np.empty_like(total)
    for table, column in zip(tables, codes, strict=True):
        total += np.take(table, column, axis=0, out=part, mode="clip")
    return total


def _reached(flat: np.ndarray, least: float, generator: torch.Generator, draws: int) -> int:
    tables, count, rows = _tables(flat), 0, max(min(_ROWS, 2**26 // max(len(flat), 1)), 64)
    for start in range(0, draws, rows):
        codes = _codes(len(tables), min(rows, draws - start), generator)
        count += int((_sums(tables, codes) >= least).sum())
    return count


def unlabelled_test(
    responses: Float64[Tensor, "l d"], keys: Int8[Tensor, "k *cells"], generator: torch.Generator, draws: int = 0
) -> Test:
    """Compare T = sum_k max_l <G[l], s_k> with its values for fresh fair signs: nobody needs to know which output is
    which class.
    """
    own = keys.flatten(1).double()
    statistic = float((own @ responses.T).amax(1).sum())
    draws = draws or _affordable(own.numel() * len(responses) / 2)
    tables, reached, values = _tables(responses.T.contiguous().numpy()), 0, list[np.ndarray]()
    least = statistic - _TIES * float(responses.abs().sum()) * len(keys)
    rows = max(min(_ROWS, 2**22 // max(responses.shape[0], 1)), 64)
    for start in range(0, draws, rows):
        here = min(rows, draws - start)
        total = np.zeros(here)
        for _ in range(len(keys)):
            total += _sums(tables, _codes(len(tables), here, generator)).max(1)
        reached += int((total >= least).sum())
        values.append(total)
    every = np.concatenate(values)
    spread = float(every.std())
    return _result(statistic, (statistic - float(every.mean())) / spread if spread else 0.0, reached, draws)


def assignments(owners: Sequence[int]) -> float:
    """Natural logarithm of the number of ways to give the keys to their classes."""
    sizes = np.bincount(np.asarray(owners))
    return lgamma(len(owners) + 1) - float(sum(lgamma(size + 1) for size in sizes))


def assignment_test(
    table: Float64[Tensor, "k l"], owners: Sequence[int], generator: torch.Generator, draws: int = FEWER
) -> Test:
    """Compare T = sum_k A[k, class(k)] with its values for random assignments of the keys to the classes.

    A[k, l]: response of the output of class l to key k. Exact by enumeration up to 9! assignments, else by draws.
    Raises UserError if there are fewer than 10,000 assignments.
    """
    number, array = assignments(owners), table.double().numpy()
    if number < log(LEAST_ASSIGNMENTS):
        raise UserError(
            f"{len(owners)} keys can be given to {len(set(owners))} classes in only {exp(number):.0f} ways: the "
            "assignment test needs 10,000; the sign test works"
        )
    statistic = 0.0
    for row, owner in zip(array, owners, strict=True):  # in the order of the enumeration, so that ties are ties
        statistic += float(row[owner])
    least = statistic - _TIES * float(np.abs(array).sum())
    mean, spread = _moments(array, owners)
    z = (statistic - mean) / spread if spread else 0.0
    if number <= log(MOST_ENUMERATED) + 1e-9:
        every = _enumerated(array, np.bincount(np.asarray(owners)))
        return Test(statistic, z, float((every >= least).mean()), len(every))
    reached, given = 0, np.asarray(owners)
    for start in range(0, draws, _ROWS):
        here = min(_ROWS, draws - start)
        order = torch.rand(here, len(owners), generator=generator, dtype=torch.float64).argsort(1).numpy()
        reached += int((array[np.arange(len(owners)), given[order]].sum(1) >= least).sum())
    return _result(statistic, z, reached, draws)


def _moments(array: np.ndarray, owners: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of T over all assignments (Hoeffding's combinatorial theorem)."""
    costs = array[:, list(owners)]
    n = len(costs)
    rest = costs - costs.mean(0) - costs.mean(1, keepdims=True) + costs.mean()
    return float(costs.sum() / n), float(np.sqrt((rest**2).sum() / max(n - 1, 1)))


def _enumerated(array: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """T for every assignment: sums grow key by key, in groups that have the same places left."""
    groups = {tuple(sizes.tolist()): np.zeros(1)}
    for row in array:
        grown: dict[tuple[int, ...], list[np.ndarray]] = {}
        for places, sums in groups.items():
            for label, left in enumerate(places):
                if left:
                    fewer = (*places[:label], left - 1, *places[label + 1 :])
                    grown.setdefault(fewer, []).append(sums + row[label])
        groups = {places: np.concatenate(parts) for places, parts in grown.items()}
    return next(iter(groups.values()))


@dataclass(frozen=True)
class Wealth:
    """The course of a bet on the classes of keys that are revealed one by one. It is fair under the null."""

    course: tuple[float, ...]
    """Wealth after each key; it begins with 1 before the first."""
    used: int
    """Keys that were revealed."""

    @property
    def p(self) -> float:
        """1 / the largest wealth: valid whenever the bet is stopped (Ville)."""
        return min(1.0, 1 / max(self.course))


def wealth(
    lifts: Float64[Tensor, "k l"], owners: Sequence[int], sizes: Sequence[int], stop: float | int | None = None
) -> Wealth:
    """Bet on the class of each key in turn, in proportion to exp(lift) among the places that are left.

    lifts[k, l]: by how many standard deviations output l responded to key k. owners: the true class of each key, in the
    order in which they are revealed; not all need be. sizes: keys of each class. stop: no further key is revealed once
    the wealth is this large.
    """
    places = torch.tensor(list(sizes), dtype=torch.float64)
    course = [1.0]
    for row, owner in zip(lifts.double(), owners, strict=True):
        fair = places / places.sum()
        bet = torch.softmax(row + fair.log(), 0)
        course.append(course[-1] * float(bet[owner] / fair[owner]))
        places[owner] -= 1
        if stop is not None and course[-1] >= stop:
            break
    return Wealth(tuple(course), len(course) - 1)


def blind_lifts(responses: Float64[Tensor, "l d"], keys: Int8[Tensor, "k *cells"]) -> Float64[Tensor, "k l"]:
    """<G[l], s_k> / |G[l]| for every key and output; 0 for an output that does not respond at all."""
    size = responses.norm(dim=1)
    return keys.flatten(1).double() @ responses.T / torch.where(size > 0, size, torch.inf)


def two_stages(first: float, second: float) -> float:
    """The p-value of two tests that were declared together."""
    return min(1.0, 2 * min(first, second))


def holm(p: Sequence[float], alpha: float, declared: int) -> list[float]:
    """The level of each suspect, of `declared` ones of which these were judged (Holm's step-down).

    There is evidence against those whose p is at most their level.
    """
    levels, level, passed = [0.0] * len(p), 0.0, True
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        level = alpha / (declared - rank) if passed else level
        passed = passed and p[i] <= level
        levels[i] = level
    return levels
