"""Tied channels, a colour part, sub-groups, balance and views, in both drivers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from probes import TINY, Stopping, Watching

from miue.attacks import EM, MIUE, PIL, REM, TAP, TUE, attack
from miue.attacks.alternation import Alternation
from miue.attacks.min_min import Alternating
from miue.attacks.shape import Shape
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.testing import check_attack, tiny
from miue.training import perturb
from miue.training.batches import Batches
from miue.training.colour import luma
from miue.training.rows import Rows

CHEAP: dict[str, Any] = {"surrogate": "small-cnn:width=4", "epochs": 2, "steps": 2, "batch": 8}
FAMILIES = [
    lambda **more: MIUE(**CHEAP, step_size=2.0, noise_batch=8, **more),
    lambda **more: REM(**CHEAP, step_size=2.0, inner_steps=1, views=1, **more),
    lambda **more: TUE(**CHEAP, surrogate_steps=None, ssl=1.0, **more),
    lambda **more: TAP(**CHEAP, step_size=2.0, **more),
    lambda **more: PIL(epochs=2, steps=2, batch=8, **more),
]


def middle(data: ImageSet) -> ImageSet:
    """The pictures without values near black and white, so that nothing is clamped."""
    return data.with_images(data.images // 2 + 60)


@pytest.mark.parametrize("attack", FAMILIES)
def test_tied_channels_change_by_equal_integers(run: Run, attack):
    data = middle(tiny(per_class=6))
    protected = attack(channels="luma")(data, Budget(8), run).apply(data)
    change = protected.images.int() - data.images.int()
    assert change.any() and (change == change[:, :1]).all()


def test_tied_channels_differ_only_where_a_value_was_clamped(run: Run):
    data = tiny(per_class=6)
    made = FAMILIES[0](channels="luma")(data, Budget(32), run)
    assert (made.delta == made.delta[:, :1]).all()
    change = made.apply(data).images.int() - data.images.int()
    clamped = (data.images.int() + made.delta < 0) | (data.images.int() + made.delta > 255)
    assert torch.equal(change[~clamped], made.delta.int()[~clamped]) and clamped.any()


def test_a_tied_delta_is_as_large_as_the_channel_with_most_room(run: Run):
    data = tiny(per_class=2)
    form = Shape(FAMILIES[0](channels="luma"), data, Budget(8), run, torch.arange(len(data)))
    x = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1)
    assert form.keep_in_range(torch.full((1, 1, 1, 1), 0.03), x).item() == pytest.approx(0.03)
    white = torch.ones(1, 3, 1, 1)
    assert form.keep_in_range(torch.full((1, 1, 1, 1), 0.03), white).item() == 0
    assert form.keep_in_range(torch.full((1, 1, 1, 1), -0.03), white).item() == pytest.approx(-0.03)


@pytest.mark.parametrize("attack", [FAMILIES[0], FAMILIES[3]])
def test_the_colour_part_keeps_its_limit_and_the_sum_the_budget(run: Run, attack):
    data = middle(tiny(per_class=6))
    delta = attack(channels="luma", colour=3.0)(data, Budget(8), run).delta.int()
    spread = delta.amax(1) - delta.amin(1)
    assert 0 < spread.max() <= 7 and delta.abs().max() <= 8  # 2 x 3, and the rounding


def test_the_colour_part_has_no_luma_except_where_the_sum_is_cut(run: Run):
    data = tiny(per_class=2)
    method = FAMILIES[0](channels="luma", colour=4.0)
    form = Shape(method, data, Budget(8), run, torch.arange(len(data)), colour=True)
    planes = (torch.rand(50, 4, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1) * form.share * 8 / 255
    change = form.joined(planes)
    cut = (change.abs() >= 8 / 255 - 1e-6).any(1, keepdim=True)
    assert 0.1 < cut.float().mean() < 0.9 and change.abs().max() <= 8 / 255 + 1e-7
    assert torch.allclose(luma(change)[~cut], planes[:, :1][~cut], atol=1e-4)
    assert (form.share.flatten() * 8).tolist() == [8, 4, 4, 4]


def test_a_grey_set_has_nothing_to_tie(run: Run):
    grey = middle(tiny(per_class=6, channels=1))
    plain, tied = (FAMILIES[0](channels=how)(grey, Budget(8), run).delta for how in ("rgb", "luma"))
    assert torch.equal(plain, tied)


@pytest.mark.parametrize("attack", [FAMILIES[0], FAMILIES[3], FAMILIES[4]])
def test_a_balanced_class_has_no_mean(run: Run, attack):
    data = middle(tiny(per_class=12))
    more = {"class_gradient": 10.0}
    means = [
        perturb.class_means(attack(balanced=how, **more)(data, Budget(8), run).delta.float(), data.labels, 3)
        for how in (False, True)
    ]
    assert means[0].abs().max() > 2 and means[1].abs().max() <= 1


def test_a_sub_group_is_chosen_by_pixels_not_by_rows(run: Run):
    data, method = tiny(per_class=40), FAMILIES[0](class_gradient=10.0, groups=4)
    backwards = data.select(torch.arange(len(data)).flip(0))
    first, second = (Shape(method, d, Budget(8), run, torch.arange(len(d))).group for d in (data, backwards))
    assert torch.equal(first, second.flip(0)) and set(first.tolist()) == {0, 1, 2, 3}
    subset = Shape(method, data.select(torch.arange(5, 25)), Budget(8), run, torch.arange(20)).group
    assert torch.equal(subset, first[5:25])


def test_sub_groups_have_directions_of_their_own(run: Run):
    data = tiny(per_class=30, size=4)
    form = Shape(FAMILIES[0](class_gradient=1e6, groups=2), data, Budget(8), run, torch.arange(len(data)))
    gradient = torch.randn(len(data), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shared = form.shared(torch.arange(len(data)), gradient, data.labels).sign()
    kinds = {(int(y), int(g)): shared[(data.labels == y) & (form.group == g)] for y in range(3) for g in range(2)}
    assert all((rows == rows[:1]).all() for rows in kinds.values())
    assert len({rows[0].numpy().tobytes() for rows in kinds.values()}) == 6


def test_surrogate_and_steps_look_through_the_mixture(run: Run):
    data = tiny(per_class=6)
    method = Watching(**TINY, see="1gray", pull=lambda net, x, y: x.square().sum())
    method(data, Budget(8), run)
    assert all(torch.equal(s["x"][:, 0], s["x"][:, 1]) for s in method.seen)
    # what is seen in grey is changed by the weights of the luma, so in sign alike in all channels
    delta = replace(method, seen=[])(middle(data), Budget(8), run).delta
    assert (delta.sign() == delta.sign()[:, :1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("attack", [FAMILIES[0], FAMILIES[3]])
def test_all_options_together_keep_the_contract(attack):
    """Without chroma among the views, which grey pictures lack; the pass of the colour part looks through it anyway."""
    check_attack(
        attack(
            channels="luma",
            colour=2.0,
            class_gradient=2.0,
            groups=2,
            balanced=True,
            see="gray+jpeg+resize+blur+shuffle+adversary2",
        )
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"colour": 2.0}, "only beside channels=luma"),
        ({"colour": -1.0, "channels": "luma"}, "colour=-1"),
        ({"groups": 0}, "groups=0"),
        ({"groups": 4}, "no effect without class_gradient"),
        ({"groups": 4, "class_gradient": 1.0, "per": "class"}, "no sub-groups"),
        ({"class_gradient": 1.0, "per": "class"}, "give class_gradient=0"),
        ({"class_gradient": -1.0}, "class_gradient=-1"),
        ({"balanced": True, "per": "class"}, "all that there is"),
        ({"see": "sepia"}, "'sepia' is no view"),
    ],
)
def test_a_wrong_option_is_told(fields: dict[str, Any], words: str):
    with pytest.raises(UserError) as error:
        EM(**fields)
    assert words in str(error.value)


def test_a_class_of_one_picture_keeps_its_delta_where_others_are_balanced(run: Run):
    data = tiny(per_class=6, lone=True)
    form = Shape(FAMILIES[0](balanced=True), data, Budget(8), run, torch.arange(len(data)))
    planes = torch.full((len(data), 3, 4, 4), 5 / 255)
    balanced = planes.clone()
    form.balance(balanced)
    alone = data.labels.bincount()[data.labels] == 1
    assert alone.any() and torch.equal(balanced[alone], planes[alone]) and balanced[~alone].abs().max() < 0.5 / 255


def test_balancing_the_colour_part_leaves_the_tied_plane(run: Run):
    data, method = tiny(per_class=6), FAMILIES[0](channels="luma", colour=4.0, balanced=True)
    form = Shape(method, data, Budget(8), run, torch.arange(len(data)), colour=True)
    planes = torch.full((len(data), 4, 4, 4), 3 / 255)
    balanced = planes.clone()
    form.balance(balanced)
    assert torch.equal(balanced[:, :1], planes[:, :1]) and balanced[:, 1:].abs().max() < 0.5 / 255


def test_the_accuracy_that_ends_the_pass_of_the_colour_part_is_that_in_chroma(run: Run):
    data, inputs = middle(tiny(per_class=6)), []
    method = FAMILIES[0](channels="luma", colour=2.0, stop=0.5)
    tied = Rows(run, (len(data), 1, *data.shape[1:]), "fixed")
    turns = Alternation(method, data, Budget(8), run, tied=tied)
    turns.net.register_forward_pre_hook(lambda net, given: inputs.append(given[0]))
    turns._accuracy(1)
    assert inputs and all(torch.allclose(luma(x), torch.tensor(0.5), atol=1e-3) for x in inputs)


def test_an_accuracy_through_an_adversary_is_measured(run: Run):
    data = tiny(per_class=6)
    turns = Alternation(FAMILIES[0](see="1adversary4", stop=0.5), data, Budget(8), run)
    assert 0 <= turns._accuracy(1) <= 1


def test_what_the_colour_part_aims_at_comes_from_pictures_in_chroma(run: Run):
    """Centres of features are those of pictures that the surrogate knows."""
    data, kinds = middle(tiny(per_class=6)), []

    class Recording(TAP):
        def known(self, net: Any, batches: Batches, run: Run) -> dict[str, Tensor]:
            x = batches.take(batches.rows)
            kinds.append("chroma" if torch.allclose(luma(x), torch.tensor(0.5), atol=1e-3) else "all")
            return super().known(net, batches, run)

    Recording(**CHEAP, channels="luma", colour=2.0)(data, Budget(8), run)
    assert kinds == ["all", "chroma"]


@pytest.mark.parametrize("attack", [FAMILIES[0], FAMILIES[3]])
def test_the_colour_part_leaves_the_tied_part(run: Run, attack):
    data = middle(tiny(per_class=6))
    tied = attack(channels="luma")(data, Budget(8), run).delta.int()
    both = attack(channels="luma", colour=2.0)(data, Budget(8), run).delta.int()
    inside = tied.abs() <= 3  # where l + c - luma(c) cannot reach the budget: |c - luma(c)| is at most 1.8 x 2
    shift = luma((both - tied).float()).expand_as(both)
    assert inside.any() and shift[inside & (tied.abs() < 4).all(1, keepdim=True)].abs().max() <= 1
    assert (both != tied).float().mean() > 0.3


@pytest.mark.parametrize("attack", [FAMILIES[0], FAMILIES[3]])
def test_killed_in_the_pass_of_the_colour_part_it_ends_in_the_same_bytes(tmp_path: Path, run: Run, attack):
    data, method = tiny(per_class=6), attack(channels="luma", colour=2.0)
    whole = method(data, Budget(8), run).delta
    counting = Stopping(tmp_path / "all", 10**6)
    assert torch.equal(method(data, Budget(8), counting).delta, whole)
    for stop in (counting.done // 4, counting.done // 2 + 1, counting.done - 1):
        with pytest.raises(KeyboardInterrupt):
            method(data, Budget(8), Stopping(tmp_path / str(stop), stop))
        assert torch.equal(method(data, Budget(8), Stopping(tmp_path / str(stop), 10**6)).delta, whole)


@pytest.mark.parametrize("attack", [FAMILIES[0], FAMILIES[3]])
def test_two_passes_keep_no_more_than_they_say(tmp_path: Path, attack):
    data, method = tiny(per_class=20), attack(channels="luma", colour=2.0)
    method(data, Budget(8), Run(1, keep=tmp_path))
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    said = method.kept_bytes(len(data), data.shape, len(data.classes), 1)
    assert kept <= said + 40_000  # names and facts in the files
    assert said <= 2.5 * kept + 40_000


def test_a_colour_part_is_at_most_the_budget(run: Run):
    data = middle(tiny())
    form = Shape(FAMILIES[0](channels="luma", colour=9.0), data, Budget(2), run, torch.arange(len(data)), colour=True)
    assert form.share.flatten().tolist() == [1, 1, 1, 1]


def test_a_forecast_counts_both_passes():
    method = FAMILIES[0](channels="luma", colour=2.0, colour_epochs=5)
    whole = replace(method, epochs=20)
    passes = {(short.epochs, short.colour > 0): times for short, times in whole.trials(5000)}
    assert passes == {(1, False): 15.0, (1, True): 5.0}
    assert [times for _, times in replace(whole, colour=0.0).trials(5000)] == [20.0]


def test_views_that_show_nothing_are_refused(run: Run):
    with pytest.raises(UserError, match="needs a surrogate that learns the classes"):
        attack("tue:contrastive,see=adversary4")
    grey = tiny(channels=1)
    with pytest.raises(UserError, match="grey pictures have no chroma"):
        FAMILIES[0](see="0.5chroma")(grey, Budget(8), run)


@pytest.mark.parametrize("preset", ["mi-ue:quick", "em:quick", "rem:quick", "aue:quick", "tue:contrastive,quick"])
def test_our_presets_state_their_epochs_for_5000_pictures(preset: str):
    plan = attack(preset)
    assert isinstance(plan, Alternating)
    assert plan.rounds(50_000)[0] < plan.rounds(5000)[0] == plan.epochs


def test_many_pictures_get_fewer_epochs(tmp_path: Path):
    """By the square root of their number, in both passes; pictures that are added get as many as the first ones."""
    plan = replace(FAMILIES[0](channels="luma", colour=2.0), epochs=36, colour_epochs=12, epochs_at=5000)
    assert [plan.rounds(count) for count in (1, 5000, 20_000, 50_000)] == [(36, 12), (36, 12), (18, 6), (12, 4)]
    assert replace(plan, epochs_at=0).rounds(50_000) == (36, 12)
    assert [times for _, times in plan.trials(20_000)] == [12.0, 6.0]
    data, small = tiny(per_class=6), replace(plan, epochs=4, colour_epochs=2, epochs_at=2, restarts=0)
    count = small.rounds(len(data))
    run = Stopping(tmp_path, 10**6)
    small(data, Budget(8), run)
    facts = [run.load(name, **small.identity(data, Budget(8), run))[1] for name in ("surrogate", "surrogate-colour")]
    assert tuple(of["epochs"] for of in facts) == count < (4, 2)


def test_the_pass_of_the_colour_part_has_rounds_of_its_own(tmp_path: Path):
    data, ticks = tiny(per_class=6), []
    for rounds in (0, 1, 4):
        run = Stopping(tmp_path / str(rounds), 10**6)
        FAMILIES[0](channels="luma", colour=2.0, colour_epochs=rounds)(data, Budget(8), run)
        ticks.append(run.done)
    assert ticks[0] * 3 == ticks[1] * 4 and ticks[2] * 4 == ticks[0] * 6  # 2 + 2, 2 + 1 and 2 + 4 rounds
