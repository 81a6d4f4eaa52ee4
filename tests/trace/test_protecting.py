"""`protect` with a trace: budget, secret, commitment, resuming, refusals."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import miue
from miue import data, publish
from miue.cli.main import app
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Perturbation
from miue.trace import Secret, Tracing, mark_of
from miue.workflows import protect as jobs
from miue.workflows.forecast import planned
from miue.workflows.job import Job
from miue.workflows.marking import check_offered, offered
from miue.workflows.protect import carry_out
from miue.workflows.record import RunRecord
from pictures import coloured, hashes

TINY = "mi-ue:surrogate=small-cnn:width=4,epochs=2,steps=2,step_size=2.0"
TRACE = Tracing(strength=4, unmeasured=True)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(source=str(coloured(tmp_path / "in")), out=tmp_path / "out", method="noise", canvas=8, trace=TRACE)


def secret(job: Job) -> Secret:
    return Secret.load(job.private / "trace.json")


def perturbation(job: Job) -> Perturbation:
    (path,) = job.private.glob("perturbation-*.safetensors")
    return Perturbation.load(path)


def change(job: Job) -> int:
    source, out = data.scan(job.source), data.scan_output(job.out)
    pairs = zip(source.usable, out.usable, strict=True)
    arrays = ((np.asarray(Image.open(Path(job.source) / a.path), int), Image.open(job.out / b.path)) for a, b in pairs)
    return max(int(np.abs(clean - np.asarray(published, int)).max()) for clean, published in arrays)


@pytest.mark.parametrize("method", ["noise", TINY, "noise:cells=4", TINY + ",cells=8", "patterns:colour"])
def test_the_file_keeps_the_whole_budget(job: Job, run: Run, method: str):
    job = replace(job, method=method)
    record = carry_out(job, run)
    assert record.written.worst <= 8 and 4 < change(job) <= 8
    whole, own = perturbation(job), secret(job)
    rows = torch.arange(len(whole))
    height, width = whole.delta.shape[2:]
    labels = data.read(data.scan(job.source), 8).labels
    rest = whole.delta[whole.rows(rows)].to(torch.int16) - mark_of(own, height, width)[labels]
    assert rest.abs().max() <= 4 and record.settings.rest == miue.Budget(4)


@pytest.mark.parametrize("canvas", [8, 64])
def test_pictures_of_other_sizes_keep_it_too(tmp_path: Path, run: Run, canvas: int):
    rng = np.random.default_rng(0)
    for name, size in (("a/0.png", (224, 161)), ("a/1.png", (30, 200)), ("b/0.png", (64, 64)), ("b/1.png", (9, 9))):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    job = Job(source=str(tmp_path / "in"), out=tmp_path / "out", method="noise", canvas=canvas, trace=TRACE)
    carry_out(job, run)
    assert change(job) <= 8 and all(finding.ok for finding in miue.verify(job.out, job.source))


def test_five_eighths_of_the_budget_are_the_mark_unless_it_is_said(job: Job, run: Run):
    record = carry_out(replace(job, trace=Tracing(unmeasured=True)), run)
    assert secret(job).parameters.strength == 5 and record.settings.trace and record.settings.trace.strength == 5
    assert record.settings.rest == miue.Budget(3)


def test_the_secret_lies_in_the_private_folder_alone(job: Job, run: Run, capsys):
    record = carry_out(job, replace(run, quiet=False))
    own, path = secret(job), job.private / "trace.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = capsys.readouterr()
    files = [p for p in (*job.out.rglob("*"), *job.private.rglob("*")) if p.is_file() and p != path]
    content = "".join(p.read_bytes().decode("latin-1") for p in files) + text.out + text.err
    assert own.master.hex() not in content and own.master.decode("latin-1") not in content
    assert not any(key in content for key in own.opened.keys.values())
    assert record.commitment == own.commitment and own.commitment in (job.out / publish.NOTICE).read_text()
    assert own.parameters.classes == tuple(record.source.classes) and own.parameters.strength == 4


def test_a_repeated_call_ends_in_the_same_bytes(job: Job, run: Run):
    carry_out(job, run)
    before, commitment = hashes(job.out), secret(job).commitment
    (path,) = job.private.glob("perturbation-*")
    path.unlink()
    for name in ("manifest.jsonl", "outputs.json"):
        (job.private / name).unlink()
    next(job.out.rglob("*.png")).unlink()
    carry_out(job, run)
    assert hashes(job.out) == before and secret(job).commitment == commitment


def test_a_killed_call_goes_on_with_the_same_secret(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    job = replace(job, method=TINY)

    def dies(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "write_atomically", dies)
    with pytest.raises(KeyboardInterrupt):
        carry_out(job, run)
    monkeypatch.undo()
    first = secret(job)
    carry_out(job, run)
    assert secret(job) == first
    bytes_ = hashes(job.out)
    carry_out(replace(job, overwrite=True), run)  # the same job: the same secret
    assert hashes(job.out) == bytes_


def test_another_job_gets_another_secret_and_the_old_one_is_kept(job: Job, run: Run):
    carry_out(job, run)
    first = secret(job)
    carry_out(replace(job, overwrite=True, trace=replace(TRACE, strength=3)), run)
    assert secret(job).master != first.master
    assert Secret.load(job.private / f"trace-{first.commitment[:16]}.json") == first
    assert stat.S_IMODE((job.private / f"trace-{first.commitment[:16]}.json").stat().st_mode) == 0o600


def test_a_lost_secret_is_told_and_nothing_is_mixed(job: Job, run: Run):
    carry_out(job, run)
    (job.private / "trace.json").unlink()
    assert [finding.problem for finding in miue.verify(job.out) if not finding.ok]
    with pytest.raises(UserError, match=r"missing.*--overwrite"):
        carry_out(job, run)
    carry_out(replace(job, overwrite=True), run)
    assert all(finding.ok for finding in miue.verify(job.out))


def test_verify_looks_at_secret_and_commitment(job: Job, run: Run):
    carry_out(job, run)
    assert all(finding.ok for finding in miue.verify(job.out, job.source))
    (job.private / "trace.json").chmod(0o644)
    (job.out / publish.NOTICE).write_text("nothing")
    problems = [finding.problem for finding in miue.verify(job.out) if not finding.ok]
    assert any("others than its owner" in problem for problem in problems) and any("commitment" in p for p in problems)


def test_a_mark_alone_says_so(job: Job, run: Run):
    job = replace(job, trace=Tracing(alone=True))
    record = carry_out(job, run)
    assert record.settings.attack == "trace-only" and record.settings.cells == 4 and record.settings.budget == "linf:4"
    assert 0 < change(job) <= 4
    text = (job.out / publish.NOTICE).read_text()
    assert "keeps classifiers from learning" not in text and secret(job).commitment in text
    assert planned(job, run).settings == record.settings


def test_two_keys_follow_the_content_of_files(job: Job, run: Run):
    job = replace(job, trace=replace(TRACE, keys=2))
    carry_out(job, run)
    source, own = data.scan(job.source), secret(job)
    coins = torch.tensor(own.coins([entry.sha256 for entry in source.usable]))
    images = data.read(source, 8)
    rest = perturbation(job).delta.to(torch.int16) - mark_of(own, 8, 8)[images.labels * 2 + coins]
    assert rest.abs().max() <= 4 and len(set(coins.tolist())) == 2


def test_a_beacon_comes_after_the_commitment(job: Job, run: Run):
    with pytest.raises(UserError, match="--beacon later:NAME"):
        carry_out(replace(job, trace=replace(TRACE, beacon="ab" * 32)), run)
    with pytest.raises(UserError, match="name the public number"):
        replace(TRACE, beacon="later")
    early = jobs.commit(replace(job, trace=replace(TRACE, beacon="later:round 4")))
    commitment = jobs.commit(replace(job, trace=replace(TRACE, beacon="later: round 5")))  # another secret
    assert not job.out.exists() and early != commitment == secret(job).commitment
    assert (job.private / f"trace-{early[:16]}.json").exists() and secret(job).parameters.beacon == "round 5"
    with pytest.raises(UserError, match=r"'round 5', whose value is not given yet"):
        carry_out(job, run)
    with_beacon = replace(job, trace=replace(TRACE, beacon="ab" * 32))
    record = carry_out(with_beacon, run)
    assert record.commitment == commitment and secret(job).beacon.hex() == "ab" * 32
    assert record.named == "round 5"
    text = (job.out / publish.NOTICE).read_text()
    assert "round 5" in text and "ab" * 32 in text and all(finding.ok for finding in miue.verify(job.out))
    before = hashes(job.out)
    carry_out(with_beacon, run)
    assert hashes(job.out) == before
    for wrong in ("cd" * 32, "later:round 6"):
        with pytest.raises(UserError):
            carry_out(replace(job, trace=replace(TRACE, beacon=wrong)), run)
    with pytest.raises(UserError, match="another public number, or none"):
        jobs.commit(replace(job, overwrite=True, trace=replace(TRACE, beacon="later:round 6")))


def test_a_commitment_that_was_published_is_found_again(job: Job, run: Run):
    """Naming another number, and then the first one again, gives the first commitment."""
    named = {name: replace(job, trace=replace(TRACE, beacon=f"later:{name}")) for name in ("r5", "r6")}
    first, second = (jobs.commit(named[name]) for name in ("r5", "r6"))
    assert first != second and jobs.commit(named["r5"]) == first == secret(job).commitment
    assert [path.name for path in job.private.glob("trace-*.json")] == [f"trace-{second[:16]}.json"]
    with pytest.raises(UserError, match=f"changed since the commitment {first}"):
        carry_out(replace(job, seed=5, trace=replace(TRACE, beacon="ab" * 16)), run)
    assert carry_out(replace(job, trace=replace(TRACE, beacon="ab" * 16)), run).commitment == first


@pytest.mark.parametrize("changes", [{"beacon": "cd" * 16}, {"beacon": "cd" * 16, "strength": 3}, {"strength": 8}])
def test_a_call_that_is_refused_deletes_nothing(job: Job, run: Run, changes: dict):
    carry_out(job, run)
    before, own = hashes(job.out), secret(job)
    with pytest.raises(UserError):
        carry_out(replace(job, overwrite=True, trace=replace(TRACE, **changes)), run)
    assert hashes(job.out) == before and secret(job) == own and all(f.ok for f in miue.verify(job.out))


@pytest.mark.parametrize(
    "options",
    [("--trace-strength", "3"), ("--trace-unmeasured",), ("--trace-keys", "2"), ("--beacon", "later:r5"),
     ("--trace-only", "--attack", "noise")],
)  # fmt: skip
def test_options_that_would_do_nothing_are_refused(job: Job, options: tuple[str, ...]):
    ended = CliRunner().invoke(app, ["protect", job.source, str(job.out), *options])
    assert isinstance(ended.exception, UserError) and not job.out.exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"budget": "l2:1.3"}, "grey levels"),
        ({"trace": Tracing(strength=8, unmeasured=True)}, "--trace-only"),
        ({"trace": Tracing()}, "no record shows"),
        ({"method": "patterns:colour", "trace": replace(TRACE, strength=9)}, "leaves nothing"),
    ],
)
def test_what_cannot_be_traced_is_refused_before_anything_is_written(job: Job, run: Run, changes: dict, why: str):
    job = replace(job, **changes)
    for act in (carry_out, planned):
        with pytest.raises(UserError, match=why):
            act(job, run)
    assert not job.private.exists()


def test_grey_pictures_are_refused(tmp_path: Path, run: Run):
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 100).save(tmp_path / "in" / name)
    with pytest.raises(UserError, match="grey"):
        carry_out(Job(source=str(tmp_path / "in"), out=tmp_path / "out", method="noise", canvas=8, trace=TRACE), run)


def test_what_is_offered_was_measured():
    for name, row in offered().items():
        if row["works"]:
            check_offered(miue.attack(name), name)
        else:
            with pytest.raises(UserError, match="not shown to survive its noise"):
                check_offered(miue.attack(name), name)


def test_outputs_without_a_trace_keep_their_fingerprint(job: Job, run: Run):
    """A set that an earlier version wrote is resumed by this one."""
    plain = replace(job, trace=None)
    record = carry_out(plain, run)
    path = plain.private / "run.json"
    old = json.loads(path.read_text())
    del old["settings"]["trace"], old["commitment"]
    path.write_text(json.dumps(old))
    before = hashes(plain.out)
    assert carry_out(plain, run).fingerprint == record.fingerprint and hashes(plain.out) == before
    assert RunRecord.of(plain.out).commitment == ""
