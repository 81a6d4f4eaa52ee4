"""The driver of the min-min family: what moves when, what a delta belongs to, resuming, several processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from probes import TINY, Stopping, Watching, levels
from torch import Tensor

from miue.attacks import MIUE
from miue.core.errors import UserError
from miue.core.launch import launch
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, stretch
from miue.testing import tiny
from miue.training import perturb


def mid_grey(n: int = 40, size: int = 8, classes: int = 4) -> ImageSet:
    """Random pictures that no budget of 8 drives into black or white."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(60, 190, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(n) % classes, tuple("abcdefgh"[:classes]), "grey")


def left_up(net, x: Tensor, y: Tensor) -> Tensor:
    """Wants every picture darker on its left half and brighter on its right half."""
    half = x.shape[-1] // 2
    return x[..., :half].sum() - x[..., half:].sum()


# --- what moves when ---


def test_noise_steps_leave_the_surrogate_alone(run: Run):
    data = tiny(per_class=6)
    method = Watching(**TINY | {"epochs": 3}, noise_batch=9)
    method(data, Budget(8), run)
    assert len(method.seen) == 3 * 2 * 2  # epochs, batches, steps
    phases = [s["weights"] for s in method.seen]
    assert [len(set(phases[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]  # weights and batch statistics stand still
    assert len(set(phases)) == 3  # and move in between
    assert not any(s["training"] or any(s["learning"]) for s in method.seen)


def test_noise_steps_make_no_weight_gradients(run: Run, monkeypatch: pytest.MonkeyPatch):
    asked = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda out, leaf, **o: asked.append(leaf.shape) or real(out, leaf, **o))
    grads = []
    method = Watching(**TINY, pull=lambda net, x, y: grads.append([p.grad for p in net.parameters()]) or net(x).sum())
    method(tiny(), Budget(8), run)
    assert set(asked) == {torch.Size([12, 3, 8, 8])}
    assert all(torch.equal(a, b) for a, b in zip(grads[0], grads[1], strict=True) if a is not None)


def test_steps_descend_the_methods_own_loss(run: Run):
    method = Watching(**TINY | {"steps": 6, "step_size": 0.5}, augment="none")
    method(mid_grey(), Budget(8), run)
    for epoch in (0, 6):
        values = [s["value"] for s in method.seen[epoch : epoch + 6]]
        assert values == sorted(values, reverse=True) and values[-1] < 0.95 * values[0]


def test_the_surrogate_learns_from_protected_pictures(run: Run):
    """With a delta that is the class, a surrogate of the last epoch tells the classes apart by it."""
    settings = TINY | {"epochs": 12, "steps": 8, "step_size": 8.0, "lr": 0.02}
    told: list[float] = []

    def push(net, x, y):
        told.append(float((net(x).argmax(1) == y).float().mean()))
        return net(x).gather(1, (y[:, None] + 0) % 3).neg().sum()

    Watching(**settings, pull=push, augment="none", per="class", batch=16)(mid_grey(60, classes=3), Budget(32), run)
    assert told[-1] > 0.9


@pytest.mark.parametrize(("epochs", "steps", "step"), [(1, 2, 1.0), (2, 2, 1.0), (1, 1, 3.0), (3, 4, 2.0)])
def test_a_delta_moves_by_its_steps_and_no_further(run: Run, epochs: int, steps: int, step: float):
    method = Watching(**TINY | {"epochs": epochs, "steps": steps, "step_size": step}, pull=left_up, augment="none")
    delta = method(mid_grey(), Budget(8), run).delta
    assert levels(delta) == [-min(8, round(epochs * steps * step)), min(8, round(epochs * steps * step))]
    assert (delta[..., :4] < 0).all() and (delta[..., 4:] > 0).all()


def test_a_step_that_grows(run: Run):
    grown = Watching(
        **TINY | {"epochs": 2, "steps": 1, "step_size": 1.0}, step_size_end=5.0, pull=left_up, augment="none"
    )
    assert levels(grown(mid_grey(), Budget(8), run).delta) == [-4, 4]  # 1, then half way to 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"steps": 0},
        {"batch": 1},
        {"noise_batch": 0},
        {"step_size": 0.0},
        {"lr": 0.0},
        {"tau": 0.0},
        {"noise_momentum": 1.0},
    ],
)
def test_settings_that_would_do_nothing_are_refused(wrong: dict[str, float]):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        MIUE(**TINY | wrong)


