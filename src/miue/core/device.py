"""Devices and their numerics. The only file that names a device."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from miue.core.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


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


def accelerated(device: torch.device) -> bool:
    """Whether a device is not the processor."""
    return device.type != "cpu"


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed: the device itself, or main memory beside one that has none (MPS)."""
    return torch.device("cpu") if device.type == "mps" else device


def device_name(device: torch.device) -> str:
    """What a device is called by its maker."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


@contextmanager
def global_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them after: for libraries that take no generator."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
