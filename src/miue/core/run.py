"""Run: device, precision, processes, random generators, kept state and progress. The only file that names a device."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from miue.core.types import UserError

log = logging.getLogger("miue")
_FLUSHING = 16  # threads that wait for the disk
DEVICES = ("auto", "cpu", "cuda", "mps")
S = TypeVar("S", bound="Storable")


@dataclass(frozen=True)
class Numerics:
    """How a device computes: what autocast uses inside networks, and the memory layout of pictures."""

    precision: str
    layout: torch.memory_format
    reason: str


def choose_numerics(device: torch.device) -> Numerics:
    """bf16 where the hardware multiplies it natively (it is many times slower where it is emulated), else float32."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Numerics("bf16-mixed", torch.channels_last, "this GPU multiplies bf16 natively")
        return Numerics("32-true", torch.channels_last, "this GPU has no native bf16")
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        if can.get("avx512_bf16") or can.get("amx_bf16") or can.get("amx_tile"):
            return Numerics("bf16-mixed", torch.channels_last, "this processor multiplies bf16 natively")
        return Numerics("32-true", torch.channels_last, "this processor has no native bf16")
    return Numerics("32-true", torch.contiguous_format, f"{device.type}: float32 is the tested path")


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is CUDA, else MPS, else the processor. Raises UserError if it is not here."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, usable in present.items() if usable)
    if not present[name]:
        here = [kind for kind, usable in present.items() if usable]
        raise UserError(f"device {name!r} cannot be used here; allowed on this machine: auto, {', '.join(here)}")
    return torch.device("cpu") if name == "cpu" else torch.device(name, 0)


def write_atomically(path: Path, content: bytes | Callable[[Path], None], flush: bool = True) -> None:
    """Write to a temporary name beside `path`, flush to disk, then rename: the file appears complete or not at all.

    flush=False is for many small files, which `flush_all` brings to disk together. Until then a power cut, not the end
    of this process, may leave one of them empty.
    """
    part = path.with_name(f".{path.name}.part")  # a name that is known: what a killed process left is found again
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
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
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            raise UserError(
                f"{self.lock_file}: the file system there refuses locks ({error}), without which two runs could write "
                "into each other; choose an output on a local disk, and copy it afterwards"
            ) from None


_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


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