def test_a_step_with_momentum_remembers_where_it_went(run: Run):
    """A pull that turns round after the first step: the plain step turns at once, the other one goes on."""

    def turning(method: Watching) -> Callable[..., Tensor]:
        return lambda net, x, y: left_up(net, x, y) * (1.0 if not method.seen else -0.5)

    def moved(**options: float) -> Tensor:
        method = Watching(**TINY | {"epochs": 1, "steps": 2, "step_size": 2.0}, augment="none", **options)
        object.__setattr__(method, "pull", turning(method))
        return method(mid_grey(), Budget(8), run).delta

    assert not moved().any()
    half = moved(noise_momentum=0.9)
    # directions are scaled: -0.9 of the old one against +1 of the new one turns, a longer memory does not
    assert not half.any()
    third = Watching(**TINY | {"epochs": 1, "steps": 3, "step_size": 2.0}, augment="none", noise_momentum=0.9)
    object.__setattr__(third, "pull", lambda net, x, y: left_up(net, x, y) * (1.0 if len(third.seen) < 2 else -0.5))
    assert (third(mid_grey(), Budget(8), run).delta.abs() == 6).all()  # 1.9 x 0.9 - 1 still points the old way


def test_a_picture_follows_its_class_as_much_as_it_is_told(run: Run):
    def pull(net, x: Tensor, y: Tensor) -> Tensor:  # the first picture of each class wants the opposite of the others
        first = torch.stack([(y[:i] != y[i]).all() for i in range(len(y))])
        return (x.mean((1, 2, 3)) * torch.where(first, 1.0, -1.0)).sum()

    def against(weight: float) -> int:
        method = Watching(**TINY | {"epochs": 1, "steps": 1}, augment="none", noise_batch=40, class_gradient=weight)
        object.__setattr__(method, "pull", pull)
        return int((method(mid_grey(), Budget(8), run).delta < 0).all((1, 2, 3)).sum())

    assert [against(0.0), against(0.5), against(4.0)] == [4, 4, 0]


def test_pixel_noise_keeps_to_what_a_picture_can_hold(run: Run):
    data = mid_grey()
    data.images[:, :, :, :4], data.images[:, :, :, 4:] = 3, 255
    delta = Watching(**TINY | {"steps": 5}, pull=left_up, augment="none")(data, Budget(8), run)
    assert levels(delta.delta) == [-3, 0]
    back = Watching(**TINY | {"steps": 5}, pull=lambda *a: -left_up(*a), augment="none")(data, Budget(8), run)
    assert levels(back.delta) == [-8, 8]


# --- augmentation ---


def test_an_unaligned_flip_gives_another_delta_than_an_aligned_one(run: Run):
    """The loss wants the left of what it sees dark. Aligned, a mirrored view darkens the right of its picture."""
    settings = TINY | {"epochs": 1, "steps": 1, "step_size": 2.0}
    data = mid_grey()
    wanted = torch.tensor([-2, -2, -2, -2, 2, 2, 2, 2], dtype=torch.int8).expand(3, 8, 8)
    first = Watching(**settings, pull=left_up, augment="flip-first")(data, Budget(8), run).delta
    assert all(torch.equal(row, wanted) for row in first)
    aligned = Watching(**settings, pull=left_up, augment="flip")(data, Budget(8), run).delta
    kinds = Counter(
        "same" if torch.equal(r, wanted) else "mirrored" if torch.equal(r, -wanted) else "?" for r in aligned
    )
    assert kinds.keys() == {"same", "mirrored"} and min(kinds.values()) > 8


def test_flip_first_mirrors_the_picture_under_the_delta(run: Run):
    data = mid_grey(12)
    settings = TINY | {"epochs": 1, "steps": 2, "step_size": 2.0}
    method = Watching(**settings, pull=left_up, augment="flip-first")
    method(data, Budget(8), run)
    step = torch.tensor([-2.0] * 4 + [2.0] * 4)
    clean = data.images.float()
    mirrored = 0
    for shown in ((method.seen[1]["x"] * 255) - step).round():  # what is left when the unflipped delta is taken off
        match = [(shown == c).all().item() for c in clean] + [(shown == c.flip(-1)).all().item() for c in clean]
        assert sum(match) == 1
        mirrored += any(match[12:])
    assert 0 < mirrored < 12


