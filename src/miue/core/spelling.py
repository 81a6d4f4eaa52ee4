"""The one spelling of a method: "name", "name:preset", "name:field=value,field=value", or "file.py:Class:...".

The same text works on the command line, in configuration files, in grids and in records.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from miue.core.errors import UserError
from miue.core.files import file_digest

T = TypeVar("T")
_OWN: set[type] = set()  # classes of users' files whose repr says which code they are


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


def spell(method: Any, known: Mapping[str, type]) -> str:
    """The spelling of a method: its name and every field that differs from the default."""
    name = next((n for n, c in known.items() if c is type(method)), getattr(type(method), "spelling", ""))
    changed = [
        f"{f.name}={getattr(method, f.name)}"
        for f in dataclasses.fields(method)
        if f.init and getattr(method, f.name) != f.default
    ]
    return f"{name}:{','.join(changed)}" if changed else name


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
    cls.spelling = name  # type: ignore[attr-defined]
    return cls(**given)


def _from_file(name: str, kind: str) -> type:
    """Somebody else's method: "path/to/their_file.py:Theirs"."""
    file, _, attribute = name.partition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{kind} file {file} does not exist")
    module_name = f"miue_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    module = sys.modules.get(module_name)
    if module is None:
        found = importlib.util.spec_from_file_location(module_name, path)
        assert found is not None and found.loader is not None  # a .py file always has a loader
        module = importlib.util.module_from_spec(found)
        sys.modules[module_name] = module
        try:
            found.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise UserError(f"{file} does not load: {type(error).__name__}: {error}") from error
    cls = getattr(module, attribute, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise UserError(f"{file} has no dataclass {attribute!r}; a method is a frozen dataclass with one call")
    if cls.__module__ == module_name and cls not in _OWN:
        # results are kept under what a method's repr says, and another file may have a class of the same name
        plain, code = cls.__repr__, file_digest(path)
        cls.__repr__ = lambda self: f"{plain(self)} of {code}"
        cls.__reduce__ = lambda self: (_again, (f"{path.resolve()}:{attribute}", name, kind, _given(self)))
        _OWN.add(cls)
    cls.spelling = name  # type: ignore[attr-defined]
    return cls


def code_of(spelling: str, method: object) -> str:
    """Digest of the code of a method from a user's own file, or of what a method of ours reads; mostly empty."""
    file, own, _ = spelling.partition(".py:")
    return file_digest(Path(f"{file}.py")) if own else getattr(method, "content", "")
