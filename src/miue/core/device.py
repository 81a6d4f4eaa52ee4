"""Devices and their numerics. The only file that names a device."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from miue.core.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
CPU = torch.device("cpu")
SMALL = 1_000_000  # parameters: below it a second thread costs more than it brings as soon as anything else runs
SHARED = 8  # cores of the machine for each thread of a victim, of which several run side by side
_ELSEWHERE = 4 * 2**30  # bytes that count as free where the system does not tell
SAMPLE = 0.4  # seconds for which other processes are watched, to see which cores are free


@dataclass(frozen=True)
class Numerics:
    """Precision and memory layout on one device."""

    precision: str
    """"bf16-mixed" or "32-true": the precision of autocast inside networks."""
    layout: torch.memory_format
    """Memory layout of pictures and convolutions."""
    reason: str
    """Why this precision was chosen, for records."""


def choose_numerics(device: torch.device) -> Numerics:
    """Return bf16 if the hardware multiplies it natively (emulated it is many times slower), else float32."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Numerics("bf16-mixed", torch.channels_last, "this GPU multiplies bf16 natively")
        return Numerics("32-true", torch.channels_last, "this GPU has no native bf16")
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile")):
            return Numerics("bf16-mixed", torch.channels_last, "this processor multiplies bf16 natively")
        return Numerics("32-true", torch.channels_last, "this processor has no native bf16")
    return Numerics("32-true", torch.contiguous_format, f"{device.type}: float32 is the tested path")


def choose_device(name: str) -> torch.device:
    """Return the device with this name; "auto" is CUDA, else MPS, else the CPU.

    Raises UserError if this machine has no such device.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, usable in present.items() if usable)
    if not present[name]:
        available = [kind for kind, usable in present.items() if usable]
        raise UserError(f"device {name!r} cannot be used here; allowed on this machine: auto, {', '.join(available)}")
    return CPU if name == "cpu" else torch.device(name, 0)


def accelerated(device: torch.device) -> bool:
    """True if a device is an accelerator, that is, not the CPU."""
    return device.type != "cpu"


def exact_device(device: torch.device) -> torch.device:
    """The device for float64 work: the device itself, or the CPU if the device has no float64 (MPS)."""
    return CPU if device.type == "mps" else device


def device_name(device: torch.device) -> str:
    """The product name of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


@contextmanager
def threads(most: int) -> Iterator[None]:
    """Compute with at most so many threads inside the block, and never with more than outside of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(min(most, before), 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_of(parameters: int) -> int:
    """The most threads that pay off for a network with so many parameters: one if it is small, else all.

    A fixed rule and no trial: sums in floating point depend on the number of threads, so the same seed would give
    another result where a trial ends otherwise.
    """
    return 1 if parameters < SMALL else torch.get_num_threads()


def threads_side_by_side() -> int:
    """The threads of one of several victims: one, and more on machines with many cores, however many run at once."""
    return max(torch.get_num_threads() // SHARED, 1)


def free_cores() -> int:
    """The cores of this machine that no other process keeps busy now, at least 1. Takes half a second to look."""
    cores = _allowed_cores()
    if (before := _idle_and_all()) is None:
        return cores
    time.sleep(SAMPLE)
    idle, whole = (after - first for after, first in zip(_idle_and_all() or before, before, strict=True))
    return max(int(cores * idle / max(whole, 1) + 0.5), 1)


def byte_count(text: str) -> int:
    """Bytes from a text such as "2GB", "500 MB" or "1000000". Raises UserError if it is not understood."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{text!r} is no size of memory; write 2GB, 500MB or a number of bytes")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def free_memory(device: torch.device) -> int:
    """Bytes that are free for deltas: on an accelerator of its own memory, else of what the system can give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        text = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
        free = int(text.split(maxsplit=1)[0]) * 1024
    except (OSError, IndexError, ValueError):
        return _ELSEWHERE
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return free


def _allowed_cores() -> int:
    """Cores that this process may use: its affinity, or less where a container has a quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(min(cores, int(quota) // int(period)), 1)
    except (OSError, ValueError):  # no such group, or "max"
        return cores


def _idle_and_all() -> tuple[int, int] | None:
    """Ticks of all cores since the start of the machine: idle ones, and all; None where that is not told."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return ticks[3] + ticks[4], sum(ticks)


@contextmanager
def global_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them afterwards.

    For libraries that take no generator.
    """
    devices, kind = ([device], device.type) if accelerated(device) else ([], "cuda")
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.manual_seed(seed)
        yield


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def connection_lost(error: RuntimeError) -> bool:
    """True if processes that share the work cannot reach each other any more: the libraries have no common type."""
    return isinstance(error, torch.distributed.DistError) or any(name in str(error) for name in ("gloo", "NCCL"))
