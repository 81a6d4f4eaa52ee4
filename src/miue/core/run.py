"""Run: device, precision, processes, random generators, saved state and progress."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from miue.core.device import (
    CPU,
    DEVICES,
    SMALL,
    Numerics,
    accelerated,
    choose_device,
    choose_numerics,
    device_name,
    exact_device,
    free_cores,
    free_memory,
    global_draws,
    threads,
    threads_of,
    threads_side_by_side,
)
from miue.core.errors import UserError, refuse_folder
from miue.core.files import mapped, write_atomically
from miue.core.progress import Lines, Share, write_note

log = logging.getLogger("miue")
T = TypeVar("T")


@dataclass
class Run:
    """Where and how something is computed. One object serves a whole command; methods get it as an argument."""

    seed: int = 0
    """Every generator is derived from it and from names, so a new draw in one place changes nothing elsewhere."""
    device_name: str = "auto"
    """One of DEVICES."""
    keep: Path | None = None
    """Folder for checkpoints; None saves nothing."""
    quiet: bool = True
    """True to show neither progress nor notes."""
    fabric: Any = field(default=None, repr=False)
    """Lightning's Fabric if `launch` started several processes; None for one process."""
    workers: int = 1
    """Processes in which independent victims train side by side; 0: as many as cores are free, 1 on an accelerator."""
    report: Callable[[float], None] | None = field(default=None, repr=False, compare=False)
    """Takes the share that is done, instead of a display of the run's own."""
    memory: int | None = None
    """Bytes of deltas that each process has in memory; more lie in files beside the state. None: a third of what is
    free, for all processes together."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UserError(f"{self.workers} workers: at least 1, or 0 for as many as cores are free")
        if self.device_name not in DEVICES:
            raise UserError(f"device {self.device_name!r} is unknown; allowed: {', '.join(DEVICES)}")
        # fresh networks in evaluation mode have gradients among the denormals, where a CPU is several times slower
        torch.set_flush_denormal(True)
        _ = self.device  # refuse a missing device now, not in the middle of the work

    # -- device and precision ------------------------------------------------------------------------------------

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.device_name) if self.fabric is None else self.fabric.device

    @property
    def accelerated(self) -> bool:
        """True if the device is an accelerator, that is, not the CPU."""
        return accelerated(self.device)

    @cached_property
    def numerics(self) -> Numerics:
        return choose_numerics(self.device)

    def put(self, x: Tensor) -> Tensor:
        """Move a tensor to the run's device; pictures get its memory layout."""
        if x.ndim == 4 and x.is_floating_point():
            return x.to(self.device, memory_format=self.numerics.layout, non_blocking=True)
        return x.to(self.device, non_blocking=True)

    @property
    def exact_device(self) -> torch.device:
        """The device for float64 work: the run's device, or the CPU if the device has no float64 (MPS)."""
        return exact_device(self.device)

    def exact(self, x: Tensor) -> Tensor:
        """Move a tensor to the device for float64 work."""
        return x.to(self.exact_device, non_blocking=self.exact_device == self.device)

    def place(self, net: nn.Module) -> Any:
        """A network moved to the run's device and memory layout, with the run's precision set for its trunk."""
        net.autocast = self.autocast  # pyright: ignore[reportArgumentType]
        net = net.to(self.device)
        if getattr(net, "plain", False):  # code of a user, which may call `view` where `reshape` is needed
            return net
        return net.to(memory_format=self.numerics.layout)  # pyright: ignore[reportCallIssue]

    def autocast(self) -> torch.autocast:
        """Lower the precision of trunks if the hardware allows it. Features, losses and deltas stay float32."""
        on = self.numerics.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on)

    def threads_for(self, *nets: nn.Module) -> AbstractContextManager[None]:
        """Inside the block, no more threads than pay off for steps of these networks."""
        if self.accelerated:
            return nullcontext()
        return threads(threads_of(max(sum(p.numel() for p in net.parameters()) for net in nets)))

    def threads_side_by_side(self) -> AbstractContextManager[None]:
        """Inside the block, the threads of one of several victims, whether the others run now or later."""
        return nullcontext() if self.accelerated else threads(threads_side_by_side())

    def processes_for(self, jobs: int) -> int:
        """The number of worker processes for so many independent jobs."""
        if jobs < 2 or self.world > 1:
            return 1
        return max(min(self.workers or self._side_by_side, jobs), 1)

    @cached_property
    def _side_by_side(self) -> int:
        """Victims that free cores have room for. They are looked at once a run, because that takes half a second."""
        return 1 if self.accelerated else free_cores() // threads_side_by_side()

    @cached_property
    def machine(self) -> dict[str, str]:
        """Facts that make records comparable: versions, device, threads, precision and its reason."""
        return {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "device": f"{self.device.type} ({device_name(self.device)}, {torch.get_num_threads()} threads)",
            "precision": f"{self.numerics.precision}: {self.numerics.reason}",
            "threads": f"1 for networks below {SMALL:,} parameters, at most {threads_side_by_side()} for a victim",
            "processes": str(self.world),
        }

    # -- randomness ----------------------------------------------------------------------------------------------

    def entropy(self, *names: object) -> int:
        """A 63-bit number derived from the seed and the names."""
        text = json.dumps([self.seed, *map(str, names)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def rng(self, *names: object) -> torch.Generator:
        """A new CPU generator, the same on every machine for the same seed and names."""
        return torch.Generator().manual_seed(self.entropy(*names))

    @contextmanager
    def seeded(self, *names: object) -> Iterator[None]:
        """Seed torch's global generators from names inside the block. For layers that take no generator."""
        with global_draws(self.entropy(*names), self.device):
            yield

    def overflow(self, size: int, room: int | None = None) -> Path | None:
        """The folder for so many bytes; None if they fit into `room`, or that of deltas, or if no state is kept."""
        fits = self.keep is None or size <= (self.room if room is None else room)
        return None if fits else self.keep

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor without values on the CPU: in memory, or in a mapped file without a name where it does not fit."""
        folder = self.overflow(math.prod(shape) * dtype.itemsize, self.room_for_results)
        return torch.empty(shape, dtype=dtype) if folder is None else mapped(shape, dtype, folder)

    @cached_property
    def room(self) -> int:
        """Bytes of deltas that this process has in the memory of the device."""
        return self._third(self.device)

    @cached_property
    def room_for_results(self) -> int:
        """Bytes that this process has in the memory of the system, for what is finished."""
        return self._third(CPU)

    def _third(self, device: torch.device) -> int:
        return free_memory(device) // (3 * self.world) if self.memory is None else self.memory

    def reseeded(self, seed: int) -> Run:
        """A run on the same device with another seed. It saves no state."""
        return Run(seed, self.device_name, None, self.quiet, self.fabric, self.workers, self.report, self.memory)

    # -- several processes ---------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        return 0 if self.fabric is None else self.fabric.global_rank

    @property
    def world(self) -> int:
        return 1 if self.fabric is None else self.fabric.world_size

    def mine(self, n: int) -> Int[Tensor, "m"]:
        """The rows of this process for the whole run, drawn at random, because data sets often come sorted by class."""
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
        """The sum of a tensor over processes."""
        return table if self.world == 1 else self.fabric.all_reduce(table, reduce_op="sum")  # type: ignore[return-value]

    def gathered(self, value: T) -> list[T]:
        """A value of every process, in the order of their ranks."""
        values: list[Any] = [value]
        if self.world > 1:
            values = [None] * self.world
            torch.distributed.all_gather_object(values, value)
        return values

    def least(self, value: int) -> int:
        """The smallest value over processes."""
        return min(self.gathered(value))

    # -- saved state ---------------------------------------------------------------------------------------------

    def save(self, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Save tensors and facts under a name, atomically; does nothing if `keep` is None."""
        if self.keep is None:
            return
        flat = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        write_atomically(
            self.keep / f"{name}.safetensors", lambda part: save_file(flat, str(part), {"meta": json.dumps(meta)})
        )

    def load(self, name: str, **expected: object) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and facts saved under a name; None if there are none, or if they do not match `expected`.

        A damaged file gives a warning and None: all saved state can be computed again.
        """
        path = None if self.keep is None else self.keep / f"{name}.safetensors"
        if path is None or not path.exists():
            return None
        refuse_folder(path)
        try:
            with safe_open(str(path), "pt") as file:  # pyright: ignore[reportGeneralTypeIssues]
                meta = json.loads((file.metadata() or {}).get("meta", "{}"))
                if any(meta.get(k) != v for k, v in expected.items()):
                    log.info("%s belongs to other data or settings and is not used", path.name)
                    return None
                return {k: file.get_tensor(k) for k in file.keys()}, meta  # noqa: SIM118
        except (SafetensorError, ValueError) as error:
            log.warning("%s: damaged (%s) and not used; what it held is made again, or left out", path, error)
            return None

    def forget(self, networks: bool = True) -> None:
        """Remove the saved state; call it when the work is recorded. networks: False removes the deltas alone."""
        if self.keep is not None and self.keep.is_dir():
            for path in (*self.keep.glob("*.rows"), *(self.keep.glob("*.safetensors") if networks else ())):
                path.unlink()
            with suppress(OSError):  # the folder holds other files
                self.keep.rmdir()

    # -- progress ------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Write a note to standard error, once for all processes; does nothing if the run is quiet."""
        if not (self.quiet or self.rank):
            write_note(text)

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """Show a bar with the time left on a terminal, else a line from time to time. Yields tick(note="", by=1)."""
        if self.report is not None:
            yield Share(self.report, total, done).tick
        elif self.quiet or self.rank:
            yield lambda note="", by=1: None
        elif sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            left = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
            with Progress(*columns, *left, console=Console(stderr=True)) as bar:
                task = bar.add_task(text, total=total, completed=done, note="")
                yield lambda note="", by=1: bar.update(task, advance=by, **({"note": note} if note else {}))
        else:
            yield Lines(text, total, done).tick
