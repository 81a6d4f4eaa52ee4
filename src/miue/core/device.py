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
    return torch.device("cpu") if name == "cpu" else torch.device(name, 0)


def accelerated(device: torch.device) -> bool:
    """Whether a device is an accelerator, that is, not the CPU."""
    return device.type != "cpu"


def exact_device(device: torch.device) -> torch.device:
    """The device for float64 work: the device itself, or the CPU if the device has no float64 (MPS)."""
    return torch.device("cpu") if device.type == "mps" else device


def device_name(device: torch.device) -> str:
    """The product name of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


@contextmanager
def global_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them afterwards.

    For libraries that take no generator.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
