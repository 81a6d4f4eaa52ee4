"""Data sets by name: the embedded ones and those of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from miue.core.errors import UserError
from miue.data.arrays import ArrayStore, array_store

_TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "fashion-mnist": "FashionMNIST",
    "mnist": "MNIST",
    "stl10": "STL10",
    "svhn": "SVHN",
}
_OPTIONS = {"shapes": {"per_class": "400", "size": "32", "seed": "0", "split": "train"}, "digits": {}} | {
    name: {"root": "", "split": "train"} for name in _TORCHVISION
}
NAMES = tuple(_OPTIONS)


def is_named(source: str) -> bool:
    """True if a text names a data set; "./shapes" is a path."""
    return source.partition(":")[0] in NAMES


def open_named(text: str, split: str | None, download: bool) -> ArrayStore:
    """Open a named set: "shapes:per_class=400,size=32", "digits" or "cifar10:root=/data,split=test"."""
    name, _, rest = text.partition(":")
    pairs = (part.partition("=") for part in rest.split(",") if part)
    given = {key.strip(): value.strip() for key, _, value in pairs}
    if split is not None:
        given["split"] = split
    allowed = _OPTIONS[name]
    if unknown := [key for key in given if key not in allowed]:
        raise UserError(
            f"{text}: {name} has no option {unknown[0]!r}; allowed: {', '.join(allowed) or 'none, it has no splits'}"
        )
    options = allowed | given
    if options.get("split", "train") not in ("train", "test"):
        raise UserError(f"{text}: there is no split {options['split']!r}; splits there: train, test")
    images, labels, classes = {"shapes": _shapes, "digits": _digits}.get(name, _torchvision)(name, options, download)
    # sort classes by name, as a folder does, so that labels agree after writing and reading back
    names = [str(c).replace("/", "_") for c in classes]
    rank = {name: i for i, name in enumerate(sorted(names))}
    return array_store("named", text, name, images, [rank[names[int(y)]] for y in labels], sorted(names))


def _shapes(name: str, options: dict[str, str], download: bool) -> tuple[np.ndarray, Any, Any]:
    from miue.data.shapes import draw

    try:
        numbers = {key: int(options[key]) for key in ("per_class", "size", "seed")}
    except ValueError:
        raise UserError(f"{name}: per_class, size and seed are whole numbers; given: {options}") from None
    drawn = draw(**numbers, split=options["split"])  # type: ignore[arg-type]
    return np.ascontiguousarray(drawn.images.numpy().transpose(0, 2, 3, 1)), drawn.labels.tolist(), drawn.classes


def _digits(name: str, options: dict[str, str], download: bool) -> tuple[np.ndarray, Any, Any]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return (digits.images.astype(np.int64) * 255 // 16).astype(np.uint8), digits.target, digits.target_names


def _torchvision(name: str, options: dict[str, str], download: bool) -> tuple[np.ndarray, Any, Any]:
    from torchvision import datasets

    if not options["root"]:
        raise UserError(f"{name}: say where it lies: {name}:root=FOLDER (add --download to fetch it there)")
    kind = getattr(datasets, _TORCHVISION[name])
    split = {"split": options["split"]} if name in ("svhn", "stl10") else {"train": options["split"] == "train"}
    try:
        data = kind(str(Path(options["root"]).expanduser()), download=download, **split)
    except RuntimeError as error:
        raise UserError(
            f"{name} is not in {options['root']} ({str(error).splitlines()[0]}); put it there, or let it be fetched "
            "with download=True (--download)"
        ) from None
    images = np.asarray(data.data)
    if images.ndim == 4 and images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    labels = data.targets if hasattr(data, "targets") else data.labels
    classes = getattr(data, "classes", None) or [str(i) for i in range(int(max(labels)) + 1)]
    return np.ascontiguousarray(images), labels, classes