@contextmanager
def global_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators, seeded for a block and put back after: for libraries that take no generator."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@dataclass
class Run:
    """Where and how something is computed. One object serves a whole command; methods get it as an argument.

    seed: every generator is derived from it and from names, so a draw added somewhere shifts nothing elsewhere.
    keep: folder for checkpoints; None keeps nothing. quiet: no progress. fabric: Lightning's, where `launch` started
    several processes; one process needs none.
    """

    seed: int = 0
    device_name: str = "auto"
    keep: Path | None = None
    quiet: bool = True
    fabric: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.device_name not in DEVICES:
            raise UserError(f"device {self.device_name!r} is unknown; allowed: {', '.join(DEVICES)}")
        # fresh networks in evaluation mode have gradients among the denormals, where a CPU is several times slower
        torch.set_flush_denormal(True)
        _ = self.device  # one that is not here is refused now, not in the middle of the work

    # -- device and precision ------------------------------------------------------------------------------------

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.device_name) if self.fabric is None else self.fabric.device

    @property
    def accelerated(self) -> bool:
        """Whether the device is not the processor."""
        return self.device.type != "cpu"

    @cached_property
    def numerics(self) -> Numerics:
        return choose_numerics(self.device)

    def put(self, x: Tensor) -> Tensor:
        """To the run's device; pictures in its memory layout."""
        if x.ndim == 4 and x.is_floating_point():
            return x.to(self.device, memory_format=self.numerics.layout, non_blocking=True)
        return x.to(self.device, non_blocking=True)

    @property
    def exact_device(self) -> torch.device:
        """Where float64 is computed: the run's device, or main memory beside one that has none (MPS)."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def exact(self, x: Tensor) -> Tensor:
        """To where float64 is computed."""
        return x.to(self.exact_device, non_blocking=self.device.type != "mps")

    def place(self, net: nn.Module) -> Any:
        """A network on the run's device, convolutions in its memory layout, its trunk in the run's precision."""
        net.autocast = self.autocast  # pyright: ignore[reportArgumentType]
        return net.to(self.device).to(memory_format=self.numerics.layout)  # pyright: ignore[reportCallIssue]

    def autocast(self) -> torch.autocast:
        """Lower precision inside trunks where the hardware has it. Features, losses and deltas stay float32."""
        on = self.numerics.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on)

    @cached_property
    def machine(self) -> dict[str, str]:
        """What a record needs in order to be compared: versions, device, threads, precision and its reason."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else _processor()
        return {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "device": f"{self.device.type} ({name}, {torch.get_num_threads()} threads)",
            "precision": f"{self.numerics.precision}: {self.numerics.reason}",
            "processes": str(self.world),
        }

    # -- randomness ----------------------------------------------------------------------------------------------

    def entropy(self, *names: object) -> int:
        """A 63-bit number from the seed and names."""
        text = json.dumps([self.seed, *map(str, names)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def rng(self, *names: object) -> torch.Generator:
        """A fresh generator, the same for the same seed and names on every machine. It lives on the CPU."""
        return torch.Generator().manual_seed(self.entropy(*names))

    @contextmanager
    def seeded(self, *names: object) -> Iterator[None]:
        """Torch's global generators, seeded from names for a block: for layers that take no generator."""
        with global_draws(self.entropy(*names), self.device):
            yield

    def reseeded(self, seed: int) -> Run:
        """The same machine with another seed; it keeps no state of its own."""
        return Run(seed, self.device_name, None, self.quiet, self.fabric)

    # -- several processes ---------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        return 0 if self.fabric is None else self.fabric.global_rank

    @property
    def world(self) -> int:
        return 1 if self.fabric is None else self.fabric.world_size

    def mine(self, n: int) -> Int[Tensor, "m"]:
        """The rows that belong to this process for the whole run: at random, for sets often list classes in turn."""
        if self.world == 1:
            return torch.arange(n)
        return torch.randperm(n, generator=self.rng("shares"))[self.rank :: self.world].sort().values

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor by its mean over processes, in place."""
        if self.world > 1:
            for tensor in tensors:
                if tensor is not None and tensor.is_floating_point():
                    tensor.copy_(self.fabric.all_reduce(tensor, reduce_op="mean"))  # type: ignore[arg-type]

    def total(self, table: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The sum over processes."""
        return table if self.world == 1 else self.fabric.all_reduce(table, reduce_op="sum")  # type: ignore[return-value]

    def least(self, value: int) -> int:
        """The smallest value over processes."""
        if self.world == 1:
            return value
        return int(self.fabric.all_gather(torch.tensor(value)).min())  # type: ignore[union-attr]

    # -- kept state ----------------------------------------------------------------------------------------------

    def save(self, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Keep tensors and facts under a name, atomically, where the run keeps state."""
        if self.keep is None:
            return
        flat = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        write_atomically(
            self.keep / f"{name}.safetensors", lambda part: save_file(flat, str(part), {"meta": json.dumps(meta)})
        )

    def load(self, name: str, **expected: object) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was kept under a name, or None where nothing was or where it belongs to other data or settings."""
        path = None if self.keep is None else self.keep / f"{name}.safetensors"
        if path is None or not path.is_file():
            return None
        with safe_open(str(path), "pt") as file:  # pyright: ignore[reportGeneralTypeIssues]
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            if any(meta.get(k) != v for k, v in expected.items()):
                log.info("%s belongs to other data or settings and is not used", path.name)
                return None
            return {k: file.get_tensor(k) for k in file.keys()}, meta  # noqa: SIM118

    def forget(self) -> None:
        """Remove what was kept: the work it belongs to is recorded."""
        if self.keep is not None and self.keep.is_dir():
            for path in self.keep.glob("*.safetensors"):
                path.unlink()
            with suppress(OSError):  # something else lies there
                self.keep.rmdir()

    # -- progress ------------------------------------------------------------------------------------------------

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """A bar with the time left on a terminal, a plain line now and then elsewhere. Yields tick(note="")."""
        if self.quiet or self.rank:
            yield lambda note="": None
        elif sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            left = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
            with Progress(*columns, *left, console=Console(stderr=True)) as bar:
                task = bar.add_task(text, total=total, completed=done, note="")
                yield lambda note="": bar.update(task, advance=1, **({"note": note} if note else {}))
        else:
            yield _Lines(text, total, done).tick


class _Lines:
    """Progress for log files: a line every 20 seconds and at the end, with the time left."""

    def __init__(self, text: str, total: int, done: int) -> None:
        self.text, self.total, self.first, self.done = text, total, done, done
        self.start = self.said = time.monotonic()
        self.note = ""

    def tick(self, note: str = "") -> None:
        self.done, self.note, now = self.done + 1, note or self.note, time.monotonic()
        if now - self.said >= 20 or self.done == self.total:
            self.said, spent = now, now - self.start
            left = spent / (self.done - self.first) * (self.total - self.done)
            tail = f"{left:.0f} s left" if self.done < self.total else f"took {spent:.0f} s"
            print(f"{self.text}: {self.done} of {self.total}, {tail} {self.note}".rstrip(), file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _fabric(device: str, processes: int) -> Any:
    import lightning_fabric as lightning  # here: it takes more than a second to import, and one process needs none

    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    try:
        return lightning.Fabric(accelerator=device, devices=processes, strategy="ddp_spawn")
    except Exception as error:  # Fabric raises several types, all of them about a device that is not there
        raise UserError(
            f"device {device!r} cannot be used here; several processes take --device cpu or cuda: {error}"
        ) from None


@runtime_checkable
class Storable(Protocol):
    """What can travel between processes: by a file, so that no size is too large and nothing is unpickled."""

    def save(self, path: Path) -> None: ...
    @classmethod
    def load(cls, path: Path) -> Any: ...


def launch(task: Callable[[Run], S], run: Run, processes: int) -> S:
    """Call task(run) in several processes at once (one GPU each, or CPU processes with gloo); the result of rank 0."""
    if processes == 1:
        return task(run)
    fabric = _fabric(run.device_name, processes)
    if run.keep is not None:
        run.keep.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=run.keep) as folder:
        path = Path(folder) / "result"
        return fabric.launch(_Task(task, run.seed, run.device_name, run.keep, run.quiet, path)).load(path)


@dataclass
class _Task:
    """What a spawned process needs in order to rebuild its Run."""

    task: Callable[[Run], Storable]
    seed: int
    device_name: str
    keep: Path | None
    quiet: bool
    result: Path

    def __call__(self, fabric: Any) -> type[Any]:
        if fabric.device.type == "cpu":  # processes on one machine share its cores
            torch.set_num_threads(max(torch.get_num_threads() // fabric.world_size, 1))
        run = Run(self.seed, self.device_name, self.keep, self.quiet, fabric)
        made = self.task(run)
        if run.rank == 0:
            made.save(self.result)
        # A process that ends while gloo's threads still wait for its peers is aborted (pytorch/pytorch#190489).
        fabric.barrier()
        torch.distributed.destroy_process_group()
        return type(made)
