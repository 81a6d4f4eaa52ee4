"""Suspects whose weights lie in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from miue import nets
from miue.core.errors import UserError
from miue.core.run import Run
from miue.defenses.network.weights import WRAPPING, read_weights
from miue.trace.answers import Suspect


def suspect_of(net: Any, run: Run) -> Suspect:
    """A suspect from a network that takes float pictures in [0, 1]."""

    def suspect(pictures: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        with torch.no_grad():
            return net(run.put(pictures).float() / 255).float()

    return suspect


def network(path: Path, name: str, shape: tuple[int, int, int], classes: int, run: Run) -> nets.Classifier:
    """The network `name` with the weights of a file, safetensors or a state dict that `torch.save` wrote.

    Weights of a victim of miue, of the same network built by timm, or of a network in a user's file. The latter two see
    pictures in [0, 1] as they are. Raises UserError if the file and the network do not fit.
    """
    name, weights = nets.named(name), read_weights(path)
    nets.tried(name, shape, classes)

    def loaded(small: bool) -> Any:
        with run.seeded("suspect"):
            net = nets.build(name, shape, classes, small=small)
        return _loaded(path, name, net, weights, classes)

    try:
        net = loaded(True)
    except UserError as error:
        try:
            net = loaded(False)
        except UserError:
            raise error from None
    return net.to(run.device).eval()  # in float32: a suspect is asked as it is


def _loaded(path: Path, name: str, net: Any, weights: Mapping[str, Tensor], classes: int) -> Any:
    """A network with the weights of a file. Raises UserError if they do not fit."""
    own = net.state_dict()
    if set(weights) != set(own):
        weights = _renamed(path, name, weights, own)
        net.plain = True
    if unlike := [key for key, value in own.items() if weights[key].shape != value.shape]:
        raise UserError(
            f"{path}: {unlike[0]!r} is {tuple(weights[unlike[0]].shape)} there and {tuple(own[unlike[0]].shape)} in "
            f"{name} for {classes} classes; give a file.py:Net that builds the network that was trained"
        )
    net.load_state_dict(weights)
    return net


def _renamed(path: Path, name: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of a Classifier: what is not in its trunk belongs to its head."""
    short = {WRAPPING.sub("", key): value for key, value in weights.items()}
    names = {key: WRAPPING.sub("", key) for key in own}
    renamed = {key: short.pop(plain) for key, plain in names.items() if plain in short}
    for part in ("head.weight", "head.bias"):
        for key, value in short.items():
            if part in own and part not in renamed and key.endswith(part[4:]) and value.shape == own[part].shape:
                renamed[part] = value
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    renamed = {**counters, **renamed}
    if missing := sorted(set(own) - set(renamed)):
        raise UserError(
            f"{path}: {len(missing)} of the {len(own)} tensors of {name} are not in it, the first is "
            f"{names[missing[0]]!r}; give a file.py:Net that builds the network that was trained"
        )
    return renamed
