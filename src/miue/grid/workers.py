"""Measuring cells one after the other, side by side in worker processes, or with Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from filelock import Timeout

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.core.workers import Sets, side_by_side
from miue.evaluation.checks import check_victims, overlap_note
from miue.grid.bench import Bench, kept, record_path
from miue.grid.plan import Cell, Grid
from miue.grid.records import CellRecord


def in_turn(bench: Bench, cells: Iterable[Cell]) -> Iterator[CellRecord]:
    """Measure one cell after the other. What another process works on, a cell or its perturbation, comes later."""
    waiting = list(cells)
    while waiting:
        later = []
        for cell in waiting:
            try:
                yield bench.measure(cell, wait=False)
            except Timeout:
                later.append(cell)
        if len(later) == len(waiting):  # the last one, because the other process most likely goes on with the first
            yield bench.measure(later.pop())
        waiting = later


def in_processes(bench: Bench, cells: Iterable[Cell], ended: Callable[[CellRecord], None]) -> None:
    """Measure cells in worker processes and hand over records as they come.

    First all perturbations are made, and cells measured that need none; then the cells of the perturbations.
    """
    cells, sets = list(cells), {"clean": bench.clean, "test": bench.test}
    first = {cell.perturbation: cell for cell in cells if cell.perturbation}
    jobs = {f"{cell.attack}, seed {cell.seed}": _Job(cell.key, make=True) for cell in first.values()}
    jobs |= {str(cell): _Job(cell.key) for cell in cells if not cell.perturbation}

    def tell(place: int, result: str | CellRecord) -> None:
        if isinstance(result, CellRecord):
            ended(result)

    task = partial(_job, bench.grid)
    results = side_by_side(task, sets, jobs, bench.run, "perturbations and first cells", tell)
    errors = dict(zip(first, results, strict=False))  # perturbations come first
    rest = {str(cell): _Job(cell.key, broken=str(errors[cell.perturbation])) for cell in cells if cell.perturbation}
    side_by_side(task, sets, rest, bench.run, "cells", tell)


@dataclass(frozen=True)
class _Job:
    """The cell with this key, or its perturbation alone. broken: the error of its attack, if there was one."""

    key: str
    make: bool = False
    broken: str = ""


def _job(grid: Grid, sets: Sets, job: _Job, run: Run) -> str | CellRecord:
    bench = Bench(grid, sets["clean"], sets["test"], run)
    cell = bench.cells[job.key]
    if job.broken:
        bench.broken[cell.perturbation] = job.broken
    return bench.make(cell) if job.make else bench.measure(cell)


def on_ray(bench: Bench, cells: Iterable[Cell]) -> Iterator[CellRecord]:
    """Measure cells as Ray tasks and yield records as they finish. Cells wait for the task of their perturbation.

    Needs the extra [ray], and a folder that all workers see. Uses a running Ray cluster, or starts one.
    """
    try:
        ray: Any = import_module("ray")  # an extra, whose decorator is typed for literal options only
    except ImportError:
        raise UserError('--ray needs ray; pip install "miue[ray]" adds it') from None
    cells, started = list(cells), not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False)
    try:
        grid = bench.grid.model_copy(update={"out": bench.grid.out.resolve()})
        shared = grid, ray.put(bench.clean), ray.put(bench.test), bench.run.device_name
        needs = {"num_cpus": 1, "num_gpus": 1 if bench.run.accelerated else 0}
        make, measure = (ray.remote(**needs)(task) for task in (_make, _measure))
        first = {cell.perturbation: cell for cell in cells if cell.perturbation}
        perturbations: dict[str, Any] = {name: make.remote(*shared, cell.key) for name, cell in first.items()}
        waiting = {measure.remote(*shared, c.key, perturbations.get(c.perturbation, "")): c for c in cells}
        while waiting:
            (ended,), _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(ended)
            try:
                yield ray.get(ended)
            except (
                ray.exceptions.RayError
            ) as error:  # the worker died: no record is saved, so the next call tries again
                yield bench.failed(cell, error)
    finally:
        if started:
            ray.shutdown()


def _make(grid: Grid, clean: ImageSet, test: ImageSet, device: str, key: str) -> Any:
    return _job(grid, {"clean": clean, "test": test}, _Job(key, make=True), Run(device_name=device))


def _measure(grid: Grid, clean: ImageSet, test: ImageSet, device: str, key: str, broken: str) -> Any:
    return _job(grid, {"clean": clean, "test": test}, _Job(key, broken=broken), Run(device_name=device))


def parse_shard(text: str) -> tuple[int, int]:
    """Parse a shard, "2/4" to (2, 4). Raises UserError if it is malformed."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"shard {text!r} is not understood; write 1/4, 2/4, 3/4 or 4/4 for one of four parts")
    return int(number), int(count)


def work(bench: Bench, shard: tuple[int, int] = (1, 1), retry: bool = False, ray: bool = False) -> list[CellRecord]:
    """Measure the missing cells of a shard and return its records. retry: measure failed cells again."""
    cells = bench.shard(*shard)
    records = {cell.key: record for cell in cells if (record := kept(bench.grid, cell))}
    for key in [key for key, record in records.items() if retry and record.error]:
        del records[key]
        with suppress(FileNotFoundError):
            record_path(bench.grid, bench.cells[key]).unlink()
    missing = [cell for cell in cells if cell.key not in records]
    check_victims([cell.training for cell in missing], bench.clean, bench.test, bench.run)
    if overlap := overlap_note(bench.test, bench.clean):
        bench.run.say(overlap)
    bench.run.say(f"{len(cells)} cells: {len(records)} there, {len(missing)} to measure, in {bench.grid.out}")

    def ended(record: CellRecord) -> str:
        records[record.key] = record
        name = bench.cells[record.key]
        if record.error:
            bench.run.say(f"failed: {name}: {record.error}")
        return f"{name}: " + (f"{record.victim.last:.1%}" if record.victim else "failed")

    if not ray and bench.run.processes_for(len(missing)) > 1:
        in_processes(bench, missing, lambda record: bench.run.say(ended(record)))
    else:
        with bench.run.progress("grid", len(cells), len(records)) as tick:
            for record in (on_ray if ray else in_turn)(bench, missing):
                tick(ended(record))
    return [records[cell.key] for cell in cells]
