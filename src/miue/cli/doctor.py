"""Checks of this machine: packages, devices, picture codecs, free space."""

from __future__ import annotations

import importlib
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel

from miue.core.errors import UserError

PACKAGES = ("miue", "torch", "torchvision", "lightning-fabric", "timm", "numpy", "pillow", "pyarrow")
TRIED = {"torch": "torch", "numpy": "numpy", "pillow": "PIL", "pyarrow": "pyarrow"}
"""Packages that everything needs, and their modules. torchvision and Lightning have checks of their own."""


class Check(BaseModel):
    """Result of one check."""

    what: str
    found: str
    ok: bool = True


class Report(BaseModel):
    """Results of all checks."""

    checks: list[Check]


def examine() -> list[Check]:
    """Run all checks: versions, torchvision's fit, every device, picture codecs, free space."""
    return [*_versions(), _torchvision(), _fabric(), *_devices(), *_codecs(), _space()]


def _versions() -> list[Check]:
    checks = []
    for name in PACKAGES:
        try:
            number = version(name)
        except PackageNotFoundError:
            checks.append(Check(what=name, found="not installed; install miue again", ok=False))
            continue
        why = _fails(TRIED[name]) if name in TRIED else ""
        text = f"{number} cannot be imported ({why}); pip install --force-reinstall {name}" if why else number
        checks.append(Check(what=name, found=text, ok=not why))
    return checks


def _fails(module: str) -> str:
    """Return why a module cannot be imported; '' if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # incompatible packages raise nearly any error
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _torchvision() -> Check:
    """Check that torchvision fits torch: a CUDA torchvision beside a +cpu torch fails where it registers operators."""
    mend = "install both from one index: pip install --force-reinstall torch torchvision"
    return _imported("torch and torchvision", "torchvision", "fit together", "do not fit together", mend)


def _fabric() -> Check:
    """Check that Lightning Fabric works, which starts several processes."""
    mend = "pip install --force-reinstall lightning-fabric"
    return _imported("several processes", "lightning_fabric", "can be started", "cannot be started", mend)


def _imported(what: str, module: str, good: str, bad: str, mend: str) -> Check:
    if why := _fails(module):
        return Check(what=what, found=f"{bad} ({why}); {mend}", ok=False)
    return Check(what=what, found=f"{good} ({getattr(sys.modules[module], '__version__', 'no version')})")


def _devices() -> list[Check]:
    if why := _fails("miue.core.run"):
        return [Check(what="devices", found=f"cannot be looked at ({why})", ok=False)]
    from miue.core.device import DEVICES  # imported here: without torch the other checks still work
    from miue.core.run import Run

    checks = []
    for name in DEVICES:
        try:
            run = Run(device_name=name)
            checks.append(Check(what=f"device {name}", found=f"{run.machine['device']}, {run.machine['precision']}"))
        except UserError:
            checks.append(Check(what=f"device {name}", found="not here"))
    return checks


def _codecs() -> list[Check]:
    if why := _fails("PIL.features"):
        return [Check(what="pictures", found=f"cannot be read ({why})", ok=False)]
    from PIL import features

    checks = []
    for key, label in (("jpg", "JPEG"), ("zlib", "PNG"), ("webp", "WebP")):
        here = bool(features.check(key))
        checks.append(Check(what=label, found="readable" if here else "missing from this Pillow", ok=here))
    for what, can, package, extra in (
        ("HEIC", "readable", "pillow-heif", "heif"),
        ("content credentials", "usable", "c2pa-python", "c2pa"),
    ):
        try:
            checks.append(Check(what=what, found=f"{can} ({package} {version(package)})"))
        except PackageNotFoundError:
            checks.append(Check(what=what, found=f'not {can}; pip install "miue[{extra}]" adds it'))
    return checks


def _space() -> Check:
    return Check(what="free space here", found=f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB")
