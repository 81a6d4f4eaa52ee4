"""A look at this machine: what does not fit together, and what is there."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from PIL import features
from pydantic import BaseModel

from miue.run import DEVICES, Run
from miue.types import UserError


class Check(BaseModel):
    """One thing that was looked at."""

    what: str
    found: str
    ok: bool = True


class Report(BaseModel):
    """Everything that was looked at."""

    checks: list[Check]


def examine() -> list[Check]:
    """Versions, torchvision's fit, every device, picture codecs, free space."""
    return [*_versions(), _torchvision(), *_devices(), *_codecs(), _space()]


def _versions() -> list[Check]:
    checks = []
    for name in ("miue", "torch", "torchvision", "lightning-fabric", "timm", "numpy", "pillow", "pyarrow"):
        try:
            checks.append(Check(what=name, found=version(name)))
        except PackageNotFoundError:
            checks.append(Check(what=name, found="not installed; install miue again", ok=False))
    return checks


def _torchvision() -> Check:
    """A +cpu torch beside a CUDA torchvision fails where torchvision registers its operators."""
    try:
        import torchvision

        return Check(what="torch and torchvision", found=f"fit together ({torchvision.__version__})")
    except (ImportError, RuntimeError) as error:
        mend = "install both from one index: pip install --force-reinstall torch torchvision"
        return Check(what="torch and torchvision", found=f"do not fit together ({error}); {mend}", ok=False)


def _devices() -> list[Check]:
    checks = []
    for name in DEVICES:
        try:
            run = Run(device_name=name)
            checks.append(Check(what=f"device {name}", found=f"{run.machine['device']}, {run.machine['precision']}"))
        except UserError:
            checks.append(Check(what=f"device {name}", found="not here"))
    return checks


def _codecs() -> list[Check]:
    checks = []
    for key, label in (("jpg", "JPEG"), ("zlib", "PNG"), ("webp", "WebP")):
        here = bool(features.check(key))
        checks.append(Check(what=label, found="readable" if here else "missing from this Pillow", ok=here))
    try:
        return [*checks, Check(what="HEIC", found=f"readable (pillow-heif {version('pillow-heif')})")]
    except PackageNotFoundError:
        return [*checks, Check(what="HEIC", found='not readable; pip install "miue[heif]" adds it')]


def _space() -> Check:
    return Check(what="free space here", found=f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB")
