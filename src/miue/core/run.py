"""Run: device, precision, processes, random generators, kept state and progress. The only file that names a device."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from miue.core.device import (
    DEVICES,
    Numerics,
    accelerated,
    choose_device,
    choose_numerics,
    device_name,
    exact_device,
    global_draws,
)
from miue.core.errors import UserError, refuse_folder
from miue.core.files import write_atomically
from miue.core.progress import Lines, write_note

log = logging.getLogger("miue")


@dataclass
class Run:
    """Where and how something is computed. One object serves a whole command; methods get it as an argument.

    seed: every generator is derived from it and from names, so a draw added somewhere shifts nothing elsewhere.
    keep: folder for checkpoints; None keeps nothing. quiet: neither progress nor notes. fabric: Lightning's, where
    `launch` started several processes; one process needs none.
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
        return accelerated(self.device)

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
        return exact_device(self.device)

    def exact(self, x: Tensor) -> Tensor:
        """To where float64 is computed."""
        return x.to(self.exact_device, non_blocking=self.exact_device == self.device)

    def place(self, net: nn.Module) -> Any:
        """A network on the run's device, convolutions in its memory layout, its trunk in the run's precision."""
        net.autocast = self.autocast  # pyright: ignore[reportArgumentType]
        net = net.to(self.device)
        if getattr(net, "plain", False):  # somebody's code, which may say `view` where `reshape` is needed
            return net
        return net.to(memory_format=self.numerics.layout)  # pyright: ignore[reportCallIssue]

    def autocast(self) -> torch.autocast:
        """Lower precision inside trunks where the hardware has it. Features, losses and deltas stay float32."""
        on = self.numerics.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on)

    @cached_property
    def machine(self) -> dict[str, str]:
        """What a record needs in order to be compared: versions, device, threads, precision and its reason."""
        return {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "device": f"{self.device.type} ({device_name(self.device)}, {torch.get_num_threads()} threads)",
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
        """What was kept under a name; None where nothing was, where it is damaged or of other data or settings.

        A damaged file is told and then like none: all that is kept can be made again.
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

    def forget(self) -> None:
        """Remove what was kept: the work it belongs to is recorded."""
        if self.keep is not None and self.keep.is_dir():
            for path in self.keep.glob("*.safetensors"):
                path.unlink()
            with suppress(OSError):  # something else lies there
                self.keep.rmdir()

    # -- progress ------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Tell people something on standard error, once for all processes; nothing where the run is quiet."""
        if not (self.quiet or self.rank):
            write_note(text)

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
            yield Lines(text, total, done).tick