def test_all_steps_of_a_batch_see_the_same_flip_where_it_belongs_to_the_data(run: Run):
    """The released code mirrors in its loader, once a batch; T would be drawn anew for every step."""
    data = mid_grey(12)
    plan = Watching(
        **TINY | {"epochs": 2, "steps": 4}, pull=lambda net, x, y: 0 * x.sum(), augment="flip-first", noise_batch=6
    )
    plan(data, Budget(8), run)
    shown = [step["x"] for step in plan.seen]
    batches = [shown[i : i + 4] for i in range(0, len(shown), 4)]
    assert len(batches) == 4 and all(torch.equal(first, x) for first, *rest in batches for x in rest)
    mirrored = [
        tuple(bool((x == c.flip(-1)).all()) for x in (first * 255).round() for c in data.images.float())
        for first, *_ in batches
    ]
    assert len(set(mirrored)) == 4 and any(map(any, mirrored))  # and anew for every batch


@pytest.mark.parametrize(("augment", "views"), [("none", 1), ("flip", 2), ("flip-crop", 18)])
def test_what_the_surrogate_sees_is_drawn_anew_for_every_step(run: Run, augment: str, views: int):
    data = mid_grey(2, classes=1)
    method = Watching(**TINY | {"epochs": 1, "steps": 60}, augment=augment, pull=lambda net, x, y: 0 * x.sum())  # pyright: ignore
    method(data, Budget(8), run)
    for row in (0, 1):  # one batch, in one order
        seen = {s["x"][row].numpy().tobytes() for s in method.seen}
        assert views / 2 <= len(seen) <= views


# --- what a delta belongs to ---


def test_one_row_a_class(run: Run):
    data = tiny(per_class=5)
    made = MIUE(**TINY, per="class")(data, Budget(8), run)
    assert made.delta.shape == (3, 3, 8, 8) and made.labels is not None and made.labels.tolist() == data.labels.tolist()
    assert all(row.any() for row in made.delta)
    rows = made.stretched(torch.arange(15), 8, 8)
    assert all(torch.equal(rows[i], rows[i % 3]) for i in range(15))


def test_one_row_a_picture(run: Run):
    made = MIUE(**TINY)(tiny(per_class=5), Budget(8), run)
    assert made.delta.shape == (15, 3, 8, 8) and made.labels is None
    assert len({row.numpy().tobytes() for row in made.delta}) == 15


def test_row_i_is_picture_i(run: Run):
    """Each picture carries its own number; a delta learns it whatever the order of batches."""
    data = mid_grey(24)
    data.images[:, 0, 0, 0] = torch.arange(24, dtype=torch.uint8) + 100

    def odd(net, x, y):
        sign = (x[:, 0, 0, 0] * 255).round().detach() % 2 * 2 - 1
        return (sign * x[:, 1].sum((1, 2))).sum()

    method = Watching(**TINY | {"epochs": 1, "steps": 1}, pull=odd, augment="none", noise_batch=5)
    delta = method(data, Budget(8), run).delta
    for row in range(24):
        assert delta[row, 1].unique().tolist() == [2 if row % 2 == 0 else -2]


@pytest.mark.parametrize("per", ["image", "class"])
def test_a_coarse_grid_is_stretched_over_the_picture(run: Run, per: str):
    data = mid_grey(size=13)
    method = Watching(
        **TINY | {"epochs": 1, "steps": 2, "step_size": 4.0}, cells=4, per=per, augment="none", pull=left_up
    )  # pyright: ignore
    made = method(data, Budget(8), run)
    assert made.delta.shape == (40 if per == "image" else 4, 3, 4, 4)
    grid = torch.tensor([-4.0, -4, 4, 4]).expand(1, 3, 4, 4) / 255
    shown = method.seen[1]["x"] - stretch(grid, 13, 13)
    clean = {p.numpy().tobytes() for p in data.images}
    assert {(p * 255).round().to(torch.uint8).numpy().tobytes() for p in shown} == clean


