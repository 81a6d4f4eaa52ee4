"""Networks by name: (shape, classes) -> a module with `embed`, `head` and `stages`. Our own, and timm's
behind one adapter."""

from miue.nets.adapter import build, known, tried
from miue.nets.adapter import known as list_networks
from miue.nets.base import Classifier, counted

__all__ = ["Classifier", "build", "counted", "known", "list_networks", "tried"]
