"""The facts that torchrun or SLURM tells a process that it started. This module imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """The facts that torchrun or SLURM tells a process that it started."""

    rank: int
    """Number of the process over all machines."""
    local: int
    """Number of the process on its machine."""
    world: int
    """Processes over all machines."""
    machines: int


def started() -> Started | None:
    """The facts about the other processes, from the launcher of this one; None if the process is the only one."""
    get = os.environ.get
    if get("TORCHELASTIC_RUN_ID") and int(get("WORLD_SIZE", "1")) > 1:
        rank, local, world = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        return Started(rank, local, world, world // int(os.environ["LOCAL_WORLD_SIZE"]))
    if int(get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # set by srun alone: a batch script itself is one process
        rank, local, world = (
            int(os.environ[name]) for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS")
        )
        return Started(rank, local, world, int(get("SLURM_STEP_NUM_NODES", "1")))
    return None
