"""Which pictures test: a part that is held out, or a set of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.read import read_like
from miue.data.scan import scan

HELD_OUT = 0.2


def read_test(
    clean: ImageSet,
    source: str,
    test: str | None,
    split: str | None,
    run: Run,
    rules: Mapping[str, Any] | None = None,
) -> tuple[ImageSet, Int64[Tensor, "k"] | None]:
    """The test set; where no other set or split is named, a part of `clean`, and the rows that remain to train on.

    rules: by which pictures are looked at, as for `data.scan`.
    """
    if test is None and split is None:
        kept, rest = holdout(clean, HELD_OUT, run.reseeded(0))
        return clean.select(rest), kept
    seen = {**(rules or {}), "drop_columns": ["*"]}  # none of a test set is published
    scanned = scan(test or source, split=split, **seen)
    if unused := {why: count for why, count in scanned.summary().items() if why != "ok"}:
        told = ", ".join(f"{count} {why}" for why, count in unused.items())
        run.say(f"{test or source}: of {len(scanned.entries)} test pictures some are not used: {told}")
    return read_like(scanned, clean, test or source, source), None


def holdout(data: ImageSet, share: float, run: Run) -> tuple[Int[Tensor, "m"], Int[Tensor, "t"]]:
    """Rows for training and for testing: `share` of every class (at least one picture) is held out at random."""
    if not 0 < share < 1:
        raise UserError(f"a held-out share of {share:g} is not between 0 and 1")
    generator, kept, held = run.rng("holdout"), [], []
    for label in range(len(data.classes)):
        rows = (data.labels == label).nonzero().flatten()
        if len(rows) == 1:
            raise UserError(f"class {data.classes[label]!r} has one picture, so none can be held out; add pictures")
        rows = rows[torch.randperm(len(rows), generator=generator)]
        cut = min(max(int(len(rows) * share), 1), len(rows) - 1) if len(rows) else 0
        held.append(rows[:cut])
        kept.append(rows[cut:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values
