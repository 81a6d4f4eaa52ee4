"""Files: records as JSON, digests, atomic writes, locks, TOML."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from torch import Tensor

from miue.core.errors import Damaged, UserError, refuse_folder

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """Base of everything that is written as JSON: strict about fields, never edited in place, infinities as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls: type[R], path: Path, mend: str = "move it away, and the same command makes it anew") -> R:
        """Read what `save` wrote. Raises Damaged, with the way to mend it, if it is damaged or of another version."""
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
    """For what writes a file: an error of the disk that tells no file, as a full disk does, tells this one."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, content: bytes | Callable[[Path], None], flush: bool = True) -> None:
    """Write to a temporary name beside `path`, flush to disk, then rename: the file appears complete or not at all.

    flush=False is for many small files, which `flush_all` brings to disk together. Until then a power cut, not the end
    of this process, may leave one of them empty.
    """
    part = path.with_name(f".{path.name}.part")  # a name that is known: what a killed process left is found again
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
        # safetensors tells of a full disk in words alone
        if isinstance(error, SafetensorError) and (code := re.search(r"os error (\d+)", str(error))):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
        raise


class Lock(FileLock):
    """For `with`: one process at a time is at what a file stands for.

    Raises Timeout where another one is, at once with timeout=0, and UserError if the file system has no locks.
    """

    def acquire(self, *args: Any, **options: Any) -> Any:
        try:
            return super().acquire(*args, **options)
        except Timeout:
            raise
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.filename:  # the file cannot even be made
                raise
            raise UserError(
                f"{self.lock_file}: the file system there refuses locks ({error}), without which two runs could write "
                "into each other; choose an output on a local disk, and copy it afterwards"
            ) from None


def locked(folder: Path, name: str, wait: bool = True) -> Lock:
    """For `with`: one process at a time is at what `name` stands for. Raises Timeout at once, unless `wait`."""
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    return Lock(folder / "locks" / f"{name}.lock", timeout=-1 if wait else 0)


def flush_all(paths: Iterable[Path]) -> None:
    """Flush files to disk, many at a time: one after the other, each would wait for the disk by itself."""
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
    """The values of a TOML file. Raises UserError where there is none."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None


def digest(*content: object) -> str:
    """A name for what decides a result: the same for the same content, 16 hexadecimal digits."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A name for the content of a file, 16 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def tensor_digest(x: Tensor) -> str:
    """A name for the values of a tensor, 16 hexadecimal digits."""
    return hashlib.sha256(x.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def installed() -> str:
    """The version of this package."""
    from importlib.metadata import version

    return version("miue")
