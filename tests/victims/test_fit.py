"""Victims learn what can be learnt, follow their recipe, and go on where they were."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal

import pytest
import torch

from easy import FAST, easy
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.defenses import defense
from miue.testing import tiny
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import fit, prepare, watched_fit
from miue.victims.recipe import CrossEntropy, Recipe, Smoothed
from miue.victims.recipes import RECIPES, recipe


def test_a_victim_learns_an_easy_set(run: Run):
    net, seen = watched_fit(easy(), replace(FAST, epochs=8), run)
    assert seen == {}
    assert accuracy(net, Batches(easy(), run), run) > 0.9
    assert accuracy(net, Batches(easy(seed=1), run), run) > 0.9  # pictures that it has not met


def test_it_cannot_tell_what_there_is_nothing_in(run: Run):
    net = fit(tiny(per_class=12), FAST, run)
    assert accuracy(net, Batches(tiny(per_class=60, seed=9), run), run) < 0.5


def test_the_same_seed_gives_the_same_victim(run: Run):
    torch.manual_seed(1)
    first = fit(easy(), FAST, run).state_dict()
    torch.manual_seed(2)
    second = fit(easy(), FAST, run).state_dict()
    third = fit(easy(), FAST, run.reseeded(2)).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], third[k]) for k in first)


@dataclass(frozen=True)
class Half:
    """Darkens the training set."""

    slot: ClassVar[Literal["purify"]] = "purify"

    def __call__(self, x, y, run):
        return x / 2


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
        {"hold_out": 0.3},
        {"purify": (Half(),)},
    ],
)
def test_every_field_of_a_recipe_counts(run: Run, change: dict):
    plain = fit(easy(), FAST, run).state_dict()
    other = fit(easy(), replace(FAST, **change), run).state_dict()
    assert not all(torch.equal(plain[k], other[k]) for k in plain)


def test_it_is_watched_after_every_epoch(run: Run):
    trained = []

    def watch(epoch: int, net: torch.nn.Module) -> float | None:
        trained.append(epoch)
        return epoch / 10 if epoch % 2 else None

    _, seen = watched_fit(easy(), FAST, run, watch)
    assert seen == {1: 0.1, 3: 0.3} and trained == [1, 2, 3, 4]


class Stop(Exception):
    pass


@pytest.mark.parametrize("augment", [(), Recipe().augment])
def test_interrupted_it_ends_in_the_same_weights(keeping: Run, run: Run, augment: tuple):
    plan = replace(FAST, augment=augment, batch=10)
    whole, expected = watched_fit(easy(), plan, run, lambda epoch, net: float(epoch))

    def stop(last: int, epoch: int, net: object) -> float:
        if epoch == last:
            raise Stop
        return float(epoch)

    for last in (1, 2, 4):
        with pytest.raises(Stop):
            watched_fit(easy(), plan, keeping, partial(stop, last))
    net, seen = watched_fit(easy(), plan, keeping, lambda epoch, net: float(epoch))
    assert seen == expected
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in whole.state_dict().items())


def test_kept_state_of_another_victim_is_not_used(keeping: Run, run: Run):
    fit(easy(), FAST, keeping)
    for data, plan, seed in ((easy(seed=4), FAST, 1), (easy(), replace(FAST, lr=0.05), 1), (easy(), FAST, 2)):
        expected = fit(data, plan, run.reseeded(seed)).state_dict()
        kept = replace(keeping, seed=seed)
        assert all(torch.equal(v, expected[k]) for k, v in fit(data, plan, kept).state_dict().items())


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

    def __call__(self, net, x, y, generator, done):
        self.calls.append((float(x.abs().max()), y.clone()))
        return CrossEntropy()(net, x, y, generator, done)


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
    rest = (torch.Generator(), 0.0)
    hard = [CrossEntropy()(Fixed(), x, torch.eye(2)[[k]], *rest).item() for k in (0, 1)]
    soft = CrossEntropy()(Fixed(), x, torch.tensor([[0.3, 0.7]]), *rest).item()
    assert soft == pytest.approx(0.3 * hard[0] + 0.7 * hard[1])
    smoothed = Smoothed(0.1)(Fixed(), x, torch.tensor([[1.0, 0.0]]), *rest).item()
    assert smoothed == pytest.approx(0.95 * hard[0] + 0.05 * hard[1])


def test_smoothed_labels_give_way_to_a_defense_in_the_loss():
    at = defense("at:eps=4")
    assert isinstance(recipe("fast").loss, Smoothed) and recipe("fast").defended(at).loss == at


def test_a_recipe_is_described_in_plain_values():
    described = recipe("quick").described()
    assert json.loads(json.dumps(described)) == described
    assert described["net"] == RECIPES["quick"].net and "FlipCrop" in described["augment"][0]


# --- a held-out part ---


def watching(net: torch.nn.Module, weights: dict[int, dict], epoch: int) -> None:
    weights[epoch] = {k: v.clone() for k, v in net.state_dict().items()}


def held_out(run: Run, plan: Recipe) -> tuple[dict[int, dict], dict[int, float], dict]:
    """Weights after each epoch, the accuracy that they have on the held-out part, and the weights at the end."""
    weights, shares = dict[int, dict](), dict[int, float]()
    ready = prepare(noisy(), plan, run)
    assert ready.held is not None

    def watch(epoch: int, net: torch.nn.Module) -> None:
        watching(net, weights, epoch)
        shares[epoch] = accuracy(net, ready.held, run)  # type: ignore[arg-type]

    net, _ = watched_fit(ready, plan, run, watch)
    return weights, shares, net.state_dict()


def noisy() -> ImageSet:
    """An easy set with a third of its labels wrong: accuracy goes up and down."""
    data = easy(per_class=20)
    return replace(data, labels=torch.where(torch.arange(60) // 3 % 3 == 1, (data.labels + 1) % 3, data.labels))


def test_the_best_epoch_on_a_held_out_part_is_kept(run: Run):
    plan = replace(FAST, epochs=10, lr=0.3, hold_out=0.25)
    earlier = 0  # which epoch is the best one differs from processor to processor, hence several seeds
    for seed in range(4):
        weights, shares, final = held_out(run.reseeded(seed), plan)
        best = max(shares, key=lambda e: (shares[e], -e))
        assert all(torch.equal(v, final[k]) for k, v in weights[best].items())
        earlier += not all(torch.equal(v, final[k]) for k, v in weights[10].items())
    assert earlier


def test_patience_ends_the_training(run: Run):
    plan = replace(FAST, epochs=30, lr=0.3, hold_out=0.25, patience=3)
    weights, shares, final = held_out(run, plan)
    best = max(shares, key=lambda e: (shares[e], -e))
    assert max(weights) == best + 3 < 30
    assert all(torch.equal(v, final[k]) for k, v in weights[best].items())


def test_what_is_held_out_is_not_trained_on(run: Run):
    ready = prepare(easy(), replace(FAST, hold_out=0.25), run)
    assert ready.held is not None
    rows = {row.numpy().tobytes() for row in ready.train.data.images}
    held = {row.numpy().tobytes() for row in ready.held.data.images}
    assert not rows & held and len(rows) == 27 and len(held) == 9
    assert rows | held == {row.numpy().tobytes() for row in easy().images}


def test_an_interrupted_one_remembers_its_best_epoch(keeping: Run, run: Run):
    plan = replace(FAST, epochs=10, lr=0.3, hold_out=0.25, patience=4)
    expected = fit(noisy(), plan, run).state_dict()

    def stop(last: int, epoch: int, net: object) -> None:
        if epoch == last:
            raise Stop

    for last in (2, 5):
        with pytest.raises(Stop):
            watched_fit(noisy(), plan, keeping, partial(stop, last))
    assert all(torch.equal(v, expected[k]) for k, v in fit(noisy(), plan, keeping).state_dict().items())


@pytest.mark.parametrize("change", [{"hold_out": 1.0}, {"hold_out": -0.1}, {"patience": 3}, {"patience": -1}])
def test_refused_parts(change: dict):
    with pytest.raises(UserError, match="a share below 1, and patience only with one"):
        replace(FAST, **change)


def test_nets_without_normalisation_get_a_lower_rate():
    for net in ("linear", "mlp2:width=8", "mlp3", "lenet5"):
        assert recipe("papers", net) == replace(recipe("papers"), net=net, lr=0.01)


def test_transformers_get_the_optimizer_that_they_need():
    vit = recipe("papers:epochs=7", "vit-tiny")
    assert (vit.net, vit.optimizer, vit.epochs) == ("vit-tiny", "adamw", 7) and vit.lr < 0.01 and vit.warmup > 0
    assert recipe("papers", "resnet50") == replace(recipe("papers"), net="resnet50")
    assert recipe("vit:lr=0.002", "vit-small") == recipe("vit:lr=0.002,net=vit-small")
    assert recipe("papers:net=vit-tiny,epochs=7") == vit  # named in either way, it is the same victim


@pytest.mark.parametrize("net", ["mlp2", "vit-tiny", "resnet18"])
def test_what_a_recipe_is_told_holds_for_every_network(net: str):
    told = recipe("papers:lr=0.03,weight_decay=0.002,net=lenet5", net)
    assert (told.net, told.lr, told.weight_decay) == (net, 0.03, 0.002)


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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"momentum": -1.0}, "momentum=-1"),
        ({"momentum": 1.0}, "momentum=1"),
        ({"warmup": 5.0}, "warmup=5"),
        ({"weight_decay": -1.0}, "weight_decay=-1"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov=false"),
    ],
)
def test_recipes_that_no_optimizer_takes(change: dict, told: str):
    with pytest.raises(UserError, match=told):
        Recipe(**change)


@pytest.mark.parametrize("text", ["none", "flip", "flip-crop", "shift"])
def test_an_augmentation_is_given_by_name(text: str, run: Run):
    """Mirrored or moved is what the name says, and pictures without any come as they are."""
    chosen, x = recipe(f"quick:augment={text},lr=0.05"), torch.rand(64, 3, 16, 16, generator=run.rng("x"))
    assert chosen.lr == 0.05 and chosen.defense == ""
    y, seen = torch.zeros(64, 2), x
    for augment in chosen.augment:
        seen, _ = augment(seen, y, run.rng("views"))
    same = (seen == x).flatten(1).all(1)
    mirrored = (seen == x.flip(-1)).flatten(1).all(1)
    assert bool(same.all()) == (text == "none")
    assert (10 < mirrored.sum() < 54 and bool((same | mirrored).all())) == (text == "flip")
    assert (recipe("quick").augment == chosen.augment) == (text == "flip-crop")


def test_an_augmentation_that_is_none():
    with pytest.raises(UserError, match=r"augment=crop is not allowed; choose from none, flip, flip-crop, shift;"):
        recipe("quick:augment=crop")


def test_published_settings_of_victims():
    """The constants of the sources, not those of this file."""
    papers, longer, authors = (RECIPES[name] for name in ("papers", "papers-200", "mi-ue"))
    assert (papers.lr, papers.momentum, papers.weight_decay, papers.epochs, papers.batch) == (0.1, 0.9, 5e-4, 60, 128)
    assert (longer.lr, longer.weight_decay, longer.epochs) == (0.1, 1e-4, 200) and RECIPES["papers-100"].epochs == 100
    assert (authors.lr, authors.weight_decay, authors.epochs) == (0.5, 1e-4, 200)
