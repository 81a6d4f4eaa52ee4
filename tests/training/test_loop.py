"""The one training loop, its rates, accuracy, and state that is put back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from miue.core.errors import UserError
from miue.core.run import Run
from miue.testing import tiny
from miue.training.batches import Batches
from miue.training.loop import LAST_PULL, Lookahead, Training, accuracy, cosine, descend, restore, state, triangle


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


def test_a_triangle_rises_and_falls_in_straight_lines_between_its_ends():
    rate = triangle(2.0, 100, 0.25)
    assert rate(0) == pytest.approx(0.4) and rate(25) == 2.0 and rate(100) == pytest.approx(0.14)
    values = torch.tensor([rate(step) for step in range(100)])
    rise, fall = values[:26].diff(), values[25:].diff()
    assert torch.allclose(rise, rise[:1].expand(25)) and torch.allclose(fall, fall[:1].expand(74))
    assert rise[0] > 0 > fall[0] and values.max() == 2
    assert [triangle(1.0, 10, 0.0)(step) for step in (0, 10)] == pytest.approx([1.0, 0.07])


def test_a_group_learns_at_its_factor_of_the_rate(run: Run):
    slow, fast = nn.Parameter(torch.tensor([4.0])), nn.Parameter(torch.tensor([4.0]))
    optimizer = torch.optim.SGD([{"params": [slow]}, {"params": [fast], "factor": 8}], lr=1.0)
    rates = [0.1, 0.2]
    for _ in descend(lambda batch: (slow + fast).sum(), [0, 0], optimizer, rates.__getitem__, run):
        pass
    assert slow.item() == pytest.approx(4 - 0.3) and fast.item() == pytest.approx(4 - 8 * 0.3)


def test_slow_weights_follow_every_few_steps_and_at_the_end_of_an_epoch():
    net = Weight()
    slow, seen = Lookahead(net, every=2, total=5), []
    for taken in range(1, 6):
        with torch.no_grad():
            net.weight += 1
            net.beside += 1
        slow.follow(taken, taken == 5)
        seen.append(net.weight.item())
    expected, here = [], 4.0
    far = here
    for taken in range(1, 6):
        here += 1
        if taken in (2, 4, 5):
            far = here = far + (1 - (1 - LAST_PULL) * (taken / 5) ** 3) * (here - far)
        expected.append(here)
    assert seen == pytest.approx(expected) and expected[-1] < 9
    assert net.beside.item() == pytest.approx(0.5 + expected[-1] - 4)  # type: ignore[union-attr]


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


# --- epochs ---


class Weight(nn.Module):
    """A number, and a buffer beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([4.0]))
        self.register_buffer("beside", torch.tensor([0.5]))


def training(run: Run, lr: float = 0.5, identity: str = "this", own: bool = False) -> Training:
    net = Weight()
    return Training(net, torch.optim.SGD(net.parameters(), lr), run, "a number", "kept", {"what": identity}, own)


def test_a_training_with_slow_weights_pulls_them_back(run: Run):
    net, values = Weight(), []
    part = Training(net, torch.optim.SGD(net.parameters(), 0.5), run, "a number", "kept", {}, slow=2)
    for _ in part.epochs(2, 3, lambda step: 0.5):
        pull(part, 3)
        values.append(value(part))
    far = here = 4.0
    expected = []
    for taken in range(1, 7):
        here -= 0.5
        if taken % 2 == 0 or taken % 3 == 0:
            far = here = far + (1 - (1 - LAST_PULL) * (taken / 6) ** 3) * (here - far)
        expected.append(here)
    assert values == pytest.approx([expected[2], expected[5]])


def pull(part: Training, batches: int = 2, factor: float = 1.0) -> None:
    """The gradient is the factor in every step."""
    part.learn(lambda batch: (part.net.weight * batch).sum(), [factor] * batches)  # pyright: ignore


def value(part: Training) -> float:
    return next(part.net.parameters()).item()


def test_epochs_count_on_and_the_rate_goes_by_steps(run: Run):
    part, rates, seen = training(run), [], []
    for epoch in part.epochs(3, 2, lambda step: rates.append(step) or 0.1):
        seen.append((epoch, part.done))
        pull(part)
    assert seen == [(0, 0), (1, 1), (2, 2)] and part.done == 3 and rates == [0, 1, 2, 3, 4, 5]
    assert value(part) == pytest.approx(4 - 6 * 0.1)


def test_the_rate_is_a_cosine_from_that_of_the_optimizer_unless_said(run: Run):
    part, rate = training(run, lr=0.5), cosine(0.5, 6)
    for _ in part.epochs(3, 2):
        pull(part)
    assert value(part) == pytest.approx(4 - sum(map(rate, range(6))))


