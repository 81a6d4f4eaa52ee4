"""The one spelling of a method: "name", "name:preset", "name:field=value,field=value", or "file.py:Class:...".

The same text works on the command line, in configuration files, in grids and in records.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from miue.core.errors import UserError
from miue.core.files import file_digest
from miue.core.method import Facts

T = TypeVar("T")
_PLACES: dict[type, str] = {}  # how classes of users' files are spelt
_OWN: set[type] = set()  # those of them whose repr says which code they are


def split(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Split "name:word,key=value" into (name, [word], {key: value}). A Python file keeps its class: "a.py:Theirs"."""
    name, _, rest = text.partition(":")
    if name.endswith(".py"):
        attribute, _, rest = rest.partition(":")
        name = f"{name}:{attribute}"
    words = [w.strip() for w in rest.split(",") if w.strip()]
    fields = dict(w.split("=", 1) for w in words if "=" in w)
    return name, [w for w in words if "=" not in w], fields


def parse(text: str, known: Mapping[str, type[T]], kind: str) -> T:
    """A method from its spelling. Presets are a class attribute `presets`: Mapping[str, dict of field values].

    Raises UserError that names what is allowed.
    """
    name, words, given = split(text)
    cls: Any = _from_file(name, kind) if ".py:" in name else known.get(name)
    if cls is None:
        raise UserError(f"{kind} {name!r} is unknown; allowed: {', '.join(sorted(known))}, or path/to/file.py:Class")
    presets: Mapping[str, Mapping[str, Any]] = getattr(cls, "presets", {})
    values: dict[str, Any] = {}
    for word in words:
        if word not in presets:
            allowed = f"its presets are {', '.join(presets)}" if presets else "it has no presets"
            raise UserError(f"{name}: {word!r} is neither a preset nor field=value; {allowed}")
        values |= presets[word]
    values |= _values(cls, given, name)
    missing = [f.name for f in dataclasses.fields(cls) if f.init and not _has_default(f) and f.name not in values]
    if missing:
        raise UserError(f"{name} needs {missing[0]}: {name}:{missing[0]}=...")
    return cls(**values)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def fill(method: T, given: Mapping[str, str], name: str) -> T:
    """The method with fields replaced by values given as text, read by the fields' types."""
    return dataclasses.replace(method, **_values(type(method), given, name))  # type: ignore[type-var]


def _values(cls: type, given: Mapping[str, str], name: str) -> dict[str, Any]:
    """The values of fields that are given as text."""
    hints, fields = get_type_hints(cls), [f.name for f in dataclasses.fields(cls) if f.init]
    if unknown := [field for field in given if field not in fields]:
        raise UserError(f"{name} has no field {unknown[0]!r}; its fields are {', '.join(fields)}")
    return {field: _value(f"{name}: {field}", value, hints[field]) for field, value in given.items()}


def spell(method: Any) -> str:
    """The spelling of a method: its name and every field that differs from the default."""
    name = _name(type(method))
    changed = [
        f"{f.name}={getattr(method, f.name)}"
        for f in dataclasses.fields(method)
        if f.init and getattr(method, f.name) != f.default
    ]
    return f"{name}:{','.join(changed)}" if changed else name


def _name(cls: type) -> str:
    """Where a user's class was found, "file.py:Class"; else the name in its own facts, not in those of a base class."""
    own = vars(cls).get("facts")
    return _PLACES.get(cls) or (own.name if isinstance(own, Facts) else cls.__name__)


def _value(what: str, text: str, hint: Any) -> Any:
    """Text to the type of a field: bool, int, float, str, a Literal, or any of these or None."""
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        found = [a for a in allowed if str(a) == text]
        if not found:
            raise UserError(f"{what}={text} is not allowed; choose from {', '.join(map(str, allowed))}")
        return found[0]
    options = [a for a in get_args(hint) if a is not NoneType] if get_origin(hint) in (Union, UnionType) else []
    if options and text == "None":
        return None
    kind = options[0] if options else hint
    if kind not in (bool, int, float, str):
        raise UserError(f"{what} cannot be given as text; set it in Python")
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if kind is float and not math.isfinite(float(text)):
            raise ValueError
        return kind(text)
    except (ValueError, KeyError):
        wanted = "finite number" if kind is float else kind.__name__
        raise UserError(f"{what}={text} is not a {wanted}") from None


