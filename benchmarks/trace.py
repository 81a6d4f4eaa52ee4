"""The ownership trace: what is left of it after what trainers do, beside clean controls. Writes results/trace.json.

CIFAR-10, 500 pictures a class; questions are made of test pictures that accuracies are not measured on. One cell is a
method, a trainer and a seed; cells that are in the record are not measured again. A method is the spelling of an
attack, `trace-only` (with cells and strength: `trace-only:cells=4,strength=8`) or `clean`; `without mi-ue:quick` has no
mark.

python benchmarks/trace.py --methods clean trace-only mi-ue:quick --trainers none gray jpeg:quality=75 --seeds 0
python benchmarks/trace.py --name trace_whole --per-class 5000 --seeds 0 --methods clean mi-ue:quick \
    --recipe fast:net=small-resnet:width=16,epochs=10,batch=128 --trainers none share=0.1 share=0.01
python benchmarks/trace.py --name trace_six --strength 6 --methods mi-ue:quick --trainers none
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, cifar10, record

import miue
from miue import trace
from miue.core.files import write_atomically
from miue.core.spelling import split
from miue.core.types import Perturbation
from miue.trace import tests
from miue.trace.answers import Answers, ask, hardened
from miue.training.batches import Batches

RECIPE = "quick:net=small-resnet:width=8,epochs=15"
TRAINERS = ("none", "jpeg:quality=75", "jpeg:quality=10", "cutout", "gray", "op", "ueraser:mode=lite",
            "net=small-cnn:width=16", "share=0.5", "share=0.25", "share=0.1")  # fmt: skip
METHODS = ("clean", "trace-only", "without mi-ue:quick", "mi-ue:quick", "without em:lasting", "em:lasting")
SECRETS = 200  # secrets that nobody used, asked of every victim
BUDGET = miue.Budget(8)
ALONE = trace.Tracing(alone=True).levels(BUDGET)


def secret_of(method: str, data: miue.ImageSet, seed: int, beside: int) -> trace.Secret:
    """A secret that is the same in every repetition of a cell; beside: grey levels of the mark beside an attack."""
    alone = method.startswith("trace-only")
    options = split(method)[2] if alone else {}
    strength = int(options.get("strength", ALONE if alone else beside))
    parameters = trace.Parameters(classes=data.classes, cells=int(options.get("cells", 4)), strength=strength)
    return trace.Secret(parameters, seed.to_bytes(32, "big"))


def protected(method: str, data: miue.ImageSet, secret: trace.Secret, seed: int, keep: Path) -> miue.ImageSet:
    if method == "clean":
        return data
    path = keep / f"{method.replace(' ', '-').replace(':', '-')}-{seed}.safetensors"
    if not path.exists():
        run = miue.Run(seed, keep=keep / path.stem)
        if method.startswith("without "):
            whole = miue.attack(method.removeprefix("without "))(data, BUDGET, run)
        else:
            attack = trace.Nothing() if method.startswith("trace-only") else miue.attack(method)
            whole = trace.traced(attack, secret, data, data.labels, BUDGET, run)
        keep.mkdir(parents=True, exist_ok=True)
        write_atomically(path, whole.save)
    return Perturbation.load(path).apply(data)


def mixed(
    method: str, trainer: str, data: miue.ImageSet, secret: trace.Secret, seed: int, keep: Path, recipe: miue.Recipe
) -> tuple[miue.ImageSet, miue.Recipe]:
    """The pictures that a trainer trains on, and the recipe."""
    images, name = protected(method, data, secret, seed, keep), trainer
    if trainer.startswith("share="):
        few = torch.rand(len(data), generator=miue.Run(seed).rng("share")) >= float(trainer.removeprefix("share="))
        images = images.with_images(torch.where(few[:, None, None, None], data.images, images.images))
        name = "none"
    if trainer.startswith("net="):
        return images, replace(recipe, net=trainer.removeprefix("net="))
    return images, recipe if name == "none" else recipe.defended(*miue.combination(name))


def null(answers: Answers, asked: trace.Asked, secret: trace.Secret, run: miue.Run) -> dict[str, float]:
    """Shares of small p-values over secrets that have nothing to do with the victim."""
    responses = tests.response(answers.values, asked.signs)
    rng, p = run.rng("null"), []
    for _ in range(SECRETS):
        keys = torch.randint(2, secret.signs.shape, generator=rng, dtype=torch.int8) * 2 - 1
        p.append(tests.sign_test(responses, keys, rng, draws=9_999).p)
    return {f"p <= {level}": float(np.mean(np.array(p) <= level)) for level in (0.05, 0.01)}


def cell(
    method: str,
    trainer: str,
    seed: int,
    sets: dict[str, miue.ImageSet],
    keep: Path,
    victim: miue.Recipe,
    beside: int,
) -> dict[str, Any]:
    start, run, data = time.process_time(), miue.Run(seed), sets["train"]
    secret = secret_of(method, data, seed, beside)
    images, recipe = mixed(method, trainer, data, secret, seed, keep, victim)
    made = time.process_time() - start
    net = miue.fit(images, recipe, run).eval()
    row: dict[str, Any] = {"method": method, "trainer": trainer, "seed": seed, "made_s": made, "p": {}, "z": {}}
    row["accuracy"] = miue.accuracy(net, Batches(sets["test"], run), run)
    row["fit_s"] = time.process_time() - start - made
    for count in (300, 1000):
        clock = time.process_time()
        questions = trace.Questions.of(secret.parameters, sets["base"], count)
        for _ in questions.batches():
            pass
        row["questions_s"] = time.process_time() - clock
        scores = ask(trace.suspect_of(net, run), questions.batches(), data.classes)
        for answers in (scores, hardened(scores)):
            clock = time.process_time()
            verdict = trace.weigh(answers, questions.asked, secret.opened)
            row["p"][f"{count} {answers.kind}"], row["z"][f"{count} {answers.kind}"] = verdict.p, verdict.z
            row["judge_s"] = time.process_time() - clock
        row["null"] = null(hardened(scores), questions.asked, secret, run)
    # 10 pictures with each of ten keys is what `judge --direct` asks
    for name, pictures, labels_only in (
        ("100 direct labels", 10, True),
        ("500 direct scores", 50, False),
        ("500 direct labels", 50, True),
    ):
        options = {"pictures": pictures, "labels_only": labels_only}
        direct = trace.ask_directly(trace.suspect_of(net, run), secret.opened, questions.base, **options)
        row["p"][name] = trace.direct_test(direct, secret.opened, run).p
    row["p"]["gradient"] = trace.gradient_test(net, secret.opened, questions.base, run).p
    return row


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--methods", nargs="+", default=METHODS)
    given.add_argument("--trainers", nargs="+", default=TRAINERS)
    given.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given.add_argument("--per-class", type=int, default=500)
    given.add_argument("--recipe", default=RECIPE)
    given.add_argument("--strength", type=int, help="grey levels of the mark beside an attack")
    given.add_argument("--name", default="trace", help="name of the record")
    given.add_argument("--keep", type=Path, default=Path("trace-work"), help="folder for perturbations")
    options = given.parse_args()
    path = RESULTS / f"{options.name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    test = cifar10("test")
    sets = {
        "train": cifar10("train", options.per_class),
        "base": test.first_per_class(100),
        "test": test.select(torch.arange(1_000, 6_000)),
    }
    held = {image.numpy().tobytes() for image in sets["base"].images}
    outside = torch.tensor([image.numpy().tobytes() not in held for image in sets["test"].images])
    sets["test"] = sets["test"].select(outside)
    beside = trace.Tracing(strength=options.strength).levels(BUDGET)
    keep, victim = options.keep / options.name, miue.recipe(options.recipe)
    for seed in options.seeds:
        for method in options.methods:
            for trainer in options.trainers:
                if any((r["method"], r["trainer"], r["seed"]) == (method, trainer, seed) for r in rows):
                    continue
                rows.append(cell(method, trainer, seed, sets, keep, victim, beside))
                print(json.dumps(rows[-1]), flush=True)
                facts = {
                    "data": f"{len(sets['train'])} pictures of CIFAR-10 (JPEG)",
                    "recipe": options.recipe,
                    "secrets": SECRETS,
                    "mark": f"{beside} of {BUDGET.eps:g} grey levels, alone {ALONE}",
                    "scheme": 2,
                }
                record(options.name, miue.Run(), rows=rows, **facts)


if __name__ == "__main__":
    main()
