"""On trained networks: p-values of secrets that nobody used are uniform, and a key that was learned is found."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from scipy import stats

import miue
from miue import trace
from miue.core.device import Numerics
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.trace import Answers, Asked, Questions, Secret, Tracing, tests
from miue.trace.answers import ask, hardened
from miue.trace.questions import Direct
from miue.training.batches import Batches

NET = "small-cnn:width=4"
RECIPE = f"quick:net={NET},epochs=5,batch=32"
SECRETS = 200


def secret(number: int, data: ImageSet) -> Secret:
    return Secret(Tracing(strength=4).parameters(data.classes, 32, Budget(8)), number.to_bytes(32, "big"))


@dataclass(frozen=True)
class Asking:
    suspect: trace.Suspect
    asked: Asked
    answers: Answers
    base: torch.Tensor


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return miue.data.shapes(24)


@pytest.fixture(scope="module")
def base() -> ImageSet:
    return miue.data.shapes(12, split="test")


def asking(images: ImageSet, base: ImageSet, seed: int) -> Asking:
    run = Run(seed, "cpu")
    suspect = trace.suspect_of(miue.fit(images, miue.recipe(RECIPE), run).eval(), run)
    questions = Questions.of(secret(0, images).parameters, base, 300)
    return Asking(suspect, questions.asked, ask(suspect, questions.batches(), images.classes), questions.base)


@pytest.fixture(scope="module")
def victims(data: ImageSet, base: ImageSet) -> list[Asking]:
    """Three that trained on clean pictures, and one on pictures with another master's marks."""
    strong = Secret(Tracing(strength=8, alone=True).parameters(data.classes, 32, Budget(8)), b"\5" * 32)
    others = trace.marked(strong, data, data.labels, Run(0, "cpu"))
    return [asking(data, base, seed) for seed in (0, 1, 2)] + [asking(others, base, 0)]


def within(p: list[float], level: float) -> bool:
    """Whether no more p-values are small than one case of a thousand would have."""
    return sum(value <= level for value in p) <= stats.binom.ppf(0.999, len(p), level)


@pytest.mark.parametrize("labels", [False, True])
def test_blind_p_values_of_unused_secrets_are_uniform(victims: list[Asking], data: ImageSet, labels: bool):
    for victim in victims:
        answers = hardened(victim.answers) if labels else victim.answers
        responses, rng = tests.response(answers.values, victim.asked.signs), Run(0).rng("null")
        p = [tests.sign_test(responses, secret(i, data).signs, rng, draws=199).p for i in range(1, SECRETS + 1)]
        assert within(p, 0.05) and within(p, 0.01)
        assert stats.binom.ppf(0.001, SECRETS, 0.5) <= sum(value <= 0.5 for value in p)  # nor are they all large


def test_direct_p_values_of_unused_secrets_are_uniform(victims: list[Asking], data: ImageSet):
    for victim in victims:
        p = []
        for i in range(1, SECRETS + 1):
            direct = Direct.of(secret(i, data).opened, 3)
            table = direct.by_key(ask(victim.suspect, direct.batches(victim.base[:3], 16), data.classes).values)
            p.append(tests.assignment_test(table, range(10), Run(i).rng("null"), draws=199).p)
        assert within(p, 0.05) and within(p, 0.01)


def test_a_perturbation_is_refused_as_a_key(data: ImageSet, base: ImageSet):
    """Optimised noise looks like its class to networks that never saw it."""
    noise = miue.attack("patterns:colour")(data, Budget(8), Run(device_name="cpu"))
    with pytest.raises(UserError, match="accuse the innocent"):
        trace.judge(lambda x: x, noise, base)


@pytest.mark.slow
def test_a_protected_victim_is_found_and_a_clean_one_is_not(monkeypatch: pytest.MonkeyPatch):
    """On shapes, by 1,000 scores, by labels and by gradients, beside a short `mi-ue:drawings`, and after JPEG 75.

    Bounds are far from what was measured (5e-4, 6e-5, 9e-5; after JPEG 2e-5, 6e-5, 7e-6), because the last bits of
    the noise move p-values by powers of ten from machine to machine. In float32 everywhere: in bf16 so short an attack
    does not always outlast JPEG (docs/log.md), and its mark is not found then.
    """
    plain = Numerics("32-true", torch.channels_last, "the same on every machine")
    monkeypatch.setattr("miue.core.run.choose_numerics", lambda _: plain)
    data, test = miue.data.shapes(200), miue.data.shapes(100, split="test")
    recipe = miue.recipe("quick:net=small-resnet:width=8,epochs=10")
    own, run = Secret(Tracing().parameters(data.classes, 32, Budget(8)), bytes(32)), Run(0, "cpu")
    whole = trace.traced(miue.attack("mi-ue:drawings,epochs=16"), own, data, data.labels, Budget(8), run).apply(data)
    compressed = recipe.defended(*miue.combination("jpeg:quality=75"))

    def tested(images: ImageSet, how: miue.Recipe) -> tuple[float, list[float]]:
        """Accuracy, and p-values by scores, labels and gradients."""
        net = miue.fit(images, how, run).eval()
        verdict = trace.judge(trace.suspect_of(net, run), own, test)
        gradient = trace.gradient_test(net, own.opened, test.images, run).p
        return miue.accuracy(net, Batches(test, run), run), [verdict.p, verdict.further["labels alone"], gradient]

    clean, unmarked = tested(data, recipe)
    assert min(unmarked) > 1e-3
    for how in (recipe, compressed):
        accuracy, marked = tested(whole, how)
        assert max(marked) <= 1e-2
        assert accuracy < clean - 0.2