def _given(method: Any) -> dict[str, Any]:
    return {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}


def _again(place: str, name: str, kind: str, given: dict[str, Any]) -> Any:
    """Somebody else's method in another process, which has not loaded its file yet."""
    cls = _from_file(place, kind)
    _PLACES[cls] = name
    return cls(**given)


def _from_file(name: str, kind: str) -> type:
    """Somebody else's method: "path/to/their_file.py:Theirs"."""
    file, _, attribute = name.partition(":")
    source = UserFile.read(file, kind)
    cls = getattr(source.load(), attribute, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise UserError(f"{file} has no dataclass {attribute!r}; a method is a frozen dataclass with one call")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UserError(f"{file}: {attribute} lacks {' and '.join(missing)}, which its base class asks for")
    if cls.__module__ == source.module and cls not in _OWN:
        # results are kept under what a method's repr says, and another file may have a class of the same name
        plain = cls.__repr__
        cls.__repr__ = lambda self: f"{plain(self)} of {source.code}"
        cls.__reduce__ = lambda self: (_again, (f"{source.path}:{attribute}", name, kind, _given(self)))
        _OWN.add(cls)
    if not cls.__module__.startswith("miue."):  # one of ours that the file imports keeps its name
        _PLACES[cls] = name
    return cls


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A Python file of the user's, by its content: another content is another module."""

    name: str
    """The path as the user wrote it."""
    path: Path
    code: str
    """Digest of the content, 16 hexadecimal digits."""

    @classmethod
    def read(cls, name: str, kind: str) -> UserFile:
        """Raises UserError where there is no such file. kind: what is looked for in it, for the message."""
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"{kind} file {name} does not exist")
        try:
            return cls(name, path.resolve(), file_digest(path))
        except OSError as error:
            raise UserError(f"{kind} file {name} cannot be read: {error.strerror}") from None

    @property
    def module(self) -> str:
        """The name of its module in this process."""
        return f"miue_file_{hashlib.sha256(str(self.path).encode()).hexdigest()[:12]}_{self.code}"

    def load(self) -> ModuleType:
        """Execute the file once a process, without moving torch's global generator.

        Raises UserError for a file that does not load, or whose content is another one by now.
        """
        if self.module in sys.modules:
            return sys.modules[self.module]
        content = self.path.read_bytes() if self.path.is_file() else b""
        if hashlib.sha256(content).hexdigest()[:16] != self.code:
            raise UserError(f"{self.name} was changed while it was in use; start again")
        loader = _Loader(self.module, str(self.path), content)
        spec = importlib.util.spec_from_loader(self.module, loader)
        assert spec is not None  # a loader was given
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.module] = module
        try:
            with torch.random.fork_rng(devices=[]):
                loader.exec_module(module)
        except (Exception, SystemExit) as error:  # a script may end itself, for want of arguments
            del sys.modules[self.module]
            raise UserError(f"{self.name} does not load: {self.explain(error)}") from error
        return module

    def explain(self, error: BaseException) -> str:
        """One line of an error, with the last line of this file that it came through."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        text = " ".join(str(error).split())
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return f"{told} (line {lines[-1]})" if lines else told


class _Loader(importlib.machinery.SourceFileLoader):
    """Executes the bytes that were digested. Keeps no bytecode, which could be that of an earlier edit."""

    def __init__(self, module: str, path: str, content: bytes) -> None:
        super().__init__(module, path)
        self.content = content

    def get_data(self, path: str) -> bytes:
        return self.content

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError  # no date: no bytecode is looked for, or written
