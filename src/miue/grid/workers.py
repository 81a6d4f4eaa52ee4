"""Cells one after the other, or many at once with Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from filelock import Timeout

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.checks import check_victims, overlap_note
from miue.grid.bench import Bench, kept, record_path
from miue.grid.plan import Cell, Grid
from miue.grid.records import CellRecord


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


def work(bench: Bench, shard: tuple[int, int] = (1, 1), retry: bool = False, ray: bool = False) -> list[CellRecord]:
    """Measure what is missing; the records of the shard. retry: cells that failed, too."""
    cells = bench.shard(*shard)
    there = {cell.key: record for cell in cells if (record := kept(bench.grid, cell))}
    for key in [key for key, record in there.items() if retry and record.error]:
        del there[key]
        with suppress(FileNotFoundError):
            record_path(bench.grid, bench.cells[key]).unlink()
    missing = [cell for cell in cells if cell.key not in there]
    check_victims([cell.training for cell in missing], bench.clean, bench.test, bench.run)
    if twins := overlap_note(bench.test, bench.clean):
        bench.run.say(twins)
    bench.run.say(f"{len(cells)} cells: {len(there)} there, {len(missing)} to measure, in {bench.grid.out}")
    with bench.run.progress("grid", len(cells), len(there)) as tick:
        for record in (on_ray if ray else in_turn)(bench, missing):
            there[record.key] = record
            name = bench.cells[record.key]
            if record.error:
                bench.run.say(f"failed: {name}: {record.error}")
            tick(f"{name}: " + (f"{record.victim.last:.1%}" if record.victim else "failed"))
    return [there[cell.key] for cell in cells]
