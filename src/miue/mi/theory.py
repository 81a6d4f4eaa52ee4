"""The theory as statements that can be checked: which ones hold, under which condition, and which are false.

z are features of clean pictures, z' of protected ones, Y the label, Sigma_y the covariance of z' in class y. Everything
in nats. Each function returns the claim (`bound`), the true value of the case (`measured`), and whether the claim
holds. docs/mutual_information.md has the text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from miue.mi._tables import entropy, plug_in
from miue.mi.agreement import fano
from miue.mi.gaussian import gaussian
from miue.mi.known import ClassMixture

SLACK = 1e-9  # rounding, relative to 1 + |bound|
LOG_2PIE = math.log(2 * math.pi * math.e)


class Check(NamedTuple):
    """A claim about one case: bound, measured, whether the claim holds."""

    bound: float
    measured: float
    holds: bool


def _below(bound: float, measured: float, slack: float = 0.0) -> Check:
    return Check(bound, measured, measured <= bound + slack + SLACK * (1 + abs(bound)))


def _equal(bound: float, measured: float) -> Check:
    return Check(bound, measured, abs(measured - bound) <= SLACK * (1 + abs(bound)))


# --- entropy and covariance: these hold ---


def gaussian_entropy(sigma: Float[Tensor, "d d"]) -> float:
    """1/2 log det(2 pi e Sigma): the largest entropy of any density with this covariance."""
    return 0.5 * float(torch.linalg.slogdet(sigma).logabsdet + len(sigma) * LOG_2PIE)


def entropy_chain(sigma: Float[Tensor, "d d"]) -> tuple[Check, Check]:
    """1/2 log det(2 pi e S) <= 1/2 sum log(2 pi e S_ii) <= d/2 log(2 pi e tr S / d): Hadamard, then AM-GM."""
    d, diagonal = len(sigma), sigma.diagonal()
    hadamard = 0.5 * (float(diagonal.log().sum()) + d * LOG_2PIE)
    trace = d / 2 * (math.log(float(diagonal.sum()) / d) + LOG_2PIE)
    return _below(hadamard, gaussian_entropy(sigma)), _below(trace, hadamard)


def cosine_trace(z: Float[Tensor, "n d"], self_pairs: bool = False) -> Check:
    """tr cov(u) = 1 - mean cos(z_i, z_j), u = z / ||z||: exactly, for every finite sample and not only on average.

    Pairs i != j match the divisor n - 1; all pairs match the divisor n.
    """
    u = F.normalize(z, dim=1)
    cosines, n = u @ u.T, len(u)
    total = float(cosines.sum()) - (0 if self_pairs else float(cosines.diagonal().sum()))
    mean = total / (n * n if self_pairs else n * (n - 1))
    trace = float((u - u.mean(0)).square().sum()) / (n if self_pairs else n - 1)
    return _equal(1 - mean, trace)


def similarity_bound(z: Float[Tensor, "b d"], classes: int, tau: float) -> Check:
    """MI-UE's similarity loss with self-pairs <= log C + tr(Sigma) / tau, for C classes of equal size, by Jensen.

    Rows come in C equal blocks. The converse is false: a small loss leaves the trace open (`similarity_converse`).
    """
    u = F.normalize(z, dim=1)
    logits = u @ u.T / tau
    same = torch.arange(classes, device=z.device).repeat_interleave(len(z) // classes)
    mine = same[:, None] == same[None, :]
    loss = (logits.logsumexp(1) - logits.masked_fill(~mine, -torch.inf).logsumexp(1)).mean()
    trace = sum(float((part - part.mean(0)).square().sum()) / len(part) for part in u.chunk(classes)) / classes
    return _below(math.log(classes) + trace / tau, float(loss))


# --- the bound of the mutual information by the conditional covariance ---


def covariance_bound(model: ClassMixture, generator: Generator, draws: int = 20_000) -> Check:
    """I(z; z') <= H(Y) + E 1/2 log det(2 pi e Sigma_Y) - h(z' | z): the correct form, on a mixture; 4 SE of slack."""
    logs = _Logs(model, generator, draws)
    rest = gaussian_entropy(torch.eye(model.classes, dtype=torch.float64)) - logs.conditional_entropy
    return _below(math.log(model.classes) + rest, logs.nats, 4 * logs.error)


def covariance_bound_without_label(model: ClassMixture, generator: Generator, draws: int = 20_000) -> Check:
    """FALSE in general: the same bound without H(Y). Fails wherever the label carries the information."""
    logs = _Logs(model, generator, draws)
    rest = gaussian_entropy(torch.eye(model.classes, dtype=torch.float64)) - logs.conditional_entropy
    return _below(rest, logs.nats, 4 * logs.error)


def covariance_bound_with_plus(noise: float) -> Check:
    """FALSE in general: the bound with + h(z' | z). One class, d = 1, z ~ N(0, 1), z' = z + N(0, noise)."""
    residual = 0.5 * (math.log(noise) + LOG_2PIE)
    return _below(0.5 * (math.log(1 + noise) + LOG_2PIE) + residual, 0.5 * math.log1p(1 / noise))


class _Logs:
    """Monte Carlo of I(z; z') and h(z' | z) with exact densities."""

    def __init__(self, model: ClassMixture, generator: Generator, draws: int) -> None:
        x, y, _ = model.latent(draws, generator)
        joint, of_x, of_y = model.log_density(x, y), model.log_density(x), model.log_density(y=y)
        terms = joint - of_x - of_y
        self.nats, self.error = float(terms.mean()), float(terms.std()) / math.sqrt(draws)
        self.conditional_entropy = float((of_x - joint).mean())


def noise_floor(sigma: Float[Tensor, "d d"], floor: float, gain: Float[Tensor, "d d"]) -> tuple[Check, Check, Check]:
    """Within a class, at the resolution s: I(z; z' + s xi) <= 1/2 log det(I + Sigma / s^2)

    <= d/2 log(1 + tr Sigma / (d s^2)) <= tr Sigma / (2 s^2). In this form less covariance does mean less
    information. Case: z' ~ N(0, Sigma), z = gain z' + N(0, I), so that the first side is known in closed form.
    """
    d, eye = len(sigma), torch.eye(len(sigma), dtype=sigma.dtype)
    seen = sigma + floor**2 * eye
    of_z = gain @ sigma @ gain.T + eye
    cross = gain @ sigma
    left = of_z - cross @ torch.linalg.solve(seen, cross.T)
    nats = 0.5 * float(torch.linalg.slogdet(of_z).logabsdet - torch.linalg.slogdet(left).logabsdet)
    first = 0.5 * float(torch.linalg.slogdet(eye + sigma / floor**2).logabsdet)
    trace = float(sigma.trace()) / floor**2
    second = d / 2 * math.log1p(trace / d)
    return _below(first, nats), _below(second, first), _below(trace / 2, second)


def scaling(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], scale: float) -> Check:
    """I(z; a z') = I(z; z') while log det Sigma changes by 2 d log a: no bound in Sigma alone can be right.

    h(z' | z) also changes by d log a, which cancels it: h is not constant while a perturbation is optimised.
    """
    return _equal(gaussian(x, y), gaussian(x, scale * y))


def collapse(separation: float, generator: Generator, draws: int = 20_000) -> tuple[float, float]:
    """(tr Sigma_y of unit-norm features, I(z; z')) of a family in which less covariance goes with MORE information.

    z and z' are independent given Y, classes `separation` apart: the larger it is, the tighter the classes, the smaller
    the trace, and the more both sides tell about Y. Refutes "less covariance, less mutual information" in general.
    """
    model = ClassMixture(separation_x=separation, separation_y=separation)
    x, _, labels = model.latent(draws, generator)
    u = F.normalize(x, dim=1)
    traces = [float(u[labels == c].var(0).sum()) for c in range(model.classes)]
    return sum(traces) / len(traces), model.nats(generator, draws)[0]


# --- discrete: exact on every table ---


def decomposition(p: Float[Tensor, "a b c"]) -> tuple[Check, Check, Check]:
    """I(Z;Z') = I(Z;Y) + I(Z';Y) - I(ZZ';Y) + I(Z;Z'|Y), on a table p[z, z', y]; and its consequences

    I(Z;Z') <= I(Z;Z'|Y) + min(I(Z;Y), I(Z';Y)) <= I(Z;Z'|Y) + log C. Covariance acts on I(Z;Z'|Y) alone.
    """
    p = p / p.sum()
    whole, of_z, of_w = plug_in(p.sum(2)), plug_in(p.sum(1)), plug_in(p.sum(0))
    of_both = plug_in(p.flatten(0, 1))
    within = sum(float(part.sum()) * plug_in(part) for part in p.unbind(2) if float(part.sum()) > 0)
    through = within + min(of_z, of_w)
    return (
        _equal(of_z + of_w - of_both + within, whole),
        _below(through, whole),
        _below(within + math.log(p.shape[2]), through),
    )


def data_processing(p: Float[Tensor, "a b"], f: Float[Tensor, "a c"], g: Float[Tensor, "b d"]) -> Check:
    """I(f(Z); g(Z')) <= I(Z; Z'), f and g random maps given by their rows of probabilities."""
    return _below(plug_in(p), plug_in(f.T @ p @ g))


def fano_bound(p: Float[Tensor, "a b c"]) -> Check:
    """I(Z; Z') >= H(Y) - h(P_e) - P_e log(C - 1) - H(Y|Z'), P_e of the best classifier on Z. Low MI forces errors.

    The converse is false: one head can fail on features that still tell the label. In the Check, `measured`
    is the Fano bound.
    """
    p = p / p.sum()
    of_label, c = entropy(p.sum((0, 1))), p.shape[2]
    unexplained = entropy(p.sum(0)) - entropy(p.sum((0, 2)))
    error = min(max(1 - float(p.sum(1).amax(1).sum()), 0.0), 1.0)
    return _below(plug_in(p.sum(2)), fano(error, c, math.log(c) - of_label + unexplained))


# --- generalisation: about weights and samples, not about features ---


def xu_raginsky(n: int, p: float = 0.5, q: float | None = None) -> Check:
    """|E test error - E training error| <= sqrt(I(W; S) / 2n), 0-1 loss: all 2^n samples of a majority vote.

    n labels, 1 with probability p; W is their majority (ties: 1). q: probability of 1 on test data, p by default. With
    q != p the bound is FALSE in general: a shift of distribution has its own term, see `shift_bound`.
    Source: Xu & Raginsky 2017. I(W; S) is about the weights and the training sample; it is not I(z; z').
    """
    q = p if q is None else q
    table, train, test = torch.zeros(n + 1, 2, dtype=torch.float64), 0.0, 0.0
    for ones in range(n + 1):
        share = math.comb(n, ones) * p**ones * (1 - p) ** (n - ones)
        vote = int(2 * ones >= n)
        table[ones, vote] += share
        train += share * (n - ones if vote else ones) / n
        test += share * ((1 - q) if vote else q)
    # W is a function of the sample, so I(W; S) = H(W)
    return _below(math.sqrt(entropy(table.sum(0)) / (2 * n)), abs(test - train))


def shift_bound(
    joint: Float[Tensor, "w s"], test: Float[Tensor, "s"], loss: Float[Tensor, "w s"]
) -> tuple[Check, Check]:
    """|E_train loss - E_test loss| <= sqrt((I(W; S) + KL(P' || P)) / 2), one training example S ~ P', loss in [0, 1].

    And the identity behind it: KL(P_WS || P_W x P) = I(W; S) + KL(P' || P). What unlearnable examples act on is the KL.
    """
    joint, test = joint / joint.sum(), test / test.sum()
    of_w, of_s = joint.sum(1), joint.sum(0)
    shift = float((torch.xlogy(of_s, of_s) - torch.xlogy(of_s, test)).sum())
    product = of_w[:, None] * test[None, :]
    whole = float((torch.xlogy(joint, joint) - torch.xlogy(joint, product)).sum())
    total = plug_in(joint) + shift
    gap = abs(float((loss * joint).sum() - (loss * product).sum()))
    return _below(math.sqrt(max(total, 0.0) / 2), gap), _equal(total, whole)


# --- sliced ---


def isotropic_sliced(rho: float, d: int) -> float:
    """rho^2 / 2d * 3F2(1, 1, 3/2; d/2 + 1, 2; rho^2): sliced MI of two isotropic Gaussians with corr(x_j, y_j) = rho.

    Summed term by term, |rho| < 1. Source: Semenenko et al. 2026, "Curse of Slicing"; checked by Monte Carlo in tests.
    """
    z, term, total, i = rho * rho, 1.0, 0.0, 0
    while term > 1e-16 * total and i < 1_000_000:
        total += term
        # (1)_i (1)_i (3/2)_i / ((d/2 + 1)_i (2)_i i!)
        term *= (i + 1) * (i + 1.5) / ((d / 2 + 1 + i) * (i + 2)) * z
        i += 1
    return z / (2 * d) * total
