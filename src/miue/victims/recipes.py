"""Named recipes with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from miue import nets
from miue.core.errors import UserError
from miue.core.spelling import fill, split
from miue.victims.recipe import FlipCrop, Recipe, Shift, Smoothed
from miue.victims.slots import Augment

AUGMENTATIONS: Mapping[str, tuple[Augment, ...]] = {
    "none": (),
    "flip": (FlipCrop(share=0.0),),
    "flip-crop": (FlipCrop(),),
    "shift": (Shift(),),
}
"""The augmentations that the spelling of a recipe can name."""

RECIPES: Mapping[str, Recipe] = {
    "quick": Recipe(
        net="small-resnet:width=16",
        epochs=18,
        batch=32,
        warmup=0.2,
        nesterov=True,
        source="ours: a first answer in minutes on two CPU cores",
    ),
    "small": Recipe(
        net="small-resnet",
        epochs=30,
        batch=64,
        warmup=0.2,
        nesterov=True,
        source="ours: a few thousand pictures on two CPU cores",
    ),
    "papers": Recipe(source="the field's usual victim: SGD 0.1, weight decay 5e-4, cosine, 60 epochs (EM, ISS)"),
    "papers-100": Recipe(epochs=100, source="the victims of adversarial training, but with a cosine rate"),
    "papers-200": Recipe(epochs=200, weight_decay=1e-4, source="MI-UE's victim at learning rate 0.1"),
    "mi-ue": Recipe(
        epochs=200,
        lr=0.5,
        weight_decay=1e-4,
        source="MI-UE's released victim: learning rate 0.5, 200 epochs; there pictures are not normalised",
    ),
    "fast": Recipe(
        epochs=40,
        batch=64,
        warmup=0.2,
        nesterov=True,
        loss=Smoothed(),
        source="ours, after the speed runs on CIFAR-10: a rise and a fall of the rate, Nesterov, smoothed labels",
    ),
    "speedrun": Recipe(
        net="speedrun",
        epochs=10,
        batch=256,
        lr=0.375,
        bias_lr=64.0,
        schedule="triangle",
        warmup=0.23,
        momentum=0.85,
        nesterov=True,
        weight_decay=1.33e-3,
        slow=20,
        alternate=True,
        augment=(Shift(),),
        loss=Smoothed(0.2),
        source="ours, after airbench (Jordan, arXiv 2404.00498), a speed run on CIFAR-10: whitened patches, 10 passes",
    ),
    "early-stop": Recipe(
        hold_out=0.1,
        patience=10,
        source="ours: `papers`, stopped 10 epochs after the best one on a tenth of the same set that is held out",
    ),
    "vit": Recipe(
        net="vit-tiny",
        epochs=60,
        optimizer="adamw",
        lr=1e-3,
        warmup=0.1,
        weight_decay=0.05,
        source="ours: AdamW for transformers",
    ),
}


def list_recipes() -> list[str]:
    """The names that `recipe` takes."""
    return list(RECIPES)


def recipe(text: str, net: str | None = None) -> Recipe:
    """Build a recipe from its spelling, such as "quick" or "papers:lr=0.5,epochs=200,augment=flip".

    net: a network that replaces the recipe's, like `net=` in the spelling. It sets the rate and the optimizer that it
    needs; values in the spelling have priority. Raises UserError, with the allowed values, if the recipe is unknown.
    """
    name, words, given = split(text)
    if name not in RECIPES or words:
        raise UserError(
            f"recipe {text!r} is unknown; allowed: {', '.join(RECIPES)}, each with field=value after a colon"
        )
    given = given if net is None else {**given, "net": net}
    base = _for_victim(RECIPES[name], given["net"]) if "net" in given else RECIPES[name]
    if "augment" in given:
        base = replace(base, augment=_augmentation(given["augment"], name))
    return fill(base, {field: value for field, value in given.items() if field != "augment"}, f"recipe {name}")


def _augmentation(text: str, name: str) -> tuple[Augment, ...]:
    if text not in AUGMENTATIONS:
        raise UserError(
            f"recipe {name}: augment={text} is not allowed; choose from {', '.join(AUGMENTATIONS)}; other "
            "augmentations are defenses"
        )
    return AUGMENTATIONS[text]


def _for_victim(base: Recipe, net: str) -> Recipe:
    """A copy of the recipe with another network, and with the optimizer and the rate that this network needs."""
    own = nets.facts(net)
    lr = base.lr if own.lr is None else own.lr
    if own.optimizer == "sgd" or base.optimizer == own.optimizer:
        bias_lr = base.bias_lr if own.normalised else min(base.bias_lr, 1.0)
        return replace(base, net=net, lr=min(base.lr, lr), bias_lr=bias_lr)
    decay = base.weight_decay if own.weight_decay is None else own.weight_decay
    warmup = max(base.warmup, own.warmup)
    return replace(base, net=net, optimizer="adamw", lr=lr, bias_lr=1.0, warmup=warmup, weight_decay=decay)
