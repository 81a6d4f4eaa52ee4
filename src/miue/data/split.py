"""Test pictures: a held-out part of a set, or a set of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.read import read_like
from miue.data.scan import looks_protected, scan

HELD_OUT = 0.2


def read_test(
    clean: ImageSet,
    source: str,
    test: str | None,
    split: str | None,
    run: Run,
    rules: Mapping[str, Any] | None = None,
) -> tuple[ImageSet, Int64[Tensor, "k"] | None]:
    """The test set, and the rows of `clean` that remain for training (None means all).

    If neither `test` nor `split` is given, the test set is a part of `clean`. rules: settings for `data.scan`.
    """
    if test is None and split is None:
        train, held = holdout(clean, HELD_OUT, run.reseeded(0))
        return clean.select(held), train
    options = {**(rules or {}), "drop_columns": ["*"]}  # a test set is not published
    scanned = scan(test or source, split=split, canvas=clean.shape[1], **options)
    if unused := {why: count for why, count in scanned.summary().items() if why != "ok"}:
        reasons = ", ".join(f"{count} {why}" for why, count in unused.items())
        run.say(f"{test or source}: of {len(scanned.entries)} test pictures some are not used: {reasons}")
    if test and scanned.kind != "named" and looks_protected(Path(scanned.location)):
        run.say(f"note: {test}: looks protected; victims are to be tested on pictures without a perturbation")
    return read_like(scanned, clean, test or source, source), None


def holdout(data: ImageSet, share: float, run: Run) -> tuple[Int[Tensor, "m"], Int[Tensor, "t"]]:
    """Rows for training and rows for testing: a random `share` of every class, but at least one picture."""
    if not 0 < share < 1:
        raise UserError(f"a held-out share of {share:g} is not between 0 and 1")
    generator, train, held = run.rng("holdout"), [], []
    for label in range(len(data.classes)):
        rows = (data.labels == label).nonzero().flatten()
        if len(rows) == 1:
            raise UserError(f"class {data.classes[label]!r} has one picture, so none can be held out; add pictures")
        rows = rows[torch.randperm(len(rows), generator=generator)]
        cut = min(max(int(len(rows) * share), 1), len(rows) - 1) if len(rows) else 0
        held.append(rows[:cut])
        train.append(rows[cut:])
    return torch.cat(train).sort().values, torch.cat(held).sort().values
