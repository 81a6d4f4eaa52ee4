"""The one training loop, its rates, accuracy, and state that is put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from miue.core.run import Run
from miue.testing import tiny
from miue.training.batches import Batches
from miue.training.loop import accuracy, cosine, descend, restore, state


def line() -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.tensor([4.0]))
    return weight, torch.optim.SGD([weight], lr=123.0)


def test_a_step_a_batch_at_the_rate_of_that_step(run: Run):
    weight, optimizer = line()
    rates = {5: 0.5, 6: 0.25, 7: 0.0}
    losses = list(descend(lambda batch: (weight * batch).sum(), [1.0, 2.0, 3.0], optimizer, rates.__getitem__, run, 5))
    # the gradient of weight * batch is batch
    assert weight.item() == 4 - 0.5 * 1 - 0.25 * 2
    assert [value.item() for value in losses] == [4.0, 7.0, 9.0]
    assert not any(value.requires_grad for value in losses)


def test_nothing_happens_before_it_is_asked_for(run: Run):
    weight, optimizer = line()
    steps = descend(lambda batch: (weight**2).sum(), [0, 0], optimizer, lambda step: 0.1, run)
    assert weight.item() == 4
    next(steps)
    assert weight.item() == pytest.approx(4 - 0.1 * 8)


def test_gradients_do_not_pile_up_and_are_averaged(run: Run, monkeypatch: pytest.MonkeyPatch):
    weight, optimizer = line()
    seen = []
    monkeypatch.setattr(Run, "average", lambda self, tensors: seen.extend(t.clone() for t in tensors))
    list(descend(lambda batch: (weight * batch).sum(), [1.0, 1.0, 1.0], optimizer, lambda step: 0.1, run))
    assert [g.item() for g in seen] == [1, 1, 1]


def test_a_long_gradient_is_cut_to_the_norm_given(run: Run):
    for clip, moved in ((0.5, 0.5), (100.0, 8.0)):
        weight, optimizer = line()
        list(descend(lambda batch, w=weight: (w**2).sum(), [0], optimizer, lambda step: 1.0, run, clip=clip))
        assert weight.item() == pytest.approx(4 - moved, rel=1e-4)


def test_the_cosine_of_the_released_code():
    rate = cosine(0.1, 100, floor=1e-6)
    for epoch, expected in ((0, 0.1), (1, 0.0999753), (50, 0.0500005), (99, 2.567e-5)):
        assert rate(epoch) == pytest.approx(expected, rel=1e-4)


def test_a_cosine_rises_then_falls_between_its_ends():
    rate = cosine(1.0, 40, warmup=0.25, floor=0.01)
    values = [rate(step) for step in range(40)]
    assert values[:10] == sorted(values[:10]) and 0 < values[0] < 0.2
    assert values[10] == 1.0 == max(values)
    assert values[10:] == sorted(values[10:], reverse=True) and 0.01 <= values[-1] < 0.02
    assert cosine(1.0, 1)(0) == 1.0


class Told(nn.Module):
    """Puts every picture in the class of its mean grey level; wrong while it trains."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = (x.mean((1, 2, 3)) * 10).round().long()
        return nn.functional.one_hot(level if not self.training else 2 - level, 3).float()


def test_accuracy_is_a_share_in_evaluation_mode(run: Run):
    data = tiny(per_class=4, size=4)
    for row, label in enumerate(data.labels.tolist()):
        data.images[row] = int(25.5 * label) + 1
    data.images[0] = 52  # looks like class 2
    net = Told().train()
    assert accuracy(net, Batches(data, run), run, size=5) == pytest.approx(11 / 12)
    assert not net.training
    assert accuracy(net, Batches(data, run, torch.tensor([0, 1])), run) == 0.5


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_state_put_back_goes_on_as_if_nothing_happened(run: Run, kind: str):
    def fresh(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        with run.reseeded(seed).seeded("net"):
            net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
        adam = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
        return net, adam if kind == "adamw" else torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def train(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        xs = torch.rand(6, 8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        for _ in descend(
            lambda x: net(x).square().mean(), xs[first:last], optimizer, lambda s: 0.1 / (s + 1), run, first
        ):
            pass

    whole, optimizer = fresh(1)
    train(whole, optimizer, 0, 3)
    kept = {name: tensor.clone() for name, tensor in state(whole, optimizer).items()}
    train(whole, optimizer, 3, 6)
    other, optimizer = fresh(2)
    restore(other, optimizer, kept)
    train(other, optimizer, 3, 6)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
