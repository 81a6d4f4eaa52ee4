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
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from miue.core.errors import UserError
from miue.core.files import file_digest
from miue.core.method import Facts

T = TypeVar("T")
_PLACES: dict[type, str] = {}  # spelling of the classes in users' files
_OWN: set[type] = set()  # those of them whose repr includes the digest of their code


def split(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Split "name:word,key=value" into (name, [word], {key: value}). For a Python file the name is "a.py:Class"."""
    name, _, rest = text.partition(":")
    if name.endswith(".py"):
        attribute, _, rest = rest.partition(":")
        name = f"{name}:{attribute}"
    words = [w.strip() for w in rest.split(",") if w.strip()]
    fields = dict(w.split("=", 1) for w in words if "=" in w)
    return name, [w for w in words if "=" not in w], fields


def parse(text: str, known: Mapping[str, type[T]], kind: str) -> T:
    """Build a method from its spelling. Presets are a class attribute `presets`: Mapping[str, dict of field values].

    Raises UserError, with the allowed values, if the spelling is not understood.
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
    """A copy of a method with fields replaced by values given as text. The text is read by the type of the field."""
    return dataclasses.replace(method, **_values(type(method), given, name))  # type: ignore[type-var]


def _values(cls: type, given: Mapping[str, str], name: str) -> dict[str, Any]:
    """Field values converted from text to the types of the fields."""
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
    """The name of a class: "file.py:Class" for a user's, else the name in its own facts, not a base class's."""
    own = vars(cls).get("facts")
    return _PLACES.get(cls) or (own.name if isinstance(own, Facts) else cls.__name__)


def _value(what: str, text: str, hint: Any) -> Any:
    """Convert text to the type of a field: bool, int, float, str, a Literal, or one of these or None."""
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        matches = [a for a in allowed if str(a) == text]
        if not matches:
            raise UserError(f"{what}={text} is not allowed; choose from {', '.join(map(str, allowed))}")
        return matches[0]
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
    """Unpickle a user's method in a process that has not loaded its file yet."""
    cls = _from_file(place, kind)
    _PLACES[cls] = name
    return cls(**given)


def _from_file(name: str, kind: str) -> type:
    """Load the class of a user's method: "path/to/file.py:Class"."""
    file, _, attribute = name.partition(":")
    source = UserFile.read(file, kind)
    cls = getattr(source.load(), attribute, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise UserError(f"{file} has no dataclass {attribute!r}; a method is a frozen dataclass with one call")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UserError(f"{file}: {attribute} lacks {' and '.join(missing)}, which its base class asks for")
    if cls.__module__ == source.module and cls not in _OWN:
        # results are stored under the repr of a method, and another file may have a class of the same name
        plain = cls.__repr__
        cls.__repr__ = lambda self: f"{plain(self)} of {source.code}"
        cls.__reduce__ = lambda self: (_again, (f"{source.path}:{attribute}", name, kind, _given(self)))
        _OWN.add(cls)
    if not cls.__module__.startswith("miue."):  # a class of miue that the file imports keeps its name
        _PLACES[cls] = name
    return cls


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A Python file of the user. Different content means a different module."""

    name: str
    """The path as the user wrote it."""
    path: Path
    code: str
    """Digest of the content, 16 hexadecimal digits."""

    @classmethod
    def read(cls, name: str, kind: str) -> UserFile:
        """Read the path and digest of a file. Raises UserError if there is none. kind: word for the message."""
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
        """Execute the file, once in each process, without advancing torch's global generator.

        Raises UserError if the file does not load, or if its content has changed since it was read.
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
        except (Exception, SystemExit) as error:  # a script may exit because it misses arguments
            del sys.modules[self.module]
            raise UserError(f"{self.name} does not load: {self.explain(error)}") from error
        return module

    def explain(self, error: BaseException) -> str:
        """One-line text of an error, with the last line of this file in its traceback."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        text = " ".join(str(error).split())
        summary = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return f"{summary} (line {lines[-1]})" if lines else summary


class _Loader(importlib.machinery.SourceFileLoader):
    """Loader that executes exactly the digested bytes. It uses no bytecode, which could be of an older version."""

    def __init__(self, module: str, path: str, content: bytes) -> None:
        super().__init__(module, path)
        self.content = content

    def get_data(self, path: str) -> bytes:
        return self.content

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError  # without a date Python neither reads nor writes bytecode


def as_words(options: Mapping[str, Any]) -> list[str]:
    """Options of the command line: a value each, or a flag for True; several for a list, none for what is not set."""
    result: list[str] = []
    for name, value in options.items():
        for each in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            result += [f"--{name}"] if each is True else [f"--{name}", str(each)] if each else []
    return result
