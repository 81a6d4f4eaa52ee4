"""The adaptive trainer: what it chooses by, that it chooses the best, and that it is tested on other pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch

from easy import FAST, easy
from miue.cli import show
from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.defenses import KNOWN
from miue.evaluation import victim as training
from miue.evaluation.adaptive import TRIED, Adaptive, parted, train, victim_of
from miue.evaluation.checks import check_victims
from miue.evaluation.evaluation import Evaluation
from miue.evaluation.victim import train_victim
from miue.testing import tiny
from miue.victims.recipe import Recipe

QUICK = replace(FAST, epochs=6)


@dataclass(frozen=True)
class Relabelled:
    """Undoes a protection that pushes every class into the colour of the next one."""

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="unrolled", reference="a test")

    def __call__(self, x: Any, y: Any, run: Run) -> Any:
        return x.roll(1, 1)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defense that undoes what `rolled` does."""
    monkeypatch.setitem(KNOWN, "unrolled", Relabelled)  # type: ignore[arg-type]


def rolled(data: ImageSet) -> ImageSet:
    """The colours of every picture are those of another class."""
    return data.with_images(data.images.roll(-1, 1), "rolled")


def test_what_is_tried():
    """All are spelt as a user would spell them, and fit in a recipe of the package."""
    made = Adaptive(recipe=Recipe())
    assert list(made.candidates) == list(TRIED) and made.candidates["none"] == Recipe()
    assert made.candidates["gray+jpeg:quality=50"].defense == "gray+jpeg:quality=50"
    assert len({repr(recipe) for recipe in made.candidates.values()}) == len(TRIED)
    assert (made.victim, made.defense) == ("resnet18 + adaptive", "adaptive")
    assert made.described()["tried"] == list(TRIED) and made.described()["net"] == "resnet18"
    assert victim_of(Recipe(), "adaptive") == made and victim_of(Recipe(), "gray").defense == "gray"


@pytest.mark.parametrize(("per_class", "chosen_by"), [(150, 75), (400, 100), (120, 60), (3, 1)])
def test_a_hundred_of_a_class_or_half_of_them(per_class: int, chosen_by: int, run: Run):
    test = tiny(per_class=per_class)
    validation, rest = parted(test, run)
    assert validation.labels.bincount().tolist() == pytest.approx([chosen_by] * 3, abs=1)
    assert len(validation) + len(rest) == len(test)
    rows = [hash(image.numpy().tobytes()) for part in (validation, rest) for image in part.images]
    assert len(set(rows)) == len(test)  # nobody is on both sides
    assert parted(test, run)[0].digest == validation.digest != parted(test, run.reseeded(5))[0].digest


def test_lopsided_classes_keep_their_shares(run: Run):
    labels = torch.cat([torch.zeros(900), torch.ones(300)]).long()
    test = ImageSet(torch.zeros(1200, 1, 8, 8, dtype=torch.uint8), labels, ("a", "b"), "lopsided")
    validation, rest = parted(test, run)
    assert len(validation) == 200 and rest.chance == pytest.approx(0.75) == validation.chance


def test_the_trainer_finds_what_undoes_the_protection_and_is_tested_on_other_pictures(run: Run, known: None):
    data, test = easy(), easy(20, seed=1)
    adaptive = Adaptive(recipe=QUICK, tried=("none", "blur", "unrolled"))
    result = train("protected", rolled(data), test, adaptive, run, None)
    validation, rest = parted(test, run)
    assert result.chosen == "unrolled" and list(result.tried) == ["none", "blur", "unrolled"]
    plain = train_victim("protected", rolled(data), validation, QUICK, run, None)
    assert plain.last < 0.2 and result.tried["none"] == plain.best
    assert result.tried["unrolled"] == max(result.tried.values()) > 0.9
    own = train_victim("protected", rolled(data), rest, adaptive.candidates["unrolled"], run, None)
    assert (result.last, result.best, result.train) == (own.last, own.best, own.train)
    trial = train_victim("protected", rolled(data), validation, adaptive.candidates["unrolled"], run, None)
    assert (result.stopped_epoch, result.stopped) == (trial.best_epoch, own.epochs[trial.best_epoch])
    assert (result.victim, result.defense) == ("small-cnn:width=4 + adaptive", "adaptive")


