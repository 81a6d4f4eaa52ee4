"""Methods: their facts, tables by name, the protocol and base class of attacks, and checks of fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import getdoc
from typing import Any, Literal, Protocol, TypeVar, final, runtime_checkable

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Norm, Perturbation, Pieces

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Description of a method (attack, defense or estimator), its class attribute `facts: ClassVar[Facts]`."""

    name: str
    """Name on the command line, in files and in records."""
    title: str = ""
    """Name in a sentence."""
    year: int | None = None
    """Year of the reference, if that is one publication."""
    reference: str = ""
    summary: str = ""
    """Effect of the method in one line. Empty: the first line of the docstring is used."""


@dataclass(frozen=True, kw_only=True)
class AttackFacts(Facts):
    """Description of an attack and its cost."""

    passes: int
    """Forward-backward passes through a network per picture, with the default fields."""
    needs: Literal["nothing", "surrogate"]
    """Kind of network that must be trained first."""
    natural: Budget = Budget()  # noqa: RUF009 - frozen
    """Budget in the reference; in "l2" it is for pictures of 3 x 32 x 32."""
    norms: tuple[Norm, ...] = ("linf",)
    """Norms in which the method can keep a budget."""

    def __post_init__(self) -> None:
        if self.natural.norm not in self.norms:
            raise ValueError(
                f"{self.title or self.name}: its own budget is in {self.natural.norm}, which is none of {self.norms}"
            )

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """The natural budget for pictures of c x h x w. In "l2" it grows with the root of the number of values."""
        if self.natural.norm != "l2":
            return self.natural
        c, h, w = shape
        return Budget(self.natural.eps * (c * h * w / 3072) ** 0.5, "l2")

    def check(self, budget: Budget) -> None:
        """Raise UserError if the method cannot keep a budget in this norm."""
        _check_norm(self.title or self.name, self.norms, budget)


@runtime_checkable
class Attack(Protocol):
    """A callable that returns the perturbation of a whole data set."""

    def __call__(self, data: ImageSet, budget: Budget, run: Run) -> Perturbation: ...


@dataclass(frozen=True)
class Kept:
    """The state that the protection of a set left, for pictures that are added to it later."""

    perturbation: Perturbation
    """That of the first pictures."""
    labels: Int[Tensor, "m"]
    """The class of each of the first pictures."""
    count: int
    """Number of all pictures that are protected by now."""
    state: Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]
    """Tensors and facts that the attack saved under a name. Raises UserError if they are not there."""
    published: Callable[[Int[Tensor, "k"]], UInt8[Tensor, "k c h w"]]
    """The published pictures of some of the first rows, at the size of the canvas."""


