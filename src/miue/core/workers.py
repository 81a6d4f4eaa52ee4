"""Independent jobs, side by side in worker processes or one after another, with the same results."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.multiprocessing import get_context

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet

log = logging.getLogger("miue")
J = TypeVar("J")
R = TypeVar("R")
Sets = Mapping[Any, ImageSet]
Task = Callable[[Sets, J, Run], R]
SHARED_MEMORY = Path("/dev/shm")  # of Linux; elsewhere its size is not told


def _ignored(place: int, result: object) -> None: ...


def side_by_side(
    task: Task[J, R],
    sets: Sets,
    jobs: Mapping[str, J],
    run: Run,
    text: str = "victims",
    ended: Callable[[int, R], None] = _ignored,
) -> list[R]:
    """Return task(sets, job, run) of every job, in the order of the jobs.

    With more than one worker, jobs run in processes of their own, and all of them share the pictures of `sets`. What
    ends first is told first. The processes end with this call, also where it is interrupted or killed.

    jobs: by the names that are shown. task: a function of a module, with arguments and a result that can be pickled.
    ended(place, result): called as results come. Raises what the first failing job raised, and UserError if a worker
    process dies; the other jobs are stopped then.
    """
    workers = _workers(sets, len(jobs), run)
    if workers > 1:
        return _Pool(task, sets, jobs, run, workers).results(text, ended)
    results = []
    for place, job in enumerate(jobs.values()):
        results.append(task(sets, job, run))
        ended(place, results[-1])
    return results


def _workers(sets: Sets, jobs: int, run: Run) -> int:
    """The number of worker processes; 1 where shared memory cannot hold the pictures."""
    workers = run.processes_for(jobs)
    if workers > 1 and SHARED_MEMORY.is_dir():
        needed = sum(part.images.nbytes for part in sets.values() if not part.images.is_shared())
        free = shutil.disk_usage(SHARED_MEMORY).free
        if needed > free:
            run.say(
                f"one after another: {SHARED_MEMORY} has {free / 1e6:.0f} MB free, and workers share "
                f"{needed / 1e6:.0f} MB of pictures there (docker run --shm-size makes it larger)"
            )
            return 1
    return workers


class _Pool:
    """Worker processes for one call of `side_by_side`."""

    def __init__(self, task: Task[Any, Any], sets: Sets, jobs: Mapping[str, Any], run: Run, workers: int) -> None:
        self.task, self.jobs, self.run = task, jobs, run
        self.shares = torch.zeros(len(jobs)).share_memory_()
        context = get_context("spawn")  # a fork would inherit locks of torch's threads
        self.end, self.leash = context.Pipe(duplex=False)
        memory = run.memory if run.memory is not None else run.room // workers
        start = _Start(sets, self.shares, run.device_name, run.keep, memory, torch.get_num_threads(), self.end)
        self.pool = ProcessPoolExecutor(workers, context, _begin, (start,))

    def results(self, text: str, ended: Callable[[int, Any], None]) -> list[Any]:
        results: dict[int, Any] = {}
        try:
            with self.run.progress(text, len(self.jobs)) as tick:
                with _interrupts_for_this_process():
                    waiting = {
                        self.pool.submit(_work, self.task, place, job, self.run.seed): place
                        for place, job in enumerate(self.jobs.values())
                    }
                while waiting:
                    first, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                    for future in first:
                        place = waiting.pop(future)
                        results[place] = future.result()
                        ended(place, results[place])
                        tick()
                    tick(self._running(waiting.values()), by=0)
            self.pool.shutdown()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died: killed, or out of memory, or started by a script without "
                '`if __name__ == "__main__":`. What was finished is kept, and the same command goes on there; fewer '
                "--workers take less memory"
            ) from None
        finally:  # workers end when they see the end of the leash, as they do when this process is killed
            self.leash.close()
            self.pool.shutdown(cancel_futures=True)
            self.end.close()
        return [results[place] for place in range(len(self.jobs))]

    def _running(self, places: Any) -> str:
        """Names of the running jobs, each with the share of it that is done."""
        names, shares = list(self.jobs), self.shares.tolist()
        return "; ".join(f"{names[place]}: {shares[place]:.0%}" for place in places if 0 < shares[place] < 1) or " "


@contextmanager
def _interrupts_for_this_process() -> Iterator[None]:
    """Hold back SIGINT inside the block: processes that start in it never get the Ctrl-C of a terminal."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker ---


@dataclass(frozen=True)
class _Start:
    """Arguments of a worker."""

    sets: Sets
    shares: Float[Tensor, "j"]
    device: str
    keep: Path | None
    memory: int
    threads: int
    end: Connection


_start: _Start  # of this worker


def _begin(start: _Start) -> None:
    global _start
    _start = start
    torch.set_num_threads(start.threads)  # as in the first process, so that the same rule gives the same number
    threading.Thread(target=_end_with_the_first_process, args=(start.end,), daemon=True).start()


def _end_with_the_first_process(end: Connection) -> None:
    """End at once when the first process drops the leash or is gone. Locks are released; what is saved stays."""
    end.poll(None)
    os._exit(1)


def _work(task: Task[Any, R], place: int, job: Any, seed: int) -> R:
    def report(share: float) -> None:
        _start.shares[place] = share

    return task(_start.sets, job, Run(seed, _start.device, _start.keep, True, report=report, memory=_start.memory))
