"""The trace in an evaluation: the same test on the victims that it trained itself, the clean ones as controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from miue import data, trace
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.records import Role, TraceRun
from miue.trace.questions import LEAST_BASE
from miue.victims.fit import TRAINED, fit, keep_victim, kept_victim
from miue.victims.recipe import Recipe
from miue.workflows.record import RunRecord
from miue.workflows.standing import place_of

QUESTIONS = 1000


def check(out: Path, record: RunRecord, victims: Sequence[object], test: ImageSet) -> None:
    """Raise UserError if the victims of an evaluation cannot be judged."""
    if not record.commitment:
        raise UserError("this set carries no trace; protect with --trace, or evaluate without it")
    _ = place_of(out).secret  # another one, or none, is told before anything is trained
    if len(test) < LEAST_BASE:
        raise UserError(
            f"questions need {LEAST_BASE} clean test pictures, and there are {len(test)}; give more with --test"
        )
    if not all(isinstance(victim, Recipe) for victim in victims):
        raise UserError("--trace judges victims that train once, not adaptive ones; leave one of the two out")


def judged(
    out: Path, sets: Mapping[Role, ImageSet], test: ImageSet, victims: Sequence[object], seeds: int, run: Run
) -> list[TraceRun]:
    """Test every victim by the scores of 1,000 questions, made of the test pictures, which no victim trained on."""
    private, runs = data.private_of(out), list[TraceRun]()
    secret = place_of(out).secret
    for recipe in (victim for victim in victims if isinstance(victim, Recipe)):
        for seed in range(run.seed, run.seed + seeds):
            own = Run(seed, run.device_name, private / TRAINED)
            for role, images in sets.items():
                net = kept_victim(images, recipe, own)
                if net is None:  # an earlier evaluation has kept its record, but not its weights
                    run.say(f"{recipe.victim}, {role}, seed {seed}: trained again, because its weights were not kept")
                    with run.threads_side_by_side():
                        net = fit(images, recipe, Run(seed, run.device_name))
                    keep_victim(net, images, recipe, own)
                suspect = trace.suspect_of(net.eval(), own)
                verdict = trace.judge(suspect, secret, test, count=QUESTIONS)
                facts = {"role": role, "victim": recipe.victim, "seed": seed, "labels": verdict.further["labels alone"]}
                runs.append(TraceRun(**facts, p=verdict.p, z=verdict.z, evidence=verdict.evidence))
    return runs
