"""What attacks say of their own surrogate: the share that reaches the goal, accuracies, losses, and when nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from miue import nets
from miue.attacks import attack
from miue.attacks.success import MOST, Success, success
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.testing import tiny

NET = "surrogate=small-cnn:width=8"
FEW = "surrogate=small-cnn:width=4,epochs=2,batch=8"


def colours(per_class: int = 16, classes: int = 3) -> ImageSet:
    """Classes that are each brighter in one channel, on noise: learnt in a few epochs, changed within 48 levels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes * per_class) % classes
    images = torch.randint(60, 160, (len(labels), 3, 8, 8), generator=generator)
    images[torch.arange(len(labels)), labels % 3] += 40
    return ImageSet(images.to(torch.uint8), labels, ("red", "green", "blue", "other")[:classes], "colours")


def asked(text: str, data: ImageSet, run: Run, eps: int = 8) -> tuple[Success | None, ImageSet, Any]:
    method, budget = attack(text), Budget(eps)
    perturbation = method(data, budget, run)
    protected = perturbation.apply(data)
    return success(method, data, protected, budget, perturbation.data, run), protected, method


def floats(data: ImageSet) -> torch.Tensor:
    return data.images.float().div(255)


def network(method: Any, data: ImageSet, run: Run, name: str) -> Any:
    state = run.load(name)
    assert state
    net = run.place(nets.build(method.surrogate, data.shape, len(data.classes)))
    net.load_state_dict(state[0])
    return net.eval()


def test_targeted_success_is_the_share_that_reaches_the_next_class(keeping: Run):
    data = colours()
    strong, protected, method = asked(
        f"tap:{NET},epochs=12,batch=8,augment=none,steps=40,step_size=2", data, keeping, 48
    )
    assert strong is not None and strong.pictures == 48
    net = network(method, data, keeping, "surrogate-12")
    seen = net(floats(protected)).argmax(1)
    assert (
        strong.reached == pytest.approx(float((seen == (data.labels + 1) % 3).float().mean())) and strong.reached > 0.9
    )
    assert strong.protected == pytest.approx(float((seen == data.labels).float().mean())) and strong.protected < 0.1
    assert strong.clean is not None and strong.clean > 0.9 and strong.clean_robust is None
    loss = F.cross_entropy(net(floats(protected)), (data.labels + 1) % 3).item()
    assert strong.loss == pytest.approx(loss, rel=1e-3) and strong.loss < 0.2 * strong.loss_before  # pyright: ignore
    assert "are taken for the next class" in str(strong) and f"{strong.reached:.1%}" in str(strong)


def test_a_weak_attack_is_told_as_one(keeping: Run):
    weak, _, _ = asked(f"tap:{NET},epochs=12,batch=8,augment=none,steps=1,step_size=1", colours(), keeping, 1)
    assert weak is not None and weak.reached is not None and weak.reached < 0.2
    assert weak.clean is not None and weak.clean > 0.9


def test_a_surrogate_that_was_trained_against_an_adversary_is_asked_under_one(keeping: Run):
    data = colours()
    for text, radius in ((f"hypo:{FEW},epochs=8,steps=4", 2.0), (f"rem:{FEW},epochs=8,steps=2,inner_steps=2", 4.0)):
        said, _, _ = asked(text, data, replace(keeping, keep=keeping.keep / text[:3]))  # pyright: ignore
        assert said is not None and said.radius == radius
        assert None not in (said.clean, said.protected, said.clean_robust, said.protected_robust)
        assert said.protected_robust <= said.protected and said.clean_robust <= said.clean  # pyright: ignore
        assert f"under PGD of {radius:g} grey levels" in str(said)
    plain, _, _ = asked(f"rem:{FEW},inner=none,steps=2", data, keeping)
    assert plain is not None and plain.radius == 0 and plain.protected_robust is None and "PGD" not in str(plain)


def test_min_min_surrogates_know_the_protected_pictures(keeping: Run):
    data = colours()
    said, protected, method = asked(f"em:{FEW},epochs=6,steps=4,step_size=2,surrogate_steps=None,stop=0", data, keeping)
    assert said is not None and said.reached is None and said.goal == ""
    net = network(method, data, keeping, "surrogate")
    x = floats(protected)
    assert said.loss == pytest.approx(F.cross_entropy(net(x), data.labels).item(), rel=1e-3)
    assert said.protected == pytest.approx(float((net(x).argmax(1) == data.labels).float().mean()))
    assert said.loss < said.loss_before  # pyright: ignore


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        (f"sep:{FEW},checkpoints=2,steps=2", "go to"),
        (f"entf:{FEW},adversary=1,steps=2", "are not taken for their class"),
        (f"entf:pull,{FEW},adversary=1,steps=2", "are taken for the next class"),
        ("pil:epochs=4,batch=8,lr=0.02", "in the noise alone"),
        (f"mi-ue:{FEW},steps=2,step_size=2,channels=luma,colour=3", ""),
        (f"aue:{FEW},steps=2", ""),
        (f"gue:{FEW},width=4", ""),
        (f"em:{FEW},steps=2,per=class,see=0.5gray", ""),
    ],
)
def test_every_surrogate_is_asked_and_says_the_same_again(keeping: Run, text: str, goal: str):
    data = colours()
    said, protected, method = asked(text, data, keeping)
    assert said is not None and goal in said.goal and (said.reached is None) == (goal == "")
    assert said.clean is not None and 0 <= said.clean <= 1 and str(said)
    state = torch.get_rng_state()
    again = success(method, data, protected, Budget(8), data.digest, keeping)
    assert again == said and torch.equal(state, torch.get_rng_state())
    assert Success.model_validate_json(said.model_dump_json()) == said
    elsewhere = replace(keeping, keep=keeping.keep / "elsewhere")  # pyright: ignore
    assert success(method, data, protected, Budget(8), data.digest, elsewhere) is None  # nothing is kept there
    assert success(method, data, protected, Budget(8), "other pictures", keeping) is None


def test_without_a_class_or_a_network_there_is_less_to_say(keeping: Run):
    data = colours()
    said, _, _ = asked("tue:epochs=2,steps=2", data, keeping)
    assert said is not None and said.clean is None and said.protected is None
    assert said.loss > 0 and said.loss_before is None and "knows" not in str(said) and "clean" not in str(said)
    for text in ("noise", "patterns"):
        assert asked(text, data, keeping)[0] is None


def test_at_most_a_thousand_pictures_of_all_classes_are_looked_at(keeping: Run):
    data = tiny(per_class=MOST // 2, size=8)
    said, _, _ = asked("pil:epochs=1,batch=500,steps=1", data, keeping)
    assert said is not None and said.pictures == MOST < len(data)
