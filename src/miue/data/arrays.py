"""Arrays of pictures: .npz files, and named sets in memory."""

from __future__ import annotations

import math
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
from jaxtyping import UInt8

from miue.core.errors import UserError
from miue.core.progress import readable
from miue.data.columns import LONGEST, MOST
from miue.data.source import Item, Kind, Store

IMAGE_KEYS, LABEL_KEYS, NAME_KEYS = ("images", "x", "data"), ("labels", "y"), ("classes", "class_names")


@dataclass(frozen=True, kw_only=True)
class ArrayStore(Store):
    """Pictures in memory: UInt8[n h w] or [n h w c]. key: name of the array in an .npz file."""

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
    """A store with one item for each row."""
    items = tuple(Item(f"row {i}", int(label)) for i, label in enumerate(labels))
    return ArrayStore(
        kind=kind, location=location, name=name, classes=tuple(classes), items=items, images=images, key=key
    )


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an .npz file.

    Raises UserError if it is no such file or does not fit into memory, before its arrays are read.
    """
    try:
        with path.open("rb") as stream:  # a stream of ours, because numpy leaves its own open if the archive is damaged
            if stream.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise UserError(f"{path}: is a single array (.npy); save pictures and labels together with numpy.savez")
            with zipfile.ZipFile(stream) as archive:
                _check_members(path, archive)
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            return {key: file[key] for key in file.files}
    except UserError:
        raise
    except Exception as error:  # damaged archives raise nearly anything: zlib's errors, end of file, no memory
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not readable as .npz without pickled objects: {why}") from None


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise UserError if the headers of an archive announce data that cannot be read or is missing."""
    whole = 0
    if twice := [name for name, count in Counter(archive.namelist()).items() if count > 1]:
        raise UserError(f"{path}: has two members called {twice[0]!r}; save the file again with numpy.savez")
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if info.flag_bits & 1:
            raise UserError(f"{path}: the member {name!r} is encrypted; unpack it and save it with numpy.savez")
        shape, dtype, present = _header(path, archive, info)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise UserError(
                f"{path}: the array {name!r} holds Python objects, which could run code when they are read; "
                "save numbers (pictures of different sizes: a folder of class folders)"
            )
        if size > present:
            raise UserError(
                f"{path}: the array {name!r} announces {size:,} bytes ({dtype} of shape {shape}), but {present:,} "
                "are there; the file is damaged, save it again"
            )
        whole += size
    if whole > (memory := _memory()):
        raise UserError(
            f"{path}: its arrays announce {whole:,} bytes, and this machine has {memory:,} of memory; save the "
            "pictures as a folder of class folders or as parquet, which are read one by one"
        )


def _header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape and type of an array, from the header of its member, and the number of bytes after the header."""
    readers = {b"\x01\x00": npy.read_array_header_1_0, b"\x02\x00": npy.read_array_header_2_0}
    with archive.open(info) as member:
        start = member.read(npy.MAGIC_LEN)
        if not start.startswith(npy.MAGIC_PREFIX) or start[-2:] not in readers:
            raise UserError(
                f"{path}: the member {info.filename!r} is no array; save the file with numpy.savez, without it"
            )
        shape, _, dtype = readers[start[-2:]](member)
        return shape, dtype, info.file_size - member.tell()


def _memory() -> int:
    """Bytes of main memory; a very large number if the system does not report it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**63


def open_npz(path: Path) -> ArrayStore:
    """Open an .npz file with `images` (or x, data), `labels` (or y) and, optionally, the names in `classes`."""
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
    if 0 in images.shape[1:]:
        raise UserError(f"{path}: {image!r} is of shape {images.shape}: its pictures have no pixels; save it again")
    _refuse_labels(f"{path}: {label!r}", labels, len(images))
    _refuse_others(path, arrays, image)
    count = int(labels.max()) + 1 if len(labels) else 0
    named = next((arrays[k] for k in NAME_KEYS if k in arrays and arrays[k].dtype.kind == "U"), None)
    if named is not None and (named.ndim != 1 or len(named) < count):
        raise UserError(
            f"{path}: the class names are of shape {named.shape}, but the labels go up to {count - 1}; "
            f"allowed: one name for each of the {count} classes"
        )
    if named is not None:
        names = class_names(str(path), _texts(named))
    else:
        names = numbered(f"{path}: {label!r}", count, len(images))
    return array_store("npz", str(path), path.stem, images, labels.tolist(), names, image)


def _refuse_labels(where: str, labels: np.ndarray, count: int) -> None:
    allowed = f"allowed: one integer of at least 0 for each of the {count} pictures"
    if labels.dtype.kind not in "iuf" or labels.shape != (count,):
        raise UserError(f"{where} is {labels.dtype} of shape {labels.shape}; {allowed}")
    with np.errstate(invalid="ignore"):  # NaN fails both comparisons
        right = (labels >= 0) & (labels % 1 == 0)
    if not right.all():
        row = right.argmin()
        raise UserError(f"{where} has {labels[row]} in row {row}; {allowed} (leave pictures without a class out)")
    if labels.dtype.kind == "f":
        raise UserError(f"{where} is {labels.dtype}, although its values are whole; save labels.astype(int)")


def _refuse_others(path: Path, arrays: dict[str, np.ndarray], image: str) -> None:
    """Raise UserError if an array other than `image` could hold pictures, because all arrays are published."""
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


def class_names(where: str, names: Any) -> tuple[str, ...]:
    """The class names as a tuple. Raises UserError unless they are short, different texts."""
    allowed = f"allowed: a list of texts of at most {LONGEST} characters"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: the class names are {str(names)[:80]!r}; {allowed}")
    if wrong := [name for name in names if len(name) > LONGEST or readable(name) != name]:
        raise UserError(f"{where}: the class name {readable(wrong[0])[:80]!r} is too long or no text; {allowed}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{where}: two classes are called {twice[0]!r}; rename one, or give them one label")
    return tuple(names)


def _texts(array: np.ndarray) -> list[str] | str:
    """The texts of an array; the text of the error if they are invalid."""
    try:
        return list(map(str, array))
    except (ValueError, SystemError) as error:  # a code beyond the end of Unicode
        return str(error)


def numbered(where: str, count: int, rows: int) -> tuple[str, ...]:
    """Class names "0", "1", ... Raises UserError if labels are too large to be class indices."""
    if count > 1000 + 10 * rows:
        raise UserError(f"{where} goes up to {count - 1} for {rows} pictures: class labels are numbers from 0 upwards")
    return tuple(map(str, range(count)))
