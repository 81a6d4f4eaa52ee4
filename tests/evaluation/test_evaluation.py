"""The evaluator distrusts itself: verdicts, controls, held-out pictures, resuming."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from easy import FAST, easy
from miue import nets
from miue.attacks import Noise
from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation
from miue.data import through
from miue.data.split import holdout
from miue.defenses import combination
from miue.evaluation import checks, several, victim
from miue.evaluation import evaluation as module
from miue.evaluation import verdict as judging
from miue.evaluation.evaluation import Evaluation
from miue.evaluation.records import Outcome, VictimRun
from miue.evaluation.verdict import judge
from miue.testing import tiny
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import kept_victim
from miue.victims.recipe import Recipe

# --- verdicts ---


def runs(victim: str = "net", seeds: int = 1, **shares: float | list[float] | None) -> list[VictimRun]:
    """Victims of three roles. clean, noise, protected: accuracy at the end; train: on the protected set; stopped: what
    the protected victim has that stops early."""
    given = {"clean": 0.9, "noise": 0.88, "protected": 0.12, "train": 0.99, "stopped": None} | shares
    made = []
    for role in ("clean", "noise", "protected"):
        for seed in range(seeds):
            last, train, stopped = (
                value[seed] if isinstance(value, list) else value
                for value in (given[role], given["train"], given["stopped"])
            )
            made.append(
                VictimRun(
                    role=role,  # type: ignore[arg-type]
                    victim=victim,
                    defense=victim.partition(" + ")[2],
                    seed=seed,
                    data="d",
                    last=last,
                    best=last,
                    best_epoch=1,
                    stopped=stopped if stopped is not None and role == "protected" else last,
                    train=train if role == "protected" else 1.0,
                    seconds=0,
                )
            )
    return made


def verdict(
    *parts: list[VictimRun], chance: float = 0.1, tested: int = 2000, threshold: float = 0.25, largest: float = 0.0
) -> tuple[str, str]:
    return judge([r for part in parts for r in part], chance, tested, threshold, largest)[:2]


TRUTH = {  # chance, tested, then clean, noise, protected; what it is called; a part of the reason
    "works": (0.1, 2000, 0.90, 0.88, 0.12, "protected", "keeps 2%"),
    "does not": (0.1, 2000, 0.90, 0.88, 0.80, "not protected", "keeps 88%"),
    "noise does most of it": (0.1, 2000, 0.32, 0.225, 0.15, "inconclusive", "keeps only 57%"),
    "noise does half of it": (0.1, 2000, 0.300, 0.201, 0.149, "inconclusive", "keeps only 51%"),
    "noise does half of it, by more points": (0.1, 2000, 0.9, 0.5, 0.12, "inconclusive", "keeps only 50%"),
    "noise costs ten points of ninety": (0.1, 2000, 0.90, 0.79, 0.12, "protected", "keeps 2%"),
    "noise costs six points of sixteen": (0.1, 2000, 0.26, 0.20, 0.12, "inconclusive", "noise alone"),
    "below the threshold only beside clean": (0.1, 2000, 0.90, 0.75, 0.29, "inconclusive", "29% of what plain noise"),
    "harm by noise excuses no failure": (0.1, 2000, 0.90, 0.50, 0.85, "not protected", "keeps 94%"),
    "a hundred classes": (0.01, 2000, 0.20, 0.19, 0.012, "protected", "keeps 1%"),
    "a hundred classes, not protected": (0.01, 2000, 0.20, 0.19, 0.10, "not protected", "keeps 47%"),
    "a hundred classes, hardly learned": (0.01, 2000, 0.019, 0.019, 0.01, "inconclusive", "reaches only 1.9%"),
    "a thousand classes": (0.001, 10_000, 0.05, 0.05, 0.002, "protected", "keeps 2%"),
    "ten classes, hardly learned": (0.1, 10_000, 0.18, 0.18, 0.1, "inconclusive", "reaches only 18.0%"),
    "ten classes, few test pictures": (0.1, 50, 0.22, 0.22, 0.1, "inconclusive", "reaches only 22.0%"),
    "two classes": (0.5, 2000, 0.80, 0.79, 0.52, "protected", "keeps 7%"),
    "two classes, not easy": (0.5, 2000, 0.70, 0.70, 0.51, "protected", "keeps 5%"),
    "two classes, hardly learned": (0.5, 2000, 0.54, 0.54, 0.5, "inconclusive", "55.0% would be enough"),
    "one large class": (0.8, 2000, 0.99, 0.99, 0.81, "protected", "keeps 5%"),
    "one large class, not easy": (0.8, 2000, 0.90, 0.90, 0.80, "protected", "keeps 0%"),
    "one large class, few test pictures": (0.8, 100, 0.90, 0.90, 0.80, "inconclusive", "92.0% would be enough"),
}


@pytest.mark.parametrize("case", TRUTH)
def test_the_truth_table(case: str):
    chance, tested, clean, noise, protected, expected, part = TRUTH[case]
    found, reason = verdict(runs(clean=clean, noise=noise, protected=protected), chance=chance, tested=tested)
    assert found == expected, reason
    assert part in reason


def test_protected():
    found, reason = verdict(runs())
    assert found == "protected"
    assert reason == "net keeps 2% of what clean pictures teach (12.0% instead of 90.0%)"


def test_the_threshold_is_a_share_of_the_clean_gain():
    assert verdict(runs(noise=0.9, protected=0.299))[0] == "protected"  # (0.299 - 0.1) / 0.8 < 0.25
    assert verdict(runs(noise=0.9, protected=0.301))[0] == "not protected"
    assert verdict(runs(noise=0.9, protected=0.301), threshold=0.3)[0] == "protected"
    assert verdict(runs(noise=0.9, protected=0.299), chance=0.0)[0] == "not protected"


def test_who_stops_early_is_a_trainer_of_its_own():
    """With a few clean pictures anybody can choose the epoch; most are at their best in the first ones."""
    found, reason, judgements = judge(runs(protected=0.12, stopped=0.6), 0.1, 2000, 0.25)
    assert found == "not protected" and "net, stopped early, keeps 62%" in reason
    assert [(j.early, j.verdict) for j in judgements] == [(False, "protected"), (True, "not protected")]
    assert verdict(runs(protected=0.12, stopped=0.2))[0] == "protected"
    found, reason = verdict(runs(protected=0.5, stopped=0.6))
    assert found == "not protected" and reason.count("keeps") == 1 and "stopped early" in reason  # the worse of the two


def test_records_without_an_early_stop_count_their_best_epoch():
    old = [r.model_copy(update={"stopped": None, "best": 0.7}) for r in runs() if r.role == "protected"]
    found, reason, _ = judge([*(r for r in runs() if r.role != "protected"), *old], 0.1, 2000, 0.25)
    assert found == "not protected" and "stopped early, keeps 75%" in reason
    assert any("chosen on the test pictures themselves" in note for note in judging.notes(old + runs(), 0.1, 2000))


def test_the_outcome_says_against_what():
    parts = [*runs("net"), *runs("net + gray", protected=0.7), *runs("net + blur", stopped=0.6)]
    found, _, judgements = judge(parts, 0.1, 2000, 0.25)
    outcome = Outcome.model_construct(judgements=judgements, verdict=found)
    assert outcome.against("protected") == ["plain training", "blur"]
    assert outcome.against("not protected") == ["gray", "blur stopped early"] and not outcome.against("inconclusive")
    assert (outcome.kept("net"), outcome.kept("net + gray")) == (pytest.approx(0.025), pytest.approx(0.75))
    *_, several = judge([*parts, *runs("vit", protected=0.8)], 0.1, 2000, 0.25)
    outcome = Outcome.model_construct(judgements=several, verdict=found)
    assert outcome.against("not protected") == ["net + gray", "net + blur stopped early", "vit"]


def test_worse_than_chance_keeps_nothing():
    found, reason = verdict(runs(protected=0.02))
    assert found == "protected" and "keeps 0%" in reason


def test_inconclusive_where_the_protected_set_was_not_fitted():
    found, reason = verdict(runs(train=0.4))
    assert found == "inconclusive" and "trained too little" in reason
    assert verdict(runs(train=0.56))[0] == "protected"


def test_who_calls_everything_by_the_largest_class_has_fitted_nothing():
    """Training sets may be lopsided where test sets are not."""
    assert verdict(runs(train=0.8, protected=0.5, clean=0.9, noise=0.9), chance=0.5)[0] == "protected"
    found, reason = verdict(runs(train=0.8, protected=0.5, clean=0.9, noise=0.9), chance=0.5, largest=0.8)
    assert found == "inconclusive" and "trained too little" in reason


def test_inconclusive_where_seeds_lie_on_both_sides():
    found, reason = verdict(runs(seeds=3, protected=[0.12, 0.13, 0.6]))
    assert found == "inconclusive" and "both sides of the threshold of 25%" in reason
    assert verdict(runs(seeds=3, protected=[0.12, 0.13, 0.14]))[0] == "protected"
    assert verdict(runs(seeds=3, protected=[0.7, 0.5, 0.6]))[0] == "not protected"


@pytest.mark.parametrize("collapsed", [0.1, 0.05])
def test_inconclusive_where_one_clean_victim_collapsed(collapsed: float):
    """At chance exactly it has gained nothing that a share could be taken of; below it the share has the wrong sign."""
    found, reason = verdict(runs(seeds=2, clean=[0.9, collapsed], noise=[0.9, collapsed], protected=[0.12, 0.8]))
    assert found == "inconclusive" and "on clean pictures" in reason


def test_inconclusive_where_one_protected_victim_was_not_fitted():
    found, reason = verdict(runs(seeds=3, train=[0.99, 0.99, 0.1], protected=0.1))
    assert found == "inconclusive" and "trained too little" in reason


def test_the_weakest_victim_decides():
    good, bad, unsure = runs("good"), runs("bad", protected=0.8), runs("unsure", clean=0.15)
    assert verdict(good, runs("other"))[0] == "protected"
    found, reason = verdict(good, bad)
    assert found == "not protected" and "bad keeps" in reason and "good" not in reason
    assert verdict(good, unsure)[0] == "inconclusive"
    found, reason = verdict(good, unsure, bad)
    assert found == "not protected" and reason.index("bad keeps") < reason.index("unsure reaches only")


# --- what is held out ---


@given(
    counts=st.lists(st.integers(2, 12), min_size=1, max_size=4),
    share=st.sampled_from([0.05, 0.2, 0.5, 0.95]),
    seed=st.integers(0, 20),
)
def test_a_share_of_every_class_is_held_out(counts: list[int], share: float, seed: int):
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    data = ImageSet(images, labels, tuple(str(k) for k in range(len(counts))), "x")
    run = BASE.reseeded(seed)
    kept, held = holdout(data, share, run)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    for part in (kept, held):
        assert part.tolist() == sorted(part.tolist())
    for label, n in enumerate(counts):
        out = int((labels[held] == label).sum())
        assert 1 <= out <= n - 1 and abs(out - share * n) <= 1
    again = holdout(data, share, BASE.reseeded(seed))
    assert torch.equal(again[0], kept) and torch.equal(again[1], held)


BASE = Run(seed=0, device_name="cpu")


def test_another_seed_holds_out_other_pictures(run: Run):
    data = tiny(per_class=20)
    assert not torch.equal(holdout(data, 0.2, run)[1], holdout(data, 0.2, run.reseeded(2))[1])


def test_nothing_to_hold_out(run: Run):
    with pytest.raises(UserError, match="class 'class 0' has one picture"):
        holdout(tiny(lone=True), 0.2, run)
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(UserError, match="not between 0 and 1"):
            holdout(tiny(), share, run)


# --- a whole evaluation ---

EVALUATION = Evaluation(recipes=[replace(FAST, epochs=6)], seeds=1)


def marked(data: ImageSet, eps: int = 60) -> ImageSet:
    """A protection that works on the easy set: one colour a class, against its own."""
    delta = torch.zeros(3, 3, 1, 1, dtype=torch.int16)
    for label in range(3):
        delta[label, label], delta[label, (label + 1) % 3] = -127, 127
    labels = data.labels
    made = Perturbation(delta, Budget(127), "marked", labels)
    return made.apply(data)


def test_a_proof_with_its_controls(run: Run):
    clean, test = easy(), easy(seed=1)
    outcome = EVALUATION(clean, test, marked(clean), Budget(8), run, "marked", "jpeg:quality=75")
    assert outcome.verdict == "protected", outcome.reason
    assert [r.role for r in outcome.runs] == ["clean", "noise", "protected"]
    assert outcome.chance == pytest.approx(1 / 3) and outcome.threshold == 0.25 and outcome.images == len(clean)
    assert outcome.accuracies("clean")[0] > 0.9 and outcome.accuracies("noise")[0] > 0.9
    assert outcome.accuracies("protected")[0] < 0.4 and outcome.accuracies("protected", which="train")[0] > 0.9
    assert outcome.data["clean"] == through(clean, "jpeg:quality=75").digest and outcome.data["test"] == test.digest
    assert len(set(outcome.data.values())) == 4
    assert (outcome.budget, outcome.channel, outcome.classes) == ("linf:8", "jpeg:quality=75", 3)
    assert "one seed only: the spread is unknown" in outcome.notes


def test_clean_pictures_are_not_protected(run: Run):
    clean = easy()
    noisy = Noise()(clean, Budget(8), run.reseeded(5)).apply(clean)
    outcome = replace(EVALUATION, seeds=2)(clean, easy(seed=1), noisy, Budget(8), run)
    assert outcome.verdict == "not protected"
    assert [r.seed for r in outcome.runs if r.role == "clean"] == [1, 2]
    assert not any("one seed" in note for note in outcome.notes)


def test_too_little_training_is_inconclusive(run: Run):
    outcome = replace(EVALUATION, recipes=[replace(FAST, epochs=1, lr=1e-6)])(
        easy(), easy(seed=1), easy(), Budget(8), run
    )
    assert outcome.verdict == "inconclusive" and "reaches only" in outcome.reason


def test_who_stops_early_chooses_by_clean_pictures_that_are_not_tested(run: Run, monkeypatch: pytest.MonkeyPatch):
    """The record of a victim that knows one part of the test set in its first epoch, and the other in its last."""
    test, epochs = easy(20, seed=1), []
    chosen_by, rest = victim.parted_rows(test, run)
    assert len(chosen_by) == len(rest) == 30

    def right(net: Any, pictures: Any, run: Run, crops: bool) -> Tensor:
        epochs.append(len(epochs) + 1)
        hits = torch.zeros(60, dtype=torch.bool)
        hits[chosen_by if len(epochs) == 1 else rest] = True
        if len(epochs) == 1:
            hits[rest[:6]] = True
        return hits

    monkeypatch.setattr(victim, "correct", right)
    result = victim.train_victim("protected", easy(), test, replace(FAST, epochs=2), run, None)
    assert epochs == [1, 2] and (result.last, result.best, result.best_epoch) == (0.5, 0.6, 1)
    assert (result.stopped, result.stopped_epoch, result.early) == (0.2, 1, 0.2)


def test_a_test_set_with_one_picture_of_a_class_has_no_early_stop(run: Run):
    result = victim.train_victim("clean", easy(), tiny(lone=True, seed=2), replace(FAST, epochs=2), run, None)
    assert result.stopped is None and result.early == result.best


def test_notes():
    assert judging.notes(runs(seeds=2), 0.1, 2000) == []
    assert judging.notes(runs(), 0.1, 2000) == ["one seed only: the spread is unknown"]
    (note,) = judging.notes(runs(seeds=2), 0.1, 10)
    assert note == "the test set has 10 pictures: kept shares are uncertain by about ± 12%"


def test_victims_that_were_trained_are_not_trained_again(keeping: Run, monkeypatch: pytest.MonkeyPatch):
    clean, test = easy(), easy(seed=1)
    first = EVALUATION(clean, test, marked(clean), Budget(8), keeping)
    trained = []
    real = victim.watched_fit
    monkeypatch.setattr(
        victim, "watched_fit", lambda data, *a: trained.append(data.train.data.digest) or real(data, *a)
    )
    again = EVALUATION(clean, test, marked(clean), Budget(8), keeping)
    assert again == first and trained == []
    swapped = EVALUATION(clean, test, clean, Budget(8), keeping)  # the clean victim serves as the protected one
    assert trained == [] and swapped.verdict == "not protected"
    EVALUATION(clean, easy(seed=2), marked(clean), Budget(8), keeping)
    assert len(trained) == 3
    replace(EVALUATION, recipes=[replace(FAST, epochs=2)])(clean, test, marked(clean), Budget(8), keeping)
    assert len(trained) == 6
    other = easy(seed=7)
    EVALUATION(clean, test, other.with_images(other.images), Budget(8), keeping)
    assert trained[6:] == [other.digest]
    assert keeping.keep is not None
    assert all(p.suffix == ".json" for p in (keeping.keep / "victims").iterdir())  # no checkpoints stay behind


def test_weights_are_kept_where_they_are_small_or_asked_for(keeping: Run, monkeypatch: pytest.MonkeyPatch):
    def weights(evaluation: Evaluation, at: str) -> int:
        run = replace(keeping, keep=(keeping.keep or Path()) / at)
        evaluation(clean, easy(seed=1), marked(clean), Budget(8), run)
        return len(list((run.keep or Path()).glob("trained/*.safetensors")))

    clean = easy()
    assert weights(EVALUATION, "small") == 3 * EVALUATION.seeds
    assert weights(replace(EVALUATION, keep_victims=False), "never") == 0
    size = nets.tried(FAST.net, clean.shape, len(clean.classes))
    monkeypatch.setattr(module, "KEPT", 3 * EVALUATION.seeds * size - 1)
    assert weights(EVALUATION, "large") == 0
    assert weights(replace(EVALUATION, keep_victims=True), "asked") == 3 * EVALUATION.seeds


def test_a_kept_victim_is_the_one_that_was_trained(keeping: Run):
    data, test, run = easy(), easy(seed=1), replace(keeping, keep=keeping.keep)
    record = victim.train_victim("clean", data, test, FAST, run, run.keep, weights=True)
    store = replace(run, keep=(run.keep or Path()) / "trained")
    net = kept_victim(data, FAST, store)
    assert net is not None and accuracy(net, Batches(test, run), run) == record.last
    assert kept_victim(data, FAST, replace(store, seed=run.seed + 1)) is None
    for other in (easy(seed=1), data):
        recipe = replace(FAST, epochs=FAST.epochs + (other is data))
        assert kept_victim(other, recipe, store) is None


def test_an_interrupted_proof_trains_only_what_is_missing(keeping: Run, run: Run, monkeypatch: pytest.MonkeyPatch):
    clean, test = easy(), easy(seed=1)
    real, trained = victim.watched_fit, []

    def dies(data, *rest):
        trained.append(data.train.data.digest)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(data, *rest)

    monkeypatch.setattr(victim, "watched_fit", dies)
    with pytest.raises(KeyboardInterrupt):
        EVALUATION(clean, test, marked(clean), Budget(8), keeping)
    outcome = EVALUATION(clean, test, marked(clean), Budget(8), keeping)
    assert len(trained) == 4 and trained[0] not in trained[1:]
    monkeypatch.setattr(victim, "watched_fit", real)
    whole = EVALUATION(clean, test, marked(clean), Budget(8), run)
    for a, b in zip(outcome.runs, whole.runs, strict=True):
        assert a.model_copy(update={"seconds": 0}) == b.model_copy(update={"seconds": 0})


@dataclass(frozen=True)
class Unmark:
    """Turns the colours by one channel: what `marked` put into a class's own channel is no longer read as another's."""

    facts: ClassVar[Facts] = Facts(name="unmark")
    slot: ClassVar[Literal["purify"]] = "purify"
    by: int = 1

    def __call__(self, x, y, run):
        colour = torch.eye(3)[y] * 0.5
        return (x * 0.5 + colour[:, :, None, None]).clamp(0, 1)


def test_defended_victims_stand_beside_the_others(keeping: Run):
    """Each has its own clean control, is judged by itself, and is named in the record. The weakest decides."""
    clean, test = easy(), easy(seed=1)
    plain = EVALUATION.recipes[0]
    evaluation = replace(EVALUATION, recipes=[plain, plain.defended(Unmark(by=2))])
    outcome = evaluation(clean, test, marked(clean), Budget(8), keeping)
    name = f"{plain.net} + unmark:by=2"
    assert [(r.role, r.victim, r.defense) for r in outcome.runs] == [
        (role, victim, defense)
        for victim, defense in ((plain.net, ""), (name, "unmark:by=2"))
        for role in ("clean", "noise", "protected")
    ]
    assert set(outcome.recipe) == {plain.net, name} and outcome.recipe[name]["purify"] == ["Unmark(by=2)"]
    assert outcome.accuracies("protected", plain.net)[0] < 0.4 < 0.8 < outcome.accuracies("protected", name)[0]
    assert outcome.accuracies("protected", name, "train")[0] > 0.9  # on what it was trained on: the purified set
    assert outcome.verdict == "not protected" and outcome.reason.startswith(f"{name} keeps")
    alone = EVALUATION(clean, test, marked(clean), Budget(8), keeping)
    assert alone.verdict == "protected" and alone.runs == outcome.runs[:3]


def test_a_victim_that_learnt_anyway_is_counted_though_it_did_not_fit():
    """That it was trained too little can excuse a failure to learn, not a success."""
    assert verdict(runs(protected=0.8, train=0.4))[0] == "not protected"


def test_a_victim_that_stops_early_is_recorded_as_it_was_kept(run: Run):
    plan = replace(FAST, epochs=30, hold_out=0.25, patience=2)
    record = victim.train_victim("clean", easy(), easy(seed=1), plan, run, None)
    assert record.last > 0.9 and 1 <= record.best_epoch < 30 and record.best >= record.last


def test_sets_that_do_not_correspond_are_refused(run: Run):
    clean, test = easy(), easy(seed=1)
    renamed = ImageSet(clean.images, clean.labels, ("x", "y", "z"), "renamed")
    turned = ImageSet(clean.images, clean.labels.roll(1), clean.classes, "turned")
    shorter = clean.select(torch.arange(30))
    for sets, told in (
        ((clean, test, renamed), "the same classes in the same order"),
        ((clean, renamed, clean), "the same classes in the same order"),
        ((clean, test, turned), "the same labels, row by row"),
        ((clean, test, shorter), "the same labels, row by row"),
    ):
        with pytest.raises(UserError, match=told):
            EVALUATION(*sets, Budget(8), run)
    for change in ({"seeds": 0}, {"threshold": 0.0}, {"threshold": 1.0}):
        with pytest.raises(UserError, match=r"at least 1|lies between 0 and 1"):
            replace(EVALUATION, **change)


@dataclass(frozen=True)
class Inverted:
    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="inverted")

    def __call__(self, x: Tensor, y: Tensor, run: Any) -> Tensor:
        return 1 - x


def test_a_defense_never_touches_the_test_pictures(run: Run, monkeypatch: pytest.MonkeyPatch):
    data, test, asked = easy(), easy(seed=1), []
    real = victim.correct, victim.accuracy

    def spied(which: int, net: Any, batches: Batches, run: Run, crops: bool) -> Any:
        asked.append(batches.take(batches.rows))
        return real[which](net, batches, run)

    monkeypatch.setattr(victim, "correct", partial(spied, 0))
    monkeypatch.setattr(victim, "accuracy", partial(spied, 1))
    victim.train_victim("clean", data, test, replace(FAST, epochs=2, purify=(Inverted(),)), run, None)
    *tested, trained = asked
    assert len(tested) == 2 and all(torch.equal(x, test.images.float() / 255) for x in tested)
    assert torch.allclose(trained, 1 - data.images.float() / 255)


@dataclass(frozen=True)
class Forgets:
    """A step after the training that leaves nothing of it."""

    slot: ClassVar[Literal["finish"]] = "finish"
    facts: ClassVar[Facts] = Facts(name="forgets")

    def __call__(self, net: Any, train: Any, run: Any) -> None:
        for parameter in net.parameters():
            parameter.data.zero_()


def test_what_is_forgotten_after_the_training_was_fitted(run: Run):
    """Fine-tuning undoes the noise; the victim was not trained too little for that."""
    recipe = replace(FAST, epochs=6, finish=(Forgets(),))
    result = victim.train_victim("protected", easy(), easy(seed=1), recipe, run, None)
    assert result.train > 0.9 and result.last == pytest.approx(1 / 3)


def test_the_first_epochs_are_tested_too(run: Run, monkeypatch: pytest.MonkeyPatch):
    """On protected pictures many victims are at their best in the first epochs."""
    epochs = []

    def fit(ready: Any, recipe: Recipe, run: Run, watch: Any) -> Any:
        net = nets.build(recipe.net, (3, 8, 8), 3)
        found = {e: value for e in range(1, recipe.epochs + 1) if (value := watch(e, net)) is not None}
        epochs.extend(found)
        return net, found

    monkeypatch.setattr(victim, "watched_fit", fit)
    victim.train_victim("clean", easy(), easy(seed=1), replace(FAST, epochs=60), run, None)
    assert epochs == [1, 2, 3, *range(6, 61, 6)]


def test_proofs_that_prove_nothing_are_refused():
    with pytest.raises(UserError, match="0 recipes"):
        Evaluation(recipes=[])
    with pytest.raises(UserError, match="two victims are called"):
        Evaluation(recipes=[FAST, replace(FAST, epochs=9)])


@pytest.mark.parametrize("defense", ["tune", "diffpure"])
def test_clean_pictures_of_the_test_set_do_not_tune(defense: str, run: Run, tmp_path: Path):
    """Not even one: a fifth of the clean pictures is a test set where no other is named."""
    test, other = easy(seed=1), easy(seed=2)
    images = torch.cat([test.images[:1], other.images]).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "few.npz", images=images, labels=torch.cat([test.labels[:1], other.labels]).numpy())
    recipe = FAST.defended(*combination(f"{defense}:clean={tmp_path / 'few.npz'},epochs=1"))
    test, other, train = (replace(part, classes=("0", "1", "2")) for part in (test, other, easy()))
    with pytest.raises(UserError, match=f"1 of {len(test)} test pictures are among those that a defense learns from"):
        replace(EVALUATION, recipes=[recipe])(train, test, train, Budget(8), run)
    checks.check_victims([recipe], train, easy(seed=3), run)


def test_noise_goes_the_way_of_the_pictures(run: Run, monkeypatch: pytest.MonkeyPatch):
    """It is published as noise and then recoded, as what is protected is."""
    seen = {}

    def trained(role, data, *rest):
        seen[role] = data
        return next(r for r in runs() if r.role == role)

    monkeypatch.setattr(several, "train", trained)
    clean = easy()
    outcome = EVALUATION(clean, easy(seed=1), marked(clean), Budget(8), run, "marked", "jpeg:quality=30")
    published = Noise()(clean, Budget(8), run.reseeded(0)).apply(clean)
    assert (seen["noise"].images == through(published, "jpeg:quality=30").images).all()
    assert (seen["clean"].images == through(clean, "jpeg:quality=30").images).all() and outcome.name.endswith(
        "jpeg:quality=30"
    )


def test_a_kept_victim_goes_by_the_name_that_was_asked_for(keeping: Run):
    data, test = easy(), easy(seed=1)
    victim.train_victim("clean", data, test, FAST, keeping, keeping.keep)
    (path,) = (keeping.keep or Path()).glob("victims/*.json")
    path.write_text(path.read_text().replace(f'"victim": "{FAST.victim}"', '"victim": "elsewhere/mine.py:D"'))
    assert victim.train_victim("noise", data, test, FAST, keeping, keeping.keep).victim == FAST.victim


def test_two_kinds_of_machine_are_told():
    mixed = [r.model_copy(update={"device": f"machine {r.seed}"}) for r in runs(seeds=2)]
    assert judging.notes(mixed, 0.1, 2000) == ["victims were trained on machine 0 and machine 1"]


def test_networks_for_other_sizes_are_told_at_once(run: Run):
    with pytest.raises(UserError, match=r"mixer_s32_224.* cannot be used with pictures of 8 x 8 pixels"):
        checks.check_victims([replace(FAST, net="mixer_s32_224")], easy(), easy(seed=1), run)


def test_a_damaged_record_is_told(keeping: Run):
    data, test = easy(), easy(seed=1)
    victim.train_victim("clean", data, test, FAST, keeping, keeping.keep)
    (path,) = (keeping.keep or Path()).glob("victims/*.json")
    path.write_text("{}")
    with pytest.raises(UserError, match="no record of this version"):
        victim.train_victim("clean", data, test, FAST, keeping, keeping.keep)
