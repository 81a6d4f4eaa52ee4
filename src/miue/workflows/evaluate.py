"""The workflows `evaluate` and `detect`: from a protected set and its clean source to a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from miue import data
from miue.core.run import Run
from miue.evaluation.adaptive import CHEAP, victim_of
from miue.evaluation.detect import Detection, first_look
from miue.evaluation.evaluation import Evaluation
from miue.evaluation.records import Outcome
from miue.victims.recipe import Recipe
from miue.victims.recipes import recipe
from miue.workflows import traced
from miue.workflows.published import Inputs, cells_of, read_back, tested, write_dated


def evaluate(
    out: str | Path,
    clean: str | Path,
    *,
    recipes: str | Sequence[str | Recipe] = "quick",
    defenses: Sequence[str] = CHEAP,
    seeds: int = 3,
    threshold: float = 0.25,
    channel: str | None = None,
    test: str | Path | None = None,
    split: str | None = None,
    test_split: str | None = None,
    canvas: int | None = None,
    keep_victims: bool | None = None,
    trace: bool = False,
    run: Run | None = None,
) -> Outcome:
    """Train victims on what was published, on clean and on noisy pictures, and test them on clean ones.

    The protected set is read back from `out`. The outcome is written into its private folder; a repeated call trains
    nothing again. The noise control has the grid of the attack.

    out: a folder that `protect` wrote. clean: its source. recipes: how victims train, one a victim ("papers",
    "quick:net=vit-tiny"), each plainly and with every one of `defenses`: "gray+jpeg:quality=10", or "adaptive", which
    tries many and keeps what is best on a part of the test pictures. By default they are the cheapest ones, grey and
    JPEG; "none" alone is plain training only. All are judged stopped early, too. seeds: victims of a kind. threshold:
    largest share of the clean victim's gain over chance that a protected victim may keep. channel: processing of all
    training pictures before a trainer gets them ("jpeg:quality=75", "resize:share=0.75"). test, test_split: clean test
    pictures; without them a part of the source is held out. canvas: side at which networks see the pictures.
    keep_victims: whether trained networks are kept, for `analyze`; None: up to 100 MB in all. trace: test whether the
    trace of the set is found in the protected victims, beside clean and noisy ones. Raises UserError.
    """
    run = run or Run()
    texts = [recipes] if isinstance(recipes, str) else recipes
    plain = [recipe(each) if isinstance(each, str) else each for each in texts]
    named = [text for text in defenses if text != "none"]
    victims = [*plain, *(victim_of(each, text) for text in named for each in plain)]
    weights = True if trace and keep_victims is None else keep_victims
    evaluation = Evaluation(recipes=victims, seeds=seeds, threshold=threshold, keep_victims=weights)
    if channel:
        data.check_channel(channel)
    inputs, out = Inputs.of(clean, test, split, test_split, canvas), Path(out)
    name, private = data.readable(out.resolve().name), data.private_of(out)
    sets, tests = tested(inputs, read_back(inputs, {name: out}, run), run)
    record, protected = sets.records[name], sets.protected[name]
    if defenses is CHEAP and protected.shape[0] == 1:  # grey pictures stay as they are
        victims = [each for each in victims if each.defense != "gray"]
        evaluation = replace(evaluation, recipes=victims)
    if trace:
        traced.check(out, record, victims, tests)
    names = ", ".join(each.victim for each in victims)
    also = "; --defense none: plain training alone" if defenses is CHEAP else ""
    run.say(f"training {names} on clean, noisy and protected pictures, {seeds} seed(s) each{also}")
    evaluation = replace(evaluation, noise=replace(evaluation.noise, cells=cells_of(record, protected)))
    keeping, method = replace(run, keep=private), record.settings.attack
    outcome = evaluation(sets.clean, tests, protected, sets.budgets[name], keeping, method, channel)
    outcome = outcome.model_copy(update={"inputs": inputs.given})
    if trace:
        roles = evaluation.roles(sets.clean, protected, sets.budgets[name], keeping, channel)
        outcome = outcome.model_copy(update={"traces": traced.judged(out, roles, tests, victims, seeds, keeping)})
    if channel and sets.resized:
        side = protected.shape[1]
        note = f"pictures went through {channel} at {side} x {side} pixels, not at the size that was published"
        outcome = outcome.model_copy(update={"notes": [*outcome.notes, note]})
    write_dated(private / "outcomes", outcome)
    return outcome


def detect(
    out: str | Path,
    clean: str | Path,
    *,
    channel: str | None = None,
    split: str | None = None,
    canvas: int | None = None,
    run: Run | None = None,
) -> Detection:
    """Return a trainer's first look at an output: simple networks on the protected and on the clean pictures.

    It is written into the private folder, too. Arguments as for `evaluate`. Raises UserError.
    """
    run, out = run or Run(), Path(out)
    if channel:
        data.check_channel(channel)
    inputs = Inputs.of(clean, None, split, None, canvas)
    sets = read_back(inputs, {data.readable(out.resolve().name): out}, run)
    pair = (*sets.protected.values(), sets.clean)
    protected, originals = (data.through(part, channel) for part in pair) if channel else pair
    detection = first_look(protected, originals, run)
    write_dated(data.private_of(out) / "detections", detection)
    return detection
