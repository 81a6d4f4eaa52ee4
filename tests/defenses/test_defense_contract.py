"""The contract suite over every defense, the facts beside each, their spelling, and whether the suite finds sins."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch

from miue.core.errors import UserError
from miue.core.method import Facts, summary
from miue.core.spelling import spell
from miue.defenses import JPEG, KNOWN, SLOTS, Cutout, Gray, combination, defense
from miue.testing import check_defense
from miue.victims.recipe import CrossEntropy, Recipe, Smoothed
from miue.victims.recipes import recipe

GIVEN = ("tune", "weights", "inverse")  # they need a file: test_network.py, test_inverse.py
FAST = {
    "simclr": ":epochs=2,batch=6,width=4",
    "op": ":steps=2",
    "dvae": ":epochs=2,width=4,latent=4",
    "diffpure": ":epochs=2,width=8,batch=8,steps=3",
    "at": ":steps=2",
    "ueraser": ":views=2",
}


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in GIVEN])
def test_every_exported_defense(name: str):
    check_defense(defense(name + FAST.get(name, "")))


@pytest.mark.parametrize(
    "text",
    [
        "depth:bits=8",
        "blur:sigma=9",
        "chroma:blur=2",
        "staged:first=0.5,colour=false",
        "lowpass:share=0.01",
        "resize:share=0.01",
        "cutout:share=1",
        "mixup:alpha=0.2,p=0.5",
        "noise:sigma=100",
        "coin:reach=30",
        "randaugment:ops=1,magnitude=30,groups=1000",
        "plasma:p=1,shuffle=1",
        "at:eps=2,steps=1,step_size=4",
        "ueraser:mode=lite",
        "ueraser:mode=standard,views=2",
        "dvae:epochs=1,width=2,latent=1,batch=3",
        "diffpure:epochs=1,width=8,time=1,steps=1",
    ],
)
def test_configurations(text: str):
    check_defense(defense(text))


def test_the_plain_parts_of_a_recipe_keep_the_contract_too():
    check_defense(CrossEntropy())
    check_defense(Smoothed())
    check_defense(Recipe().augment[0])


@pytest.mark.parametrize("name", KNOWN)
def test_every_defense_has_its_facts(name: str):
    cls = KNOWN[name]
    own = vars(cls)["facts"]
    assert isinstance(own, Facts) and own.name == name and cls.slot in SLOTS and cls.__module__ != "miue.defenses"
    assert len(own.reference) > 10 and (own.year is None or str(own.year) in own.reference)
    assert not {"slot", "facts"} & {f.name for f in fields(cls)}  # facts, not hyper-parameters
    what = summary(cls)
    assert what.endswith((".", ";", ",")) and len(what) > 20 and "\n" not in what


# --- spelling and slots ---


def test_spelling_and_back():
    for text in ("jpeg:quality=30", "gray", "at:eps=4", "ueraser:mode=lite", "cutmix:alpha=0.5"):
        assert spell(defense(text)) == text
    assert combination("gray+jpeg:quality=30") == (Gray(), JPEG(quality=30))
    assert combination("noise:sigma=1e+1+gray") == (defense("noise:sigma=10"), Gray())


def test_a_plus_within_a_path_parts_nothing(tmp_path: Path):
    (tmp_path / "net+ema.pt").write_bytes(b"x")
    (first, second) = combination(f"weights:file={tmp_path / 'net+ema.pt'}+gray")
    assert first.file.endswith("net+ema.pt") and second == Gray()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jpg", "defense 'jpg' is unknown; allowed: at, blur"),
        ("gray+", "defense 'gray+' is unknown"),
        ("jpeg:q=3", "jpeg has no field 'q'; its fields are quality"),
        ("jpeg:quality=0", "quality=0 is not between 1 and 100"),
        ("depth:bits=9", "bits=9 is not between 1 and 8"),
        ("blur:sigma=0", "sigma=0 is not positive"),
        ("lowpass:share=1", "share=1 is not between"),
        ("staged:first=0", "first=0 is not above 0"),
        ("chroma:blur=-1", "blur=-1 is not 0"),
        ("resize:share=1", "share=1 is not between 0 and 1"),
        ("cutout:share=0", "share=0 is not above 0"),
        ("mixup:p=0", "p=0: alpha above 0"),
        ("cutmix:alpha=-1", "alpha=-1"),
        ("noise:sigma=-1", "sigma=-1 is not positive"),
        ("coin:reach=0", "reach=0 pixels is not positive"),
        ("randaugment:groups=0", "groups=0 is too small"),
        ("randaugment:magnitude=31", "magnitude=31 is not between 0 and 30"),
        ("plasma:p=2", "probabilities lie in 0 to 1"),
        ("op:steps=0", "all must be positive"),
        ("at:eps=0", "a budget of 0"),
        ("at:steps=0", "at least one step"),
        ("ueraser:views=1", "at least 2 views"),
        ("diffpure:time=1001", "time=1001"),
        ("diffpure:steps=101", "steps=101"),
        ("diffpure:width=12", "width=12"),
        ("diffpure:model=nowhere", "'nowhere' is no folder of a diffusion model"),
        ("diffpure:clean=nowhere", "nowhere: no such file or folder"),
        ("diffpure:clean=shapes,model=nowhere", "give a model, or pictures to train one on, or neither"),
        ("diffpure:split=train", "a split needs pictures"),
        ("ueraser:mode=huge", "choose from lite, standard, max"),
    ],
)
def test_refusals(text: str, told: str):
    with pytest.raises(UserError, match=re.escape(told)):
        combination(text)


def test_defenses_take_their_places_in_a_recipe():
    plain = recipe("quick")
    made = plain.defended(*combination("cutout+gray+at:eps=4+jpeg"))
    assert made.purify == combination("gray+jpeg") and made.augment == (*plain.augment, Cutout())
    assert made.loss == defense("at:eps=4")
    assert made.defense == "gray+jpeg+cutout+at:eps=4" and made.victim == f"{plain.net} + gray+jpeg+cutout+at:eps=4"
    assert plain.defended(*combination(made.defense)) == made
    assert plain.defended() == plain and plain.defense == "" and plain.victim == plain.net
    assert made.defended(Gray()).purify == (*made.purify, Gray())
    for again in (lambda: made.defended(defense("ueraser")), lambda: plain.defended(*combination("at+ueraser"))):
        with pytest.raises(UserError, match=r"Adversarial.* and UEraser.*a victim has one loss"):
            again()


def test_somebody_elses_defense(tmp_path: Path):
    file = tmp_path / "theirs.py"
    body = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass MINE:\n    k: int = 1\n    slot = {!r}\n"
    file.write_text(body.format("augment") + "    def __call__(self, x, y, generator):\n        return x, y\n")
    (made,) = combination(f"{file}:MINE:k=3")
    check_defense(made)
    assert recipe("quick").defended(made).defense == f"{file}:MINE:k=3"
    other = tmp_path / "other.py"
    other.write_text(body.format("elsewhere"))
    with pytest.raises(UserError, match="must be one of start, purify, augment, loss, finish"):
        defense(f"{other}:MINE")


def test_a_defense_without_facts_is_named_by_its_class():
    """Else its victims would stand in the same row as the plain ones."""
    assert recipe("quick").defended(sinner("purify", lambda x, y, run: x)).defense == "Sinner"


def test_kornia_is_asked_for_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("miue.defenses.augment.library.find_spec", lambda name: None)
    for name in ("plasma", "ueraser"):
        with pytest.raises(UserError, match=re.escape('plasma needs kornia; pip install "miue[defenses]" adds it')):
            defense(name)


# --- defenses that break the contract ---


def sinner(slot: str, sin: Any) -> Any:
    @dataclass(frozen=True)
    class Sinner:
        def __call__(self, *given):
            return sin(*given)

    Sinner.slot = slot  # type: ignore[attr-defined]
    return Sinner()


def _in_place(x, y, run):
    return x.mul_(0.5)


def _refuses(x, y, run):
    raise UserError("none")


def _leaves_evaluation_mode(net, x, y, generator, done):
    return CrossEntropy()(net.eval(), x, y, generator, done)


SINS = [
    ("elsewhere", lambda *given: None, "its slot is 'elsewhere'"),
    ("purify", _refuses, "it refuses pictures in colour: none"),
    ("purify", lambda x, y, run: x[:, :, 1:], "pictures became"),
    ("purify", lambda x, y, run: x.double(), "pictures became"),
    ("purify", lambda x, y, run: x * 2, "are no picture"),
    ("purify", lambda x, y, run: x / 0, "not finite"),
    ("purify", _in_place, "its input was changed"),
    ("purify", lambda x, y, run: x + torch.rand(()) * 0, "moved the global generator"),
    ("augment", lambda x, y, g: (x, y * 0.9), "lost or gained mass"),
    ("augment", lambda x, y, g: (x, y[:, :1]), "one row of shares"),
    ("augment", lambda x, y, g: (x * torch.initial_seed() % 1, y), "the same generator gave something else"),
    ("loss", lambda net, x, y, g, d: net(x).sum(1), "one finite number"),
    ("loss", _leaves_evaluation_mode, "another mode"),
]


@pytest.mark.parametrize(("slot", "sin", "told"), SINS)
def test_a_sin_is_found(slot: str, sin: Any, told: str):
    with pytest.raises(AssertionError, match=told):
        check_defense(sinner(slot, sin))


def test_a_defense_that_is_not_frozen():
    @dataclass
    class Soft:
        slot: ClassVar[Literal["augment"]] = "augment"

        def __call__(self, x, y, generator):
            return x, y

    with pytest.raises(AssertionError, match="frozen dataclass"):
        check_defense(Soft())