class BaseAttack(ABC):
    """Base class of attacks: checks the budget, calls `craft`, rounds the result and records who made it.

    A subclass is a frozen dataclass with a method `craft`. Its class attribute `facts` lists the norms that it can
    keep; without facts that is "linf" alone. Set `per` (a field or a class attribute) to "class" if delta has one row
    for each class. With a method `craft_more` pictures can be added to a set later.
    """

    @final
    def __call__(self, data: ImageSet, budget: Budget, run: Run) -> Perturbation:
        """The perturbation of the whole set, in whole grey levels.

        Raises UserError if the attack cannot keep the norm, or if `craft` returned the wrong number or shape of rows.
        Raises ValueError if `craft` left the budget.
        """
        check_norm(self, budget)
        return self._checked(self.craft(data, budget, run), "craft", data, budget, run)

    @final
    def more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Perturbation:
        """The perturbation of pictures that are added to a set which this attack has protected.

        Of an attack with one delta a class that is the delta of the class. Raises UserError as a call does, and if this
        attack has no rule for later pictures.
        """
        check_norm(self, budget)
        if self._by_class:
            return Perturbation(kept.perturbation.delta, budget, repr(self), new.labels, new.digest)
        return self._checked(self.craft_more(new, kept, budget, run), "craft_more", new, budget, run)

    @property
    def _by_class(self) -> bool:
        return getattr(self, "per", "image") == "class"

    def _checked(self, delta: Any, name: str, data: ImageSet, budget: Budget, run: Run) -> Perturbation:
        """The perturbation of what a method called `name` returned, which is a user's code and may be anything."""
        expected = (len(data.classes) if self._by_class else len(data), data.shape[0])
        floats = isinstance(delta, Tensor) and delta.is_floating_point()
        if not ((floats or isinstance(delta, Pieces)) and len(delta.shape) == 4):
            kind = f"{tuple(delta.shape)} of {delta.dtype}" if isinstance(delta, Tensor) else type(delta).__name__
            raise UserError(f"{self}: {name} returned {kind}, not a float tensor of rows, channels, height and width")
        if delta.shape[:2] != expected:
            raise UserError(
                f"{self}: {name} returned {delta.shape[0]} rows of {delta.shape[1]} channels for {expected[0]} "
                f'{"classes" if self._by_class else "pictures"} of {expected[1]}; per = "class" says one row a class'
            )
        labels = data.labels if self._by_class else None
        return Perturbation.rounded(delta, budget, repr(self), labels, data.digest, run.empty)

    @abstractmethod
    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "k c g g2"] | Pieces:
        """Delta in [0, 1] units, inside the budget. Row i is for picture i or class i. g: side of the noise grid.

        Pieces spare the memory of a whole tensor.
        """

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Float[Tensor, "n c g g2"] | Pieces:
        """Delta of pictures that come after `craft`, one row a picture. Raises UserError without a rule of its own."""
        check_more(self)
        raise AssertionError("unreachable")

    @property
    def takes_more(self) -> bool:
        """True if pictures can be added to a set that this attack has protected."""
        return self._by_class or type(self).craft_more is not BaseAttack.craft_more

    def identity(self, data: ImageSet, budget: Budget, run: Run) -> dict[str, Any]:
        """The identity of saved state, for `run.save(name, tensors, identity)` and `run.load(name, **identity)`."""
        return {"plan": repr(self), "data": data.digest, "seed": run.seed, "budget": repr(budget)}


def check_norm(method: object, budget: Budget) -> None:
    """Raise UserError if a method cannot keep a budget in this norm.

    The norms are those of its facts. A BaseAttack without facts can keep "linf" alone; other methods are not checked.
    """
    own: AttackFacts | None = getattr(method, "facts", None)
    if own:
        own.check(budget)
    elif isinstance(method, BaseAttack):
        _check_norm(type(method).__name__, ("linf",), budget)


def check_more(method: object) -> None:
    """Raise UserError if pictures cannot be added to a set that a method has protected."""
    if not (isinstance(method, BaseAttack) and method.takes_more):
        raise UserError(
            f"{type(method).__name__} makes the noise of a whole set at once and has no rule for pictures that come "
            "later (`craft_more`); protect the whole set again, with the new pictures in it, to another output"
        )


def _check_norm(title: str, norms: tuple[Norm, ...], budget: Budget) -> None:
    if budget.norm not in norms:
        raise UserError(
            f"{title} cannot keep a budget in {budget.norm}, only in {' or '.join(norms)}; "
            "leave the budget out, and it takes its own"
        )


def at_least(method: object, **least: int) -> None:
    """Raise UserError for the first field that is below its bound."""
    for name, bound in least.items():
        if not getattr(method, name) >= bound:  # written as "not >=" so that NaN is refused
            raise UserError(f"{name}={getattr(method, name)} is too small; at least {bound}")


def by_name(*methods: type[T]) -> dict[str, type[T]]:
    """A table of methods by the names in their facts. Raises ValueError if two have the same name."""
    table = {method.facts.name: method for method in methods}  # type: ignore[attr-defined]
    if len(table) < len(methods):
        raise ValueError(f"two methods of one name: {', '.join(method.__name__ for method in methods)}")
    return table


def summary(method: type[Any]) -> str:
    """A one-line description of a method."""
    return method.facts.summary or (getdoc(method) or "").partition("\n")[0]


def own_budget(method: object, shape: tuple[int, int, int]) -> Budget:
    """The default budget of a method for pictures of c x h x w; 8 grey levels if it has no facts."""
    own: AttackFacts | None = getattr(method, "facts", None)
    return own.budget(shape) if own else Budget()


def facts(known: Mapping[str, type[Any]]) -> dict[str, AttackFacts]:
    """The facts of every attack by its spelling. Includes `variants`, presets that count as methods of their own."""
    return {of.name: of for cls in known.values() for of in (cls.facts, *getattr(cls, "variants", ()))}
