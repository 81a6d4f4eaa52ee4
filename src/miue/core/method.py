"""What a method is: its facts, its name in a table, the protocol of an attack, checks of fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import getdoc
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from miue.core.errors import UserError
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
            raise ValueError(f"{self.title}: its own budget is in {self.natural.norm}, which is none of {self.norms}")

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """The natural budget of c x h x w pictures: in "l2" with the root of the number of values."""
        if self.natural.norm != "l2":
            return self.natural
        c, h, w = shape
        return Budget(self.natural.eps * (c * h * w / 3072) ** 0.5, "l2")

    def check(self, budget: Budget) -> None:
        """Raise UserError for a budget whose norm the method cannot keep."""
        if budget.norm not in self.norms:
            raise UserError(
                f"{self.title} cannot keep a budget in {budget.norm}, only in {' or '.join(self.norms)}; "
                "leave the budget out, and it takes its own"
            )


@runtime_checkable
class Attack(Protocol):
    """Chooses the perturbation of a whole data set."""

    def __call__(self, data: ImageSet, budget: Budget, run: Any) -> Perturbation: ...


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
