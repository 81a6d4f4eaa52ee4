"""From paths to records: protect a source, prove what an output is worth."""

from __future__ import annotations

import json
import pickle
import shutil
import stat
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from miue import data, publish
from miue.analysis.analyzer import Analyzer
from miue.attacks import Noise, attack
from miue.attacks.crafted import Crafted
from miue.cli import telling
from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.core.run import Run
from miue.core.types import Budget, Perturbation
from miue.evaluation.evaluation import Evaluation
from miue.evaluation.records import Outcome
from miue.trace import Tracing
from miue.victims.recipe import Recipe
from miue.workflows import protect as jobs
from miue.workflows.analyze import analyze, generation
from miue.workflows.evaluate import evaluate
from miue.workflows.forecast import forecast, trials_of
from miue.workflows.job import Job
from miue.workflows.protect import carry_out, protect
from miue.workflows.record import RunRecord
from pictures import coloured, hashes, listed

TINY = "mi-ue:surrogate=small-cnn:width=4,epochs=2,steps=2,step_size=2.0"
VICTIM = Recipe(net="small-cnn:width=4", epochs=8, batch=8, augment=())


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(source=str(coloured(tmp_path / "in")), out=tmp_path / "out", method="noise", canvas=8)


def perturbation(job: Job) -> Perturbation:
    (path,) = job.private.glob("perturbation-*.safetensors")
    return Perturbation.load(path)


# --- protecting ---


def test_protect_writes_the_set_and_a_private_folder(job: Job, run: Run, capsys):
    job = replace(job, method=TINY)
    record = carry_out(job, replace(run, quiet=False))
    written = record.written
    assert written.counts == {"protected": 12} and 0 < written.worst <= 8
    assert record.status == "finished" and set(record.seconds) == {"attack", "write"}
    assert record == RunRecord.of(job.out) and record.written.worst == written.worst
    assert len(listed(job.out)) == 12 + 3 + 1 and "3 classes: " in capsys.readouterr().err
    assert stat.S_IMODE(job.private.stat().st_mode) == 0o700
    delta = perturbation(job)
    source, out = data.read(data.scan(job.source), 8), data.read(data.scan(job.out), 8)
    assert (delta.apply(source).images == out.images).all()
    assert delta.budget == Budget(8) and "MIUE" in delta.made_by


def test_settings_are_recorded_with_everything_resolved(job: Job, run: Run):
    record = carry_out(replace(job, canvas=None, method="noise:per=image,cells=4", budget="6/255", seed=5), run)
    assert record.settings.attack == "noise:cells=4" and record.settings.seed == 5
    assert isinstance(record.settings.canvas, int) and record.settings.canvas >= 8
    assert record.source.classes == ["blue", "green", "red"] and record.source.counts == {"ok": 12}
    assert record.machine["precision"] and record.miue
    again = Job(source=job.source, out=job.out, method=record.settings.attack, canvas=record.settings.canvas,
                budget=record.settings.budget, seed=5)  # fmt: skip
    assert carry_out(again, run).fingerprint == record.fingerprint


def test_the_same_call_again_changes_no_byte(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    carry_out(job, run)
    before, times = hashes(job.out), {p: p.stat().st_mtime_ns for p in job.out.rglob("*.png")}
    monkeypatch.setattr(jobs, "launch", lambda *a: pytest.fail("the attack ran again"))
    carry_out(job, run)
    assert hashes(job.out) == before
    assert {p: p.stat().st_mtime_ns for p in job.out.rglob("*.png")} == times
    shutil.rmtree(job.out)
    carry_out(job, run)
    assert hashes(job.out) == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"budget": "4"}, {"method": "noise:per=class"}, {"format": "webp"}])
def test_other_settings_do_not_touch_what_was_written(job: Job, run: Run, change: dict):
    carry_out(job, run)
    before = hashes(job.out)
    other = replace(job, **change)
    with pytest.raises(UserError, match="was written with other settings"):
        carry_out(other, run)
    assert hashes(job.out) == before
    carry_out(replace(other, overwrite=True), run)
    assert hashes(job.out) != before and len(data.scan(job.out).usable) == 12