def test_refusals(run: Run):
    for budget in (Budget(1.0, "l2"), Budget(1, "l0"), Budget(0, "none")):
        with pytest.raises(UserError, match=f"MI-UE cannot keep a budget in {budget.norm}, only in linf"):
            MIUE(**TINY)(tiny(), budget, run)
    with pytest.raises(UserError, match="cells=-1 is too small"):
        MIUE(**TINY, cells=-1)
    with pytest.raises(UserError, match="cells=9 is not between 0"):
        MIUE(**TINY, cells=9)(tiny(), Budget(8), run)
    with pytest.raises(UserError, match="net 'nothing' is unknown"):
        MIUE(**TINY | {"surrogate": "nothing"})(tiny(), Budget(8), run)


# --- companions ---


def company(method: Watching, data: ImageSet, run: Run) -> float:
    """How many pictures of its own class a picture meets in a noise batch, on average, itself included."""
    method(data, Budget(8), run)
    counts = [c for s in method.seen for c in Counter(s["y"].tolist()).values() for _ in range(c)]
    return sum(counts) / len(counts)


def test_pictures_of_many_classes_get_companions(run: Run):
    data = tiny(per_class=16, classes=12, size=8)
    settings = TINY | {"epochs": 1, "steps": 1, "noise_batch": 24}
    alone = company(Watching(**settings, companions=1), data, run)
    chosen = company(Watching(**settings), data, run)
    four = company(Watching(**settings, companions=4), data, run)
    assert alone < 3.5 < four and four + 1 < chosen <= 16
    plenty = company(Watching(**settings | {"noise_batch": 192}), data, run)
    assert plenty == 16


def test_few_classes_are_shuffled_plainly(run: Run):
    data = tiny(per_class=40, classes=2, size=8)
    settings = TINY | {"epochs": 1, "steps": 1, "noise_batch": 20}
    plain = Watching(**settings, companions=1)
    chosen = Watching(**settings)
    company(plain, data, run)
    company(chosen, data, run)
    assert [s["y"].tolist() for s in plain.seen] == [s["y"].tolist() for s in chosen.seen]


