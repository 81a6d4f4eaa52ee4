"""Networks by name. Under 64 px residual networks get the CIFAR stem, transformers patches of an eighth of a side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from miue.nets.base import Classifier
from miue.nets.small import small_cnn, small_resnet
from miue.spec import split
from miue.types import UserError

SMALL: dict[str, Callable[..., Classifier]] = {"small-cnn": small_cnn, "small-resnet": small_resnet}
ALIASES = {"vit-tiny": "vit_tiny_patch16_224", "vit-small": "vit_small_patch16_224"}
CIFAR_STEM_BELOW = 64


def known() -> list[str]:
    """The names that have a short spelling; every other name is looked up in timm."""
    return [*SMALL, "resnet18", "resnet50", *ALIASES]


def build(name: str, shape: tuple[int, int, int], classes: int) -> Classifier:
    """A network with random weights for pictures of `shape` = (channels, height, width).

    name: "small-cnn", "small-resnet" (with ":width=16", say), "vit-tiny", or any timm model. Nothing is downloaded.
    Weights come from torch's global generator: call inside `run.seeded(...)`.
    """
    short, _, options = split(name)
    if short in SMALL:
        try:
            return SMALL[short](shape[0], classes, **{k: int(v) for k, v in options.items()})
        except (TypeError, ValueError):
            raise UserError(f"net {name!r}: the one option is width=<whole number>") from None
    return _from_timm(ALIASES.get(short, short), shape, classes)


class _TimmTrunk(nn.Module):
    """A timm model up to its penultimate features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        features = self.model.forward_features(x)  # pyright: ignore[reportCallIssue]
        return self.model.forward_head(features, pre_logits=True)  # pyright: ignore[reportCallIssue]


def _from_timm(name: str, shape: tuple[int, int, int], classes: int) -> Classifier:
    import timm  # here: it takes seconds to import and small nets do not need it

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise UserError(
            f"net {name!r} is unknown; allowed: {', '.join(known())}, or a timm model {close or ''}".rstrip()
        )
    channels, height, width = shape
    side = max(height, width)
    sized = name.startswith(("vit_", "deit", "cait", "eva"))
    extra = {"img_size": (height, width), "patch_size": max(side // 8, 1)} if sized and side < 224 else {}
    model: Any = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **extra)
    if side < CIFAR_STEM_BELOW and isinstance(getattr(model, "conv1", None), nn.Conv2d) and hasattr(model, "maxpool"):
        model.conv1 = nn.Conv2d(channels, model.conv1.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    head = model.get_classifier()
    points = [f"model.{info['module']}" for info in getattr(model, "feature_info", []) or []]
    model.reset_classifier(0)
    return Classifier(_TimmTrunk(model), head, points)
