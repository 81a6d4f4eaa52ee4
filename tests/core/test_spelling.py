"""The one spelling of a method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miue.attacks import MIUE, Noise, attack
from miue.core.errors import UserError
from miue.core.method import Facts, by_name
from miue.core.spelling import parse, spell, split
from miue.data.quality import Size
from miue.victims.recipes import RECIPES, recipe


@dataclass(frozen=True, kw_only=True)
class Every:
    """A field of every type."""

    number: int = 1
    share: float = 0.5
    on: bool = False
    word: str = "a"
    one: Literal["x", "y", 3] = "x"
    maybe: int | None = None
    rest: tuple[int, ...] = ()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"big": {"number": 100, "word": "b"}, "on": {"on": True}}


THINGS: Mapping[str, type[Any]] = {"every": Every, "noise": Noise}


def thing(text: str) -> Any:
    return parse(text, THINGS, "thing")


def test_a_text_in_three_parts():
    assert split("mi-ue:paper,tau=0.2") == ("mi-ue", ["paper"], {"tau": "0.2"})
    assert split("noise") == ("noise", [], {})
    assert split("a/b.py:Theirs:x=1,fast") == ("a/b.py:Theirs", ["fast"], {"x": "1"})
    assert split("mi-ue:surrogate=small-cnn:width=4, cells=8") == (
        *("mi-ue", []),
        {"surrogate": "small-cnn:width=4", "cells": "8"},
    )


def test_fields_are_read_by_their_types():
    assert thing("every") == Every()
    made = thing("every:number=-3,share=1e-2,on=yes,word=b c,one=3,maybe=4")
    assert made == Every(number=-3, share=0.01, on=True, word="b c", one=3, maybe=4)
    assert type(made.share) is float and type(made.one) is int
    assert thing("every:maybe=None").maybe is None
    for text, value in (("true", True), ("True", True), ("1", True), ("no", False), ("0", False)):
        assert thing(f"every:on={text}").on is value


def test_presets_come_first_and_fields_win():
    assert thing("every:big") == Every(number=100, word="b")
    assert thing("every:number=7,big") == thing("every:big,number=7") == Every(number=7, word="b")
    assert thing("every:big,on") == Every(number=100, word="b", on=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("evry", r"thing 'evry' is unknown; allowed: every, noise, or path/to/file\.py:Class"),
        ("", "is unknown; allowed: every, noise"),
        ("every:huge", "'huge' is neither a preset nor field=value; its presets are big, on"),
        ("noise:huge", "it has no presets"),
        ("every:nmber=1", "no field 'nmber'; its fields are number, share, on, word, one, maybe, rest"),
        ("every:presets=1", "no field 'presets'"),
        ("every:number=1.5", "number=1.5 is not a int"),
        ("every:number=", "number= is not a int"),
        ("every:share=half", "share=half is not a finite number"),
        ("every:on=maybe", "on=maybe is not a bool"),
        ("every:one=z", "one=z is not allowed; choose from x, y, 3"),
        ("every:maybe=x", "maybe=x is not a int"),
        ("every:rest=1", "cannot be given as text"),
    ],
)
def test_refusals_name_what_is_allowed(text: str, told: str):
    with pytest.raises(UserError, match=told):
        thing(text)


# --- somebody else's file ---

PLUGIN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Theirs:
    strength: int = 2

class Plain:
    pass
"""


def test_a_method_from_a_file(tmp_path: Path):
    (tmp_path / "theirs.py").write_text(PLUGIN)
    name = f"{tmp_path}/theirs.py:Theirs"
    assert thing(name).strength == 2
    made = thing(f"{name}:strength=5")
    assert made.strength == 5 and spell(made) == f"{name}:strength=5"
    assert thing(spell(made)) == made


def test_a_class_of_ours_that_a_file_imports_keeps_its_name(tmp_path: Path):
    file = tmp_path / "theirs.py"
    file.write_text("from miue.attacks import Noise\n")
    assert spell(thing(f"{file}:Noise")) == "noise" and spell(Noise(per="class")) == "noise:per=class"


def test_the_place_of_a_class_is_its_name_whatever_its_facts_say(tmp_path: Path):
    file = tmp_path / "theirs.py"
    body = PLUGIN.replace("    strength", "    facts = Facts(name='noise')\n    strength")
    file.write_text(f"from miue import Facts\n{body}")
    assert spell(thing(f"{file}:Theirs")) == f"{file}:Theirs"


@dataclass(frozen=True)
class Nameless:
    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Louder(Noise):
    """Inherits the facts of another method."""


