"""Training facts of networks: those of our own networks, and one rule for the families of timm."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from miue.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class NetFacts:
    """Training settings of a network as a victim, for recipes that were written for another network.

    Raises UserError if a rate or a decay is out of range.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """"adamw" replaces SGD with the three numbers below; a recipe that has AdamW already keeps its own."""
    lr: float | None = None
    """Learning rate with AdamW; with "sgd" the largest rate that does not diverge. None: that of the recipe."""
    weight_decay: float | None = None
    """Weight decay with AdamW. None: that of the recipe."""
    warmup: float = 0.0
    """Smallest share of all steps with a rising rate, with AdamW."""
    normalised: bool = True
    """True if it has layers that normalise features (batch norm, layer norm). Without them a rate of 0.1 diverges."""
    reference: str = ""
    """Where the numbers come from."""

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise UserError(f"NetFacts: optimizer={self.optimizer!r} is unknown; allowed: sgd, adamw")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise UserError(f"NetFacts: lr={self.lr:g} is no positive rate")
        if self.optimizer == "adamw" and self.lr is None:
            raise UserError('NetFacts: optimizer="adamw" needs a rate, 1e-3 for instance; that of SGD is far too high')
        if self.weight_decay is not None and not 0 <= self.weight_decay < float("inf"):
            raise UserError(f"NetFacts: weight_decay={self.weight_decay:g} is negative, or no number")
        if not 0 <= self.warmup < 1:
            raise UserError(f"NetFacts: warmup={self.warmup:g} is no share from 0 to below 1")

    @property
    def rate(self) -> str:
        """The learning rate in words."""
        if self.lr is None:
            return "the recipe's"
        return f"{self.lr:g}" if self.optimizer == "adamw" else f"at most {self.lr:g}"


USUAL = NetFacts(reference="SGD as the recipe has it: the field's usual victim")
WHITENED = NetFacts(reference="the recipe `speedrun`, after airbench (Jordan, arXiv 2404.00498)")
PLAIN = NetFacts(lr=0.01, normalised=False, reference="UDP's rate for simple networks (AAAI 2024); VGG's own")
ADAMW = NetFacts(
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.05,
    warmup=0.1,
    reference="AdamW, as DeiT (arXiv 2012.12877), Swin (2103.14030), ConvNeXt (2201.03545) and those after them",
)
WITH_ADAMW = (
    "aimv2",
    "beit",
    "caformer",
    "cait",
    "coat",
    "convformer",
    "convit",
    "convmixer",
    "convnext",
    "cpubone",
    "crossvit",
    "csatv2",
    "davit",
    "deepseek_vit",
    "deit",
    "edgenext",
    "efficientformer",
    "efficientvim",
    "efficientvit",
    "eva",
    "fastvit",
    "flexivit",
    "focalnet",
    "gcvit",
    "gemma4_vit",
    "gmixer",
    "gmlp",
    "hiera",
    "iformer",
    "inception_next",
    "levit",
    "lowformer",
    "mambaout",
    "maxvit",
    "maxxvit",
    "mixer",
    "mobilenetv5",
    "mobilevit",
    "mvitv2",
    "naflexvit",
    "nest",
    "nextvit",
    "pit",
    "poolformer",
    "pvt_v2",
    "qwen3_vit",
    "rdnet",
    "resmlp",
    "sam2",
    "samvit",
    "sequencer2d",
    "shvit",
    "swiftformer",
    "swin",
    "tiny_vit",
    "tnt",
    "twins",
    "visformer",
    "vit",
    "volo",
    "xcit",
)
"""Beginnings of timm's names of networks with attention, mixed tokens, or layer norm instead of batch norm."""
PLAIN_ONES = r"vgg\d+$"
"""timm's networks without any normalisation: VGG without "_bn"."""


def of_timm(name: str) -> NetFacts:
    """Facts of a timm model by its full name. All members of a family have the same facts."""
    family = name.removeprefix("test_")  # timm's tiny models for tests
    if family.startswith(WITH_ADAMW):
        return ADAMW
    return PLAIN if re.match(PLAIN_ONES, family) else USUAL
