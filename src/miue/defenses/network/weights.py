"""Weights from elsewhere: a network that was trained before on other pictures, fine-tuned or with a new head only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import file_digest
from miue.core.method import Facts
from miue.core.run import Run
from miue.training.batches import Batches

WRAPPING = re.compile(r"^(?:net\.|module\.|model\.|trunk\.)+")  # prefixes that packages add to the names of tensors


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Start from the weights in a file, head excepted; with probe=true only a new head is trained on their features.

    file: `.safetensors`, or a state dict saved by PyTorch, of the victim's own architecture, as miue or timm name its
    tensors. Nothing is downloaded, and nothing is unpickled but tensors. Pictures reach the network as (x - 0.5) /
    0.25, which is nearly ImageNet's mean and deviation; weights that expect another contrast (timm's "augreg"
    transformers: 0.5 / 0.5) start worse than they could.
    """

    file: str
    probe: bool = False
    content: str = field(init=False, default="")
    """Digest of the file: other weights under the same name are another defense."""

    slot: ClassVar[Literal["start"]] = "start"
    facts: ClassVar[Facts] = Facts(
        name="weights", reference="fine-tuning and linear probing; on unlearnable pictures: BAIT, arXiv 2603.04731"
    )

    def __post_init__(self) -> None:
        if not Path(self.file).is_file():
            raise UserError(f"weights: the file {self.file!r} does not exist; give weights:file=PATH")
        object.__setattr__(self, "content", file_digest(Path(self.file)))

    def __call__(self, net: Any, train: Batches, run: Run) -> None:
        self.check(net)

    def check(self, net: Any) -> None:
        """Load the weights into a network. Raises UserError if they belong to another one."""
        stored, own = (
            {WRAPPING.sub("", name): value for name, value in read_weights(Path(self.file)).items()},
            net.trunk.state_dict(),
        )
        names = {name: WRAPPING.sub("", name) for name in own}
        if missing := [
            n for n, short in names.items() if short not in stored and not n.endswith("num_batches_tracked")
        ]:
            raise UserError(
                f"{self.file}: {len(missing)} of {len(own)} tensors of the victim are not in it, the first is "
                f"{names[missing[0]]!r}; it must hold the same architecture"
            )
        for name, short in names.items():
            if short in stored and stored[short].shape != own[name].shape:
                raise UserError(
                    f"{self.file}: {short!r} is {tuple(stored[short].shape)} there and {tuple(own[name].shape)} in the "
                    "victim; below 64 pixels networks have another stem than their published weights"
                )
        net.trunk.load_state_dict({name: stored.get(short, own[name]) for name, short in names.items()})


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file by name: safetensors, or a state dict that PyTorch saved. Nothing else is unpickled.

    Raises UserError if the file cannot be read or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location=lambda storage, _: storage, weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} holds no weights that can be read: {why}") from None
    except Exception as error:  # errors of pickle have no common base class
        raise UserError(f"{path} holds more than tensors, and is not opened: {type(error).__name__}") from None
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content, dict) and isinstance(content.get(key), dict) else content
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(f"{path} holds no state dict, that is, tensors by name")
    return tensors
