"""Networks that only look on while something else is optimised against them."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def frozen(net: Any) -> Any:
    """A copy in evaluation mode that does not learn: the same function up to rounding, and faster.

    Batch norms become a part of the convolutions before them where both are neighbours in an `nn.Sequential`, because
    there the order of modules is that of the computation.
    """
    copy = deepcopy(net).eval().requires_grad_(False)
    for part in [module for module in copy.modules() if type(module) is nn.Sequential]:
        for (name, first), (after, norm) in pairwise(list(part.named_children())):
            if type(first) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
                continue
            if not (_heard(first) or _heard(norm)):
                part.add_module(name, fuse_conv_bn_eval(first, norm))
                part.add_module(after, nn.Identity())
    return copy


def _heard(module: nn.Module) -> bool:
    """True if something listens to what goes into a module or comes out of it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
