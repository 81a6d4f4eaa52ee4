"""New pictures, added to an output that is published: what stays, what comes, what is refused."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import miue
from miue import data, publish
from miue.attacks import KNOWN, attack
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Perturbation
from miue.testing import Stopping
from miue.trace import Secret, Tracing, rows_of
from miue.trace.marks import mark_of
from miue.workflows import add as additions
from miue.workflows.add import add
from miue.workflows.addition import examined
from miue.workflows.forecast import planned_addition
from miue.workflows.job import Job
from miue.workflows.originals import opened, originals
from miue.workflows.protect import carry_out
from miue.workflows.record import RunRecord
from miue.workflows.verify import preview, returned, verify
from pictures import coloured, hashes, listed

SMALL: dict[str, Any] = {
    "surrogate": "small-cnn:width=4",
    "epochs": 2,
    "steps": 1,
    "step_size": 1.5,
    "inner_steps": 1,
    "views": 2,
    "checkpoints": 2,
    "distance": 0.0,
    "width": 4,
}
EM = "mi-ue:surrogate=small-cnn:width=4,epochs=2,steps=2,step_size=2,batch=8"
LASTING = "em:lasting,surrogate=small-cnn:width=4,epochs=2,steps=2,batch=8,colour_epochs=1"


def spelled(name: str) -> str:
    """An attack with hyper-parameters that take no time."""
    method = attack(name)
    own = {key: value for key, value in SMALL.items() if hasattr(method, key)}
    return name + ":" * bool(own) + ",".join(f"{key}={value}" for key, value in own.items())


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(source=str(coloured(tmp_path / "in")), out=tmp_path / "out", method=EM, canvas=8)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Two new pictures of every class, whose names the first set has for others."""
    return coloured(tmp_path / "new", per_class=2, seed=5)


def part(job: Job, record: RunRecord, number: int = 1) -> Perturbation:
    return Perturbation.load(job.private / f"perturbation-{record.added[number - 1].fingerprint}.safetensors")


def test_new_pictures_come_beside_the_others(job: Job, new: Path, run: Run, capsys):
    carry_out(job, run)
    before, times = hashes(job.out), {p: p.stat().st_mtime_ns for p in job.out.rglob("*.png")}
    record = add(job.out, new, run=replace(run, quiet=False))
    said = capsys.readouterr().err
    assert "red: 2 new" in said and "red/0.png becomes red/0~2.png" in said and "stays published" in said
    after = hashes(job.out)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"{c}/{i}~2.png" for c in ("blue", "green", "red") for i in (0, 1)}
    assert all(p.stat().st_mtime_ns == at for p, at in times.items())
    assert record == RunRecord.of(job.out) and record.written.counts == {"protected": 18}
    (grown,) = record.added
    assert (grown.status, grown.protected, grown.source.counts) == ("finished", 6, {"ok": 6})
    assert set(grown.seconds) == {"attack", "write"} and not (job.private / f"added-{grown.fingerprint}").exists()
    made = part(job, record)
    assert len(made) == 6 and 0 < int(made.delta.abs().max()) <= 8 and "MIUE" in made.made_by
    clean = data.read(originals(job.out, job.source, None), 8)
    out = data.read(data.scan(job.out), 8)
    assert len(clean) == 18 and len(out) == 18 and clean.classes == out.classes
    assert all(f.ok for f in verify(job.out)) and all(f.ok for f in verify(job.out, job.source))
    assert len(verify(job.out)) == 18


