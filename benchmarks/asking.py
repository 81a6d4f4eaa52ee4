"""The cost of asking: processor seconds of one core for 1,000 questions in files and for judging their answers.

About 1,000 clean pictures of CIFAR-10 at 32 and of Imagenette at 224 pixels, medians of three, without the suspect's
own time. Writes results/asking.json. MIUE_CIFAR10, MIUE_IMAGENETTE: folders of parquet files.

python benchmarks/asking.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import torch
from common import CIFAR, IMAGENETTE, record

import miue
from miue import publish, trace
from miue.workflows import trace as work
from miue.workflows.job import Job
from miue.workflows.protect import carry_out
from miue.workflows.questions import questions

COUNT, TIMES = 1000, 3


def seconds(action: Callable[[], Any]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def answered(path: Path, classes: tuple[str, ...], scores: bool) -> Path:
    """Answers of a suspect that guesses: what they say does not change what it costs to judge them."""
    rng = torch.Generator().manual_seed(0)
    if scores:
        rows = [",".join(f"{value:.6f}" for value in row) for row in torch.randn(COUNT, len(classes), generator=rng)]
    else:
        rows = [classes[i] for i in torch.randint(len(classes), (COUNT,), generator=rng)]
    header = "question," + (",".join(classes) if scores else "label")
    path.write_text("\n".join([header, *(f"{i},{row}" for i, row in enumerate(rows))]))
    return path


def thinned(table: Path, to: Path) -> Path:
    """About 1,000 pictures of a table, of all its classes: what an owner may have kept apart."""
    whole = pq.read_table(table)
    to.parent.mkdir(parents=True)
    pq.write_table(whole.take(list(range(0, len(whole), round(len(whole) / COUNT)))), to)
    return to


def row(place: Path, base: Path, size: int) -> dict[str, Any]:
    parts: dict[str, list[float]] = {"questions": [], "labels": [], "scores": []}
    folder = place / f"{size}"
    publish.export(miue.data.shapes(3), folder / "in")
    job = Job(source=str(folder / "in"), out=folder / "out", method="noise", trace=trace.Tracing(unmeasured=True))
    classes = tuple(carry_out(job, miue.Run()).source.classes)
    for i in range(TIMES):
        asked = folder / f"questions-{i}"
        options = {"count": COUNT, "size": size, "seed": i}
        parts["questions"].append(seconds(lambda: questions(job.out, asked, base, **options)))  # noqa: B023
        for kind in ("labels", "scores"):
            file = answered(folder / f"{kind}.csv", classes, kind == "scores")
            parts[kind].append(
                seconds(lambda: work.judge_answers(job.out, file, asked=asked, rehearsal=True))  # noqa: B023
            )
    return {"size": size, "base": base.parent.name, **{name: median(values) for name, values in parts.items()}}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        bases = ((CIFAR / "test.parquet", 32), (IMAGENETTE / "val.parquet", 224))
        rows = [row(place, thinned(base, place / base.parent.name / "base.parquet"), size) for base, size in bases]
    record("asking", miue.Run(), count=COUNT, times=TIMES, rows=rows)


if __name__ == "__main__":
    main()
