"""Names of splits."""

from __future__ import annotations

import re

_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
    "pred": "test",
    "holdout": "test",
    "trn": "train",
    "trainval": "train",
    "trainset": "train",
    "traindata": "train",
    "valset": "validation",
    "valdata": "validation",
    "devset": "validation",
    "tst": "test",
    "testset": "test",
    "testdata": "test",
}


def split_of(name: str) -> str | None:
    """The split that a word in a name means ("train", "validation" or "test"); None if there is none."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return next((_WORDS[word] for word in words if word in _WORDS), None)
