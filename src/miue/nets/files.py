"""Networks in users' files, "path/to/file.py:Net": plain modules that turn pictures in [0, 1] into logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.spelling import UserFile, split
from miue.nets.base import Classifier
from miue.nets.facts import NetFacts

CALL = "classes", "image_shape"


class FileName(str):
    """The name of a network in a user's file. Its repr, which is part of identities, includes a digest of the code."""

    source: UserFile

    def __repr__(self) -> str:
        return f"{super().__repr__()} of {self.source.code}"


def named(text: str) -> str:
    """The name of a network. For a network in a user's file, load the file and return a FileName with its code.

    Raises UserError if the file is missing or does not load, or if the name is not in it.
    """
    if ".py" not in text or isinstance(text, FileName) or ".py:" not in (place := split(text)[0]):
        return text
    name = FileName(text)
    name.source = UserFile.read(place.partition(":")[0], "net")
    _object(name)
    return name


def code(name: object) -> str:
    """Digest of the file of a network, 16 hexadecimal digits; empty if the network is in no user's file."""
    return name.source.code if isinstance(name, FileName) else ""


def facts_of(name: FileName) -> NetFacts:
    """The attribute `facts` of a user's network; the defaults if there is none. Raises UserError for another type."""
    own = getattr(_object(name), "facts", NetFacts())
    if not isinstance(own, NetFacts):
        raise UserError(f"net {name}: its `facts` are {type(own).__name__}; give miue.NetFacts(optimizer=..., lr=...)")
    return own


