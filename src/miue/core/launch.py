"""Several processes that share one task: spawned here, or started on several machines by torchrun or SLURM."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from miue.core.device import accelerated, connection_lost
from miue.core.errors import ToldElsewhere, UserError, of_process
from miue.core.launcher import started
from miue.core.run import Run

S = TypeVar("S", bound="Storable")
T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # with a machine that neither answers nor closes its connection
AGAIN = "start the same command again on all machines: it goes on after the last finished epoch"


@contextmanager
def joined(run: Run) -> Iterator[Run]:
    """The run as one of the processes that torchrun or SLURM started, or as it is if there are no others.

    Raises UserError where another process ends or cannot be reached any more.
    """
    place = started()
    if place is None or run.fabric is not None:
        yield run
        return
    here = place.world // place.machines
    fabric = _fabric(run.device_name, here, place.machines)
    if not accelerated(fabric.device):
        torch.set_num_threads(max(torch.get_num_threads() // here, 1))
    try:
        fabric.launch()
        yield replace(run, fabric=fabric)
        fabric.barrier()
    except RuntimeError as error:
        if not connection_lost(error):
            raise
        kind = ToldElsewhere if place.local else UserError
        reason = str(error).strip().splitlines()[0]
        raise kind(f"another process of this run has ended or cannot be reached ({reason}); {AGAIN}") from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def together(run: Run, action: Callable[[], T]) -> T:
    """The result of an action that every process takes. If it fails in one, it fails in all, with one message.

    Raises UserError in the first process and ToldElsewhere in the others.
    """
    if run.world == 1:
        return action()
    problem, result = "", None
    try:
        result = action()
    except (UserError, OSError) as error:
        problem = str(error)
    pairs = run.gathered((platform.node(), problem))
    if not any(why for _, why in pairs):
        return result  # pyright: ignore[reportReturnType]
    if len({why for _, why in pairs}) > 1:
        problem = "; ".join(dict.fromkeys(f"on {host}: {why}" for host, why in pairs if why))
    raise _shared(run, problem)


def _shared(run: Run, problem: str) -> UserError:
    """The error of this process for a problem that all of them have: the first one prints it."""
    return (ToldElsewhere if run.rank else UserError)(problem)


def first(run: Run, action: Callable[[], T]) -> T | None:
    """The result of an action that the first process alone takes, there; the others wait for it."""
    return together(run, lambda: None if run.rank else action())


def same(run: Run, what: str, value: str) -> None:
    """Raise UserError, in all processes, unless they have the same value."""
    pairs = run.gathered((platform.node(), value))
    if len({seen for _, seen in pairs}) > 1:
        each = ", ".join(dict.fromkeys(f"{seen} on {host}" for host, seen in pairs))
        text = f"the machines do not see the same {what} ({each}); give all of them the same folders"
        raise _shared(run, text)


def _fabric(device: str, processes: int, machines: int | None = None) -> Any:
    """Processes that are spawned here, or, with a number of machines, have been started there."""
    import lightning_fabric as lightning  # here: it takes more than a second to import, and one process needs none
    from lightning_fabric.strategies.ddp import DDPStrategy

    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        strategy: Any = "ddp_spawn" if machines is None else DDPStrategy(timeout=PATIENCE)
        return lightning.Fabric(accelerator=device, devices=processes, strategy=strategy, num_nodes=machines or 1)
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
    """Call task(run) in several processes at once and return the result of rank 0; in one that is joined, call it.

    Each process has one GPU, or they are CPU processes with gloo.
    """
    if processes == 1 or run.fabric is not None:
        return task(run)
    fabric = _fabric(run.device_name, processes)
    if run.keep is not None:
        run.keep.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=run.keep) as folder:
        path = Path(folder) / "result"
        try:
            work = _Task(task, run.seed, run.device_name, run.keep, run.quiet, path, run.memory)
            return fabric.launch(work).load(path)
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
    memory: int | None

    def __call__(self, fabric: Any) -> type[Any]:
        if not accelerated(fabric.device):  # processes on one machine share its cores
            torch.set_num_threads(max(torch.get_num_threads() // fabric.world_size, 1))
        run = Run(self.seed, self.device_name, self.keep, self.quiet, fabric, memory=self.memory)
        result = self.task(run)
        if run.rank == 0:
            result.save(self.result)
        # A process that ends while gloo's threads still wait for its peers is aborted (pytorch/pytorch#190489).
        fabric.barrier()
        torch.distributed.destroy_process_group()
        return type(result)
