"""Victims learn what can be learnt, follow their recipe, and go on where they were."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal

import pytest
import torch

from miue.batches import Batches
from miue.recipes import RECIPES, for_victim, recipe
from miue.run import Run
from miue.testing import tiny
from miue.train import accuracy
from miue.types import ImageSet
from miue.victims import CrossEntropy, Recipe, fit

FAST = Recipe(net="small-cnn:width=4", epochs=4, batch=16, augment=())


def easy(per_class: int = 12, size: int = 8, seed: int = 0) -> ImageSet:
    """Three classes that differ in colour, on noise."""
    data = tiny(per_class=per_class, size=size, seed=seed)
    images = data.images // 2
    for label in range(3):
        images[data.labels == label, label] += 127
    return data.with_images(images)


def test_a_victim_learns_an_easy_set(run: Run):
    net, seen = fit(easy(), replace(FAST, epochs=8), run)
    assert seen == {}
    assert accuracy(net, Batches(easy(), run), run) > 0.9
    assert accuracy(net, Batches(easy(seed=1), run), run) > 0.9  # pictures that it has not met


def test_it_cannot_tell_what_there_is_nothing_in(run: Run):
    net, _ = fit(tiny(per_class=12), FAST, run)
    assert accuracy(net, Batches(tiny(per_class=60, seed=9), run), run) < 0.5


def test_the_same_seed_gives_the_same_victim(run: Run):
    torch.manual_seed(1)
    first = fit(easy(), FAST, run)[0].state_dict()
    torch.manual_seed(2)
    second = fit(easy(), FAST, run)[0].state_dict()
    third = fit(easy(), FAST, run.reseeded(2))[0].state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], third[k]) for k in first)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.01},
        {"weight_decay": 0.1},
        {"momentum": 0.0},
        {"nesterov": True},
        {"optimizer": "adamw"},
        {"warmup": 0.5},
        {"batch": 9},
        {"epochs": 3},
        {"augment": Recipe().augment},
    ],
)
def test_every_field_of_a_recipe_counts(run: Run, change: dict):
    plain = fit(easy(), FAST, run)[0].state_dict()
    other = fit(easy(), replace(FAST, **change), run)[0].state_dict()
    assert not all(torch.equal(plain[k], other[k]) for k in plain)


def test_it_is_watched_after_every_epoch(run: Run):
    trained = []

    def watch(epoch: int, net: torch.nn.Module) -> float | None:
        trained.append(epoch)
        return epoch / 10 if epoch % 2 else None

    _, seen = fit(easy(), FAST, run, watch)
    assert seen == {1: 0.1, 3: 0.3} and trained == [1, 2, 3, 4]


class Stop(Exception):
    pass


@pytest.mark.parametrize("augment", [(), Recipe().augment])
def test_interrupted_it_ends_in_the_same_weights(keeping: Run, run: Run, augment: tuple):
    plan = replace(FAST, augment=augment, batch=10)
    whole, expected = fit(easy(), plan, run, lambda epoch, net: float(epoch))

    def stop(last: int, epoch: int, net: object) -> float:
        if epoch == last:
            raise Stop
        return float(epoch)

    for last in (1, 2, 4):
        with pytest.raises(Stop):
            fit(easy(), plan, keeping, partial(stop, last))
    net, seen = fit(easy(), plan, keeping, lambda epoch, net: float(epoch))
    assert seen == expected
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in whole.state_dict().items())


def test_kept_state_of_another_victim_is_not_used(keeping: Run, run: Run):
    fit(easy(), FAST, keeping)
    for data, plan, seed in ((easy(seed=4), FAST, 1), (easy(), replace(FAST, lr=0.05), 1), (easy(), FAST, 2)):
        expected = fit(data, plan, run.reseeded(seed))[0].state_dict()
        kept = replace(keeping, seed=seed)
        assert all(torch.equal(v, expected[k]) for k, v in fit(data, plan, kept)[0].state_dict().items())


@dataclass(frozen=True)
class Mute:
    """Shows nothing, and says of every picture that it is of the last class."""

    slot: ClassVar[Literal["augment"]] = "augment"

    def __call__(self, x, y, generator):
        return torch.zeros_like(x), torch.eye(y.shape[1])[-1].expand_as(y)


@dataclass(frozen=True)
class Counting:
    calls: list = field(default_factory=list, compare=False, repr=False)
    slot: ClassVar[Literal["loss"]] = "loss"

    def __call__(self, net, x, y):
        self.calls.append((float(x.abs().max()), y.clone()))
        return CrossEntropy()(net, x, y)


def test_augmentations_and_losses_get_what_they_should(run: Run):
    watching = Counting()
    fit(easy(), replace(FAST, augment=(Mute(),), loss=watching, epochs=1), run)
    assert len(watching.calls) == 3 and all(top == 0 and (y[:, 2] == 1).all() for top, y in watching.calls)
    fit(easy(), replace(FAST, loss=watching, epochs=1), run)
    top, y = watching.calls[-1]
    assert 0 < top <= 1 and y.shape == (12, 3) and y.dtype == torch.float32 and (y.sum(1) == 1).all()


def test_soft_labels():
    class Fixed:
        def __call__(self, x):
            return torch.tensor([[2.0, 0.0]])

    x = torch.zeros(1, 3, 2, 2)
    hard = [CrossEntropy()(Fixed(), x, torch.eye(2)[[k]]).item() for k in (0, 1)]
    soft = CrossEntropy()(Fixed(), x, torch.tensor([[0.3, 0.7]])).item()
    assert soft == pytest.approx(0.3 * hard[0] + 0.7 * hard[1])


def test_a_recipe_is_described_in_plain_values():
    described = recipe("quick").described()
    assert json.loads(json.dumps(described)) == described
    assert described["net"] == RECIPES["quick"].net and "FlipCrop" in described["augment"][0]


def test_transformers_get_the_optimizer_that_they_need():
    base = recipe("papers:epochs=7")
    vit = for_victim(base, "vit-tiny")
    assert (vit.net, vit.optimizer, vit.epochs) == ("vit-tiny", "adamw", 7) and vit.lr < 0.01 and vit.warmup > 0
    assert for_victim(base, "resnet50") == replace(base, net="resnet50")
    adam = recipe("vit:lr=0.002")
    assert for_victim(adam, "vit-small") == replace(adam, net="vit-small")


@dataclass(frozen=True)
class Drawing:
    """Remembers what its generator gives."""

    draws: list = field(default_factory=list, compare=False, repr=False)
    slot: ClassVar[Literal["augment"]] = "augment"

    def __call__(self, x, y, generator):
        self.draws.append(float(torch.rand((), generator=generator)))
        return x, y


def test_augmentation_is_drawn_anew_for_every_batch_of_every_epoch(run: Run):
    first, second = Drawing(), Drawing()
    fit(easy(), replace(FAST, augment=(first,)), run)
    fit(easy(), replace(FAST, augment=(second,)), run)
    assert len(set(first.draws)) == 4 * 3 and first.draws == second.draws
