"""The grid: attack x defense x recipe x seed, one record a cell. The same content is never run twice."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import Timeout

from miue.attacks import attack
from miue.attacks.success import Success, success
from miue.core.errors import Damaged
from miue.core.files import installed, locked, write_atomically
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation
from miue.data import measure
from miue.evaluation.adaptive import train
from miue.evaluation.profile import profile
from miue.evaluation.records import Role
from miue.grid.leaderboard import Board, board
from miue.grid.plan import Cell, Grid
from miue.grid.records import CellRecord, CellState, Craft, Sets
from miue.nets import counted

TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def kept(grid: Grid, cell: Cell) -> CellRecord | None:
    """Return the record of a cell, with the names that this grid uses; None if it is not measured yet."""
    path = record_path(grid, cell)
    if not path.exists():
        return None
    names = {"attack": cell.attack, "defense": cell.defense, "recipe": cell.recipe}
    return CellRecord.load(path).model_copy(update=names)


def standing(grid: Grid, run: Run) -> Board:
    """Return the leaderboard of the measured cells. Reads the pictures only if no record identifies them."""
    paths = (path for path in (grid.out / "cells").glob("*.json") if not path.name.startswith("."))
    stored = (CellRecord.load(path).sets for path in paths)
    known = {sets.data + sets.test: sets for sets in stored if sets.source == grid.source}
    (sets,) = known.values() if len(known) == 1 else (Bench.of(grid, run).sets,)
    cells = grid.cells(sets)
    return board([record for cell in cells if (record := kept(grid, cell))], len(cells), grid.threshold)


def record_path(grid: Grid, cell: Cell) -> Path:
    """Path of the record of a cell."""
    return grid.out / "cells" / f"{cell.key}.json"


@dataclass
class Bench:
    """A grid with its pictures, which measures cells. Several processes may work on one folder at once."""

    grid: Grid
    clean: ImageSet
    test: ImageSet
    run: Run
    sets: Sets = field(init=False)
    cells: dict[str, Cell] = field(init=False)
    broken: dict[str, str] = field(default_factory=dict)
    """Errors of attacks, by digest of the perturbation: other cells of the same attack do not try again."""

    def __post_init__(self) -> None:
        self.sets = Sets(
            source=self.grid.source,
            name=self.clean.name,
            data=self.clean.digest,
            test=self.test.digest,
            shape=self.clean.shape,
            images=len(self.clean),
            tested=len(self.test),
            classes=len(self.clean.classes),
            chance=self.test.chance,
            largest=self.clean.chance,
        )
        self.cells = {cell.key: cell for cell in self.grid.cells(self.sets)}

    @classmethod
    def of(cls, grid: Grid, run: Run) -> Bench:
        """Read the pictures of a grid. Raises UserError if its folder would lie among them."""
        return cls(grid, *grid.read(run), run)

    def records(self) -> list[CellRecord]:
        """All records that exist, in the order of the cells."""
        return [record for cell in self.cells.values() if (record := kept(self.grid, cell))]

    def states(self, shard: tuple[int, int]) -> list[CellState]:
        """State of every cell of a shard: there, failed, or missing."""
        pairs = [(cell, kept(self.grid, cell)) for cell in self.shard(*shard)]
        return [
            CellState(
                cell=str(cell), key=cell.key, state=("failed" if record.error else "there") if record else "missing"
            )
            for cell, record in pairs
        ]

    def shard(self, number: int, count: int) -> list[Cell]:
        """Cells of part `number` of `count`. Sizes differ by at most one; each part is a random mix of costs."""
        mine = set(sorted(self.cells)[number - 1 :: count])
        return [cell for key, cell in self.cells.items() if key in mine]

    def measure(self, cell: Cell, wait: bool = True) -> CellRecord:
        """Return the record of a cell; measure it if it is missing. An error of attack or victim becomes a record.

        Raises Timeout if another process works on the cell and `wait` is false.
        """
        with locked(self.grid.out, cell.key, wait):
            if record := kept(self.grid, cell):
                return record
            try:
                record = self._measured(cell, wait)
            except Exception as error:
                _reraise_transient(error)
                record = self.failed(cell, error)
            self.put(cell, record)
            return record

    def put(self, cell: Cell, record: CellRecord) -> None:
        """Save the record of a cell. A record from another machine is as valid as one from this one."""
        record.save(record_path(self.grid, cell))

    def failed(self, cell: Cell, error: Exception | str) -> CellRecord:
        """Record of a cell that ended in an error."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return self.blank(cell).model_copy(update={"error": text})

    def make(self, cell: Cell, wait: bool = True) -> str:
        """Make the perturbation of a cell, once for all cells that share it. Returns the error, or ''."""
        if not cell.perturbation or cell.perturbation in self.broken:
            return self.broken.get(cell.perturbation, "")
        path = self._perturbation(cell)
        with locked(self.grid.out, cell.perturbation, wait):
            if path.exists() and path.with_suffix(".json").exists():
                return ""
            run = replace(self.run.reseeded(cell.seed), keep=path.with_suffix(""), quiet=True)
            start = time.monotonic()
            method, budget = attack(cell.attack), cell.budget or Budget()
            try:
                with counted() as passes, self.run.threads_side_by_side():
                    perturbation = method(self.clean, budget, run)
                seconds = time.monotonic() - start
                protected = perturbation.apply(self.clean)
                reached = success(method, self.clean, protected, budget, perturbation.data, run)
                craft = self._craft(protected, seconds, passes.count, reached)
            except Exception as error:
                _reraise_transient(error)
                self.broken[cell.perturbation] = f"{type(error).__name__}: {error}"
                return self.broken[cell.perturbation]
            craft.save(path.with_suffix(".json"))
            write_atomically(path, perturbation.save)  # last: this file marks the perturbation as complete
            run.forget()
        return ""

    def _measured(self, cell: Cell, wait: bool) -> CellRecord:
        if error := self.make(cell, wait):
            return self.failed(cell, error)
        run = replace(self.run.reseeded(cell.seed), quiet=True)
        role: Role = "noise" if cell.attack == "noise" else "protected" if cell.perturbation else "clean"
        victim = train(role, self._training_set(cell, run), self.test, cell.training, run, self.grid.out)
        return self.blank(cell).model_copy(update={"victim": victim})

    def _training_set(self, cell: Cell, run: Run) -> ImageSet:
        if cell.attack == "clean":
            return self.clean
        if cell.attack == "without":
            return cell.partial.rest(self.clean, run)
        return cell.partial.joined(self.clean, self.protected(cell), run)

    def protected(self, cell: Cell) -> ImageSet:
        """The set with the perturbation of a cell, which `make` has made, on all of its pictures."""
        return Perturbation.load(self._perturbation(cell)).apply(self.clean)

    def _craft(self, protected: ImageSet, seconds: float, passes: int, reached: Success | None) -> Craft:
        size = measure(self.clean, protected)
        assert size is not None, "a grid has pictures"
        noise = profile(self.clean, protected, self.run)
        return Craft(**dict(size), seconds=seconds, passes=passes / size.pictures, noise=noise, success=reached)

    def blank(self, cell: Cell) -> CellRecord:
        """Record of a cell without a result."""
        craft = self._perturbation(cell).with_suffix(".json") if cell.perturbation else None
        return CellRecord(
            key=cell.key,
            attack=cell.attack,
            method=cell.method,
            budget="" if cell.budget is None else str(cell.budget),
            defense=cell.defense,
            recipe=cell.recipe,
            **vars(cell.partial),
            seed=cell.seed,
            sets=self.sets,
            craft=Craft.load(craft) if craft and craft.exists() else None,
            training=cell.training.described(),
            machine=self.run.machine,
            miue=installed(),
        )

    def _perturbation(self, cell: Cell) -> Path:
        return self.grid.out / "perturbations" / f"{cell.perturbation}.safetensors"


def _reraise_transient(error: Exception) -> None:
    """Re-raise errors that are not the cell's fault: a lock held elsewhere, a full disk, a damaged file of ours."""
    if isinstance(error, Timeout | Damaged) or (isinstance(error, OSError) and error.errno in TRANSIENT):
        raise error
