"""The grid: attack x defense x recipe x seed, one record a cell. The same content is never run twice."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import Timeout

from miue.analysis.records import CellRecord, Craft, Role, Sets
from miue.attacks import attack
from miue.core.run import Run, locked, write_atomically
from miue.core.spelling import read_record
from miue.core.types import Budget, ImageSet, Perturbation, UserError
from miue.data import measure
from miue.evaluation.proof import check_victims, told_twice, train_victim
from miue.grid.leaderboard import Board, board
from miue.grid.plan import Cell, Grid
from miue.nets import counted
from miue.workflows.protect import installed

Say = Callable[[str], None]
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def kept(grid: Grid, cell: Cell) -> CellRecord | None:
    """The record of a cell, under the names by which this grid calls it."""
    path = _record(grid, cell)
    if not path.is_file():
        return None
    names = {"attack": cell.attack, "defense": cell.defense, "recipe": cell.recipe}
    return read_record(CellRecord, path).model_copy(update=names)


def standing(grid: Grid, run: Run) -> Board:
    """The leaderboard of what is there. Reads the pictures only where no record says which they are."""
    paths = (path for path in (grid.out / "cells").glob("*.json") if not path.name.startswith("."))
    there = (read_record(CellRecord, path).sets for path in paths)
    known = {sets.data + sets.test: sets for sets in there if sets.source == grid.source}
    (sets,) = known.values() if len(known) == 1 else (Bench.of(grid, run).sets,)
    cells = grid.cells(sets)
    return board([record for cell in cells if (record := kept(grid, cell))], len(cells), grid.threshold)


def _record(grid: Grid, cell: Cell) -> Path:
    return grid.out / "cells" / f"{cell.key}.json"


@dataclass
class Bench:
    """A grid with its pictures, where its cells are measured. Several may work on one folder at once."""

    grid: Grid
    clean: ImageSet
    test: ImageSet
    run: Run
    sets: Sets = field(init=False)
    cells: dict[str, Cell] = field(init=False)
    broken: dict[str, str] = field(default_factory=dict)
    """Why an attack ended without a perturbation, by its digest: its other cells need not try again."""

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
        """Read the pictures of a grid. UserError where its folder would lie among them."""
        return cls(grid, *grid.read(run), run)

    def records(self) -> list[CellRecord]:
        """All that are there, in the order of the cells."""
        return [record for cell in self.cells.values() if (record := kept(self.grid, cell))]

    def shard(self, number: int, count: int) -> list[Cell]:
        """Part `number` of `count`: sizes differ by one at most, and each is a random mix of cheap and dear cells."""
        mine = set(sorted(self.cells)[number - 1 :: count])
        return [cell for key, cell in self.cells.items() if key in mine]

    def measure(self, cell: Cell, wait: bool = True) -> CellRecord:
        """The record of a cell, made where it is missing. Raises Timeout where another process is at it, unless `wait`.

        An error of the attack or of the victim becomes a record.
        """
        with locked(self.grid.out, cell.key, wait):
            if there := kept(self.grid, cell):
                return there
            try:
                record = self._measured(cell, wait)
            except Exception as error:
                _raise_passing(error)
                record = self.failed(cell, error)
            self.put(cell, record)
            return record

    def put(self, cell: Cell, record: CellRecord) -> None:
        """Keep the record of a cell: one that another machine measured is as good as one of this one."""
        write_atomically(_record(self.grid, cell), record.model_dump_json(indent=1).encode())

    def failed(self, cell: Cell, error: Exception | str) -> CellRecord:
        """The record of a cell that ended in an error."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return self.blank(cell).model_copy(update={"error": text})

    def make(self, cell: Cell, wait: bool = True) -> str:
        """Make the perturbation that a cell needs, once for all cells that share it. What went wrong, or nothing."""
        if not cell.perturbation or cell.perturbation in self.broken:
            return self.broken.get(cell.perturbation, "")
        path = self._perturbation(cell)
        with locked(self.grid.out, cell.perturbation, wait):
            if path.is_file():
                return ""
            run = replace(self.run.reseeded(cell.seed), keep=path.with_suffix(""), quiet=True)
            start = time.monotonic()
            try:
                with counted() as passes:
                    made = attack(cell.attack)(self.clean, cell.budget or Budget(), run)
            except Exception as error:
                _raise_passing(error)
                self.broken[cell.perturbation] = f"{type(error).__name__}: {error}"
                return self.broken[cell.perturbation]
            craft = self._craft(made, time.monotonic() - start, passes.count)
            write_atomically(path.with_suffix(".json"), craft.model_dump_json(indent=1).encode())
            write_atomically(path, made.save)  # last: it says that all is there
            run.forget()
        return ""

    def _measured(self, cell: Cell, wait: bool) -> CellRecord:
        if error := self.make(cell, wait):
            return self.failed(cell, error)
        run = replace(self.run.reseeded(cell.seed), quiet=True)
        role: Role = "noise" if cell.attack == "noise" else "protected" if cell.perturbation else "clean"
        victim = train_victim(role, self._training_set(cell, run), self.test, cell.training, run, self.grid.out)
        return self.blank(cell).model_copy(update={"victim": victim})

    def _training_set(self, cell: Cell, run: Run) -> ImageSet:
        if cell.attack == "clean":
            return self.clean
        if cell.attack == "without":
            return cell.partial.rest(self.clean, run)
        protected = Perturbation.load(self._perturbation(cell)).apply(self.clean)
        return cell.partial.joined(self.clean, protected, run)

    def _craft(self, made: Perturbation, seconds: float, passes: int) -> Craft:
        size = measure(self.clean, made.apply(self.clean))
        assert size is not None, "a grid has pictures"
        return Craft(**dict(size), seconds=seconds, passes=passes / size.pictures)

    def blank(self, cell: Cell) -> CellRecord:
        """The record of a cell without what its victim learned."""
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
            craft=read_record(Craft, craft) if craft and craft.is_file() else None,
            training=cell.training.described(),
            machine=self.run.machine,
            miue=installed(),
        )

    def _perturbation(self, cell: Cell) -> Path:
        return self.grid.out / "perturbations" / f"{cell.perturbation}.safetensors"


