"""Arrays of pictures: .npz files and the named sets that are held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from miue.core.errors import UserError
from miue.data.columns import LONGEST, MOST
from miue.data.source import Item, Kind, Store

IMAGE_KEYS, LABEL_KEYS, NAME_KEYS = ("images", "x", "data"), ("labels", "y"), ("classes", "class_names")


@dataclass(frozen=True, kw_only=True)
class ArrayStore(Store):
    """Pictures in memory: UInt8[n h w] or [n h w c]. key: the array's name in an .npz file."""

    images: UInt8[np.ndarray, "n h w *c"] = field(repr=False)
    key: str = ""

    def get(self, index: int) -> np.ndarray:
        return self.images[index]


def array_store(
    kind: Kind,
    location: str,
    name: str,
    images: UInt8[np.ndarray, "n h w *c"],
    labels: Sequence[int],
    classes: Sequence[str],
    key: str = "",
) -> ArrayStore:
    """A store of rows."""
    items = tuple(Item(f"row {i}", int(label)) for i, label in enumerate(labels))
    return ArrayStore(
        kind=kind, location=location, name=name, classes=tuple(classes), items=items, images=images, key=key
    )


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an .npz file; pickled objects are refused, and members that are no arrays."""
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UserError(f"{path}: is a single array (.npy); save pictures and labels together with numpy.savez")
        with file:
            arrays = {key: file[key] for key in file.files}
    except UserError:
        raise
    except Exception as error:  # damaged archives raise nearly anything: zlib's errors, end of file, no memory
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not readable as .npz without pickled objects: {why}") from None
    if others := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise UserError(f"{path}: the member {others[0]!r} is no array; save the file with numpy.savez, without it")
    return arrays


def open_npz(path: Path) -> ArrayStore:
    """Read `images` (or x, data) and `labels` (or y); `classes` gives the names where present."""
    arrays = load_npz(path)
    image, label = (next((k for k in keys if k in arrays), None) for keys in (IMAGE_KEYS, LABEL_KEYS))
    if image is None or label is None:
        raise UserError(
            f"{path}: has the arrays {', '.join(arrays) or 'none'}; needed: pictures named images, x or data, "
            "and labels named labels or y"
        )
    images, labels = arrays[image], arrays[label]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3, 4)):
        raise UserError(
            f"{path}: {image!r} is {images.dtype} of shape {images.shape}; allowed: uint8 of shape (N, H, W) or "
            "(N, H, W, C) with 1, 3 or 4 channels (0 to 255, channels last)"
        )
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or (len(labels) and int(labels.min()) < 0):
        raise UserError(
            f"{path}: {label!r} is {labels.dtype} of shape {labels.shape}; allowed: one integer of at least 0 for "
            f"each of the {len(images)} pictures"
        )
    _refuse_others(path, arrays, image)
    count = int(labels.max()) + 1 if len(labels) else 0
    named = next((arrays[k] for k in NAME_KEYS if k in arrays and arrays[k].dtype.kind == "U"), None)
    if named is not None and (named.ndim != 1 or len(named) < count):
        raise UserError(
            f"{path}: the class names are of shape {named.shape}, but the labels go up to {count - 1}; "
            f"allowed: one name for each of the {count} classes"
        )
    names = tuple(map(str, named)) if named is not None else numbered(f"{path}: {label!r}", count, len(images))
    return array_store("npz", str(path), path.stem, images, labels.tolist(), names, image)


def _refuse_others(path: Path, arrays: dict[str, np.ndarray], image: str) -> None:
    """All arrays are written to the output: none but `image` may hold pictures."""
    if len(arrays) > MOST + 2:
        raise UserError(
            f"{path}: {len(arrays)} arrays could hold the pixels of the pictures; at most {MOST} beside them"
        )
    for key in NAME_KEYS:
        if key in arrays and arrays[key].dtype.kind == "U" and arrays[key].dtype.itemsize > 4 * LONGEST:
            raise UserError(f"{path}: {key!r} has names of more than {LONGEST} characters, which could hold pictures")
    for key, array in arrays.items():
        kinds = "U" if key in NAME_KEYS else "iufb"
        if key != image and not (array.dtype.kind in kinds and array.ndim < 2 and array.size <= len(arrays[image])):
            raise UserError(
                f"{path}: the array {key!r} ({array.dtype} of shape {array.shape}) would be published as it is, and "
                f"could hold clean pictures; save the file without it (allowed beside {image!r}: numbers, one a row)"
            )


def numbered(where: str, count: int, rows: int) -> tuple[str, ...]:
    """Classes "0", "1", ...; raises UserError where the labels are so large that they cannot be class indices."""
    if count > 1000 + 10 * rows:
        raise UserError(f"{where} goes up to {count - 1} for {rows} pictures: class labels are numbers from 0 upwards")
    return tuple(map(str, range(count)))