def test_other_data_do_not_touch_what_was_written(job: Job, run: Run):
    carry_out(job, run)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(Path(job.source) / "red" / "new.png")
    with pytest.raises(UserError, match="from other data"):
        carry_out(job, run)


def test_a_finished_perturbation_needs_no_pictures_in_memory(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    first = carry_out(job, run)
    shutil.rmtree(job.out)
    monkeypatch.setattr(data, "read", lambda *_, **__: pytest.fail("the pictures were read again"))
    again = carry_out(job, run)
    assert again.profile == first.profile is not None and len(hashes(job.out)) > 12


def test_seeds_and_budgets_show_on_the_files(job: Job, run: Run):
    deltas = []
    for seed, budget in ((0, "8"), (1, "8"), (0, "2")):
        out = job.out.with_name(f"out-{seed}-{budget}")
        carry_out(replace(job, seed=seed, budget=budget, out=out), run)
        change = data.read(data.scan(out), 8).images.int() - data.read(data.scan(job.source), 8).images.int()
        assert change.abs().max() == int(budget)
        deltas.append(change)
    assert not (deltas[0] == deltas[1]).all()


PLUGIN = """
from dataclasses import dataclass
from miue.attacks import Noise

@dataclass(frozen=True, kw_only=True)
class Theirs(Noise):
    {body}
"""


@dataclass(frozen=True, kw_only=True)
class Louder(Noise):
    """Another attack than ours, which no record could name."""


@dataclass(frozen=True, kw_only=True)
class Namesake(Noise):
    facts: ClassVar[AttackFacts] = Noise.facts


@pytest.mark.parametrize(
    ("method", "told"),
    [(Louder(), "attack 'Louder' is unknown"), (Namesake(), r"'noise' names another attack.*path/to/file.py:Namesake")],
)
def test_an_attack_that_has_no_spelling_is_never_taken_for_another(job: Job, run: Run, method: Noise, told: str):
    with pytest.raises(UserError, match=told):
        protect(job.source, job.out, attack=method, run=run)
    assert not job.out.exists() and not job.private.exists()


def test_somebody_elses_attack_is_known_by_its_code(job: Job, run: Run, tmp_path: Path):
    file = tmp_path / "theirs.py"
    file.write_text(PLUGIN.format(body="pass"))
    job = replace(job, method=f"{file}:Theirs:cells=4")
    record = carry_out(job, run)
    assert record.settings.attack == f"{file}:Theirs:cells=4" and len(record.settings.code) == 16
    file.write_text(PLUGIN.format(body="x: int = 1"))
    with pytest.raises(UserError, match="was written with other settings"):
        carry_out(job, run)


def test_somebody_elses_attack_reaches_other_processes(tmp_path: Path):
    """They have not loaded its file when they are sent it."""
    file = tmp_path / "theirs.py"
    file.write_text(PLUGIN.format(body="x: int = 1"))
    sent = attack(f"{file}:Theirs:x=3,cells=4")
    packed = pickle.dumps(sent)
    del sys.modules[type(sent).__module__]
    there = pickle.loads(packed)
    assert (there.x, there.cells, repr(there)) == (3, 4, repr(sent)) and type(there) is not type(sent)


def test_an_attack_that_leaves_the_budget_writes_no_picture(job: Job, run: Run, tmp_path: Path):
    (tmp_path / "bad.py").write_text(
        PLUGIN.format(body="")
        + """
    def craft(self, data, budget, run):
        import torch
        return torch.ones(len(data), 3, 8, 8)
"""
    )
    with pytest.raises(ValueError, match="left its budget"):
        carry_out(replace(job, method=f"{tmp_path}/bad.py:Theirs"), run)
    assert not job.out.exists()


def test_two_runs_on_one_output(job: Job, run: Run):
    job.private.mkdir()
    with FileLock(job.private / "run.lock"), pytest.raises(UserError, match="another run is working on it"):
        carry_out(job, run)
    carry_out(job, run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"budget": "0"}, "not a whole number of at least 1"),
        ({"budget": "many"}, "not understood"),
        ({"budget": "none"}, "cannot keep a budget in none"),
        ({"method": "lsp", "budget": "8"}, "LSP cannot keep a budget in linf, only in l2"),
        ({"method": "nois"}, "attack 'nois' is unknown"),
        ({"method": "mi-ue:surrogate=nothing,epochs=1"}, "net 'nothing' is unknown"),
        ({"method": "mi-ue:cells=99,surrogate=small-cnn:width=4"}, "cells=99 is not between"),
        ({"method": "mi-ue:surrogate=mixer_s32_224"}, "cannot be used with pictures of 8 x 8 pixels"),
        ({"source": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_settings_are_refused_and_nothing_is_published(job: Job, run: Run, change: dict, told: str):
    with pytest.raises(UserError, match=told):
        carry_out(replace(job, **change), run)
    assert not job.out.exists()


@pytest.mark.parametrize(
    ("method", "budget", "told"),
    [
        ("noise", "linf:8", None),
        ("lsp", f"l2:{Budget((6 / 255) * 192**0.5, 'l2').eps:.10g}", None),
        ("ops", "l0:1", "12 of 12 pictures leave the 8/255 ball: largest change 2"),
        ("cuda", "none", "100.0% of the pixels"),
    ],
)
def test_a_method_takes_its_own_budget_and_says_how_far_it_goes(job: Job, run: Run, method, budget, told, capsys):
    record = carry_out(replace(job, method=method), replace(run, quiet=False))
    written = record.written
    said = capsys.readouterr().err.splitlines()
    assert record.settings.budget == budget and f"budget {budget}, the method's own" in said
    assert all(f.ok for f in publish.verify(job.out, data.scan(job.source)))
    source, out = (data.read(data.scan(str(where)), 8) for where in (job.source, job.out))
    size = data.measure(source, out)
    assert size and size == written.size and size == RunRecord.of(job.out).written.size
    assert perturbation(job).budget == Budget.parse(budget)
    assert any("8/255 ball" in note for note in written.notes) == bool(size and size.outside)
    assert not told or told in " ".join(written.notes)
    assert carry_out(replace(job, method=method, budget=budget), run).fingerprint == record.fingerprint


def test_a_generator_protects_other_pictures_later(job: Job, run: Run, tmp_path: Path):
    carry_out(replace(job, method="gue:surrogate=small-cnn:width=4,epochs=1,width=4,inner_steps=1"), run)
    file = job.private / "checkpoint" / "generator.safetensors"
    new = coloured(tmp_path / "new", seed=7)
    later = Job(source=str(new), out=tmp_path / "later", method=f"gue:generator={file}")
    record = carry_out(later, run)
    written = record.written
    assert written.counts == {"protected": 12} and 0 < written.worst <= 8
    assert record.settings.code and all(f.ok for f in publish.verify(later.out, data.scan(str(new))))


@pytest.mark.parametrize(
    ("method", "note"), [("lsp", ""), ("ops", ""), ("cuda", "the noise control has a budget of l2:")]
)
def test_other_norms_are_proved_beside_noise_of_the_same_size(job: Job, run: Run, tmp_path: Path, method, note):
    carry_out(replace(job, method=method), run)
    outcome = evaluated(job, run, test=str(coloured(tmp_path / "test", seed=1)))
    assert (
        any(text.startswith(note) for text in outcome.notes) if note else not any("noise" in n for n in outcome.notes)
    )
    assert outcome.size and (f"as victims see them, {outcome.size.leaves}" in outcome.notes) == bool(
        outcome.size.outside
    )


def test_grey_pictures_in_webp_keep_an_l2_budget(job: Job, run: Run):
    for path in Path(job.source).rglob("*.png"):
        Image.open(path).convert("L").save(path)
    record = carry_out(replace(job, method="lsp", format="webp"), run)
    written = record.written
    assert written.counts == {"protected": 12} and all(f.ok for f in publish.verify(job.out, data.scan(job.source)))


def test_a_norm_that_does_not_survive_stretching(job: Job, run: Run):
    with pytest.raises(UserError, match="holds only at the size of the noise grid"):
        carry_out(replace(job, method="lsp", canvas=16), run)
    assert not job.out.exists()


@pytest.mark.parametrize("change", [{"canvas": 4}, {"canvas": 2000}, {"processes": 0}])
def test_settings_without_sense(job: Job, change: dict):
    with pytest.raises(UserError, match=r"at least|8 to 1024"):
        replace(job, **change)


def test_with_less_memory_the_output_is_the_same(job: Job, run: Run, tmp_path: Path):
    job = replace(job, method=f"{TINY},noise_momentum=0.9")
    carry_out(job, run)
    less = replace(job, out=tmp_path / "less")
    source, settings = less.scan(), less.settings(less.scan())
    assert forecast(less, source, replace(run, memory=0)).memory < forecast(less, source, run).memory
    assert settings == job.settings(source)
    carry_out(less, replace(run, memory=0))
    assert hashes(less.out) == hashes(job.out)


def test_the_deltas_of_epochs_are_removed_when_the_perturbation_is_saved(job: Job, run: Run):
    """A lost perturbation is made anew from them no more, but from the beginning, with the same bytes."""
    job = replace(job, method=TINY)
    carry_out(job, run)
    written = hashes(job.out)
    assert not list(job.private.rglob("*.rows")) and (job.private / "checkpoint" / "surrogate.safetensors").exists()
    next(job.private.glob("perturbation-*")).unlink()
    shutil.rmtree(job.out)
    carry_out(job, run)
    assert hashes(job.out) == written


def test_a_forecast_writes_nothing_and_grows_with_the_work(job: Job, run: Run, tmp_path: Path):
    source, before = job.scan(), listed(tmp_path)
    small = forecast(replace(job, method=TINY), source, run)
    large = forecast(replace(job, method=TINY.replace("epochs=2", "epochs=2000")), source, run)
    assert 0 < small.seconds < large.seconds and large.seconds > 50 * small.seconds
    assert 12 * 4096 < small.disk == large.disk and small.memory > 0
    assert forecast(job, source, run).seconds >= 0
    assert listed(tmp_path) == before


@pytest.mark.parametrize(
    "method",
    [
        "sep:surrogate=small-cnn:width=4,epochs=6,checkpoints=3,batch=8,steps=5",
        "tap:surrogate=small-cnn:width=4,epochs=2,batch=8,steps=9",
    ],
)
def test_every_attack_has_a_forecast(job: Job, run: Run, method: str):
    assert forecast(replace(job, method=method), job.scan(), run).seconds >= 0


def test_what_a_forecast_adds_up_is_the_whole_attack():
    """By a made-up clock: an epoch of training takes 7 seconds, a step on delta 2."""
    for text in ("tap", "sep", "pil", "mi-ue:quick", "gue"):
        method = attack(text)
        steps = 2.0 if isinstance(method, Crafted) else 0.0
        took = sum(
            times * (7 * short.epochs + steps * getattr(short, "steps", 0)) for short, times in trials_of(method, 5000)
        )
        whole = 7 * method.epochs + steps * getattr(method, "steps", 0)
        assert whole <= took <= whole + 2 * method.epochs, text
    assert trials_of(attack("lsp"), 5000) == []


def test_renamed_pictures_are_other_data(job: Job, run: Run):
    """The same pictures in the same order under other names would leave the old names behind."""
    carry_out(job, run)
    red = Path(job.source) / "red"
    (red / "3.png").rename(red / "4.png")
    with pytest.raises(UserError, match="from other data"):
        carry_out(job, run)
    carry_out(replace(job, overwrite=True), run)
    assert all(f.ok for f in publish.verify(job.out, data.scan(job.source)))


def test_seconds_of_a_stopped_run_count(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "launch", stopped)
        with pytest.raises(KeyboardInterrupt):
            carry_out(job, run)
    before = RunRecord.of(job.out).seconds["attack"]
    assert before > 0 and carry_out(job, run).seconds["attack"] > before


def test_a_file_of_the_users_that_is_called_like_an_attack(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(job.out.parent)
    Path("noise.py").write_text("1 / 0")
    assert carry_out(job, run).settings.code == ""


@pytest.mark.slow
def test_two_processes_make_a_protected_folder(job: Job, run: Run):
    carry_out(replace(job, method=TINY, processes=2), run)
    clean = data.scan(job.source)
    assert all(f.ok for f in publish.verify(job.out, clean))
    assert all(row.any() for row in perturbation(job).delta)


# --- proving ---


def evaluated(job: Job, run: Run, **change) -> Outcome:
    given = {"out": job.out, "clean": job.source, "recipes": [VICTIM], "defenses": (), "seeds": 1, "run": run}
    return evaluate(**given | change)


def test_what_is_evaluated_is_what_was_shipped(job: Job, run: Run, tmp_path: Path):
    carry_out(job, run)
    test = coloured(tmp_path / "test", seed=1)
    outcome = evaluated(job, run, test=str(test))
    published = data.read(data.scan(job.out), 8)
    assert outcome.data["protected"] == published.digest != outcome.data["clean"]
    assert outcome.verdict == "not protected" and outcome.images == 12 and outcome.method == "noise"
    (path,) = (job.private / "outcomes").iterdir()
    assert Outcome.model_validate_json(path.read_text()).verdict == outcome.verdict
    whatever = job.out / "red" / "0.png"  # who changes a file afterwards is evaluated on the changed file
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(whatever)
    assert evaluated(job, run, test=str(test)).data["protected"] == data.read(data.scan(job.out), 8).digest


def test_without_a_test_set_pictures_are_held_out_in_every_form(job: Job, run: Run, monkeypatch, capsys):
    carry_out(job, run)
    seen = {}
    real = Evaluation.__call__

    def watch(self, clean, test, protected, *rest):
        seen.update(clean=clean, test=test, protected=protected)
        return real(self, clean, test, protected, *rest)

    monkeypatch.setattr(Evaluation, "__call__", watch)
    outcome = evaluated(job, replace(run, quiet=False))
    told = capsys.readouterr().err.splitlines()
    assert outcome.images == 9 and len(seen["test"]) == 3 and seen["test"].labels.tolist() == [0, 1, 2]
    assert any("3 of 12 clean pictures are held out" in text for text in told)
    delta = seen["protected"].images.int() - seen["clean"].images.int()
    assert 0 < delta.abs().max() <= 8  # rows correspond
    kept = {p.numpy().tobytes() for p in seen["clean"].images}
    assert not kept & {p.numpy().tobytes() for p in seen["test"].images}


def test_pictures_that_were_taken_out_of_the_output(job: Job, run: Run, capsys):
    carry_out(job, run)
    (job.out / "red" / "3.png").unlink()
    outcome = evaluated(job, replace(run, quiet=False), test=str(coloured(job.out.parent / "test", seed=1)))
    assert outcome.images == 11 and "1 clean pictures are not in" in capsys.readouterr().err


def test_a_channel_changes_what_victims_train_on_and_not_the_test(job: Job, run: Run, tmp_path: Path):
    carry_out(job, run)
    test = str(coloured(tmp_path / "test", seed=1))
    plain = evaluated(job, run, test=test)
    jpeg = evaluated(job, run, test=test, channel="jpeg:quality=50")
    assert jpeg.channel == "jpeg:quality=50" and plain.channel is None
    assert all(plain.data[k] != jpeg.data[k] for k in ("clean", "protected"))
    assert plain.data["test"] == jpeg.data["test"]
    with pytest.raises(UserError):
        evaluated(job, run, test=test, channel="pigeon")


def test_the_control_has_the_grid_of_the_attack(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    carry_out(replace(job, method="noise:cells=2"), run)
    seen = []
    monkeypatch.setattr(Evaluation, "__call__", lambda self, *rest: seen.append(self.noise) or pytest.skip.Exception)
    with pytest.raises(Exception):  # noqa: B017  the stand-in returns no record
        evaluated(job, run)
    assert seen[0].cells == 2
    monkeypatch.setattr(Analyzer, "__call__", lambda self, *rest: seen.append(self.noise) or pytest.skip.Exception)
    with pytest.raises(Exception):  # noqa: B017
        analyze([job.out], job.source, recipe=VICTIM, run=run)
    assert seen[1].cells == 2
    carry_out(replace(job, out=job.out.with_name("fine")), run)  # its grid are the 8 x 8 pixels of its canvas
    for canvas, cells in ((8, 0), (16, 8)):
        with pytest.raises(Exception):  # noqa: B017
            evaluated(job, run, out=job.out.with_name("fine"), canvas=canvas)
        assert seen[-1].cells == cells


def test_an_output_is_proved_without_the_file_of_its_attack(job: Job, run: Run, tmp_path: Path):
    """Somebody's own method need not lie where it lay when the set was protected."""
    file = tmp_path / "theirs.py"
    file.write_text(PLUGIN.format(body="x: int = 1"))
    carry_out(replace(job, method=f"{file}:Theirs"), run)
    file.unlink()
    assert evaluated(job, run).method.endswith("theirs.py:Theirs")
    assert generation("out", RunRecord.of(job.out), run) is None


def test_claims_that_are_refused(job: Job, run: Run, tmp_path: Path):
    with pytest.raises(UserError, match="only an output of miue"):
        evaluated(job, run)
    carry_out(job, run)
    other = coloured(tmp_path / "other", per_class=2, seed=9)
    with pytest.raises(UserError, match="these are not the pictures that"):
        evaluated(job, run, clean=str(other))
    shutil.rmtree(other / "red")
    with pytest.raises(UserError, match=r"its classes \(blue, green\) are not those"):
        evaluated(job, run, test=str(other))
    record = job.private / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "running"}))
    with pytest.raises(UserError, match="was interrupted; finish it"):
        evaluated(job, run)


# --- what the attack reached ---


def test_protect_records_and_tells_what_the_attack_reached_on_its_surrogate(
    job: Job, run: Run, monkeypatch: pytest.MonkeyPatch
):
    job = replace(job, method="tap:surrogate=small-cnn:width=4,epochs=2,steps=2")
    record = carry_out(job, run)
    assert record.success is not None and record.success.pictures == 12 and record.success.reached is not None
    assert RunRecord.of(job.out).success == record.success
    assert any(line.startswith(f"On its own surrogate: {record.success}") for line in telling.protected(job, record))
    before = hashes(job.out)
    stored = json.loads((job.private / "run.json").read_text())
    del stored["success"], stored["profile"]  # as an early version wrote it
    (job.private / "run.json").write_text(json.dumps(stored))
    assert RunRecord.of(job.out).success is None
    monkeypatch.setattr(jobs, "launch", lambda *_: pytest.fail("the attack ran again"))
    again = carry_out(job, run)
    assert again.success == record.success and hashes(job.out) == before


def test_a_resumed_attack_says_what_a_whole_one_says(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    source = str(coloured(tmp_path / "in"))
    whole, stopped = (Job(source=source, out=tmp_path / n / "out", method=TINY, canvas=8) for n in "ab")
    said = carry_out(whole, run).success
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "described", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            carry_out(stopped, run)
    assert said is not None and carry_out(stopped, run).success == said


def test_the_surrogate_of_a_traced_protection_is_asked_too(job: Job, run: Run):
    traced = replace(job, method=TINY, canvas=16, trace=Tracing(strength=2, unmeasured=True))
    assert carry_out(traced, run).success is not None


@pytest.mark.parametrize("form", ["png", "webp"])
def test_a_tie_in_luminance_holds_in_the_written_files(tmp_path: Path, run: Run, form: str):
    """Equal changes of red, green and blue except where one was clamped; at another size, with alpha, in grey files."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number, mode in enumerate(("RGB", "RGBA", "L")):
            channels = len(mode)
            pixels = generator.integers(0, 256, (21, 30, channels), np.uint8)
            Image.fromarray(pixels.squeeze()).save(tmp_path / "in" / name / f"{number}.png")
    method = "em:surrogate=small-cnn:width=4,epochs=1,steps=2,step_size=4,channels=luma"
    protect(tmp_path / "in", tmp_path / "out", method, canvas=16, format=form, run=run)
    for name in ("a", "b"):
        for number, mode in enumerate(("RGB", "RGBA", "L")):
            clean = Image.open(tmp_path / "in" / name / f"{number}.png")
            written = Image.open(tmp_path / "out" / name / f"{number}.{form}")
            before, after = (np.asarray(image.convert(mode), np.int16) for image in (clean, written))
            change = (after - before).reshape(21, 30, -1)
            assert 0 < np.abs(change).max() <= 8
            if mode != "L":
                free = ((after[..., :3] > 0) & (after[..., :3] < 255)).all(2)
                assert (change[free][:, :3] == change[free][:, :1]).all() and change[free].any()
            if mode == "RGBA":
                assert not change[..., 3].any()
