"""Networks by name.

Below 64 pixels convolutional networks get the CIFAR stem; below 224, transformers get patches of an eighth of a side.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.spelling import split
from miue.nets.base import Classifier, weight
from miue.nets.facts import ADAMW, PLAIN, USUAL, WHITENED, NetFacts, of_timm
from miue.nets.files import FileName, code, facts_of, from_file, named, options
from miue.nets.plain import lenet5, linear, three_layers, two_layers
from miue.nets.small import small_cnn, small_resnet
from miue.nets.speedrun import speedrun
from miue.nets.wide import wide_resnet


def small_vit(shape: tuple[int, int, int], classes: int, width: int = 64, depth: int = 4) -> Classifier:
    """A small vision transformer for a few thousand pictures on a CPU: 64 tokens, one head for each 32 of its width.

    Raises UserError if the width is no multiple of 32.
    """
    if width < 32 or width % 32:
        raise UserError(f"net small-vit: width={width} is no multiple of 32")
    sizes = {"embed_dim": width, "depth": depth, "num_heads": width // 32}
    return _from_timm(ALIASES["vit-tiny"], shape, classes, True, **sizes)


class Ours(NamedTuple):
    """A network of miue and its training facts."""

    build: Callable[..., Classifier]
    """(shape, classes, **options) -> network."""
    facts: NetFacts = USUAL


OURS: Mapping[str, Ours] = {
    "small-cnn": Ours(small_cnn),
    "small-resnet": Ours(small_resnet),
    "speedrun": Ours(speedrun, WHITENED),
    "linear": Ours(linear, PLAIN),
    "mlp2": Ours(two_layers, PLAIN),
    "mlp3": Ours(three_layers, PLAIN),
    "lenet5": Ours(lenet5, PLAIN),
    "wrn": Ours(wide_resnet),
    "small-vit": Ours(small_vit, ADAMW),
}
SHORT = {"wrn-28-10": "wrn:depth=28,width=10", "wrn-34-10": "wrn:depth=34,width=10"}
ALIASES = {
    "vgg11": "vgg11_bn",
    "vgg19": "vgg19_bn",
    "mobilenetv2": "mobilenetv2_100",
    "vit-tiny": "vit_tiny_patch16_224",
    "vit-small": "vit_small_patch16_224",
    "cait": "cait_xxs24_224",
    "swin": "swin_tiny_patch4_window7_224",
}
CIFAR_STEM_BELOW = 64
# beginnings of the names of timm's families that need the size of the pictures: plain transformers, whose patches are
# chosen by size, and others
PATCHED = "vit_", "deit", "cait", "eva", "beit", "convit", "flexivit", "aimv2"
SIZED = "maxvit", "maxxvit", "coatnet", "coatnext", "pit_", "gcvit", "hiera_"


def list_networks() -> list[str]:
    """The names known here. Every other name is looked up in timm."""
    return [*OURS, *SHORT, "resnet18", "resnet50", "densenet121", *ALIASES]


def facts(name: str) -> NetFacts:
    """The training facts of a network, by any name that `build` takes. Raises UserError if its file does not load."""
    name = named(name)
    if isinstance(name, FileName):
        return facts_of(name)
    short = split(SHORT.get(name, name))[0]
    return OURS[short].facts if short in OURS else of_timm(ALIASES.get(short, short))


def build(name: str, shape: tuple[int, int, int], classes: int, *, small: bool = True) -> Classifier:
    """Build a network with random weights for pictures of `shape` = (channels, height, width).

    name: "small-cnn", "small-resnet" (with ":width=16", say), "vit-tiny", any timm model, or "path/to/file.py:Net".
    small: whether timm's convolutional networks get the CIFAR stem for small pictures. Nothing is downloaded. Weights
    come from torch's global generator: call inside `run.seeded(...)`.
    """
    name = named(name)
    if isinstance(name, FileName):
        return from_file(name, shape, classes)
    text = SHORT.get(name, name)
    short = split(text)[0]
    if short in OURS:
        make = OURS[short].build
        return make(shape, classes, **options(text, list(inspect.signature(make).parameters)[2:], 1))
    options(text, ())
    return _from_timm(ALIASES.get(short, short), shape, classes, small)


def tried(name: str, shape: tuple[int, int, int], classes: int) -> int:
    """Build a network once and return the bytes of its weights.

    Raises UserError if it cannot be built, or cannot take pictures of this shape.
    """
    name = named(name)
    return _tried(name, code(name), shape, classes)


@cache
def _tried(name: str, code: str, shape: tuple[int, int, int], classes: int) -> int:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            net = build(name, shape, classes)
            for training in (True, False):
                logits = net.train(training)(torch.zeros(2, *shape))
                assert logits.shape == (2, classes), f"{tuple(logits.shape)} for 2 pictures of {classes} classes"
            assert next(net.parameters(), None) is not None, "it has no weights"
        except UserError:
            raise
        except Exception as error:  # networks raise many types for a size that they do not fit
            size, why = f"{shape[1]} x {shape[2]}", str(error) or type(error).__name__
            raise UserError(
                f"net {str(name)!r} cannot be used with pictures of {size} pixels ({why}); give another one"
            ) from None
    return weight(net)


class _TimmTrunk(nn.Module):
    """A timm model without its last layer: pictures to penultimate features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        features = self.model.forward_features(x)  # pyright: ignore[reportCallIssue]
        return self.model.forward_head(features, pre_logits=True)  # pyright: ignore[reportCallIssue]


