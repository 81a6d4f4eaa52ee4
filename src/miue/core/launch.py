"""Run the same task in several processes at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from miue.core.device import accelerated
from miue.core.errors import UserError, of_process
from miue.core.run import Run

S = TypeVar("S", bound="Storable")


def _fabric(device: str, processes: int) -> Any:
    import lightning_fabric as lightning  # here: it takes more than a second to import, and one process needs none

    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    try:
        return lightning.Fabric(accelerator=device, devices=processes, strategy="ddp_spawn")
    except Exception as error:  # Fabric raises several types, all for a missing device
        raise UserError(
            f"device {device!r} cannot be used here; several processes take --device cpu or cuda: {error}"
        ) from None


@runtime_checkable
class Storable(Protocol):
    """A result that can be sent between processes through a file: any size is possible and nothing is unpickled."""

    def save(self, path: Path) -> None: ...
    @classmethod
    def load(cls, path: Path) -> Any: ...


def launch(task: Callable[[Run], S], run: Run, processes: int) -> S:
    """Call task(run) in several processes at once and return the result of rank 0.

    Each process has one GPU, or they are CPU processes with gloo.
    """
    if processes == 1:
        return task(run)
    fabric = _fabric(run.device_name, processes)
    if run.keep is not None:
        run.keep.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=run.keep) as folder:
        path = Path(folder) / "result"
        try:
            return fabric.launch(_Task(task, run.seed, run.device_name, run.keep, run.quiet, path)).load(path)
        except ProcessRaisedException as error:
            raise of_process(str(error)) or error from None


@dataclass
class _Task:
    """The settings from which a spawned process rebuilds its Run."""

    task: Callable[[Run], Storable]
    seed: int
    device_name: str
    keep: Path | None
    quiet: bool
    result: Path

    def __call__(self, fabric: Any) -> type[Any]:
        if not accelerated(fabric.device):  # processes on one machine share its cores
            torch.set_num_threads(max(torch.get_num_threads() // fabric.world_size, 1))
        run = Run(self.seed, self.device_name, self.keep, self.quiet, fabric)
        result = self.task(run)
        if run.rank == 0:
            result.save(self.result)
        # A process that ends while gloo's threads still wait for its peers is aborted (pytorch/pytorch#190489).
        fabric.barrier()
        torch.distributed.destroy_process_group()
        return type(result)