def test_the_same_pictures_again_change_nothing(job: Job, new: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    carry_out(job, run)
    record = add(job.out, new, run=run)
    before = hashes(job.out)
    monkeypatch.setattr(type(attack(EM)), "craft_more", lambda *a: pytest.fail("the attack ran again"))
    again = add(job.out, new, run=run)
    assert hashes(job.out) == before and again.added[0].fingerprint == record.added[0].fingerprint
    first = add(job.out, job.source, run=run)  # all of them are in it, and published ones are not protected twice
    assert hashes(job.out) == before and len(first.added) == 1
    copy = job.out.with_name("published")
    shutil.copytree(job.out, copy)
    (copy / "PROTECTED.md").unlink()
    assert len(add(job.out, copy, run=run).added) == 1 and hashes(job.out) == before


def test_the_source_may_grow_in_its_place(job: Job, new: Path, run: Run):
    """Twice, and with a picture saved anew: pixels count, not bytes."""
    carry_out(job, run)
    for i, name in enumerate(("fresh.png", "later.png")):
        shutil.copy(new / "red" / f"{i}.png", Path(job.source) / "red" / name)
        addition = examined(job.out, job.source)
        assert [e.path for e in addition.new.source.usable] == [f"red/{name}"] and addition.part == i + 1
        assert len(addition.new.known) == 12 + i
        additions.carry_out(addition, run)
    saved = Path(job.source) / "red" / "saved_anew.png"
    Image.open(Path(job.source) / "red" / "0.png").save(saved, compress_level=0)
    assert saved.read_bytes() != (Path(job.source) / "red" / "0.png").read_bytes()
    again = examined(job.out, job.source)
    assert again.again and again.part == 2 and planned_addition(again, run).classes == {}
    assert len(originals(job.out, job.source, None).usable) == 14
    assert all(f.ok for f in verify(job.out, job.source))


def test_originals_are_found_where_they_are(job: Job, new: Path, run: Run, tmp_path: Path):
    carry_out(job, run)
    add(job.out, new, run=run)
    digest = RunRecord.of(job.out).digest
    assert originals(job.out, job.source, None).digest == digest != RunRecord.of(job.out).source.digest
    merged = tmp_path / "merged"
    shutil.copytree(job.source, merged)
    for path in new.rglob("*.png"):
        shutil.copy(path, merged / path.parent.name / f"more-{path.name}")
    shutil.rmtree(new)
    assert originals(job.out, str(merged), None).digest == digest
    with pytest.raises(UserError, match=r"blue/0~2\.png.*bring them back"):
        originals(job.out, job.source, None)
    assert preview(job.out, merged, tmp_path / "p.png").is_file()


def test_each_original_is_opened_where_it_is(job: Job, new: Path, run: Run, tmp_path: Path):
    """Of the first pictures and of those that were added, whose names the first ones have, too."""
    carry_out(job, run)
    record = add(job.out, new, run=run)
    lines = [line for line in publish.finished(job.private)[1] if line.status == "protected"]
    for clean in (Path(job.source), shutil.copytree(job.source, tmp_path / "copy")):
        every = opened(record, clean, None)
        assert [every.picture(line).digest for line in lines] == [line.pixels for line in lines]
    back = shutil.copytree(job.out, tmp_path / "back")
    for path in back.rglob("*.png"):
        Image.open(path).point(lambda value: value ^ 1).save(path)
    assert all(each.share and each.share > 0.9 for each in returned(back, job.out, clean=job.source).files)
    for path in new.rglob("*.png"):
        shutil.copy(path, tmp_path / "copy" / path.parent.name / f"more-{path.name}")
    shutil.rmtree(new)
    assert [opened(record, tmp_path / "copy", None).picture(line).digest for line in lines]
    with pytest.raises(UserError, match=rf"no original of blue/0~2\.png, nor does {new}.*gone.*bring it back"):
        opened(record, job.source, None).picture(next(line for line in lines if line.part))


def test_a_grown_output_is_evaluated(job: Job, new: Path, run: Run):
    carry_out(job, run)
    add(job.out, new, run=run)
    outcome = miue.evaluate(job.out, job.source, recipes="quick:net=small-cnn:width=4,epochs=1", seeds=1, run=run)
    assert {r.role for r in outcome.runs} == {"clean", "noise", "protected"}
    assert not [note for note in outcome.notes if "not in" in note]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_attack_has_a_rule_for_later_pictures(job: Job, new: Path, run: Run, name: str):
    job = replace(job, method=spelled(name))
    carry_out(job, run)
    first = Perturbation.load(next(job.private.glob("perturbation-*.safetensors")))
    cost = planned_addition(examined(job.out, str(new)), run)
    assert cost.classes == {"blue": 2, "green": 2, "red": 2} and cost.seconds >= 0 and cost.disk_mb > 0
    record = add(job.out, new, run=run)
    made = part(job, record)
    assert len(made) == 6 and made.budget == first.budget and all(f.ok for f in verify(job.out, job.source))
    if first.labels is not None:
        assert torch.equal(made.delta, first.delta) and made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    else:
        rows = {row.numpy().tobytes() for row in first.delta}
        assert name == "ops" or not any(row.numpy().tobytes() in rows for row in made.delta)
    second = replace(job, out=job.out.with_name("again"))
    carry_out(second, run)
    add(second.out, new, run=run)
    assert hashes(second.out) == hashes(job.out)  # the same seed


@pytest.mark.parametrize(
    "options",
    [
        "em:class",
        "em:start=uniform",
        "rem:cells=4",
        "mi-ue:class_gradient=10,groups=2",
        "mi-ue:balanced=true",
        "tap:class_gradient=4,balanced=true,channels=luma",
        "mi-ue:augment=flip-first",
        "tue:contrastive",
    ],
)
def test_options_of_the_drivers(job: Job, new: Path, run: Run, options: str):
    name, _, more = options.partition(":")
    preset, own = (more, "") if "=" not in more else ("", more)
    settings = spelled(name).partition(":")[2]
    job = replace(job, method=f"{name}:{','.join(filter(None, (preset, settings, own)))}")
    carry_out(job, run)
    record = add(job.out, new, run=run)
    assert len(part(job, record)) == 6 and all(f.ok for f in verify(job.out, job.source))


def test_the_default_keeps_both_surrogates(job: Job, new: Path, run: Run):
    job = replace(job, method=LASTING)
    carry_out(job, run)
    kept = job.private / "checkpoint"
    assert {"surrogate.safetensors", "surrogate-colour.safetensors"} <= set(listed(kept))
    record = add(job.out, new, run=run)
    delta = part(job, record).delta.int()
    assert not torch.equal(delta[:, 0], delta[:, 1])  # the colour part is there
    (kept / "surrogate-colour.safetensors").unlink()
    more = coloured(job.out.with_name("more"), per_class=1, seed=9)
    with pytest.raises(UserError, match=r"surrogate-colour\.safetensors of this protection is not there"):
        add(job.out, more, run=run)
    assert all(f.ok for f in verify(job.out)) and RunRecord.of(job.out).added[-1].status == "running"
    assert add(job.out, new, run=run).written.counts == {"protected": 18}


def test_the_surrogate_must_be_that_of_these_pictures(job: Job, new: Path, run: Run):
    """The perturbation of an earlier set is read from its file, and the surrogate of the other set lies there."""
    carry_out(job, run)
    other = coloured(job.out.with_name("other"), seed=3)
    carry_out(replace(job, source=str(other), overwrite=True), run)
    carry_out(replace(job, overwrite=True), run)
    with pytest.raises(UserError, match=r"surrogate\.safetensors of this protection is not there"):
        add(job.out, new, run=run)


def test_one_class_and_one_picture_will_do(job: Job, run: Run, tmp_path: Path):
    job = replace(job, method=spelled("mi-ue") + ",class_gradient=10")
    carry_out(job, run)
    (tmp_path / "one" / "green").mkdir(parents=True)
    pixels = np.random.default_rng(4).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one" / "green" / "x.png")
    record = add(job.out, tmp_path / "one", run=run)
    delta, first = part(job, record).delta.float(), Perturbation.load(job_perturbation(job)).delta.float()
    means = torch.stack([first[c * 4 : c * 4 + 4].mean(0) for c in range(3)]).flatten(1)
    alike = torch.nn.functional.cosine_similarity(delta.flatten(1), means)
    assert alike.argmax() == 1 and len(data.scan(job.out).usable) == 13  # it goes where its class went


def job_perturbation(job: Job) -> Path:
    return job.private / f"perturbation-{RunRecord.of(job.out).fingerprint}.safetensors"


def test_what_cannot_be_read_is_told_and_left_out(job: Job, new: Path, run: Run):
    carry_out(job, run)
    (new / "red" / "broken.png").write_bytes(b"no picture")
    record = add(job.out, new, run=run)
    assert record.written.counts == {"protected": 18, "failed": 1} and record.unprotected == 1
    assert len(publish.read_lines(job.private / publish.MANIFEST)[0]) == 19
    assert len(add(job.out, new, run=run).added) == 1


def test_another_broken_file_of_the_same_name_is_told(job: Job, new: Path, run: Run):
    """It fails like any other; the one that failed before is not told again, and a large one always."""
    broken, again = Path(job.source) / "red" / "broken.png", new / "red" / "broken.png"
    broken.write_bytes(b"no picture")
    (Path(job.source) / "notes.txt").write_text("not a picture")
    carry_out(job, run)
    reason = {"failed: text, not a picture, whatever its name says": 1}
    for text, failed in ((b"no picture", {}), (b"NO PICTURE", reason), (b"no picture" * 10_000, reason)):
        again.write_bytes(text)
        shutil.copy(Path(job.source) / "notes.txt", new)
        assert examined(job.out, str(new)).new.source.summary() == {"ok": 6, **failed}
    assert add(job.out, new, run=run).written.counts == {"protected": 18, "failed": 2, "skipped": 1}
    broken.unlink()
    assert examined(job.out, job.source).new.source.summary() == {}


def test_a_broken_file_and_a_picture_share_no_path(job: Job, new: Path, run: Run):
    """The picture needs another name than its own, and the first free one is that of the broken file."""
    (new / "red" / "0~2.png").write_bytes(b"no picture")
    carry_out(job, run)
    assert add(job.out, new, run=run).written.counts == {"protected": 18, "failed": 1}
    assert all(f.ok for f in verify(job.out, job.source))


@pytest.mark.parametrize("moment", ["attack", "first file", "last file", "manifest"])
def test_interrupted_anywhere_it_ends_in_the_same_bytes(
    job: Job, new: Path, run: Run, moment: str, monkeypatch: pytest.MonkeyPatch
):
    carry_out(job, run)
    whole = replace(job, out=job.out.with_name("whole"))
    carry_out(whole, run)
    add(whole.out, new, run=run)
    with monkeypatch.context() as patch:
        if moment == "attack":
            patch.setattr(publish, "write", stopping)
        elif moment == "manifest":
            patch.setattr(sys.modules["miue.publish.write"], "write_lines", only_part(publish.PART))
        else:
            patch.setattr(publish, "write", stopped_after(publish.write, 1 if moment == "first file" else 5))
        with pytest.raises(KeyboardInterrupt):
            add(job.out, new, run=run)
    assert RunRecord.of(job.out).added[0].status == "running"
    wrong = [f for f in verify(job.out) if not f.ok]
    assert all("did not end" in f.problem for f in wrong)
    assert len(wrong) == {"attack": 0, "first file": 1, "last file": 5, "manifest": 6}[moment]
    with pytest.raises(UserError, match="interrupted; finish it first: miue add"):
        miue.detect(job.out, job.source, run=run)
    other = coloured(job.out.with_name("other"), per_class=1, seed=8)
    if moment != "attack":
        with pytest.raises(UserError, match="interrupted; finish it first, with the same pictures"):
            examined(job.out, str(other))
    add(job.out, new, run=run)
    ends = [hashes(each.private)["manifest.jsonl"] for each in (job, whole)]
    assert hashes(job.out) == hashes(whole.out) and ends[0] == ends[1] and all(f.ok for f in verify(job.out))


@pytest.mark.parametrize("left", ["a file", "half a file"])
def test_what_a_killed_addition_wrote_is_seen_on_the_disk(
    job: Job, new: Path, run: Run, left: str, monkeypatch: pytest.MonkeyPatch
):
    """A kill loses the last lines of the manifest, and may lose all of them; files say what was begun."""
    carry_out(job, run)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "write", stopped_after(publish.write, 1))
        with pytest.raises(KeyboardInterrupt):
            add(job.out, new, run=run)
    (job.private / publish.PART).write_bytes(b"")
    if left == "half a file":
        (wrong,) = (f for f in verify(job.out) if not f.ok)
        file = job.out / wrong.path
        file.rename(file.with_name(f".{file.name}.part"))
    (wrong,) = (f for f in verify(job.out) if not f.ok)
    assert "did not end" in wrong.problem
    with pytest.raises(UserError, match="interrupted; finish it first, with the same pictures"):
        examined(job.out, str(coloured(job.out.with_name("other"), per_class=1, seed=8)))
    add(job.out, new, run=run)
    assert all(f.ok for f in verify(job.out, job.source))