def _from_timm(name: str, shape: tuple[int, int, int], classes: int, small: bool = True, **sizes: int) -> Classifier:
    import timm  # here, because the import takes seconds and small nets do not need it

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise UserError(
            f"net {name!r} is unknown; allowed: {', '.join(list_networks())}, or a timm model {close or ''}".rstrip()
        )
    channels, height, width = shape
    side = max(height, width)
    extra: dict[str, Any] = sizes | _sizes(name, height, width)
    model: Any = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **extra)
    head = model.get_classifier()
    if isinstance(head, tuple):  # a distilled network, whose second head is for its teacher
        head = head[0]
    if small and side < CIFAR_STEM_BELOW:
        _keep_small(model, channels)
        if name.startswith("vgg"):
            head = nn.Linear(model.feature_info[-1]["num_chs"], classes)
    points = [f"model.{info['module']}" for info in getattr(model, "feature_info", []) or []]
    model.reset_classifier(0)
    return Classifier(_TimmTrunk(model), head, points, (1, 2) if name.startswith("swin") else (2, 3))


def _sizes(name: str, height: int, width: int) -> dict[str, Any]:
    """Size arguments of timm models: below 224 pixels they give 64 tokens, or 256 if tokens are merged by depth."""
    side = max(height, width)
    if name.startswith(SIZED):
        return {"img_size": (height, width)}
    if not name.startswith((*PATCHED, "swin")):
        return {}
    if side >= 224:  # keep the patches of the model
        return {"img_size": (height, width)}
    if name.startswith("swin"):  # four stages, each half of the one before: 16 x 16 tokens in windows of 4 x 4
        return {"img_size": (height, width), "patch_size": max(side // 16, 1), "window_size": 4}
    return {"img_size": (height, width), "patch_size": max(side // 8, 1)}


def _keep_small(model: Any, channels: int) -> None:
    """Change a convolutional network, in place, for small pictures: 3 x 3 stem at stride 1, no pooling after it."""

    def stem(old: nn.Conv2d) -> nn.Conv2d:
        new = nn.Conv2d(channels, old.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        return new

    if isinstance(getattr(model, "conv1", None), nn.Conv2d) and hasattr(model, "maxpool"):  # resnets
        model.conv1, model.maxpool = stem(model.conv1), nn.Identity()
    elif hasattr(getattr(model, "features", None), "pool0"):  # densenets
        model.features.conv0, model.features.pool0 = stem(model.features.conv0), nn.Identity()
    elif isinstance(getattr(model, "conv_stem", None), nn.Conv2d):  # mobile and efficient nets have a 3 x 3 stem
        model.conv_stem.stride = (1, 1)
    elif hasattr(model, "pre_logits") and hasattr(model, "features"):  # vgg: two layers of 4096 for 7 x 7 positions
        model.pre_logits = nn.Identity()
