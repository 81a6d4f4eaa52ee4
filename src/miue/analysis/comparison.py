"""Attacks beside each other: sets that belong together, rank correlations over attacks, remarks beside the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from miue.analysis.ranks import spearman
from miue.analysis.records import Correlation, Examined
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.quality import Size
from miue.evaluation.verdict import HARMLESS, fitted, least_learnt

CLEAN, NOISE = "clean pictures", "random noise"  # names of the controls
TEST = "test pictures"  # name among the sets that workers share


def check_sets(clean: ImageSet, test: ImageSet, attacks: Mapping[str, ImageSet]) -> None:
    """Raise UserError if the sets do not belong together."""
    for name, data in attacks.items():
        if name in (CLEAN, NOISE, TEST):
            raise UserError(f"{name!r} is the name of a control; call the attack otherwise")
        if clean.classes != data.classes or not torch.equal(clean.labels, data.labels):
            raise UserError(f"the clean set and {name} do not have the same classes and labels, row by row")
    if clean.classes != test.classes:
        raise UserError("the clean and the test set do not have the same classes in the same order")
    if not attacks:
        raise UserError("there is no attack to examine")


def correlations(runs: Sequence[Examined], run: Run) -> list[Correlation]:
    """Rank correlations by estimator and depth, over the noise control and the attacks.

    Two pairs of quantities: MI gap with accuracy gap, and trace of the covariance with MI.

    Gaps are clean less attack, means over seeds. Empty for fewer than 4 attacks with the noise control.
    """
    names = list(dict.fromkeys(examined.name for examined in runs))
    by_name = {name: [examined for examined in runs if examined.name == name] for name in names}
    others, results = [name for name in names if by_name[name][0].role != "clean"], []

    def gaps(values: Mapping[str, list[float]]) -> list[list[float]]:
        """By attack and seed: the value of clean pictures less that of the attack."""
        return [[c - v for c, v in zip(values[names[0]], values[name], strict=True)] for name in others]

    accuracy_gaps = gaps({name: [examined.accuracy for examined in by_name[name]] for name in names})
    for depth, stage in enumerate(runs[0].stages):
        traces = [[examined.stages[depth].protected.trace for examined in by_name[name]] for name in others]
        for e, measured in enumerate(stage.mi):
            nats = {name: [examined.stages[depth].mi[e].nats for examined in by_name[name]] for name in names}
            for pair, a, b in (
                (("MI gap", "accuracy gap"), gaps(nats), accuracy_gaps),
                (("trace of the covariance", "MI"), traces, [nats[name] for name in others]),
            ):
                if rank := spearman(a, b, run.rng("spearman")):
                    results.append(Correlation(of=pair, estimator=measured.estimator, stage=stage.name, **vars(rank)))
    return results


def notes(
    runs: Sequence[Examined], sizes: Mapping[str, Size], chance: float, tested: int, largest: float = 0.0
) -> list[str]:
    """Remarks that a reader needs beside the figures."""
    remarks = []
    if len({examined.seed for examined in runs}) == 1:
        remarks.append("one seed only: the spread over victims is unknown")
    learnt = fmean(examined.accuracy for examined in runs if examined.role == "clean")
    noisy = fmean(examined.accuracy for examined in runs if examined.role == "noise")
    if learnt < least_learnt(chance, tested):
        remarks.append(
            f"the victim reaches only {learnt:.1%} on clean pictures, chance is {chance:.1%}: nothing follows"
        )
    elif noisy - chance < HARMLESS * (learnt - chance):
        remarks.append(
            f"plain noise alone takes the victim from {learnt:.1%} to {noisy:.1%}: gaps are those of noise, too"
        )
    for name in dict.fromkeys(examined.name for examined in runs if examined.role == "protected"):
        train = fmean(examined.fitted for examined in runs if examined.name == name)
        if not fitted(train, max(chance, largest)):
            remarks.append(f"the victim of {name} fits only {train:.1%} of its own training set: trained too little")
    return remarks + [f"{name}: {size.leaves}" for name, size in sizes.items() if size.leaves]