def from_file(name: FileName, shape: tuple[int, int, int], classes: int) -> Classifier:
    """Build a user's network and split it into a trunk and its last, linear layer.

    Raises UserError if it breaks the contract in docs/adding.md.
    """
    maker, options = _object(name), _options(name)
    given: dict[str, Any] = {"classes": classes, "image_shape": shape, **options}
    try:
        net = maker(**given)
    except UserError:
        raise
    except Exception as error:  # code of a user may raise anything
        raise UserError(f"net {name} cannot be made: {name.source.explain(error)}") from error
    if isinstance(net, Classifier):
        return net
    if not isinstance(net, nn.Module):
        raise UserError(f"net {name} gives {_article(net)}, not a torch.nn.Module")
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    training = {module: module.training for module in net.modules()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            parts = _parted(name, net.eval(), x, classes)
        finally:
            for module, mode in training.items():
                module.training = mode
    return parts


def _object(name: FileName) -> Callable[..., Any]:
    """The class or function with this name. Raises UserError if there is none or it has another signature."""
    attribute, module = split(name)[0].partition(":")[2], name.source.load()
    names = [n for n, value in vars(module).items() if _makes(value) and value.__module__ == module.__name__]
    content = f"in it are: {', '.join(names)}" if names else "in it is neither a class nor a function"
    if not attribute:
        raise UserError(f"net {name}: write {name.source.name}:NAME; {content}")
    if not hasattr(module, attribute):
        raise UserError(f"net {name}: there is no {attribute!r} in the file; {content}")
    value = getattr(module, attribute)
    if not callable(value) or isinstance(value, nn.Module):
        raise UserError(f"net {name}: {attribute} is {_article(value)}, not a class or function that makes a network")
    signature = inspect.signature(value)
    given = dict.fromkeys(CALL)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise UserError(
            f"net {name} is called as {attribute}(classes=10, image_shape=(3, 32, 32)), and it is "
            f"{attribute}{signature}: {error}; give other parameters a default"
        ) from None
    return value


def _makes(value: object) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def options(name: str, allowed: Collection[str], least: int = 0) -> dict[str, int]:
    """The options in a spelling such as "small-resnet:width=16". Raises UserError unless all are known and whole."""
    _, words, given = split(name)
    if words or set(given) - set(allowed) or not all(v.isdecimal() and int(v) >= least for v in given.values()):
        usage = " and ".join(f"{option}=<whole number>" for option in allowed)
        raise UserError(f"net {str(name)!r}: its options are {usage or 'none at all'}")
    return {option: int(value) for option, value in given.items()}


def _options(name: FileName) -> dict[str, int]:
    parameters = inspect.signature(_object(name)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return options(name, split(name)[2])
    return options(name, [parameter.name for parameter in parameters if parameter.name not in CALL])


def _article(value: object) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


class _Seen:
    """Record of one pass through a network: its linear layers and children, in the order of calls."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        self.linear: list[tuple[nn.Linear, Any, Tensor]] = []
        self.children: dict[str, Any] = {}
        hooks = [module.register_forward_hook(self._note) for module in net.modules()]
        hooks += [child.register_forward_hook(self._child(name)) for name, child in net.named_children()]
        try:
            self.output: Any = net(x)
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear):
            # a copy, because later in-place changes would seem to be outputs of this layer
            self.linear.append((module, inputs[0] if inputs else None, output.clone()))

    def _child(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            self.children[name] = output

        return note


def _parted(name: FileName, net: nn.Module, x: Tensor, classes: int) -> Classifier:
    """Split a network into trunk and head. The head is the linear layer whose output is that of the network."""
    size = f"{x.shape[2]} x {x.shape[3]}"
    try:
        seen = _Seen(net, x)
    except Exception as error:
        raise UserError(
            f"net {name} cannot be used with pictures of {size} pixels: {name.source.explain(error)}"
        ) from error
    wanted = f"2 pictures of {classes} classes must give logits of shape (2, {classes})"
    if not isinstance(seen.output, Tensor):
        raise UserError(f"net {name} gives {_article(seen.output)}; {wanted}")
    if seen.output.shape != (2, classes):
        raise UserError(f"net {name} gives {tuple(seen.output.shape)}; {wanted}")
    if not seen.output.isfinite().all():
        raise UserError(f"net {name} gives logits that are not finite")
    head, features, output = seen.linear[-1] if seen.linear else (None, None, None)
    if head is None or output is None or not torch.equal(output, seen.output):
        raise UserError(
            f"net {name} does not end in a torch.nn.Linear whose outputs are its logits (no softmax after it): "
            "what goes into that layer are the features"
        )
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise UserError(f"net {name}: what goes into its last layer is not one vector a picture")
    paths = [path for path, module in net.named_modules() if module is head]
    if not paths[0]:
        raise UserError(f"net {name} is a single torch.nn.Linear; put it into a module with a Flatten before it")
    net.set_submodule(paths[0], nn.Identity())
    points = _points(name, net, seen, head)
    try:
        same = torch.equal(net(x), features)
    except Exception as error:
        raise UserError(
            f"net {name}: without its last layer, {paths[0]}, it does not give features: {name.source.explain(error)}"
        ) from error
    if not same:
        raise UserError(
            f"net {name}: without its last layer, {paths[0]}, it gives other values than those that went into it; "
            "that layer must be called once, at the end, and the network must give the same twice"
        )
    return Classifier(net, head, points, plain=True)


def _points(name: FileName, net: nn.Module, seen: _Seen, head: nn.Linear) -> Sequence[str]:
    """Names of the modules whose outputs are the features by depth.

    They are the attribute `points`, else the children with weights, in the order of calls.
    """
    own = getattr(net, "points", None)
    if own is not None:
        modules = dict(net.named_modules())
        if isinstance(own, str) or not all(point in modules for point in own):
            raise UserError(f"net {name}: points={own!r} are no names of its modules, as in ('stage1', 'stage2')")
        return list(own)
    children = dict(net.named_children())
    return [
        child
        for child, output in seen.children.items()
        if isinstance(output, Tensor) and output.ndim in (2, 3, 4) and len(output) == 2
        if children[child] is not head and next(children[child].parameters(), None) is not None
    ]
