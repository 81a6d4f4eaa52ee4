"""The leaderboard: records of a grid as tables of mean and spread, with the worst case of every attack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal

from miue.core.files import Record
from miue.core.types import Budget
from miue.data.quality import Size
from miue.evaluation.records import Verdict
from miue.evaluation.verdict import concluded, judge_victim
from miue.grid.partial import Partial
from miue.grid.records import CellRecord, cell_name, row_name

CONTROLS = ("clean", "noise", "without")


class Place(Record):
    """One attack against one defense, over seeds. Accuracies are shares in [0,1], on clean test pictures."""

    defense: str
    n: int
    mean: float | None
    """Mean over seeds after the last epoch; None if no seed has a result."""
    spread: float | None
    """Standard deviation over seeds (n - 1); None for fewer than two."""
    best: float | None
    """Mean over seeds of the best epoch, chosen on the test set."""
    early: float | None = None
    """Mean over seeds of the epoch that is best on about 100 clean pictures a class, measured on the other test
    pictures. As `best` in records of earlier versions."""
    failed: int
    verdict: Verdict | None = None
    """Verdict against the clean and the noise control with the same defense, over the seeds that all three have."""
    reason: str = ""

    @property
    def most(self) -> float:
        """The larger of the means at the last epoch and stopped early; 0 without a result."""
        early = self.best if self.early is None else self.early
        return max(self.mean or 0.0, early or 0.0)

    def __str__(self) -> str:
        """Text for people: "20.5% ± 1.1%"."""
        if self.mean is None:
            return "failed" if self.failed else ""
        return f"{self.mean:.1%}" + ("" if self.spread is None else f" ± {self.spread:.1%}")

    def among(self, n: int) -> str:
        """Text for people; with its own n if it has fewer seeds than the table."""
        return f"{self} (n = {self.n})" if 0 < self.n < n else str(self)


class Line(Record):
    """One row of a table: one attack (or control) against every defense, and its worst case."""

    recipe: str
    attack: str
    budget: str
    partial: str
    """Text of the partial protection; empty for the whole set."""
    places: Sequence[Place]
    worst: Place | None
    """The defense that gives the trainer most, at the last epoch or stopped early."""
    size: Size | None = None
    """Size of the perturbations over all seeds."""

    @property
    def name(self) -> str:
        return row_name(self.attack, self.budget, self.partial)

    @property
    def worst_text(self) -> str:
        """Text of the worst case: "49.9% (gray, stopped early)"; empty without a result."""
        if (worst := worst_of(self.places)) is None:
            return ""
        early = ", stopped early" if worst.most > (worst.mean or 0.0) + 5e-4 else ""
        return f"{worst.most:.1%} ({worst.defense}{early})"


class Board(Record):
    """Results of a grid so far. failed: error message of every failed cell, by its name."""

    version: Literal[1] = 1
    cells: int
    measured: int
    failed: Mapping[str, str]
    lines: Sequence[Line]


def board(records: Sequence[CellRecord], cells: int, threshold: float) -> Board:
    """Return the board of a grid with `cells` cells, of which `records` exist."""
    failed = {
        cell_name(row_name(r.attack, r.budget, _partial(r)), r.recipe, r.defense, r.seed): r.error
        for r in records
        if r.error
    }
    measured = sum(r.victim is not None for r in records)
    return Board(cells=cells, measured=measured, failed=failed, lines=leaderboard(records, threshold))


def _partial(record: CellRecord) -> str:
    return str(Partial(share=record.share, which=record.which, leaked=record.leaked))


def leaderboard(records: Iterable[CellRecord], threshold: float) -> list[Line]:
    """Rows sorted by recipe, controls first; otherwise rows and defenses are in the order of the records."""
    groups: dict[tuple[str, str, str, str], dict[str, list[CellRecord]]] = {}
    for record in records:
        row = (record.recipe, record.attack, record.budget, _partial(record))
        groups.setdefault(row, {}).setdefault(record.defense, []).append(record)
    recipes, defenses = (
        list(dict.fromkeys(row[0] for row in groups)),
        dict.fromkeys(d for g in groups.values() for d in g),
    )

    def control(role: str, row: tuple[str, str, str, str]) -> Mapping[str, list[CellRecord]]:
        """The cells of a control: those of the budget of the row if there are any."""
        by_budget = {other[2]: g for other, g in groups.items() if other[:2] == (row[0], role) and not other[3]}
        return by_budget.get(row[2]) or next(iter(by_budget.values()), {})

    def rank(row: tuple[str, str, str, str]) -> tuple[int, int]:
        return recipes.index(row[0]), CONTROLS.index(row[1]) if row[1] in CONTROLS else len(CONTROLS)

    lines = []
    for row in sorted(groups, key=rank):
        against = {role: control(role, row) for role in ("clean", "noise")}
        places = [_place(d, groups[row][d], against, threshold) for d in defenses if d in groups[row]]
        crafts = {r.seed: r.craft for records in groups[row].values() for r in records if r.craft}
        line = Line(recipe=row[0], attack=row[1], budget=row[2], partial=row[3], places=places, worst=worst_of(places))
        lines.append(line.model_copy(update={"size": Size.over(list(crafts.values()))}))
    return lines


def worst_of(places: Sequence[Place]) -> Place | None:
    """The place that gives the trainer most; None if none has a result."""
    return max((p for p in places if p.mean is not None), key=lambda p: p.most, default=None)


def _place(
    defense: str,
    records: Sequence[CellRecord],
    controls: Mapping[str, Mapping[str, list[CellRecord]]],
    threshold: float,
) -> Place:
    done = {r.seed: r.victim for r in records if r.victim}
    last = [v.last for v in done.values()]
    place = Place(
        defense=defense,
        n=len(last),
        mean=fmean(last) if last else None,
        spread=stdev(last) if len(last) > 1 else None,
        best=fmean(v.best for v in done.values()) if last else None,
        early=fmean(v.early for v in done.values()) if last else None,
        failed=sum(bool(r.error) for r in records),
    )
    if records[0].attack in CONTROLS:
        return place
    victims = {role: {r.seed: r.victim for r in cells.get(defense, []) if r.victim} for role, cells in controls.items()}
    seeds = sorted(set(done).intersection(*victims.values()))
    if not seeds:
        return place
    of = {**victims, "protected": done}
    by_role = {role: [by_seed[seed] for seed in seeds] for role, by_seed in of.items()}
    sets, noise = records[0].sets, controls["noise"][defense][0]
    verdict, reason = concluded(judge_victim(by_role, sets.chance, sets.tested, threshold, sets.largest))
    if verdict == "protected" and not _covered(records[0].budget, noise.budget):
        verdict, reason = "inconclusive", f"{reason}, but the noise control has {noise.budget}"
    return place.model_copy(update={"verdict": verdict, "reason": reason})


def _covered(budget: str, noise: str) -> bool:
    """True if the noise of a control may change a picture as much as this budget. Earlier records name neither."""
    if not (budget and noise):
        return True
    own, control = Budget.parse(budget), Budget.parse(noise)
    return control.norm == own.norm and control.eps >= own.eps
