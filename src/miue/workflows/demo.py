"""The demo: the embedded shapes as a folder, protected and evaluated. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from miue import data, publish
from miue.core.run import Run
from miue.evaluation.records import Outcome
from miue.workflows.evaluate import evaluate
from miue.workflows.protect import protect

PER_CLASS, TEST_PER_CLASS = 300, 100
TRAIN, TEST, OUT = "shapes/train", "shapes/test", "protected"
# the demo shows what holds, and names what does not
ATTACK, RECIPE, BREAKS = "mi-ue:drawings", "quick:epochs=14", "gray"


def demo(folder: Path, run: Run) -> Outcome:
    """Write shapes/train and shapes/test, protect the first, train victims, draw a preview. Repeat to resume."""
    train, test, out = folder / TRAIN, folder / TEST, folder / OUT
    picture = folder / "preview.png"
    if not data.private_of(out).exists():  # otherwise the picture comes from an earlier run of the demo
        publish.refuse_existing(picture, "another folder")
    for split, where, count in (("train", train, PER_CLASS), ("test", test, TEST_PER_CLASS)):
        if not where.is_dir():
            run.say(f"drawing {count} pictures of each of ten shapes into {where}")
            publish.export(data.shapes(count, 32, run.seed, split), where)
    run.say(f"protecting {train}: MI-UE, 8 grey levels of 255, one change per picture")
    protect(train, out, ATTACK, run=run)
    publish.preview(data.scan(str(train), canvas=0), out, picture, 8)
    run.say(f"before, after and the difference ten times amplified: {picture}")
    return evaluate(out, train, test=test, recipes=RECIPE, defenses=("none",), seeds=1, run=run)