@pytest.mark.parametrize("method", [LASTING, "tap:surrogate=small-cnn:width=4,epochs=2,steps=3,batch=8,noise_batch=2"])
def test_killed_in_the_attack_it_ends_in_the_same_bytes(job: Job, new: Path, run: Run, method: str):
    """Each call gets further. State that is no longer needed is removed."""
    job = replace(job, method=method)
    carry_out(job, run)
    whole = replace(job, out=job.out.with_name("whole"))
    carry_out(whole, run)
    record, stops = add(whole.out, new, run=run), 0
    while stops < 20:
        try:
            add(job.out, new, run=Stopping(0, "cpu", after=stops + 1))
            break
        except KeyboardInterrupt:
            stops += 1
            assert verify(job.out)
    assert 2 < stops < 20 and hashes(job.out) == hashes(whole.out)
    assert torch.equal(part(job, RunRecord.of(job.out)).delta, part(whole, record).delta)
    assert not list(job.private.glob("added-*"))


def stopping(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def stopped_after(write: Any, count: int) -> Any:
    left = iter([False] * count + [True])
    return lambda *a, **more: write(*a, **more, stop=lambda: next(left))


def only_part(name: str) -> Any:
    from miue.publish.manifest import write_lines

    return lambda path, lines: write_lines(path, lines) if path.name == name else stopping()


def test_pictures_that_were_not_begun_may_be_replaced(job: Job, new: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    carry_out(job, run)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            add(job.out, new, run=run)
    other = coloured(job.out.with_name("other"), per_class=1, seed=8)
    record = add(job.out, other, run=run)
    assert [part.protected for part in record.added] == [3]
    assert len(add(job.out, new, run=run).added) == 2 and all(f.ok for f in verify(job.out))


def test_protect_goes_on_beside_what_was_added(job: Job, new: Path, run: Run):
    """The same protect command mends its own files; --overwrite starts anew."""
    carry_out(job, run)
    add(job.out, new, run=run)
    before = hashes(job.out)
    (job.out / "red" / "0.png").unlink()
    (job.out / "red" / "0~2.png").unlink()
    assert sum(not f.ok for f in verify(job.out)) == 2
    record = carry_out(job, run)
    assert len(record.added) == 1 and record.written.counts == {"protected": 18}
    add(job.out, new, run=run)
    assert hashes(job.out) == before and all(f.ok for f in verify(job.out, job.source))
    grown = replace(job, source=str(new))
    with pytest.raises(UserError, match=r"other data.*miue add"):
        carry_out(grown, run)
    record = carry_out(replace(job, overwrite=True), run)
    assert not record.added and len(data.scan(job.out).usable) == 12 and all(f.ok for f in verify(job.out))


def test_two_runs_on_one_output(job: Job, new: Path, run: Run):
    carry_out(job, run)
    with FileLock(job.private / "run.lock"), pytest.raises(UserError, match="another run is working on it"):
        add(job.out, new, run=run)


def test_a_forecast_writes_nothing(job: Job, new: Path, run: Run, tmp_path: Path):
    carry_out(job, run)
    before = listed(tmp_path)
    assert planned_addition(examined(job.out, str(new)), run).inputs == {"ok": 6}
    nothing = planned_addition(examined(job.out, job.source), run)
    assert (
        nothing.seconds == 0 and nothing.inputs == {"skipped: in the output already": 12} and listed(tmp_path) == before
    )


OWN = """
import torch
from dataclasses import dataclass
from miue import BaseAttack

@dataclass(frozen=True, kw_only=True)
class Own(BaseAttack):
    def craft(self, data, budget, run):
        return torch.full(data.images.shape, budget.unit)
"""


def test_what_cannot_be_added_to_is_refused(job: Job, new: Path, run: Run, tmp_path: Path):
    with pytest.raises(UserError, match="only an output of miue has one"):
        examined(job.out, str(new))
    carry_out(job, run)
    (new / "red").rename(new / "violet")
    with pytest.raises(UserError, match=r"new to the output: violet \(its classes: blue, green, red\)"):
        examined(job.out, str(new))
    with pytest.raises(UserError, match=r"lies in the input|lies around|is the input"):
        examined(job.out, str(tmp_path))
    np.savez(tmp_path / "t.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4))
    with pytest.raises(UserError, match=r"is a table \(npz\)"):
        examined(job.out, str(tmp_path / "t.npz"))
    (tmp_path / "own.py").write_text(OWN)
    own = replace(job, out=tmp_path / "own", method=f"{tmp_path}/own.py:Own")
    carry_out(own, run)
    with pytest.raises(UserError, match="Own makes the noise of a whole set at once"):
        examined(own.out, job.source)
    (tmp_path / "own.py").write_text(OWN + "\n")
    with pytest.raises(UserError, match="its file has changed"):
        examined(own.out, job.source)


def test_grey_sets_take_grey_pictures_only(job: Job, new: Path, run: Run):
    for path in Path(job.source).rglob("*.png"):
        Image.open(path).convert("L").save(path)
    carry_out(job, run)
    with pytest.raises(UserError, match="has colour, and all first pictures of"):
        examined(job.out, str(new))
    for path in new.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert add(job.out, new, run=run).written.counts == {"protected": 18}


def test_named_sets_grow_from_folders(tmp_path: Path, run: Run):
    job = Job(source="shapes:per_class=2,size=16", out=tmp_path / "out", method="noise")
    carry_out(job, run)
    publish.export(data.shapes(2, 16, 0, "test"), tmp_path / "new")
    record = add(job.out, tmp_path / "new", run=run)
    assert record.written.counts == {"protected": 40} and all(f.ok for f in verify(job.out, job.source))
    assert originals(job.out, job.source, None).digest == record.digest


def test_originals_are_searched_for_in_the_split_of_a_named_set(tmp_path: Path, run: Run):
    """The split belongs to the name of such a set; that of a folder is a part of its place."""
    job = Job(source="shapes:per_class=2,size=16", out=tmp_path / "out", method="noise", split="train")
    carry_out(job, run)
    record = add(job.out, job.source, split="test", run=run)
    assert record.written.counts == {"protected": 40} and all(f.ok for f in verify(job.out, job.source))
    assert originals(job.out, job.source, "train").digest == record.digest
    clean = opened(record, job.source, None)
    later = [line for line in publish.finished(job.private)[1] if line.part]
    assert {clean.picture(line).digest for line in later} == {line.pixels for line in later} and len(later) == 20
    folder = Job(source=str(tmp_path / "given"), out=tmp_path / "other", method="noise", split="train")
    for split in ("train", "test"):
        publish.export(data.shapes(2, 16, 0, split), tmp_path / "given" / split)
    carry_out(folder, run)
    grown = add(folder.out, folder.source, split="test", run=run)
    assert originals(folder.out, folder.source, "train").digest == grown.digest
    shutil.rmtree(tmp_path / "given" / "test")
    with pytest.raises(UserError, match="neither there nor in any other folder that was added"):
        originals(folder.out, folder.source, "train")


@pytest.mark.parametrize(
    ("method", "tracing"),
    [
        (EM, Tracing(unmeasured=True)),
        (f"{EM},cells=4", Tracing(keys=2, unmeasured=True)),
        ("em:class,surrogate=small-cnn:width=4,epochs=1", Tracing(keys=2, unmeasured=True)),
        ("em:class,surrogate=small-cnn:width=4,epochs=1", Tracing(unmeasured=True)),
        ("noise", Tracing(alone=True)),
    ],
)
def test_pictures_of_a_traced_set_get_the_mark_of_the_others(job: Job, new: Path, run: Run, method: str, tracing: Any):
    job = replace(job, method=method, trace=tracing)
    carry_out(job, run)
    notice = (job.out / "PROTECTED.md").read_bytes()
    assert planned_addition(examined(job.out, str(new)), run).seconds >= 0
    record = add(job.out, new, run=run)
    secret = Secret.load(job.private / "trace.json")
    assert secret.commitment.encode() in notice == (job.out / "PROTECTED.md").read_bytes()
    made, sources = part(job, record), examined(job.out, str(new)).new.source.usable
    labels = torch.tensor([entry.label for entry in sources])
    rows = rows_of(secret, labels, [entry.sha256 for entry in sources])
    mark = mark_of(secret, *made.delta.shape[-2:])[rows]
    rest = made.delta[made.rows(torch.arange(6))].int() - mark
    left = 0 if tracing.alone else 8 - secret.parameters.strength
    assert int(rest.abs().max()) <= left and int(mark.abs().max()) > 0
    assert tracing.alone or int(rest.abs().max()) > 0
    assert all(f.ok for f in verify(job.out, job.source))
    more = coloured(job.out.with_name("more"), per_class=1, seed=9)
    Secret(secret.parameters, bytes(32)).save(job.private / "trace.json")
    with pytest.raises(UserError, match=r"trace\.json: this secret belongs to the commitment"):
        add(job.out, more, run=run)
    (job.private / "trace.json").unlink()
    with pytest.raises(UserError, match=r"trace\.json: is not there, and new pictures need the mark"):
        add(job.out, more, run=run)
