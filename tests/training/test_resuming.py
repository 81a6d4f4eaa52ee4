"""All that train a network, by one loop: interrupted anywhere they end in the same bytes, and a bad rate is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from easy import FAST, easy
from miue import nets
from miue.attacks import KNOWN
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.defenses import defense
from miue.testing import tiny
from miue.training.batches import Batches
from miue.victims.fit import prepare, watched_fit

NET = "small-cnn:width=4"
DATA = tiny(per_class=6)  # 18 pictures: three batches of at most 8
FEW: dict[str, Any] = {"surrogate": NET, "epochs": 2, "batch": 8}
BUILD = nets.build


@dataclass
class Counting(Run):
    """A run that counts its ticks, and is interrupted when there would be more than `most`."""

    most: int = 10**6
    ticks: int = 0

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        def tick(note: str = "") -> None:
            if self.ticks == self.most:
                raise KeyboardInterrupt
            self.ticks += 1

        yield tick


def forgetful(*arguments: Any) -> Any:
    """A network that draws from torch's global generator while it trains."""

    def forget(part: torch.nn.Module, x: Any, out: Tensor) -> Tensor:
        return torch.nn.functional.dropout(out, 0.2, part.training)

    net: Any = BUILD(*arguments)
    net.trunk.register_forward_hook(forget)
    return net


def attack(name: str, **options: Any) -> Callable[[Run, float | None], dict[str, Tensor]]:
    def train(run: Run, lr: float | None) -> dict[str, Tensor]:
        method: Any = KNOWN[name](**FEW | options | ({"lr": lr} if lr else {}))
        return {"delta": method(DATA, Budget(8), run).delta}

    return train


def victim(run: Run, lr: float | None) -> dict[str, Tensor]:
    recipe = replace(FAST, epochs=3, batch=8, hold_out=0.3, lr=lr or 0.05)
    parts = prepare(easy(8), recipe, run)
    net, seen = watched_fit(parts, recipe, run, lambda epoch, net: next(net.parameters()).sum().item())
    return net.state_dict() | {"seen": torch.tensor([[*seen], [*seen.values()]])}


def changed(text: str, run: Run) -> dict[str, Tensor]:
    with run.seeded("net"):
        net: Any = run.place(nets.build(NET, (3, 16, 16), 3))
    method: Any = defense(text)
    method(net, Batches(tiny(6, size=16), run), run)
    return net.state_dict()


def simclr(run: Run, lr: float | None) -> dict[str, Tensor]:
    return changed(f"simclr:epochs=2,batch=8,width=4,lr={lr or 1e-3}", run)


def tune(run: Run, lr: float | None) -> dict[str, Tensor]:
    clean, data = Path("clean.npz"), easy(6, size=16)
    images = data.images.permute(0, 2, 3, 1).numpy()
    np.savez(clean, images=images, labels=data.labels.numpy(), classes=np.array(data.classes))
    return changed(f"tune:clean={clean},epochs=2,batch=8,lr={lr or 0.01}", run)


def purified(text: str, run: Run) -> dict[str, Tensor]:
    method: Any = defense(text)
    return {"pictures": method(DATA.images.float() / 255, DATA.labels, run)}


def diffpure(run: Run, lr: float | None) -> dict[str, Tensor]:
    return purified(f"diffpure:epochs=2,width=8,batch=8,steps=2,lr={lr or 2e-4}", run)


def dvae(run: Run, lr: float | None) -> dict[str, Tensor]:
    return purified(f"dvae:epochs=2,width=4,latent=4,batch=8,lr={lr or 5e-3}", run)


class Case(NamedTuple):
    """How it trains with a rate, ticks and number of its epochs, and what it is called."""

    train: Callable[[Run, float | None], dict[str, Tensor]]
    ticks: int
    epochs: int
    text: str


TITLES = {name: kind.__name__ for name, kind in KNOWN.items()}
CASES = {
    "min-min": Case(attack("mi-ue", steps=2, noise_batch=9, noise_momentum=0.9), 5, 2, f"{TITLES['mi-ue']} on tiny"),
    "crafted": Case(attack("sep", steps=2, noise_batch=9, checkpoints=2), 3, 2, f"{TITLES['sep']} on tiny, surrogate"),
    "gue": Case(attack("gue", width=4, inner_steps=2), 3, 2, f"{TITLES['gue']} on tiny"),
    "victim": Case(victim, 3, 3, f"{NET} on tiny"),
    "simclr": Case(simclr, 3, 2, "SimCLR on tiny"),
    "tune": Case(tune, 3, 2, "fine-tuning on clean"),
    "diffpure": Case(diffpure, 3, 2, "diffusion model"),
    "dvae": Case(dvae, 3, 4, "D-VAE, first of two"),
}


@pytest.fixture(autouse=True)
def nets_that_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nets, "build", forgetful)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_interrupted_at_any_step_it_ends_in_the_same_bytes(tmp_path: Path, name: str):
    train, ticks, epochs, _ = CASES[name]
    run = Counting(seed=1, device_name="cpu")
    whole = train(run, None)
    assert run.ticks >= ticks * epochs
    for most in range(1, run.ticks):
        keep = tmp_path / str(most)
        with pytest.raises(KeyboardInterrupt):
            train(Counting(seed=1, device_name="cpu", keep=keep, most=most), None)
        again = Counting(seed=1, device_name="cpu", keep=keep)
        ended = train(again, None)
        assert ended.keys() == whole.keys() and all(torch.equal(ended[k], whole[k]) for k in whole), most
        assert again.ticks == run.ticks - min(most // ticks, epochs) * ticks  # no finished epoch is done again


@pytest.mark.parametrize("name", CASES)
def test_another_seed_takes_nothing_of_what_was_kept(tmp_path: Path, name: str):
    train = CASES[name].train
    train(Run(seed=1, device_name="cpu", keep=tmp_path / "kept"), None)
    other, expected = (train(Run(seed=2, device_name="cpu", keep=keep), None) for keep in (tmp_path / "kept", None))
    assert all(torch.equal(other[k], expected[k]) for k in expected)


@pytest.mark.parametrize("name", CASES)
def test_an_absurd_rate_is_refused_with_a_way_out(tmp_path: Path, name: str):
    case, run = CASES[name], Run(seed=1, device_name="cpu", keep=tmp_path / "kept")
    text = f"{case.text}: the training of the network diverged in epoch 1, its weights are no numbers or huge; "
    for _ in range(2):  # nothing of it is kept
        with pytest.raises(UserError) as refused:
            case.train(run, 1e30)
        assert str(refused.value) == text + "a smaller lr than 1e+30 helps"