def test_among_equals_the_first_is_chosen(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "correct", lambda net, tests, run, crops: torch.arange(len(tests.rows)) % 2 == 0)
    adaptive = Adaptive(recipe=replace(FAST, epochs=1), tried=("gray", "none"))
    assert train("clean", easy(), easy(seed=1), adaptive, run, None).chosen == "gray"


def test_controls_are_adaptive_too_and_the_weakest_decides(keeping: Run, known: None, monkeypatch: pytest.MonkeyPatch):
    """Without it the protection stands; with it it does not. A second call trains nothing."""
    clean, test = easy(), easy(20, seed=1)
    adaptive = Adaptive(recipe=QUICK, tried=("none", "unrolled"))
    evaluation = Evaluation(recipes=[QUICK, adaptive], seeds=1)
    outcome = evaluation(clean, test, rolled(clean), Budget(255), keeping)
    plain, tried = ([r for r in outcome.runs if r.victim == name] for name in (QUICK.victim, adaptive.victim))
    assert [r.chosen for r in plain] == [""] * 3 and [r.role for r in tried] == ["clean", "noise", "protected"]
    assert tried[0].chosen == "none" and tried[2].chosen == "unrolled"
    assert plain[2].last < 0.2 and tried[2].last > 0.9
    assert outcome.verdict == "not protected" and outcome.reason.startswith("small-cnn:width=4 + adaptive keeps")
    assert outcome.recipe[adaptive.victim]["tried"] == ["none", "unrolled"]
    monkeypatch.setattr(training, "watched_fit", None)
    assert evaluation(clean, test, rolled(clean), Budget(255), keeping) == outcome
    assert type(outcome).model_validate_json(outcome.model_dump_json()) == outcome


def test_the_row_says_what_was_chosen(run: Run, known: None, capsys: pytest.CaptureFixture[str]):
    clean, test = easy(), easy(20, seed=1)
    evaluation = Evaluation(recipes=[Adaptive(recipe=QUICK, tried=("none", "unrolled"))], seeds=1)
    show.outcome(evaluation(clean, test, rolled(clean), Budget(255), run), False)
    table = "".join(capsys.readouterr().out.split())  # cells are folded
    assert f"{QUICK.net}+adaptive:unrolledStoppedearly" in table and f"{QUICK.net}+adaptive:none" in table


def test_greyscale_pictures_are_not_offered_colour(run: Run):
    grey = tiny(channels=1, size=16)
    fitting = Adaptive(recipe=FAST, tried=("none", "chroma", "gray", "chroma:blur=2")).fitting(grey)
    assert list(fitting) == ["none", "gray"]
    refused = Adaptive(recipe=FAST, tried=("chroma", "chroma:blur=2"))
    assert list(refused.fitting(tiny(size=16))) == ["chroma", "chroma:blur=2"]
    with pytest.raises(UserError, match="greyscale and have no chroma"):
        check_victims([refused], grey, tiny(channels=1, size=16, seed=1), run)


def test_refusals(tmp_path: Path, run: Run):
    for tried in (("gray",), ("gray", "gray"), ()):
        with pytest.raises(UserError, match="at least two combinations, each once"):
            Adaptive(recipe=FAST, tried=tried)
    with pytest.raises(UserError, match="defense 'jpg' is unknown"):
        Adaptive(recipe=FAST, tried=("none", "jpg"))
    with pytest.raises(UserError, match="adaptive chooses among defenses of its own"):
        victim_of(FAST, "gray+adaptive")
    adaptive = Adaptive(recipe=FAST, tried=("none", "gray"))
    with pytest.raises(UserError, match="has one picture"):
        check_victims([adaptive], easy(), tiny(lone=True, seed=2), run)
    assert check_victims([adaptive], easy(), easy(seed=1), run) == check_victims([FAST], easy(), easy(seed=1), run)