def _raise_passing(error: Exception) -> None:
    """Raise what says nothing of a cell: another process is at it, or the disk takes no more."""
    if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno in PASSING):
        raise error


def in_turn(bench: Bench, cells: Iterable[Cell]) -> Iterator[CellRecord]:
    """One cell after the other; those that another process is at come last."""
    late = []
    for cell in cells:
        try:
            yield bench.measure(cell, wait=False)
        except Timeout:
            late.append(cell)
    yield from map(bench.measure, late)


def on_ray(bench: Bench, cells: Iterable[Cell]) -> Iterator[CellRecord]:
    """Cells as tasks of Ray, as they end; every perturbation is a task on which its cells wait.

    Needs the extra [ray], and a folder that all workers see. A Ray that runs already is used, else one starts here.
    """
    try:
        ray: Any = import_module("ray")  # an extra, whose decorator is typed for literal options only
    except ImportError:
        raise UserError('--ray needs ray; pip install "miue[ray]" adds it') from None
    cells, began = list(cells), not ray.is_initialized()
    if began:
        ray.init(include_dashboard=False, log_to_driver=False)
    try:
        grid = bench.grid.model_copy(update={"out": bench.grid.out.resolve()})
        shared = grid, ray.put(bench.clean), ray.put(bench.test), bench.run.device_name
        needs = {"num_cpus": 1, "num_gpus": 1 if bench.run.accelerated else 0}
        make, measure = (ray.remote(**needs)(task) for task in (_make, _measure))
        first = {cell.perturbation: cell for cell in cells if cell.perturbation}
        made: dict[str, Any] = {name: make.remote(*shared, cell.key) for name, cell in first.items()}
        waiting = {measure.remote(*shared, c.key, made.get(c.perturbation, "")): c for c in cells}
        while waiting:
            (ended,), _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(ended)
            try:
                yield ray.get(ended)
            except ray.exceptions.RayError as error:  # its worker died: no record is kept, the next call tries again
                yield bench.failed(cell, error)
    finally:
        if began:
            ray.shutdown()


def _make(grid: Grid, clean: ImageSet, test: ImageSet, device: str, key: str) -> str:
    bench = Bench(grid, clean, test, Run(device_name=device))
    return bench.make(bench.cells[key])


def _measure(grid: Grid, clean: ImageSet, test: ImageSet, device: str, key: str, broken: str) -> CellRecord:
    bench = Bench(grid, clean, test, Run(device_name=device))
    cell = bench.cells[key]
    if broken:
        bench.broken[cell.perturbation] = broken
    return bench.measure(cell)


def parse_shard(text: str) -> tuple[int, int]:
    """Read "2/4"."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"shard {text!r} is not understood; write 1/4, 2/4, 3/4 or 4/4 for one of four parts")
    return int(number), int(count)


def work(
    bench: Bench, shard: tuple[int, int] = (1, 1), retry: bool = False, ray: bool = False, say: Say = lambda text: None
) -> list[CellRecord]:
    """Measure what is missing; the records of the shard. retry: cells that failed, too."""
    cells = bench.shard(*shard)
    there = {cell.key: record for cell in cells if (record := kept(bench.grid, cell))}
    for key in [key for key, record in there.items() if retry and record.error]:
        del there[key]
        with suppress(FileNotFoundError):
            _record(bench.grid, bench.cells[key]).unlink()
    missing = [cell for cell in cells if cell.key not in there]
    check_victims([cell.training for cell in missing], bench.clean, bench.test, bench.run)
    if twins := told_twice(bench.test, bench.clean):
        say(twins)
    say(f"{len(cells)} cells: {len(there)} there, {len(missing)} to measure, in {bench.grid.out}")
    with bench.run.progress("grid", len(cells), len(there)) as tick:
        for record in (on_ray if ray else in_turn)(bench, missing):
            there[record.key] = record
            name = bench.cells[record.key]
            if record.error:
                say(f"failed: {name}: {record.error}")
            tick(f"{name}: " + (f"{record.victim.last:.1%}" if record.victim else "failed"))
    return [there[cell.key] for cell in cells]
