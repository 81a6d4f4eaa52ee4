"""Analyses: controls at their places, the same projections for all, records that come back, readable figures."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from easy import easy
from miue import mi
from miue.analysis import analyzer as analyze
from miue.analysis import figures
from miue.analysis.analyzer import Analyzer
from miue.analysis.comparison import CLEAN, NOISE, correlations
from miue.analysis.features import features, narrowed, paired_stages, plane, stratified
from miue.analysis.ranks import spearman
from miue.analysis.records import Analysis, Measured, flagged
from miue.attacks import MIUE, Patterns
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.evaluation import victim
from miue.evaluation.evaluation import Evaluation
from miue.mi.estimate import Estimate
from miue.nets import build
from miue.testing import tiny
from miue.victims.recipe import Recipe

FAST = Recipe(net="small-cnn:width=4", epochs=3, batch=16, augment=())
SLICED = "sliced:slices=20"
PLAN = Analyzer(recipe=FAST, seeds=1, rows=90, halves=2, shuffles=2, estimators=("ksg", SLICED, "class-conditional"))


def attacks(clean: ImageSet) -> dict[str, ImageSet]:
    """One that changes nothing, one that shows every victim the picture of another row of the class."""
    rows = torch.cat([(clean.labels == c).nonzero().flatten().roll(1) for c in range(3)])
    order = torch.empty(len(clean), dtype=torch.long)
    order[torch.cat([(clean.labels == c).nonzero().flatten() for c in range(3)])] = rows
    return {"nothing": clean, "rolled": clean.with_images(clean.images[order])}


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, Run]:
    run = Run(seed=1, device_name="cpu", keep=tmp_path_factory.mktemp("kept"))
    clean = easy(30)
    return PLAN(clean, easy(10, seed=1), attacks(clean), run), run


# --- what the numbers mean ---


def test_unchanged_pictures_are_at_the_ceiling_of_every_estimator(analysed: tuple[Analysis, Run]):
    found, _ = analysed
    for stage in found.stages:
        for text in ("ksg", SLICED):
            (value,) = found.found("nothing", text, stage)
            assert value.nats == pytest.approx(value.itself, abs=0.3) and value.nats > 5 * abs(value.null)
    assert found.found("nothing", "ksg", "embed")[0].nats > 0.9 * found.found("nothing", "ksg", "embed")[0].itself


def test_pictures_of_other_rows_of_the_class_fall_to_the_null_within_classes(analysed: tuple[Analysis, Run]):
    """What is left passes through the label: as much as shuffling within classes leaves."""
    found, _ = analysed
    (same,), (rolled,) = (found.found(name, "ksg", "embed") for name in ("nothing", "rolled"))
    assert same.nats - same.null_within > 1
    assert abs(rolled.nats - rolled.null_within) < 0.5 and rolled.nats < same.nats - 1
    assert abs(rolled.null) < 0.3


def test_the_controls_come_first_and_have_the_roles(analysed: tuple[Analysis, Run]):
    found, _ = analysed
    assert found.names == [CLEAN, NOISE, "nothing", "rolled"]
    assert [r.role for r in found.runs] == ["clean", "noise", "protected", "protected"]
    assert found.stages[-1] == "embed" and found.estimators == list(PLAN.estimators)
    assert found.rows == 90 and found.images == 90 and found.classes == 3
    assert found.sizes["nothing"].linf == 0 and found.sizes["rolled"].outside > 80
    assert [note for note in found.notes if "ball" in note] == [f"rolled: {found.sizes['rolled'].leaves}"]
    # the victim of clean pictures is that of the attack that changes nothing, which is compared with other pictures
    clean, nothing = found.runs[0], found.runs[2]
    assert clean.accuracy == nothing.accuracy and clean.stages[-1].clean == nothing.stages[-1].clean
    assert clean.stages[-1].protected != nothing.stages[-1].protected == nothing.stages[-1].clean


def test_the_theory_on_features(analysed: tuple[Analysis, Run]):
    found, _ = analysed
    for run in found.runs:
        identity, loss = run.statements[:2]
        assert identity.holds and loss.holds and loss.bound > loss.measured
        assert all(s.holds for s in run.statements[3:5])  # two lines of algebra
    assert len({s.text for s in found.runs[0].statements}) == 7


def test_a_statement_that_does_not_hold_is_said(run: Run, monkeypatch: pytest.MonkeyPatch):
    """An estimate that is far below what a classifier proves."""
    pairs = mi.known.ClassMixture(separation_x=8.0, classes=3).sample(300, 5, run.rng("pairs"))
    assert mi.statements(pairs.x, pairs.y, pairs.labels, run)[-1].holds
    real = mi.ClassConditional.__call__

    def low(self: mi.ClassConditional, *a: object, **k: object) -> Estimate:
        return replace(real(self, *a, **k), nats=0.1)  # type: ignore[arg-type]

    monkeypatch.setattr(mi.ClassConditional, "__call__", low)
    assert not mi.statements(pairs.x, pairs.y, pairs.labels, run)[-1].holds


def test_calibration_is_of_the_same_size_and_knows_the_truth(analysed: tuple[Analysis, Run]):
    found, _ = analysed
    widths = {stage.width for stage in found.runs[0].stages}
    assert {c.width for c in found.calibration} == widths
    truths = sorted({c.truth for c in found.calibration if c.width == max(widths)})
    assert truths[0] == pytest.approx(0, abs=0.05) and len(truths) == 3
    ksg = {c.truth: c.nats for c in found.calibration if c.estimator == "ksg" and c.width == max(widths)}
    assert abs(ksg[truths[0]]) < 0.3 and ksg[truths[0]] < ksg[truths[1]] < ksg[truths[2]]


# --- victims looked at on what they were not trained on ---


def test_the_crossed_control_is_what_the_same_victim_shows(analysed: tuple[Analysis, Run]):
    """The attack that changes nothing has the victim of clean pictures, looked at on clean ones."""
    found, _ = analysed
    assert found.crosses == [
        (CLEAN, NOISE), (CLEAN, "nothing"), ("nothing", NOISE), ("nothing", "nothing"),
        (CLEAN, "rolled"), ("rolled", NOISE), ("rolled", "rolled"),
    ]  # fmt: skip
    for text in found.estimators:
        assert found.across(CLEAN, "nothing", text) == found.found("nothing", text, "embed")
        assert (
            found.across("nothing", NOISE, text)
            == found.across(CLEAN, NOISE, text)
            == found.found(CLEAN, text, "embed")
        )
        assert found.interaction("nothing", text) == [0.0]
        assert found.across("rolled", NOISE, text) != found.found("rolled", text, "embed")
    assert found.across(NOISE, NOISE, "ksg") == found.found(NOISE, "ksg", "embed")


def test_a_victim_of_colours_alone_keeps_what_it_tells_between_clean_pictures(run: Run):
    """It cannot tell pictures of one class apart on its own set, and can on slightly noisy clean ones."""
    clean = easy(30)
    shades = torch.tensor([40, 120, 200], dtype=torch.uint8)[clean.labels].reshape(-1, 1, 1, 1).expand_as(clean.images)
    found = PLAN(clean, easy(10, seed=1), {"flat": clean.with_images(shades.contiguous())}, run)
    (own,), (noisy,) = (found.across("flat", shown, "ksg") for shown in ("flat", NOISE))
    assert noisy.nats > own.nats + 1
    (first,), (second,) = found.across(CLEAN, "flat", "ksg"), found.across(CLEAN, NOISE, "ksg")
    assert found.interaction("flat", "ksg") == [(own.nats - noisy.nats) - (first.nats - second.nats)]


def test_records_without_the_crossed_control_come_back(analysed: tuple[Analysis, Run]):
    found, _ = analysed
    old = found.model_dump(mode="json")
    for examined in old["runs"]:
        del examined["crossed"]
    before = Analysis.model_validate(old)
    assert before.crosses == [] and before.across(CLEAN, "nothing", "ksg") == [] == before.interaction("nothing", "ksg")
    assert figures.crossed(before) is None


# --- the same for all ---


def test_projections_are_the_same_for_all_attacks_and_victims(monkeypatch: pytest.MonkeyPatch, run: Run):
    seen: list[torch.Tensor] = []
    real = mi.Sliced._directions

    def spy(self: mi.Sliced, dx: int, dy: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        made = real(self, dx, dy, generator)
        seen.extend(made)
        return made

    monkeypatch.setattr(mi.Sliced, "_directions", spy)
    depths = [
        ("a", torch.randn(40, 3, generator=run.rng(i)), torch.randn(40, 3, generator=run.rng(i, "y"))) for i in "ab"
    ]
    plan, labels = replace(PLAN, estimators=("sliced:slices=2",)), torch.arange(40) % 2
    for depth in depths:
        plan._stage(depth, depth[1:], labels, run.reseeded(run.seed))
    half = len(seen) // 2
    assert half > 4 and all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))


def test_rows_are_the_same_for_all_and_of_every_class(run: Run):
    labels = torch.cat([torch.zeros(80, dtype=torch.long), torch.ones(16, dtype=torch.long), torch.full((4,), 2)])
    data = ImageSet(torch.zeros(100, 1, 8, 8, dtype=torch.uint8), labels, ("a", "b", "c"), "x")
    rows = stratified(data, 50, run)
    assert data.labels[rows].bincount().tolist() == [40, 8, 4] and torch.equal(rows, rows.unique())
    assert torch.equal(rows, stratified(data.with_images(data.images + 1), 50, run))
    assert not torch.equal(rows, stratified(data, 50, run.reseeded(9)))
    with pytest.raises(UserError, match="'c' has 3 pictures"):
        stratified(data.select(torch.arange(99)), 50, run)
    with pytest.raises(UserError, match="30 pictures to compare are too few"):
        stratified(data.select(torch.arange(30)), 50, run)


# --- features ---


def test_features_do_not_depend_on_batches_and_leave_the_network_alone(run: Run):
    data, net = easy(4), run.place(build("small-resnet:width=2", (3, 8, 8), 3))
    before, autocast = {k: v.clone() for k, v in net.state_dict().items()}, net.autocast
    whole, parts = features(net, data, run), features(net, data, run, 5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, parts, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and net.autocast == autocast


@pytest.mark.parametrize(("net", "names"), [("small-cnn:width=2", ["stem", "down1", "embed"]), ("linear", ["embed"])])
def test_a_depth_comes_once(run: Run, net: str, names: list[str]):
    """The mean over positions of the last point is what the head sees."""
    depths = paired_stages(run.place(build(net, (3, 8, 8), 3)), easy(4), easy(4, seed=1), run)
    assert [name for name, _, _ in depths] == names
    assert all(x.shape == y.shape == (12, x.shape[1]) for _, x, y in depths)


@pytest.mark.parametrize(
    ("net", "widths"), [("vgg11", [64, 128, 256, 512, 512, 512]), ("resnet18", [64, 64, 128, 256, 512])]
)
def test_the_deep_victims_of_the_paper_have_depths(run: Run, net: str, widths: list[int]):
    data = tiny(per_class=2, size=32)
    depths = paired_stages(run.place(build(net, data.shape, len(data.classes))), data, data, run)
    assert [x.shape[1] for _, x, _ in depths] == widths


def test_wide_stages_become_their_leading_components(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("miue.analysis.features.WIDEST", 16)
    monkeypatch.setattr("miue.analysis.features.NARROWED", 8)
    (depth,) = paired_stages(run.place(build("linear", (3, 8, 8), 3)), easy(4), easy(4, seed=1), run)
    x, y = narrowed(*depth[1:])
    assert x.shape == y.shape == (12, 8) and depth[1].shape == (12, 192)
    variance = torch.cat([x, y]).var(0)
    assert bool((variance.diff() <= 1e-3).all())


@pytest.mark.parametrize("estimator", ["ksg", "sliced:slices=100,directions=shared", "class-conditional"])
def test_wide_features_say_what_narrow_ones_say(run: Run, monkeypatch: pytest.MonkeyPatch, estimator: str):
    """Through the whole analysis: the pixels of a linear victim, and each of them four times."""
    for name, value in (
        ("analysis.features.WIDEST", 256),
        ("analysis.features.NARROWED", 64),
        ("mi._features.WIDE", 256),
    ):
        monkeypatch.setattr(f"miue.{name}", value)
    generator = run.rng("pairs")
    scores = torch.randn(300, 8, generator=generator) * torch.linspace(2, 1, 8)
    patterns = torch.linalg.qr(torch.randn(192, 8, generator=generator))[0].T
    clean, noisy = (
        (128 + 25 * scores @ patterns * 192**0.5 / 8 + level * torch.randn(300, 192, generator=generator)).clamp(0, 255)
        for level in (0, 12)
    )

    def seen(pixels: torch.Tensor, times: int) -> ImageSet:
        images = pixels.to(torch.uint8).reshape(300, 3, 8, 8)
        wide = images.repeat_interleave(times, 2).repeat_interleave(times, 3)
        return ImageSet(wide, torch.arange(300) % 3, ("a", "b", "c"), f"{times}")

    plan = Analyzer(
        recipe=replace(FAST, net="linear", epochs=1), seeds=1, rows=300, halves=2, shuffles=1, estimators=(estimator,)
    )
    nats = []
    for times in (1, 2):
        found = plan(seen(clean, times), seen(clean, times), {"noisy": seen(noisy, times)}, run)
        assert found.runs[2].stages[-1].width == 192 * times**2
        nats.append(found.found("noisy", estimator, "embed")[0].nats)
    assert nats[0] > 0.2 and nats[1] == pytest.approx(nats[0], rel=0.15)  # slices are drawn


def test_the_plane_has_the_same_axes_for_both_sides(run: Run):
    x = torch.randn(50, 4, generator=run.rng("x")) * torch.tensor([5.0, 3.0, 0.1, 0.1])
    points, (first, second) = plane(("a", x, x + torch.tensor([2.0, 0, 0, 0])), torch.arange(50) % 2, run)
    assert len(points) == 50 and first > second > 0.1 and first + second > 0.99
    assert all(p[3] - p[1] == pytest.approx(2, abs=0.1) and p[4] == pytest.approx(p[2], abs=0.1) for p in points)
    narrow, share = plane(("a", x[:, :1], x[:, :1]), torch.arange(50) % 2, run)
    assert all(p[2] == p[4] == 0 and p[1] == p[3] for p in narrow) and share == (1.0, 0.0)


# --- ranks ---


def test_spearman_is_that_of_scipy(run: Run):
    a, b = [1.0, 2.0, 2.0, 5.0, 3.0, 9.0], [2.0, 1.0, 4.0, 4.0, 3.0, 8.0]
    found = spearman(a, b, run.rng("s"))
    assert found is not None and found.n == 6 and found.rho == pytest.approx(spearmanr(a, b).statistic)
    assert found.least <= found.rho <= found.most
    assert found == spearman(a, b, run.rng("s"))


def test_few_or_constant_pairs_have_no_rank_correlation(run: Run):
    assert spearman([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], run.rng("s")) is None
    assert spearman([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], run.rng("s")) is None


def test_four_pairs_in_order_are_no_proof(run: Run):
    found = spearman([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0], run.rng("s"))
    assert found is not None and found.rho == pytest.approx(1) and 0.05 < found.p < 0.12  # 2 of 24 orders
    assert found.least == pytest.approx(1) and found.most == pytest.approx(1)


def test_few_pairs_have_no_interval(run: Run):
    """Seven in perfect order would give one from +1 to +1; from ten on their seeds are drawn anew, too."""
    seven = spearman(list(range(7)), list(range(7)), run.rng("s"))
    assert seven is not None and seven.low is None and seven.interval == "none (fewer than 10)"
    assert (
        seven.model_copy(update={"low": 1.0, "high": 1.0}).interval == "none (fewer than 10)"
    )  # of an earlier version
    order = [float(i) for i in range(12)]
    twelve = spearman(order, order, run.rng("s"))
    spread = [[value - 5, value + 5] for value in order]
    seeds = spearman(spread, [values[::-1] for values in spread], run.rng("s"))
    assert twelve is not None and seeds is not None and twelve.rho == seeds.rho == pytest.approx(1)
    assert twelve.low == pytest.approx(1) and seeds.low is not None and seeds.low < 0.7 and "to" in seeds.interval


def test_gaps_are_correlated_over_noise_and_attacks(analysed: tuple[Analysis, Run]):
    found, run = analysed
    assert found.correlations == []  # two attacks and the noise
    extra = [found.runs[3].model_copy(update={"name": f"more {i}", "accuracy": 0.1 * i}) for i in range(3)]
    made = correlations([*found.runs, *extra], run)
    assert {c.of for c in made} == {("MI gap", "accuracy gap"), ("trace of the covariance", "MI")}
    assert {c.n for c in made} == {6} and {c.stage for c in made} == set(found.stages)


# --- records ---


def test_the_record_comes_back(analysed: tuple[Analysis, Run]):
    found, _ = analysed
    assert Analysis.model_validate_json(found.model_dump_json()) == found
    assert max(m.ceiling for m in found.found(CLEAN, "class-conditional", "embed")) == float("inf")


def test_it_resumes_by_content_and_trains_nothing_twice(
    analysed: tuple[Analysis, Run], monkeypatch: pytest.MonkeyPatch
):
    found, run = analysed
    clean, test = easy(30), easy(10, seed=1)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained, or measured, again")

    with monkeypatch.context() as patched:
        patched.setattr(analyze, "fit", never)
        patched.setattr(mi, "measure", never)
        again = PLAN(clean, test, attacks(clean), run)
        assert again == found
        renamed = PLAN(clean, test, {"other name": clean}, run)
        assert renamed.runs[2].name == "other name" and renamed.runs[2].stages == found.runs[2].stages
    with monkeypatch.context() as patched:  # other estimators: the kept victim is taken as it is
        patched.setattr("miue.training.loop.descend", never)
        more = replace(PLAN, estimators=("agreement",))(clean, test, {"nothing": clean}, run)
        assert more.estimators == ["agreement"] and more.runs[2].accuracy == found.runs[2].accuracy


def test_victims_of_an_evaluation_are_not_trained_again(keeping: Run, run: Run, monkeypatch: pytest.MonkeyPatch):
    clean, test = easy(20), easy(5, seed=1)
    protected = attacks(clean)["rolled"]
    plan = replace(PLAN, rows=60, estimators=("sliced:slices=4",))
    evaluation = Evaluation(recipes=[plan.recipe], seeds=plan.seeds)
    real, trained = victim.watched_fit, []

    def counting(*rest: Any) -> Any:
        trained.append(rest)
        return real(*rest)

    monkeypatch.setattr(victim, "watched_fit", counting)
    monkeypatch.setattr("miue.victims.fit.watched_fit", counting)
    outcome = evaluation(clean, test, protected, Budget(8), keeping)
    assert len(trained) == len(outcome.runs) == 3 * plan.seeds
    analysis = plan(clean, test, {"rolled": protected}, keeping, Budget(8))
    assert len(trained) == len(outcome.runs)
    assert {r.accuracy for r in analysis.runs} == {r.last for r in outcome.runs}
    alone = plan(clean, test, {"rolled": protected}, run, Budget(8))
    assert [(r.accuracy, r.stages) for r in alone.runs] == [(r.accuracy, r.stages) for r in analysis.runs]


def test_the_seed_decides(run: Run):
    clean, test = easy(20), easy(5, seed=1)
    plan = replace(PLAN, rows=60, estimators=("sliced:slices=4",))

    def values(run: Run) -> list:
        made = plan(clean, test, {"same": clean}, run)
        return [(r.accuracy, r.stages, r.points) for r in made.runs]

    first = values(run)
    assert first == values(run) and first != values(run.reseeded(5))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": 10}, "10 rows are too few"),
        ({"seeds": 0}, "seeds=0"),
        ({"estimators": ()}, "0 estimators"),
        ({"halves": 1}, "halves=1"),
        ({"estimators": ("ksgg",)}, "estimator 'ksgg' is unknown"),
    ],
)
def test_wrong_plans(change: dict, told: str):
    with pytest.raises(UserError, match=told):
        replace(PLAN, **change)


def test_sets_that_do_not_belong_together(run: Run):
    clean = easy(20)
    for other, told in (
        ({}, "no attack"),
        ({CLEAN: clean}, "name of a control"),
        ({"a": easy(10)}, "row by row"),
        ({"a": tiny(classes=2, per_class=30)}, "row by row"),
    ):
        with pytest.raises(UserError, match=told):
            PLAN(clean, easy(5), other, run)
    with pytest.raises(UserError, match="same classes"):
        PLAN(clean, tiny(classes=2), {"a": clean}, run)


# --- how features change while an attack is made ---

QUICK = MIUE(surrogate="small-cnn:width=4", epochs=3, steps=2, step_size=2.0, noise_batch=32, batch=16)


def test_the_driver_notes_three_numbers_an_epoch(keeping: Run, run: Run):
    data = easy(20)
    made = QUICK(data, Budget(8), keeping)
    kept = keeping.load("surrogate")
    assert kept is not None
    table = torch.tensor(kept[1]["generation"])
    assert table.shape == (3, 3) and bool((table[:, 2] > 0).all()) and bool((table[:, :2].abs() <= 1 + 1e-6).all())
    assert bool((table[:, 0] > table[:, 1]).all())  # pictures of one class are more alike than those of two
    assert torch.equal(made.delta, QUICK(data, Budget(8), run).delta)  # noting them changes nothing


def test_the_noted_cosine_is_one_less_the_trace(run: Run):
    from miue.attacks._trace import traced

    data = easy(10)
    with run.seeded("a network"):  # one whose features of no picture are all 0: a row without length has no cosine
        net = run.place(build("small-cnn:width=16", data.shape, 3)).eval()
    pictures = data.images.float() / 255
    cosine, between, within = traced(net, lambda rows: pictures[rows], torch.arange(len(data)), data.labels)
    with torch.no_grad():
        found = mi.covariance(net.embed(pictures), data.labels, run, rank=2)
    assert cosine == pytest.approx(found.cosine, abs=1e-5) and cosine == pytest.approx(1 - found.trace, abs=1e-5)
    assert cosine > between and 0 < within < 1


def test_a_resumed_attack_notes_the_same(tmp_path: Path):
    data = easy(20)
    whole, parts = (Run(seed=1, device_name="cpu", keep=tmp_path / name) for name in ("whole", "parts"))
    QUICK(data, Budget(8), whole)

    class Stop(Exception):
        pass

    saved, save = [], parts.save

    def counted(name: str, *arguments: object) -> None:
        save(name, *arguments)  # type: ignore[arg-type]
        saved.append(name)
        if len(saved) == 2:
            raise Stop

    parts.save = counted  # type: ignore[method-assign]
    with pytest.raises(Stop):
        QUICK(data, Budget(8), parts)
    again = Run(seed=1, device_name="cpu", keep=tmp_path / "parts")
    QUICK(data, Budget(8), again)
    a, b = (r.load("surrogate") for r in (whole, again))
    assert a and b and a[1] == b[1]


# --- figures ---


def test_agreement_stands_beside_what_it_tells_of_the_class():
    facts = {"kind": "estimate", "itself": 0.0, "ceiling": 2.3, "spread": 0.0, "half": 0.0, "null": 0.0}
    facts |= {"null_within": 0.0, "p": None, "notes": ["saturated: 2.09 of 2.3"]}
    both = [
        Measured(
            estimator="agreement", nats=2.0 + 0.2 * seed, parts={"label from x": 0.9, "label from y": 0.3}, **facts
        )
        for seed in (0, 1)
    ]
    assert flagged(both, ".2f") == "2.10 ± 0.14 (s), class 0.30 ± 0.00"
    assert flagged([both[0].model_copy(update={"estimator": "class-conditional"})], ".1f") == "2.0 (s)"


def test_figures_are_svg_with_the_names_of_attacks(analysed: tuple[Analysis, Run], tmp_path: Path):
    from miue.analysis.records import Generation

    found, _ = analysed
    odd = "a <b> & $x_1$"
    runs = [r.model_copy(update={"name": odd}) if r.name == "rolled" else r for r in found.runs]
    crossed = [c.model_copy(update={"shown": odd}) if c.shown == "rolled" else c for c in runs[0].crossed]
    runs[0] = runs[0].model_copy(update={"crossed": crossed})
    trace = Generation(name=odd, cosine=(0.1, 0.9), between=(0.1, 0.2), within=(0.9, 0.3))
    found = found.model_copy(update={"runs": runs, "generation": (trace,)})
    paths = figures.draw(found, tmp_path / "one")
    assert [p.name for p in paths] == ["accuracy.svg", "depth.svg", "crossed.svg", "generation.svg", "plane.svg"]
    for path in paths:
        root = ElementTree.fromstring(path.read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = " ".join("".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text"))
        wanted = {"generation.svg": [odd], "crossed.svg": ["nothing", odd, f"clean, on {odd}"]}.get(
            path.name, [CLEAN, NOISE, "nothing", odd]
        )
        assert all(name in texts for name in wanted), (path.name, texts)
        assert "nats" in texts or path.name in ("plane.svg", "generation.svg")
    again = figures.draw(found, tmp_path / "two")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
    assert figures.missing(found) == [
        "not in generation.svg: nothing (features are noted only by attacks that alternate with a surrogate, and since "
        "version 0.1.0)"
    ]


def test_without_notes_there_is_no_figure_of_the_generation(analysed: tuple[Analysis, Run], tmp_path: Path):
    assert [p.stem for p in figures.draw(analysed[0], tmp_path)] == ["accuracy", "depth", "crossed", "plane"]


def test_where_figures_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match="a set of pictures"):
        figures.ready(out / "figures", [out])
    (tmp_path / "depth.svg").write_text("<svg>mine</svg>")
    with pytest.raises(UserError, match="was not drawn by miue"):
        figures.ready(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no folder"):
        figures.ready(tmp_path / "file")
    monkeypatch.setattr("miue.analysis.figures.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"miue\[figures\]"):
        figures.ready(tmp_path / "new")


def test_an_attack_that_is_one_pattern_a_class(run: Run):
    """Features of protected pictures come together, and tell less about clean ones."""
    clean = tiny(per_class=30)
    protected = Patterns()(clean, Budget(40), run).apply(clean)
    plan = replace(PLAN, recipe=replace(FAST, epochs=12), estimators=("ksg",))
    found = plan(clean, tiny(10, seed=2), {"patterns": protected}, run, Budget(40))
    noise, made = (found.runs[i].stages[-1] for i in (1, 2))
    assert made.protected.trace < noise.protected.trace and made.mi[0].nats < noise.mi[0].nats
    assert found.runs[2].fitted > 0.8