def test_a_class_without_facts_of_its_own_is_named_by_itself():
    assert spell(Nameless(2)) == "Nameless:size=2" and spell(Louder(per="class")) == "Louder:per=class"


def test_names_are_those_of_the_facts_and_no_two_are_the_same():
    @dataclass(frozen=True)
    class Other:
        facts: ClassVar[Facts] = Facts(name="noise")

    assert by_name(Noise) == {"noise": Noise}
    with pytest.raises(ValueError, match="two methods of one name: Noise, Other"):
        by_name(Noise, Other)


@pytest.mark.parametrize(
    ("content", "cls", "told"),
    [
        (None, "Theirs", "thing file .* does not exist"),
        ("def:", "Theirs", "does not load: SyntaxError"),
        ("1 / 0", "Theirs", "does not load: ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name", "Theirs", "does not load: ModuleNotFoundError"),
        (PLUGIN, "Other", "has no dataclass 'Other'"),
        (PLUGIN, "Plain", "has no dataclass 'Plain'"),
        (PLUGIN, "dataclass", "has no dataclass 'dataclass'"),
        (PLUGIN, "", "has no dataclass ''"),
    ],
)
def test_a_broken_file_is_the_users_mistake(tmp_path: Path, content: str | None, cls: str, told: str):
    if content is not None:
        (tmp_path / "broken.py").write_text(content)
    for _ in range(2):  # a failed import leaves nothing behind that would pass the second time
        with pytest.raises(UserError, match=told) as error:
            thing(f"{tmp_path}/broken.py:{cls}")
        assert str(tmp_path) in str(error.value)


# --- round trips ---

AUGMENT = st.sampled_from(["none", "flip", "flip-crop", "flip-first"])


@given(
    fields=st.fixed_dictionaries(
        {
            "tau": st.floats(1e-3, 10),
            "weight": st.floats(0.1, 10),
            "error": st.floats(0, 10, allow_subnormal=False),
            "zeta": st.floats(0, 10, allow_subnormal=False),
            "per_dimension": st.booleans(),
            "epochs": st.integers(1, 500),
            "per": st.sampled_from(["image", "class"]),
            "augment": AUGMENT,
            "surrogate": st.sampled_from(["resnet18", "small-cnn:width=4"]),
            "cells": st.integers(0, 64),
        }
    )
)
def test_what_is_spelled_is_parsed_to_the_same(fields: dict):
    method = MIUE(**fields)  # here and not in a strategy, which must not draw: checks of types do
    text = spell(method)
    assert attack(text) == method and spell(attack(text)) == text


def test_every_preset_is_spelled_by_its_fields():
    assert spell(attack("mi-ue")) == "mi-ue"
    for preset in MIUE.presets:
        method = attack(f"mi-ue:{preset}")
        assert attack(spell(method)) == method
    assert spell(attack("noise:per=class")) == "noise:per=class"


def test_recipes_are_spelled_the_same_way():
    made = recipe("papers:lr=0.5,epochs=200,nesterov=true,net=vit-tiny")
    assert (made.lr, made.epochs, made.nesterov, made.net) == (0.5, 200, True, "vit-tiny")
    assert made.batch == RECIPES["papers"].batch
    for text, told in (
        ("paper", "allowed: " + ", ".join(RECIPES)),
        ("papers:fast", "allowed: " + ", ".join(RECIPES)),
        ("papers:rate=1", "recipe papers has no field 'rate'; its fields are net, epochs"),
        ("papers:optimizer=adam", "choose from sgd, adamw"),
        ("papers:augment=crop", "augment=crop is not allowed; choose from none, flip, flip-crop, shift"),
        ("papers:loss=Smoothed", "set it in Python"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            recipe(text)
    assert all(r.source for r in RECIPES.values())


def test_methods_of_the_same_name_in_other_files_are_other_methods(tmp_path: Path):
    """Results are kept under what a method's repr says."""
    for name, extra in (("a", ""), ("b", "# other code")):
        (tmp_path / f"{name}.py").write_text(PLUGIN + extra)
    first, again, other = (thing(f"{tmp_path}/{name}.py:Theirs") for name in ("a", "a", "b"))
    assert repr(first) == repr(again) != repr(other)
    assert repr(first).startswith("Theirs(") and repr(first).count(" of ") == 1


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / "x.json").write_bytes(b"\xff")
    for path in (tmp_path / "x.json", tmp_path / "none.json"):
        with pytest.raises(UserError, match=rf"{path.name}: (is no record|cannot be read)"):
            Size.load(path)
