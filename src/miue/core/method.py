"""What a method is: its facts, the protocol of an attack, checks of fields, the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from miue.core.errors import UserError
from miue.core.types import Budget, ImageSet, Norm, Perturbation


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a method is, said once beside it, as `facts: ClassVar[Facts]`; `miue attacks` and the documents print it.

    passes: forward-backward passes through a network per picture, with the default fields. needs: what must be trained.
    natural: the reference's budget; one in "l2" is that of 3 x 32 x 32 pictures. norms: what the method can keep.
    """

    title: str
    year: int
    reference: str
    summary: str
    passes: int
    needs: Literal["nothing", "surrogate"]
    natural: Budget = Budget()  # noqa: RUF009 - frozen
    norms: tuple[Norm, ...] = ("linf",)

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


def defense_lines(known: Mapping[str, type[Any]]) -> list[dict[str, str]]:
    """Every defense as a line of a table: its name, slot, the first line of its docstring, its reference."""
    return [
        {"name": n, "slot": cls.slot, "what it does": str(cls.__doc__).partition("\n")[0], "reference": cls.reference}
        for n, cls in known.items()
    ]


def own_budget(method: object, shape: tuple[int, int, int]) -> Budget:
    """The budget that a method takes by itself for c x h x w pictures; 8 grey levels for one without facts."""
    own: Facts | None = getattr(method, "facts", None)
    return own.budget(shape) if own else Budget()


def facts(known: Mapping[str, type[Any]]) -> dict[str, Facts]:
    """The facts of every method by its spelling, presets that are a method by themselves (`variants`) included."""
    made: dict[str, Facts] = {}
    for name, cls in known.items():
        made[name] = cls.facts
        made |= {f"{name}:{preset}": of for preset, of in getattr(cls, "variants", {}).items()}
    return made


def catalogue(known: Mapping[str, type[Any]]) -> list[dict[str, str]]:
    """The facts of every method as the lines of a table."""
    presets = {name: getattr(cls, "presets", {}) for name, cls in known.items()}
    return [_line(name, of, presets.get(name, ())) for name, of in facts(known).items()]


def _line(name: str, of: Facts, presets: Iterable[str]) -> dict[str, str]:
    own = Budget(float(f"{of.natural.eps:.4g}"), of.natural.norm)
    others = [norm for norm in of.norms if norm != own.norm]
    return {
        "name": name,
        "year": str(of.year),
        "budget": f"{own} (or {', '.join(others)})" if others else str(own),
        "passes": str(of.passes),
        "needs": of.needs,
        "what it does": of.summary,
        "reference": of.reference,
        "presets": ", ".join(presets),
    }