def test_what_is_kept_goes_on_with_the_next_epoch(keeping: Run):
    part = training(keeping)
    for epoch in part.epochs(5, 2):
        pull(part)
        part.tensors, part.facts = {"delta": torch.full((2,), float(epoch))}, {"seen": [epoch]}
        if epoch == 2:
            break  # before it is kept
    again = training(keeping)
    assert again.done == 2 and [*again.epochs(5, 2)] == [2, 3, 4]
    assert again.tensors["delta"].tolist() == [1, 1] and again.facts == {"seen": [1]}
    assert training(keeping, identity="that").done == 0
    assert training(keeping).done == 5 and not [*training(keeping).epochs(5, 2)]


def test_processes_go_on_from_an_epoch_that_all_have(keeping: Run, monkeypatch: pytest.MonkeyPatch):
    """Here the other one has ended its first epoch, and the state of the first one of this process is damaged."""
    reached = 2
    monkeypatch.setattr(Run, "least", lambda self, value: min(value, reached))
    monkeypatch.setattr(Run, "average", lambda self, tensors: None)
    monkeypatch.setattr(Run, "world", 2)
    for _ in (part := training(keeping, own=True)).epochs(2, 2):
        pull(part)
    reached = 1
    assert training(keeping, own=True).done == 1
    assert keeping.keep is not None
    next(keeping.keep.glob("kept*-0.safetensors")).unlink()
    part = training(keeping, own=True)
    assert part.done == 0 and value(part) == 4.0


def test_state_of_another_layout_is_not_read(keeping: Run):
    part = training(keeping)
    keeping.save("kept", state(part.net, part.optimizer), {"what": "this", "epoch": 1})
    assert training(keeping).done == 0


def test_random_layers_draw_from_name_and_epoch_or_what_is_said(run: Run):
    part, drawn = training(run), []

    def loss(batch: int) -> torch.Tensor:
        drawn.append(torch.rand(1).item())
        return next(part.net.parameters()).sum()

    for epoch in part.epochs(2, 1):
        part.learn(loss, [0])
        part.learn(loss, [0], "mine", epoch, 7)
    expected = []
    for epoch in range(2):
        for seeds in (("kept", "layers", epoch), ("mine", epoch, 7)):
            with run.seeded(*seeds):
                expected.append(torch.rand(1).item())
    assert drawn == expected and len({*drawn}) == 4


def test_long_gradients_of_an_epoch_are_cut(run: Run):
    part = training(run)
    for _ in part.epochs(1, 2, lambda step: 1.0):
        part.learn(lambda batch: (next(part.net.parameters()) * batch).sum(), [8.0, 0.25], clip=0.5)
    assert value(part) == pytest.approx(4 - 0.5 - 0.25, rel=1e-4)


def test_buffers_are_averaged_once_an_epoch(run: Run, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(Run, "average", lambda self, tensors: seen.append([t.item() for t in tensors]))
    part = training(run)
    for _ in part.epochs(2, 3):
        pull(part, batches=3)
    assert seen == [[1], [1], [1], [0.5]] * 2  # three gradients, then the buffer


@pytest.mark.parametrize("factor", [float("nan"), 1e30])
def test_what_diverged_is_refused_and_not_kept(keeping: Run, factor: float):
    part = training(keeping)
    with pytest.raises(UserError, match=r"^a number: .* diverged in epoch 2, .*; a smaller lr than 0.5 helps$"):
        for epoch in part.epochs(3, 1, lambda step: 0.5):
            pull(part, 1, factor if epoch else 1.0)
    assert training(keeping).done == 1 and value(training(keeping)) == 3.5


class Two(Run):
    """One of two processes, without the other; `others` is what that one has finished."""

    def __init__(self, keep: Path, rank: int, others: int = 99) -> None:
        super().__init__(seed=1, device_name="cpu", keep=keep)
        self.number, self.others = rank, others

    @property
    def rank(self) -> int:
        return self.number

    @property
    def world(self) -> int:
        return 2

    def average(self, tensors: object) -> None:
        pass

    def least(self, value: int) -> int:
        return min(value, self.others)


def test_processes_with_a_state_of_their_own_go_on_together(tmp_path: Path):
    """One was killed an epoch later than the other: both go on after the epoch that both have finished."""
    for rank, last in ((0, 4), (1, 3)):
        part = training(Two(tmp_path, rank), own=True)
        for epoch in part.epochs(9, 1, lambda step: 0.5):
            if epoch == last:
                break
            pull(part, 1)
    for rank, others in ((0, 3), (1, 4)):
        part = training(Two(tmp_path, rank, others), own=True)
        assert part.done == 3 and value(part) == 4 - 3 * 0.5


def test_of_processes_with_the_same_state_the_first_keeps_it(tmp_path: Path):
    for rank, kept in ((1, 0), (0, 2)):
        for _ in training(Two(tmp_path, rank)).epochs(2, 1):
            pass
        assert training(Two(tmp_path, rank)).done == kept
    assert training(Two(tmp_path, 1)).done == 2
