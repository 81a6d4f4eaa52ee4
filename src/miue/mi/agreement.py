"""Agreement: the mutual information of two decoders' guesses, a floor for all other estimates, and Fano's bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from miue.core.method import Facts
from miue.core.run import Run
from miue.mi._decode import components, decode
from miue.mi._features import needed, paired
from miue.mi._tables import counts, entropy, miller_madow, plug_in
from miue.mi.estimate import Estimate


def fano(error: float, classes: int, lost: float = 0.0) -> float:
    """log C - h(P_e) - P_e log(C - 1) - lost: least information in nats of features about C equal classes.

    error: P_e of any classifier on one side. lost: H(Y | other side). Source: Fano's inequality and the chain rule.
    """
    binary = -sum(p * math.log(p) for p in (error, 1 - error) if p > 0)
    return math.log(classes) - binary - error * math.log(max(classes - 1, 1)) - lost


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """I(Yhat(x); Yhat(y)) of labels decoded from each side by a cross-fitted linear classifier, Miller-Madow corrected.

    How far two decoders agree, right or wrong: no information about the label. A lower bound of I(x; y) by data
    processing, at most log C. parts: I(Yhat; Y) of each side ("label from x", "label from y"), its decoding error, and
    Fano's bound (`fano`, with `lost` the cross-entropy of y). Needs labels.
    """

    facts: ClassVar[Facts] = Facts(
        name="agreement", reference="data processing and Fano's inequality: docs/mutual_information.md, section 2"
    )

    def __call__(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], run: Run, labels: Int[Tensor, "n"] | None = None
    ) -> Estimate:
        x, y = paired(x, y, run, 10)
        labels = needed(labels, len(x), run, "agreement")
        c = int(labels.max()) + 1
        guesses, parts = [], {}
        for name, side in (("x", x), ("y", y)):
            posteriors, loss = decode([components(side)], labels, run.rng("mi", "label"))
            guess = posteriors.argmax(1)
            table = counts(guess, labels, c, c)
            parts[f"label from {name}"] = plug_in(table) - miller_madow(table)
            parts[f"error from {name}"] = float((guess != labels).double().mean())
            parts[f"unexplained by {name}"] = loss
            guesses.append(guess)
        table = counts(guesses[0], guesses[1], c, c)
        label_entropy = entropy(labels.bincount().double())  # H(Y), below log C if class sizes differ
        lost = min(parts["unexplained by y"], label_entropy) + math.log(c) - label_entropy
        parts["fano"] = fano(parts["error from x"], c, lost)
        nats = min(plug_in(table) - miller_madow(table), math.log(c))
        return Estimate(nats, "lower bound", ceiling=math.log(c), parts=parts)