@pytest.mark.parametrize(
    ("epochs", "restarts", "begins"),
    [(5, 0, [0]), (6, 2, [0, 2, 4]), (5, 1, [0, 3]), (2, 3, [0, 1])],  # at most one surrogate an epoch
)
def test_a_surrogate_begins_anew_with_the_first_rate(
    run: Run, monkeypatch: pytest.MonkeyPatch, epochs: int, restarts: int, begins: list[int]
):
    rates, fresh = dict[int, float](), list[bool]()
    real = torch.optim.SGD.step

    def step(optimizer: torch.optim.SGD, *given: object) -> object:
        rates.setdefault(len(method.seen) // 4, optimizer.param_groups[0]["lr"])  # 4 steps of delta an epoch
        fresh.append(not optimizer.state)
        return real(optimizer, *given)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    method = Watching(**TINY | {"epochs": epochs}, noise_batch=9, batch=9, restarts=restarts)
    method(tiny(per_class=6), Budget(8), run)
    assert [epoch for epoch, rate in rates.items() if rate == method.lr] == begins
    assert [
        at // 2 for at, new in enumerate(fresh) if new
    ] == begins  # 2 batches of theta an epoch; no momentum is left
    ends = [*begins[1:], epochs]
    assert all(rates[end - 1] <= rates[begin] for begin, end in zip(begins, ends, strict=True))
    weights = [method.seen[4 * epoch]["weights"] for epoch in range(epochs)]
    assert len(set(weights)) == epochs  # every surrogate is drawn for itself


def test_the_colour_part_has_one_surrogate(run: Run, monkeypatch: pytest.MonkeyPatch):
    begun = []
    real = torch.optim.SGD.step
    count = lambda optimizer, *given: begun.append(not optimizer.state) or real(optimizer, *given)  # noqa: E731
    monkeypatch.setattr(torch.optim.SGD, "step", count)
    tied = {"channels": "luma", "colour": 3.0, "restarts": 2, "epochs": 3}
    MIUE(**TINY | tied, noise_batch=9, batch=9)(tiny(per_class=6), Budget(8), run)
    assert sum(begun) == 3 + 1


# --- resuming ---


@pytest.mark.parametrize("options", [{}, {"noise_momentum": 0.9, "class_gradient": 1.0}, {"restarts": 2}])
def test_resumed_after_every_epoch_it_ends_in_the_same_bytes(tmp_path: Path, run: Run, options: dict[str, float]):
    data, method = tiny(per_class=6), MIUE(**TINY | {"epochs": 4} | options, noise_batch=9, batch=9)
    whole = method(data, Budget(8), run).delta
    per_epoch = 4  # two batches of theta, two of delta
    for epoch in range(4):
        for extra in (1, 3):  # while the surrogate is trained, while deltas move
            keep = tmp_path / f"{epoch}-{extra}"
            with pytest.raises(KeyboardInterrupt):
                method(data, Budget(8), Stopping(keep, epoch * per_epoch + extra))
            last = Stopping(keep, 10**6)
            assert torch.equal(method(data, Budget(8), last).delta, whole)
            assert last.first == epoch * per_epoch and last.done == (4 - epoch) * per_epoch  # nothing is done twice


def test_a_finished_run_is_not_repeated(keeping: Run):
    data, method = tiny(), Watching(**TINY)
    first = method(data, Budget(8), keeping).delta
    count = len(method.seen)
    assert torch.equal(method(data, Budget(8), keeping).delta, first) and len(method.seen) == count


@pytest.mark.parametrize(
    ("data", "budget", "options", "seed"),
    [
        (tiny(seed=5), Budget(8), {}, 1),
        (tiny(), Budget(4), {}, 1),
        (tiny(), Budget(8), {"lr": 0.05}, 1),
        (tiny(), Budget(8), {}, 2),
    ],
)
def test_what_was_kept_for_other_data_or_settings_is_ignored(keeping: Run, data, budget, options, seed):
    Watching(**TINY)(tiny(), Budget(8), keeping)
    expected = Watching(**TINY | options)(data, budget, Run(seed=seed, device_name="cpu")).delta
    other = Watching(**TINY | options)
    assert torch.equal(other(data, budget, Run(seed=seed, device_name="cpu", keep=keeping.keep)).delta, expected)
    assert len(other.seen) == 4


def test_seeds_and_data_change_the_perturbation(run: Run):
    method = MIUE(**TINY)
    first = method(tiny(), Budget(8), run).delta
    assert not torch.equal(first, method(tiny(), Budget(8), run.reseeded(2)).delta)
    assert not torch.equal(first, method(tiny(seed=3), Budget(8), run).delta)


# --- several processes ---


def test_the_mean_direction_of_a_class_is_that_of_all_processes():
    """Two processes with half of a batch each see what one sees with all of it."""
    generator = torch.Generator().manual_seed(0)
    own, y = torch.randn(6, 3, 8, 8, generator=generator), torch.tensor([0, 2, 2, 0, 2, 0])
    whole, tables = perturb.class_mean(own, y, 3), []
    for part in (slice(0, 2), slice(2, 6)):
        perturb.class_mean(own[part], y[part], 3, lambda table: tables.append(table) or table)
    sums, counts = tables[0] + tables[2], tables[1] + tables[3]
    for part in (slice(0, 2), slice(2, 6)):
        mean = perturb.class_mean(own[part], y[part], 3, lambda table: sums if table.ndim == 4 else counts)
        assert torch.allclose(mean, whole[part], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("per", ["image", "class"])
def test_two_processes_share_the_work(tmp_path: Path, per: str):
    data = tiny(per_class=7)  # 21 rows: the processes have different numbers of them
    method = MIUE(**TINY, per=per, batch=8, noise_batch=8)  # pyright: ignore
    run = Run(seed=1, device_name="cpu", keep=tmp_path / "kept")
    made = launch(partial(method, data, Budget(8)), run, 2)
    assert made.delta.shape == (21 if per == "image" else 3, 3, 8, 8)
    assert all(row.any() for row in made.delta)
    assert made.delta.abs().max() <= (6 if per == "image" else 8)  # a class meets more than one batch an epoch
    change = made.apply(data).images.int() - data.images
    assert Budget(8).allows(change.to(torch.int16)) and all(row.any() for row in change)
    assert {p.name for p in (tmp_path / "kept").iterdir()} >= {f"checkpoint-{r}of2-1.safetensors" for r in (0, 1)}
    if per == "image":
        again = launch(partial(method, data, Budget(8)), run, 2)  # from what was kept
        assert torch.equal(again.delta, made.delta)
