"""Networks by name: (shape, classes) -> a module with `embed`, `head` and `stages`.

They are our own, timm's behind one adapter, and those in users' files. `facts` tells how each is trained.
"""

from miue.nets.adapter import build, facts, list_networks, tried
from miue.nets.base import Classifier, counted, weight
from miue.nets.facts import NetFacts
from miue.nets.files import code, named
from miue.nets.frozen import frozen

__all__ = [
    "Classifier",
    "NetFacts",
    "build",
    "code",
    "counted",
    "facts",
    "frozen",
    "list_networks",
    "named",
    "tried",
    "weight",
]
