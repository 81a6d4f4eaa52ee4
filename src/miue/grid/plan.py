"""The plan of a grid: a TOML file and its cells, each identified by its content."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from miue import data
from miue.attacks import attack, code_of
from miue.core.errors import UserError
from miue.core.files import Record, digest, read_toml
from miue.core.method import check_norm, own_budget
from miue.core.run import Run
from miue.core.spelling import spell
from miue.core.types import Budget, ImageSet
from miue.data.split import read_test
from miue.evaluation.adaptive import Victim, victim_of
from miue.grid.partial import Partial
from miue.grid.records import Sets, Which, cell_name, row_name
from miue.victims.recipes import recipe

VERSION = 1  # of the meaning of a cell; a higher number invalidates records on disk
Texts = Annotated[tuple[str, ...], Field(min_length=1)]
Shares = Annotated[tuple[float, ...], Field(min_length=1)]


def _listed(value: object) -> object:
    """Texts of one value or several: a budget may be written as a number, and one needs no list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [f"{each:g}" if type(each) in (int, float) else each for each in values]


@dataclass(frozen=True)
class Cell:
    """One victim of a grid. key: digest of everything that decides its result."""

    key: str
    attack: str
    method: str
    budget: Budget | None
    defense: str
    recipe: str
    partial: Partial
    seed: int
    training: Victim = field(repr=False)
    perturbation: str = ""
    """Digest of everything that decides the perturbation; empty if there is none."""

    def __str__(self) -> str:
        row = row_name(self.attack, str(self.budget or ""), str(self.partial))
        return cell_name(row, self.recipe, self.defense, self.seed)


