"""Files: records as JSON, digests, atomic writes, locks, TOML."""

from __future__ import annotations

import hashlib
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from torch import Tensor

from miue.core.errors import Damaged, UserError, refuse_folder

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """Base class of all JSON records: unknown fields are refused, instances are frozen, infinities are text.

    Records are equal if their fields are, whatever else they keep beside them, as cached tensors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    def __eq__(self, other: object) -> bool:
        same = type(self) is type(other)
        return same and all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    def save(self, path: Path) -> None:
        """Write as JSON. The file appears complete or not at all."""
        write_atomically(path, self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls: type[R], path: Path, mend: str = "move it away, and the same command makes it anew") -> R:
        """Read a record that `save` wrote. Raises Damaged (with `mend`) if it is damaged or of another version."""
        refuse_folder(path)
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
        except ValueError:
            why = "is no record of this version of miue, or it is damaged"
        raise Damaged(f"{path}: {why}; {mend}")


_FLUSHING = 16  # threads that wait for the disk


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add `path` to an OSError raised inside the block that names no file, as on a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def part_of(path: Path) -> Path:
    """The temporary name of a file: a fixed one, so that the rest of a killed run can be recognised."""
    return path.with_name(f".{path.name}.part")


def write_atomically(path: Path, content: bytes | Callable[[Path], None], flush: bool = True) -> None:
    """Write to a temporary name beside `path`, flush to disk, then rename: the file appears complete or not at all.

    flush=False is for many small files that `flush_all` flushes together later. Until then a power cut may leave one
    of them empty; a crash of this process cannot.
    """
    part = part_of(path)
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        with named(path):
            part.write_bytes(content) if isinstance(content, bytes) else content(part)
            if flush:
                _flush(part)
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        # safetensors reports a full disk only in its message
        if isinstance(error, SafetensorError) and (code := re.search(r"os error (\d+)", str(error))):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
        raise


class Lock(FileLock):
    """A lock for `with`: only one process at a time holds it.

    Raises Timeout if another process holds it (at once with timeout=0), and UserError if the file system has no locks.
    """

    def acquire(self, *args: Any, **options: Any) -> Any:
        try:
            return super().acquire(*args, **options)
        except Timeout:
            raise
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.filename:  # the lock file cannot be created
                raise
            raise UserError(
                f"{self.lock_file}: the file system there refuses locks ({error}), without which two runs could write "
                "into each other; choose an output on a local disk, and copy it afterwards"
            ) from None


def locked(folder: Path, name: str, wait: bool = True) -> Lock:
    """The lock called `name` in a folder, for `with`. Raises Timeout at once if it is held elsewhere and not `wait`."""
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    return Lock(folder / "locks" / f"{name}.lock", timeout=-1 if wait else 0)


def flush_all(paths: Iterable[Path]) -> None:
    """Flush files to disk, many at a time. One after another would be slow, since each flush waits for the disk."""
    every = list(paths)
    with ThreadPoolExecutor(_FLUSHING) as pool:
        for _ in pool.map(_flush_each, [every[at::_FLUSHING] for at in range(_FLUSHING)]):
            pass


def _flush_each(paths: Iterable[Path]) -> None:
    for path in paths:
        _flush(path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises UserError if the file cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None


def reserve(file: IO[bytes], size: int) -> None:
    """Give a file its size and the room for it: on a disk that fills up later a mapped file would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    file.truncate(size)


def mapped(shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> Tensor:
    """A tensor without values in a mapped file without a name, which is gone when the tensor is."""
    size = math.prod(shape) * dtype.itemsize
    folder.mkdir(parents=True, exist_ok=True)
    with named(folder), TemporaryFile(dir=folder) as file:
        reserve(file, size)
        return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=(size,))).view(dtype).view(shape)


def digest(*content: object) -> str:
    """A digest of the `repr` of `content`, 16 hexadecimal digits."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A digest of the bytes of a file, 16 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def tensor_digest(x: Tensor) -> str:
    """A digest of the values of a tensor, 16 hexadecimal digits."""
    return hashlib.sha256(x.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def installed() -> str:
    """The version of this package."""
    from importlib.metadata import version

    return version("miue")
