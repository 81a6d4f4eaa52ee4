"""What a method is: its facts, its name in a table, the protocol and the base of attacks, checks of fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import getdoc
from typing import Any, Literal, Protocol, TypeVar, final, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Norm, Perturbation

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a method is, said once beside it, as `facts: ClassVar[Facts]`: an attack, a defense or an estimator."""

    name: str
    """Its name on the command line, in files and in records."""
    title: str = ""
    """Its name in a sentence."""
    year: int | None = None
    """Of the reference, where that is one publication."""
    reference: str = ""
    summary: str = ""
    """What it does, in one line. Empty: the first line of the docstring says it."""


@dataclass(frozen=True, kw_only=True)
class AttackFacts(Facts):
    """What an attack is, and what it costs."""

    passes: int
    """Forward-backward passes through a network per picture, with the default fields."""
    needs: Literal["nothing", "surrogate"]
    """What must be trained."""
    natural: Budget = Budget()  # noqa: RUF009 - frozen
    """The reference's budget; one in "l2" is that of 3 x 32 x 32 pictures."""
    norms: tuple[Norm, ...] = ("linf",)
    """What the method can keep."""

    def __post_init__(self) -> None:
        if self.natural.norm not in self.norms:
            raise ValueError(
                f"{self.title or self.name}: its own budget is in {self.natural.norm}, which is none of {self.norms}"
            )

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """The natural budget of c x h x w pictures: in "l2" with the root of the number of values."""
        if self.natural.norm != "l2":
            return self.natural
        c, h, w = shape
        return Budget(self.natural.eps * (c * h * w / 3072) ** 0.5, "l2")

    def check(self, budget: Budget) -> None:
        """Raise UserError for a budget whose norm the method cannot keep."""
        _check_norm(self.title or self.name, self.norms, budget)


@runtime_checkable
class Attack(Protocol):
    """Chooses the perturbation of a whole data set."""

    def __call__(self, data: ImageSet, budget: Budget, run: Run) -> Perturbation: ...


class BaseAttack(ABC):
    """An attack that keeps its budget: it is checked, `craft` is called, and what it returns is rounded and signed.

    A subclass is a frozen dataclass with a `craft`. `facts`, a class attribute, says which norms it can keep; without
    facts that is "linf" alone. `per`, a field or a class attribute, is "class" where delta has one row a class.
    """

    @final
    def __call__(self, data: ImageSet, budget: Budget, run: Run) -> Perturbation:
        """The perturbation of the whole set, in whole grey levels.

        Raises UserError for a norm that the attack cannot keep, or rows of another number or shape; ValueError where
        `craft` left the budget.
        """
        check_norm(self, budget)
        delta: Any = self.craft(data, budget, run)  # of somebody's code, which may return anything
        a_class = getattr(self, "per", "image") == "class"
        expected = (len(data.classes) if a_class else len(data), data.shape[0])
        if not (isinstance(delta, Tensor) and delta.is_floating_point() and delta.ndim == 4):
            kind = f"{tuple(delta.shape)} of {delta.dtype}" if isinstance(delta, Tensor) else type(delta).__name__
            raise UserError(f"{self}: craft returned {kind}, not a float tensor of rows, channels, height and width")
        if delta.shape[:2] != expected:
            raise UserError(
                f"{self}: craft returned {delta.shape[0]} rows of {delta.shape[1]} channels for {expected[0]} "
                f'{"classes" if a_class else "pictures"} of {expected[1]}; per = "class" says one row a class'
            )
        return Perturbation.rounded(delta, budget, repr(self), data.labels if a_class else None)

    @abstractmethod
    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "k c g g2"]:
        """Delta in [0, 1] units, inside the budget: row i for picture i, or for class i. g: side of the noise grid."""

    def identity(self, data: ImageSet, budget: Budget, run: Run) -> dict[str, Any]:
        """What kept state belongs to: for `run.save(name, tensors, identity)` and `run.load(name, **identity)`."""
        return {"plan": repr(self), "data": data.digest, "seed": run.seed, "budget": repr(budget)}


def check_norm(method: object, budget: Budget) -> None:
    """Raise UserError for a budget whose norm a method cannot keep; one that is no BaseAttack is asked by its facts."""
    own: AttackFacts | None = getattr(method, "facts", None)
    if own:
        own.check(budget)
    elif isinstance(method, BaseAttack):
        _check_norm(type(method).__name__, ("linf",), budget)


def _check_norm(title: str, norms: tuple[Norm, ...], budget: Budget) -> None:
    if budget.norm not in norms:
        raise UserError(
            f"{title} cannot keep a budget in {budget.norm}, only in {' or '.join(norms)}; "
            "leave the budget out, and it takes its own"
        )


def at_least(method: object, **least: int) -> None:
    """Refuse fields that are too small. Raises UserError with the first of them."""
    for name, bound in least.items():
        if not getattr(method, name) >= bound:  # not a number is not
            raise UserError(f"{name}={getattr(method, name)} is too small; at least {bound}")


def by_name(*methods: type[T]) -> dict[str, type[T]]:
    """The methods by the names in their facts."""
    table = {method.facts.name: method for method in methods}  # type: ignore[attr-defined]
    if len(table) < len(methods):
        raise ValueError(f"two methods of one name: {', '.join(method.__name__ for method in methods)}")
    return table


def summary(method: type[Any]) -> str:
    """What a method does, in one line."""
    return method.facts.summary or (getdoc(method) or "").partition("\n")[0]


def own_budget(method: object, shape: tuple[int, int, int]) -> Budget:
    """The budget that a method takes by itself for c x h x w pictures; 8 grey levels for one without facts."""
    own: AttackFacts | None = getattr(method, "facts", None)
    return own.budget(shape) if own else Budget()


def facts(known: Mapping[str, type[Any]]) -> dict[str, AttackFacts]:
    """The facts of every attack by its spelling, presets that are a method by themselves (`variants`) included."""
    return {of.name: of for cls in known.values() for of in (cls.facts, *getattr(cls, "variants", ()))}
