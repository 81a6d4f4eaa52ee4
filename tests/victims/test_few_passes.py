"""The recipe `speedrun` and its parts: mirrored in turns, faster biases, slow weights, six views, whatever defends."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from easy import FAST, easy
from miue import data
from miue.core.errors import UserError
from miue.core.run import Run
from miue.defenses import combination
from miue.testing import tiny
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import _optimizer, fit, watched_fit
from miue.victims.recipe import CrossEntropy, Recipe, Shift, Smoothed
from miue.victims.recipes import RECIPES, recipe

NET = "speedrun:width=4"
SMALL = replace(RECIPES["speedrun"], net=NET, epochs=3, batch=8, slow=2)


@dataclass(frozen=True)
class Watching:
    """Remembers the pictures of every batch."""

    seen: list[Tensor] = field(default_factory=list, compare=False, repr=False)
    slot: ClassVar[Literal["loss"]] = "loss"

    def __call__(self, net: Any, x: Any, y: Any, generator: Any, done: float) -> Any:
        self.seen.append(x.detach().clone())
        return CrossEntropy()(net, x, y, generator, done)


def turns(run: Run, **changes: Any) -> list[list[bool]]:
    """For every epoch, which pictures of the set were mirrored."""
    pictures, watching = tiny(per_class=5, size=8), Watching()
    fit(pictures, replace(FAST, loss=watching, batch=10, epochs=4, **changes), run)
    x = pictures.images.float() / 255
    rows = []
    for epoch in torch.cat(watching.seen).split(len(pictures)):
        sides = [
            [torch.equal(view, seen) for seen in epoch].count(True) for both in x for view in (both, both.flip(-1))
        ]
        pairs = list(zip(sides[::2], sides[1::2], strict=True))
        assert all(sorted(pair) == [0, 1] for pair in pairs)  # each picture once, in one of two ways
        rows.append([pair[1] == 1 for pair in pairs])
    return rows


def test_every_picture_is_mirrored_in_exactly_every_other_epoch(run: Run):
    rows = turns(run, alternate=True)
    assert all(now == [not before for before in last] for last, now in itertools.pairwise(rows))
    assert 2 < sum(rows[0]) < 13  # which ones come first is drawn
    assert rows[0] != turns(run.reseeded(5), alternate=True)[0]
    assert not any(map(any, turns(run)))


def test_biases_have_a_rate_and_a_decay_of_their_own():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    plan = Recipe(lr=0.5, weight_decay=0.01, bias_lr=20.0, momentum=0.8, nesterov=True)
    rest, biases = _optimizer(net, plan).param_groups
    assert [p is q for p, q in zip(biases["params"], (net[0].bias, net[1].bias, net[2].bias), strict=True)] == [
        True
    ] * 3
    assert len(rest["params"]) == 3 and (rest["weight_decay"], rest.get("factor", 1)) == (0.01, 1)
    assert (biases["weight_decay"], biases["factor"]) == (0.01 / 20, 20)  # a step takes the same share of all weights
    assert rest["momentum"] == biases["momentum"] == 0.8 and rest["nesterov"] and biases["nesterov"]
    (alone,) = _optimizer(net, replace(plan, bias_lr=1.0)).param_groups
    assert len(alone["params"]) == 6
    (head,) = _optimizer(torch.nn.Linear(4, 2, bias=False), plan).param_groups
    assert len(head["params"]) == 1


@pytest.mark.parametrize(
    "change",
    [{"bias_lr": 4.0}, {"schedule": "triangle"}, {"slow": 2}, {"alternate": True}, {"augment": (Shift(1 / 8),)}],
)
def test_every_field_counts(run: Run, change: dict):
    plain = fit(easy(), FAST, run).state_dict()
    other = fit(easy(), replace(FAST, **change), run).state_dict()
    assert not all(torch.equal(plain[k], other[k]) for k in plain)


class Stop(Exception):
    """An interruption."""


def test_interrupted_it_ends_in_the_same_weights(keeping: Run, run: Run):
    whole = fit(easy(), SMALL, run).state_dict()

    def stop(last: int, epoch: int, net: object) -> None:
        if epoch == last:
            raise Stop

    for last in (1, 2, 3):
        with pytest.raises(Stop):
            watched_fit(easy(), SMALL, keeping, partial(stop, last))
    resumed = fit(easy(), SMALL, keeping).state_dict()
    assert "trunk.whitened.weight" in resumed and all(torch.equal(v, resumed[k]) for k, v in whole.items())


def test_it_learns_the_drawn_set(run: Run):
    """Ten kinds of drawings in eight passes."""
    plan = replace(SMALL, net="speedrun:width=8", epochs=8, batch=16, slow=5)
    train, test = data.shapes(40), data.shapes(10, split="test")
    net = fit(train, plan, run)
    chance = test.chance
    assert accuracy(net, test, run) > 3 * chance
    assert accuracy(net, test, run, crops=True) > 3 * chance


@pytest.mark.parametrize(
    "text", ["jpeg:quality=50", "cutout", "at:eps=2,steps=1", "staged", "simclr:epochs=1,batch=8,width=4"]
)
def test_it_works_with_defenses_of_every_slot(run: Run, text: str):
    defended = SMALL.defended(*combination(text))
    assert defended.defense == text and defended.augment[0] == Shift()
    if text.startswith(("at", "staged")):
        assert not isinstance(defended.loss, Smoothed)
    net, plain = (fit(easy(), replace(plan, epochs=1), run) for plan in (defended, SMALL))
    assert all(value.isfinite().all() for value in net.state_dict().values())
    assert not all(torch.equal(value, plain.state_dict()[name]) for name, value in net.state_dict().items())


def test_pictures_in_grey_and_two_classes(run: Run):
    grey = easy()
    grey = replace(grey, images=grey.images[:, :1], labels=(grey.labels > 0).long(), classes=("a", "b"))
    assert accuracy(fit(grey, replace(SMALL, epochs=8), run), grey, run) > 0.6


def test_six_views_are_averaged(run: Run):
    net = fit(easy(), SMALL, run)
    batches = Batches(easy(seed=1), run)
    calls: list[int] = []
    net.register_forward_hook(lambda m, i, output: calls.append(len(output)))
    accuracy(net, batches, run)
    assert calls == [36]
    accuracy(net, batches, run, crops=True)
    assert calls == [36] * 7


def test_another_network_has_the_rate_of_biases_that_it_can_take():
    assert recipe("speedrun", "resnet18") == replace(RECIPES["speedrun"], net="resnet18")
    for net in ("linear", "vit-tiny"):  # no batch norm before the biases, and AdamW, whose steps have one size
        assert recipe("speedrun", net).bias_lr == 1
    assert recipe("papers", NET) == replace(RECIPES["papers"], net=NET)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("speedrun:slow=-1", "slow=-1, bias_lr=64: at least 0 and a positive factor"),
        ("speedrun:bias_lr=0", "bias_lr=0"),
        ("speedrun:schedule=square", "schedule=square is not allowed; choose from cosine, triangle"),
    ],
)
def test_refusals(text: str, told: str):
    with pytest.raises(UserError, match=told):
        recipe(text)


def test_settings_of_the_source():
    """Per 1,024 pictures: a rate of 1.5 for the mean loss, 64 times that for biases, a decay of 0.002 a step."""
    plan = RECIPES["speedrun"]
    many = 1024 / plan.batch
    assert plan.lr * many == pytest.approx(1.5, rel=0.01) and plan.bias_lr == 64
    assert plan.lr * plan.weight_decay * many == pytest.approx(0.002, rel=0.01)
    assert (plan.momentum, plan.nesterov, plan.loss, plan.slow * plan.batch) == (0.85, True, Smoothed(0.2), 5 * 1024)