class Grid(Record):
    """The settings of a grid, as in its TOML file. Names and paths are those of the command line.

    data, test: sources; $NAME in them is an environment variable. per_class, test_per_class: use only the first
    pictures of every class, after the first skip_per_class, test_skip_per_class, which must be fewer than there are.
    seeds: their number, from `seed` on; one seed serves the attack, the choice of protected pictures and the victim.
    budget: of every attack and of the noise, one or several; None: each method's own. shares, leaked: see Partial.
    noise: whether there is a noise control, without which there are no verdicts.
    """

    data: str
    test: str | None = None
    split: str | None = None
    test_split: str | None = None
    per_class: int | None = Field(None, ge=1)
    test_per_class: int | None = Field(None, ge=1)
    skip_per_class: int | None = Field(None, ge=1)
    test_skip_per_class: int | None = Field(None, ge=1)
    canvas: int | None = Field(None, ge=8)
    attacks: Texts
    defenses: Texts = ("none",)
    recipes: Texts = ("quick",)
    seeds: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    budget: Annotated[Texts, BeforeValidator(_listed)] | None = None
    shares: Shares = (1.0,)
    which: Which = "stratified"
    leaked: Shares = (0.0,)
    threshold: float = Field(0.25, gt=0, lt=1)
    noise: bool = True
    out: Path

    @classmethod
    def from_file(cls, path: Path) -> Grid:
        """Read a TOML file. Raises a UserError that names the wrong key and the allowed values."""
        try:
            grid = cls.model_validate({"out": path.with_suffix("")} | read_toml(path))
        except ValidationError as error:
            first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a missing key may be misspelt
            key = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                raise UserError(f"{path}: unknown key {key!r}; allowed: {', '.join(cls.model_fields)}") from None
            if first["type"] == "missing":
                raise UserError(f"{path}: the key {key!r} is missing") from None
            raise UserError(f"{path}: {key} = {first['input']!r}: {first['msg']}") from None
        try:
            data.check_canvas(grid.canvas)
            grid.cells(
                Sets(source="", name="", data="", test="", shape=(3, 32, 32), images=1, tested=1, classes=2, chance=0.5)
            )
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return grid

    @property
    def source(self) -> str:
        """Text that identifies the requested pictures, so that records can be matched without reading them.

        Paths are written as in the plan, because values of environment variables in them may be private. A digest
        of the expanded paths is appended if there are variables.
        """
        asked = ("data", "test", "split", "test_split", "per_class", "test_per_class", "canvas")
        asked += ("skip_per_class", "test_skip_per_class")
        request = repr({key: value for key in asked if (value := getattr(self, key)) is not None})
        texts = [text for text in (self.data, self.test) if text]
        expanded = [_expanded(text) for text in texts]
        return request if expanded == texts else f"{request} {digest(*expanded)}"

    def read(self, run: Run) -> tuple[ImageSet, ImageSet]:
        """Return the clean training set and the test set. Without a test set a fifth of the clean one is held out."""
        source, named = _expanded(self.data), self.test and _expanded(self.test)
        for folder in (Path(text) for text in (source, named) if text):
            if folder.is_dir() and self.out.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"out = {self.out}: lies among the pictures of {folder}; give a folder outside of it")
        clean = data.read(data.scan(source, split=self.split, canvas=self.canvas), self.canvas)
        test, rows = read_test(clean, source, named, self.test_split, run)
        clean = clean if rows is None else clean.select(rows)
        clean = _part(clean, self.per_class, self.skip_per_class, "skip_per_class")
        return clean, _part(test, self.test_per_class, self.test_skip_per_class, "test_skip_per_class")

    def cells(self, sets: Sets) -> list[Cell]:
        """Return all cells, seed by seed, controls first. Cells with the same content are one cell."""
        if taken := {"clean", "without"} & set(self.attacks):
            raise UserError(f"attacks: {taken.pop()!r} is the name of a control, which is there by itself")
        budgets = self.budget or (None,)
        shared = [(s, leak) for s in self.shares for leak in self.leaked]
        partials = [Partial(share=s, which=self.which if s < 1 else "stratified", leaked=leak) for s, leak in shared]
        rows = [("clean", None, Partial())]
        rows += [("noise", budget, Partial()) for budget in budgets if self.noise]
        rows += [("without", None, partial) for partial in partials if not partial.whole]
        rows += [(text, budget, partial) for text in self.attacks for budget in budgets for partial in partials]
        # built once, not once per cell: a defense may read pictures or weights for its digest
        victims = {(name, d): victim_of(recipe(name), d) for name in self.recipes for d in self.defenses}
        planned = [
            self._cell(sets, *row, (name, defense), victims[name, defense], self.seed + seed)
            for seed in range(self.seeds)
            for row in rows
            for name in self.recipes
            for defense in self.defenses
        ]
        return list({cell.key: cell for cell in reversed(planned)}.values())[::-1]  # keeps the first of equal cells

    def _cell(
        self,
        sets: Sets,
        text: str,
        bound: str | None,
        partial: Partial,
        names: tuple[str, str],
        training: Victim,
        seed: int,
    ) -> Cell:
        method, budget, perturbation = text, None, ""
        if text not in ("clean", "without"):
            chosen = attack(text)
            method, budget = spell(chosen), own_budget(chosen, sets.shape)
            if bound is not None:
                budget = Budget.parse(bound)
            check_norm(chosen, budget)
            perturbation = digest(VERSION, method, code_of(text, chosen), str(budget), sets.data, seed)
        key = digest(VERSION, perturbation or text, repr(partial), repr(training), sets.data, sets.test, seed)
        return Cell(key, text, method, budget, names[1], names[0], partial, seed, training, perturbation)


def _part(data: ImageSet, count: int | None, skip: int | None, name: str) -> ImageSet:
    """Some rows of every class. Raises UserError if nothing is left of one."""
    if not (count or skip):
        return data
    part = data.first_per_class(count or len(data), skip or 0)
    before, after = (each.labels.bincount(minlength=len(data.classes)) for each in (data, part))
    if empty := ((before > 0) & (after == 0)).nonzero().flatten().tolist():
        first = data.classes[empty[0]]
        raise UserError(f"{name} = {skip}: class {first!r} has {int(before[empty[0]])} pictures, so none is left")
    return part


def _expanded(text: str) -> str:
    """Return a source with its environment variables expanded. Raises UserError if one is not set."""
    try:
        return Template(text).substitute(os.environ)
    except KeyError as error:
        raise UserError(f"{text}: set the environment variable {error.args[0]}") from None
    except ValueError:
        raise UserError(f"{text}: after a $ stands the name of an environment variable") from None
