"""The workflow `add`: new pictures of known classes, protected beside those that are published."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from miue import data, publish
from miue.core.files import installed, write_atomically
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation
from miue.trace import Nothing, traced
from miue.workflows import marking
from miue.workflows.addition import Addition, examined, work_of
from miue.workflows.exclusive import exclusive
from miue.workflows.job import class_sizes
from miue.workflows.record import DATED, Added, Looked, RunRecord, timed


def add(
    out: str | Path,
    new: str | Path,
    *,
    split: str | None = None,
    download: bool = False,
    run: Run | None = None,
) -> RunRecord:
    """Protect new pictures of known classes and write them to an output, whose other files stay as they are.

    Settings and seed are those of the first pictures. Pictures that the output has are left out, so `new` may be the
    grown source. If a call is killed, the same call resumes it, with the same bytes as result.

    out: a folder that `protect` wrote. new: a folder of class folders, or the name of a set. split: which part of it.
    run: the device. Raises UserError, also for classes and methods that nothing can be added to.
    """
    return carry_out(examined(Path(out), str(new), split, download), run or Run())


def carry_out(addition: Addition, run: Run) -> RunRecord:
    """Protect and write the new pictures. Resumes a killed call."""
    source = addition.new.source
    if not source.usable:
        run.say(f"nothing to add: {len(addition.new.known)} pictures are in {addition.out} already")
        return addition.record
    for name, count in class_sizes(source).items():
        if count and not addition.again:
            run.say(f"{name}: {count} new")
    for note in () if addition.again else addition.notes:
        run.say(f"note: {note}")
    with exclusive(addition.out, run):
        return _add(addition, run)


def _add(addition: Addition, run: Run) -> RunRecord:
    source, private, at = addition.new.source, addition.private, addition.part - 1
    record = addition.record
    again = at < len(record.added) and record.added[at].fingerprint == addition.fingerprint
    seconds = dict(record.added[at].seconds) if again else {}
    part = record.added[at] if again else Added(
        fingerprint=addition.fingerprint,
        status="running",
        miue=installed(),
        source=Looked.of(source, record.source.rules).model_copy(
            update={"counts": addition.counts, "notes": addition.notes}
        ),
        protected=len(source.usable),
        split=None if addition.split is None else data.readable(addition.split),
        machine=run.machine,
    )  # fmt: skip

    def save(part: Added, **more: Any) -> RunRecord:
        added = [*record.added[:at], part.model_copy(update={"seconds": seconds}), *record.added[at + 1 :]]
        grown = record.model_copy(update={"added": added, **more})
        grown.save(private / "run.json")
        return grown

    if not again and at < len(record.added):  # other pictures than an interrupted call had
        replace(run, keep=work_of(private, record.added[at].fingerprint)).forget()
    save(part)
    try:
        with timed(seconds, "attack"):
            perturbation = _perturbation(addition, run)
    finally:  # the seconds of a stopped run count, too
        save(part)
    run.say(f"{'checking' if again else 'writing'} {len(source.usable)} pictures in {addition.out}")
    form, rights = record.settings.format, record.settings.rights
    with timed(seconds, "write"), run.progress("writing", len(source.usable)) as tick:
        written = publish.write(
            source,
            perturbation,
            addition.out,
            private,
            format=form,
            notice=marking.notice(record, rights),
            tick=tick,
            part=addition.part,
            rights=rights,
        )
    replace(run, keep=addition.work).forget()
    finished = part.finished or time.strftime(DATED)
    part = part.model_copy(update={"status": "finished", "digest": _digest(addition), "finished": finished})
    return save(part, written=written)


def _digest(addition: Addition) -> str:
    """Digest of all pictures up to these, as that of a source with them in this order."""
    classes = tuple(addition.record.source.classes)
    index = {name: i for i, name in enumerate(classes)}
    pairs = [(line.sha256, index[line.class_name]) for line in addition.protected]
    return data.pictures_digest(classes, [*pairs, *((e.sha256, e.label) for e in addition.new.source.usable)])


def _perturbation(addition: Addition, run: Run) -> Perturbation:
    """Return the perturbation of the new pictures: read it if an earlier run finished it, else make it."""
    path, settings = addition.perturbation, addition.record.settings
    if path.exists():
        return Perturbation.load(path)
    keeping, images = replace(run, seed=settings.seed, keep=addition.work), addition.read()
    rows = marking.rows(addition.secret, images.labels, addition.new.source)
    attack = addition.method if isinstance(addition.method, Nothing) else partial(_more, addition)
    perturbation = traced(attack, addition.secret, images, rows, settings.limit, keeping)
    write_atomically(path, perturbation.save)
    return perturbation


def _more(addition: Addition, images: ImageSet, budget: Budget, run: Run) -> Perturbation:
    """The perturbation of the output's attack, made with the state that it kept."""
    return addition.method.more(images, addition.kept(run), budget, run)
