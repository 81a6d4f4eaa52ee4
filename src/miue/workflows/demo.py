"""The demo: the embedded shapes as a folder, protected, read back, and proved. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from miue import data, publish
from miue.core.run import Run
from miue.evaluation.proof import Proof
from miue.evaluation.records import Outcome
from miue.victims.recipes import recipe
from miue.workflows.protect import Job, protect
from miue.workflows.prove import prove
from miue.workflows.published import Claim

PER_CLASS, TEST_PER_CLASS = 300, 100
RECIPE = "quick:epochs=14"


def demo(folder: Path, run: Run, say: Callable[[str], None]) -> Outcome:
    """Write shapes/train and shapes/test, protect the first, train victims, draw a preview. Repeat to resume."""
    train, test, out = folder / "shapes" / "train", folder / "shapes" / "test", folder / "protected"
    picture = folder / "preview.png"
    if not data.private_of(out).exists():  # else it is the demo's own, from before
        publish.refuse_existing(picture, "another folder")
    for split, where, count in (("train", train, PER_CLASS), ("test", test, TEST_PER_CLASS)):
        if not where.is_dir():
            say(f"drawing {count} pictures of each of ten shapes into {where}")
            publish.export(data.shapes(count, 32, run.seed, split), where)
    say(f"protecting {train}: MI-UE, 8 grey levels of 255, one change per picture")
    protect(Job(source=str(train), out=out, method="mi-ue:drawings", seed=run.seed), run, say)
    publish.preview(data.scan(str(train)), out, picture, 8)
    say(f"before, after and the difference ten times amplified: {picture}")
    claim = Claim(out=out, clean=str(train), test=str(test))
    return prove(claim, Proof(recipes=[recipe(RECIPE)], seeds=1), run, say)
