"""The report: what it says, what it leaves out, what it refuses; and that texts of others stay texts."""

from __future__ import annotations

import html
import json
import re
import shutil
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import numpy as np
import pytest
import torch

from browser import CHROMIUM, browser
from easy import easy
from miue import data, publish
from miue.analysis.analyzer import Analyzer
from miue.analysis.records import Analysis
from miue.attacks.success import Success
from miue.core.errors import UserError
from miue.core.files import digest
from miue.core.run import Run
from miue.core.types import Budget, Perturbation
from miue.data.channel import CHANNELS
from miue.data.rights import TOLD, Rights
from miue.defenses import KNOWN as DEFENSES
from miue.evaluation.detect import Detection, Simple
from miue.evaluation.records import Outcome, Role, TraceRun, VictimRun
from miue.evaluation.verdict import judge
from miue.grid.leaderboard import Board, Line, Place
from miue.grid.plan import Grid
from miue.publish.manifest import FINAL, read_lines, write_lines
from miue.report import charts, information, judged, names, noise, write, write_report
from miue.report.content import Table
from miue.report.evidence import Dated, Evidence
from miue.testing import Stopping
from miue.trace import Asked, Secret, Tracing, Verdict
from miue.victims.recipe import Recipe
from miue.victims.recipes import RECIPES
from miue.workflows.add import add
from miue.workflows.evaluate import evaluate
from miue.workflows.job import Job
from miue.workflows.protect import carry_out
from miue.workflows.record import RunRecord
from miue.workflows.standing import Declaration, place_of
from pictures import coloured

EVIL = "<script>alert(1)</script>"


def victims(shares: dict[str, list[float]], name: str = "net", defense: str = "") -> list[VictimRun]:
    """Runs of one victim: accuracies by role, one a seed."""
    roles: tuple[Role, ...] = ("clean", "noise", "protected")
    return [
        VictimRun(
            role=role,
            victim=f"{name} + {defense}" if defense else name,
            defense=defense,
            seed=seed,
            data=role,
            last=value,
            best=value,
            best_epoch=2,
            epochs={1: value / 2, 2: value},
            train=1.0,
            seconds=1.0,
        )
        for role in roles
        for seed, value in enumerate(shares[role])
    ]


def outcome(record: RunRecord, runs: list[VictimRun], **others) -> Outcome:
    """The record of an evaluation of these victims, judged as `evaluate` does."""
    verdict, reason, judgements = judge(runs, 0.1, 1000, 0.25)
    values = {
        "name": "out",
        "method": record.settings.attack,
        "budget": record.settings.budget,
        "classes": 3,
        "chance": 0.1,
        "images": 12,
        "tested": 1000,
        "data": {"clean": "c", "noise": "n", "protected": "p", "test": "t"},
        "recipe": {run.victim: RECIPES["quick"].described() | {"net": run.victim.split(" + ")[0]} for run in runs},
        "threshold": 0.25,
        "runs": runs,
        "verdict": verdict,
        "reason": reason,
        "judgements": judgements,
        "machine": {},
    }
    return Outcome(**(values | others))  # type: ignore[arg-type]


def kept_at(out: Path, each: Outcome, at: str = "29990101-000000") -> Path:
    path = data.private_of(out) / "outcomes" / f"{at}-{len(list(out.parent.rglob('*.json'))):08x}.json"
    each.save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with pictures and their protected copy, not evaluated."""
    place = tmp_path_factory.mktemp("report")
    job = Job(
        source=str(coloured(place / "in", size=16)), out=place / "out", method="noise:cells=4", canvas=16, seed=7351
    )
    carry_out(job, Run(device_name="cpu"))
    return place


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A protected set of its own."""
    for name in ("in", "out", "out.private"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "out"


@pytest.fixture
def proven(out: Path) -> Path:
    """A protected set with two evaluations, one class of which has a hostile name."""
    private, record = data.private_of(out), RunRecord.of(out)
    names = [EVIL if name == "red" else name for name in record.source.classes]
    notes = [f"a note on {EVIL}"]
    looked = record.source.model_copy(update={"classes": names, "notes": notes})
    record.model_copy(update={"source": looked}).save(private / "run.json")
    lines = [
        line.model_copy(update={"class_name": EVIL if line.class_name == "red" else line.class_name})
        for line in read_lines(private / FINAL)[0]
    ]
    write_lines(private / FINAL, lines)
    plain = {"clean": [0.9, 0.92, 0.88], "noise": [0.89, 0.9, 0.9], "protected": [0.12, 0.15, 0.13]}
    kept_at(out, outcome(record, victims(plain)))
    grey = {"clean": [0.8], "noise": [0.8], "protected": [0.7]}
    weak = outcome(record, victims(grey, defense="gray"), recipe={f"net + {EVIL}": {}})
    kept_at(out, weak, "29990102-000000")
    return out


def first_look() -> Detection:
    """The record of a first look that notices the noise."""
    simple = {"linear": Simple(held_out=0.9, train=1.0)}
    reason = "linear reaches 90.0%"
    return Detection(data="d", reference="r", seed=0, looks=simple, clean=simple, noticed=True, reason=reason)


@cache
def analysis() -> Analysis:
    """The analysis of two small victims, each looked at on the pictures of the other, too."""
    clean = easy(20)
    recipe = Recipe(net="small-cnn:width=4", epochs=1, batch=16, augment=())
    plan = Analyzer(recipe=recipe, seeds=1, rows=60, halves=2, shuffles=1, estimators=("ksg",))
    return plan(clean, easy(5, seed=1), {"mine": clean}, Run(device_name="cpu"))


def page(out: Path, to: str = "page.html", **options) -> str:
    return write_report(out, out.parent / to, **options).read_text()


def plain(content: str) -> str:
    """The text of a page, without style and marks."""
    content = re.sub(r"(?s)<style>.*?</style>", "", content.replace("<wbr>", ""))
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", content).split()))


# --- what it says ---


def test_the_page_says_what_the_attack_reached_on_its_surrogate(out: Path):
    path, record = data.private_of(out) / "run.json", RunRecord.of(out)
    assert "own surrogate" not in plain(page(out))  # noise has none
    said = Success(pictures=9, loss_before=2.0, loss=0.5, clean=0.4, protected=0.3, goal="are blue", reached=0.25)
    record.model_copy(update={"success": said}).save(path)
    text = plain(page(out))
    assert "loss 2 on clean pictures, 0.5 on protected ones" in text and "25.0% of the protected ones are blue" in text
    assert "are blue" not in plain(page(out, "public.html", public=True))


def test_the_page_has_the_crossed_control():
    found = analysis()
    section = information.section(found)
    assert section is not None
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[:2] for row in tables[0].rows] == [list(pair) for pair in found.crosses] and len(found.crosses) == 4
    assert "s: saturated" in tables[0].caption and tables[0].head[2] == "ksg, n = 60"
    old = found.model_copy(update={"runs": [r.model_copy(update={"crossed": ()}) for r in found.runs]})
    assert not [block for block in information.section(old).blocks if isinstance(block, Table)]  # type: ignore[union-attr]


def test_the_page_has_the_verdict_its_numbers_and_what_was_not_tested(proven: Path):
    text = plain(page(proven))
    assert "Not protected" in text and "keeps 86% of what the originals teach" in text
    assert "70.0% of new pictures correctly instead of 80.0%" in text and "With plain training it keeps 4%" in text
    assert "This says nothing about:" in text and "adversarial training" in text
    assert "grey pictures, or colour alone" not in text  # that was tested
    for heading in ("What networks learn", "How the pictures look", "What the noise is like", "What went in"):
        assert heading in text
    assert "finish" in text and "miue protect" in text and "--seed 7351" in text and "--attack noise:cells=4" in text


def test_names_of_others_stay_text_and_nothing_is_asked_of_the_network(proven: Path):
    whole = page(proven)
    assert "<script" not in whole and "&lt;script&gt;alert(1)&lt;/script&gt;" in whole
    assert whole.count("&lt;script&gt;") >= 3  # in a caption, a table, a note
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", whole)) - {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not addresses and not re.search(r"(src|href)=\"(?!data:|#)", whole)
    markdown = page(proven, "page.md", format="md")
    assert not re.search(r"(?m)^(?!    ).*(?<!\\)<script", markdown) and r"\<script\>alert(1)\</script\>" in markdown


def test_the_same_records_give_the_same_bytes_and_no_two_names_are_alike(proven: Path):
    first, second = page(proven), page(proven, "again.html")
    assert first == second
    names = re.findall(r'\bid="([^"]+)"', first)
    assert len(names) == len(set(names)) > 50
    pointed = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first)
    assert pointed and {a or b for a, b in pointed} <= set(names)


def test_markdown_has_the_same_numbers(proven: Path):
    markdown = page(proven, "page.md", format="md")
    for number in ("86%", "70.0%", "4%", "| net | none | protected | 13.3% ± 1.5% |"):
        assert number in markdown
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page(proven))
    assert re.findall(r"(?m)^## (.+)$", markdown) == [each for each in headings if each != "Three of the pictures"]


def test_a_public_page_helps_nobody_to_undo_the_protection(proven: Path):
    for form in ("html", "md"):
        text = page(proven, f"public.{form}", format=form, public=True)
        for secret in ("7351", "blue", "alert(1)", "cells=4", "data:image", str(proven.parent), ".png", "waves"):
            assert secret not in text, secret
        assert "Not protected" in text and "86%" in text
    assert write_report(proven, public=True) == proven.with_name("out.report.html")


PRIVATE = {
    "tune:clean=/home/jane/a&b+c,epochs=3": "tune:epochs=3",
    "tune:clean=jane,split=jane,per_class=7": "tune:per_class=7",
    "weights:file=/home/jane/net+ema.pt,probe=True": "weights:probe=True",
    "inverse:clean=/home/jane/x,lr=/home/jane": "inverse",
    "gray+diffpure:model=/home/jane/model,steps=20": "gray+diffpure:steps=20",
    "/home/jane/mine.py:Theirs:word=jane,number=3": names.METHOD,
    "jpeg:quality=10+jane/own.py:Janes+ueraser:mode=lite": f"jpeg:quality=10+{names.METHOD}+ueraser:mode=lite",
    "tune:clean=2026": "tune",
}


@pytest.mark.parametrize("form", ["html", "md"])
def test_no_place_and_no_name_of_the_owners_is_in_a_public_page(
    out: Path, monkeypatch: pytest.MonkeyPatch, form: Literal["html", "md"]
):
    place = out.parent / "jane"
    for name in ("out", "out.private"):
        shutil.move(out.parent / name, place.with_name(name.replace("out", "jane")))
    path, shares = data.private_of(place) / "run.json", {"clean": [0.9], "noise": [0.9], "protected": [0.1]}
    record = RunRecord.of(place)
    settings = record.settings.model_copy(update={"attack": "/home/jane/mine.py:Janes:lr=2", "split": "jane"})
    record.model_copy(update={"settings": settings}).save(path)
    runs = [run for text in PRIVATE for run in victims(shares, defense=text)]
    runs += victims(shares) + victims(shares, name="/home/jane/nets.py:Net:width=3")
    each = outcome(RunRecord.of(place), runs)
    kept_at(place, each)
    adaptive = [run.model_copy(update={"chosen": "jane.py:J", "tried": {"jane.py:J": 0.1}}) for run in runs[:3]]
    kept_at(place, outcome(RunRecord.of(place), adaptive, channel="jpeg:quality=75"))
    kept_at(place, outcome(RunRecord.of(place), victims(shares, name="x"), method="/home/jane/old.py:Janes"))
    cells = [Place(defense=text, n=1, mean=0.1, spread=None, best=0.1, failed=0, reason=text) for text in PRIVATE]
    lines = [
        Line(recipe=recipe, attack=attack, budget="", partial="", places=cells, worst=cells[0])
        for recipe in ("quick:net=/home/jane/nets.py:Net,epochs=3", "quick:net=jane.py:Net,epochs=3")
        for attack in ("/home/jane/mine.py:Janes", "em:surrogate=jane.py:Net")
    ]
    board = Board(cells=9, measured=8, failed={"jane": "/home/jane: is not there"}, lines=lines)
    monkeypatch.setattr(write, "standing", lambda plan, run: board)
    monkeypatch.setattr(Grid, "from_file", lambda path: path)
    page_of = lambda public: page(place, f"page.{form}", format=form, public=public, grid=place)  # noqa: E731
    own, text = page_of(False), page_of(True)
    assert "jane" in own and not re.search("(?i)jane|home|2026|nets|mine|own.py", text.replace("2026-", ""))
    shown = plain(text) if form == "html" else text.replace("\\", "")
    for told in (*PRIVATE.values(), names.NETWORK, "quick:epochs=3 (2)", f"net + {names.METHOD}", "the trainer chose"):
        assert told in shown, told
    assert "tune:epochs=3" in shown and "em" in shown and "8 of 9 cells" in shown


def test_two_ways_that_differ_in_a_place_alone_stay_two(out: Path):
    shares = {"clean": [0.9], "noise": [0.9], "protected": [0.1]}
    runs = victims(shares, defense="tune:clean=/a") + victims(shares | {"protected": [0.8]}, defense="tune:clean=/b")
    kept_at(out, outcome(RunRecord.of(out), runs))
    text = plain(page(out, "public.html", public=True))
    assert "with tune net 0% 0%" in text and "with tune (2) net 88% 88%" in text
    assert "clean copies of some of the pictures" not in text  # that was tested


def test_paths_of_the_owners_files_are_left_out_of_a_public_page(out: Path):
    shares = {"clean": [0.9], "noise": [0.9], "protected": [0.1]}
    kept_at(out, outcome(RunRecord.of(out), victims(shares, name="/home/jane/secret.py:Net:width=3")))
    assert "jane" in page(out) and "jane" not in (text := page(out, "public.html", public=True)) and "Net" in text


def test_originals_are_shown_where_they_are_given(proven: Path):
    without, with_them = page(proven), page(proven, "clean.html", clean=proven.parent / "in")
    assert without.count("data:image/png") == 3 + 5 and with_them.count("data:image/png") == 3 * (3 + 5)
    assert "would be clean copies" in without and "keep it as private" in with_them
    with pytest.raises(UserError, match="shows no originals"):
        write_report(proven, public=True, clean=proven.parent / "in")


def test_other_pictures_are_no_originals(out: Path):
    others = coloured(out.parent / "others", size=16, seed=3)
    with pytest.raises(UserError, match="is not the picture that was protected"):
        page(out, clean=others)
    with pytest.raises(UserError, match="holds no red/"):
        page(out, clean=coloured(out.parent / "few", per_class=0))


def test_without_an_evaluation_nothing_is_proven(out: Path):
    text = plain(page(out))
    assert "Not tested" in text and "no evaluation of these pictures was made yet" in text
    assert "miue evaluate out --clean ORIGINALS" in text and "Kept in every way" not in text
    assert "miue evaluate" not in plain(page(out, "public.html", public=True))


def test_a_grid_is_shown_without_an_evaluation_too(out: Path, monkeypatch: pytest.MonkeyPatch):
    cell = Place(defense="gray", n=1, mean=0.2, spread=None, best=0.3, early=0.3, failed=0, verdict="not protected")
    line = Line(recipe="quick", attack="em", budget="linf:8", partial="", places=[cell], worst=cell)
    board = Board(cells=2, measured=1, failed={"em, quick + op": "MemoryError: out of it"}, lines=[line])
    monkeypatch.setattr(write, "standing", lambda plan, run: board)
    monkeypatch.setattr(Grid, "from_file", lambda path: path)
    for text in (plain(page(out, grid=out)), plain(page(out, "public.html", grid=out, public=True))):
        assert "Not tested" in text and "What each way of training leaves" in text and "1 of 2 cells measured" in text
        assert "quick em gray 20.0% 30.0% not protected" in text and "not in the table above" in text
        assert ("MemoryError" in text) == ("keep it private" in text)


def test_what_is_missing_is_told(out: Path):
    private, text = data.private_of(out), plain(page(out))
    assert "No way around it was tested here" in text and "the table above" not in text
    (path,) = private.glob("perturbation-*.safetensors")
    path.unlink()
    text = plain(page(out))
    assert f"What the noise is like Not known: {path.name} is not in the private folder" in text
    (private / FINAL).unlink()
    with pytest.raises(UserError, match=r"no finished manifest.*run the command that wrote it once more") as error:
        page(out)
    assert "verified" not in str(error.value)


def test_without_matplotlib_tables_stand_for_charts(proven: Path, monkeypatch: pytest.MonkeyPatch):
    assert page(proven).count("<svg") == 7  # controls, epochs of two victims, shares, two histograms, octaves
    monkeypatch.setattr(charts, "find_spec", lambda name: None)
    text = page(proven)
    assert "<svg" not in text and "matplotlib is missing" in text and "Energy of the noise by frequency" in text


def test_odd_inputs_are_told_with_their_reasons(tmp_path: Path, run: Run):
    source = coloured(tmp_path / "in", size=16)
    (source / "blue" / "notes.txt").write_text("text")
    (source / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    carry_out(Job(source=str(source), out=tmp_path / "out", method="noise", canvas=16), run)
    text = plain(page(tmp_path / "out"))
    assert "Not in the output: 2 of the inputs" in text and "blue/notes.txt" in text and "red/broken.png" in text
    public = plain(page(tmp_path / "out", "public.html", public=True))
    assert "Not in the output: 2 of the inputs" in public and "notes.txt" not in public


def test_grey_pictures_and_one_row_a_class(tmp_path: Path, run: Run):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9, 20, 20), dtype=np.uint8), np.arange(9) % 3
    np.savez(tmp_path / "in.npz", images=images, labels=labels)
    job = Job(source=str(tmp_path / "in.npz"), out=tmp_path / "out", method="noise:per=class", canvas=20)
    carry_out(job, run)
    text = plain(page(tmp_path / "out", clean=tmp_path / "in.npz"))
    assert "one for each class" in text and "100% of its energy" in text and "brightness" not in text


# --- what it refuses ---


def test_pictures_that_were_added_are_in_it(out: Path, tmp_path: Path, run: Run):
    before = plain(page(out))
    add(out, coloured(tmp_path / "new", per_class=2, size=16, seed=3), run=run)
    after = plain(page(out))
    assert "12 pictures in 3 classes" in before and "18 pictures in 3 classes" in after
    strength = r"strength [\d.]+ grey levels"
    assert re.search(strength, before)[0] == re.search(strength, after)[0]  # type: ignore[index]


def test_additions_are_told_with_day_place_and_what_failed(out: Path, tmp_path: Path, run: Run):
    runs = victims({"clean": [0.9], "noise": [0.9], "protected": [0.12]})
    kept_at(out, outcome(RunRecord.of(out), runs), "29990101-000000")
    kept_at(out, outcome(RunRecord.of(out), runs, channel="jpeg:quality=75"), "30020101-000000")
    new = coloured(tmp_path / "new", per_class=2, size=16, seed=3)
    (new / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    record = add(out, new, run=run)
    assert re.fullmatch(r"\d{8}-\d{6}", record.added[0].finished)
    again = add(out, new, run=run)
    assert again.added[0].finished == record.added[0].finished  # not when it was called once more
    part = record.added[0].model_copy(update={"finished": "30010203-040506"})
    record.model_copy(update={"added": [part]}).save(data.private_of(out) / "run.json")
    text, public = plain(page(out)), plain(page(out, "public.html", public=True))
    for each in (text, public):
        assert "added later 6 of them, the last ones 3001-02-03 04:05" in each
        assert "6 pictures that were added later, finished 3001-02-03 04:05" in each
        assert (
            "Not in the output: 1 of the inputs" in each
            and "the 6 pictures that were added after the evaluation" in each
        )
        assert "evaluation of 2999-01-01" in each and "evaluation of 3002-01-01" not in each
    assert str(new) in text and "red/broken.png" in text
    assert "broken.png" not in public and str(tmp_path) not in public
    remark = "Made on 3001-01-01 00:00, and 6 pictures were added after that: nothing here is about them."
    assert remark not in text
    private = data.private_of(out)
    for folder, each in (("detections", first_look()), ("analyses", analysis())):
        each.save(private / folder / "30010101-000000-00000000.json")
    assert plain(page(out)).count(remark) == 2 and plain(page(out, "public.html", public=True)).count(remark) == 1
    for folder, each in (("detections", first_look()), ("analyses", analysis())):
        each.save(private / folder / "30020101-000000-00000000.json")
    assert "added after that" not in plain(page(out))
    part = part.model_copy(update={"finished": ""})  # as earlier versions wrote it: no evaluation is known to be later
    record.model_copy(update={"added": [part]}).save(data.private_of(out) / "run.json")
    text = plain(page(out))
    assert "finished an unknown day" in text and "evaluation of 3002-01-01" in text


def test_an_addition_that_is_not_finished_is_told(out: Path, tmp_path: Path, run: Run):
    new = coloured(tmp_path / "new", per_class=2, size=16, seed=3)
    with pytest.raises(KeyboardInterrupt):
        add(out, new, run=Stopping(0, "cpu", after=3))
    text, public = plain(page(out)), plain(page(out, "public.html", public=True))
    assert "12 pictures in 3 classes" in text and "6 pictures that were added later, not finished" in text
    assert f"Adding 6 pictures was interrupted; nothing here is about them. To finish it: miue add {out} {new}" in text
    assert "Adding 6 pictures was interrupted" in public and "miue add" not in public and str(new) not in public


def test_damaged_records_are_named(proven: Path):
    path = next((data.private_of(proven) / "outcomes").glob("*.json"))
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(UserError, match=path.name):
        page(proven)
    path.write_bytes(content)
    manifest = data.private_of(proven) / FINAL
    manifest.write_text(manifest.read_text()[:-100])
    with pytest.raises(UserError, match="manifest"):
        page(proven)


def test_an_output_that_is_not_finished_is_refused(out: Path):
    RunRecord.of(out).model_copy(update={"status": "running"}).save(data.private_of(out) / "run.json")
    with pytest.raises(UserError, match="was interrupted"):
        page(out)
    with pytest.raises(UserError, match="only an output of miue"):
        page(out.parent / "in")


def test_pictures_that_were_changed_are_refused(out: Path):
    shutil.copyfile(out / "red" / "0.png", out / "blue" / "2.png")
    for path in (out / "blue").glob("*.png"):
        shutil.copyfile(out / "red" / "0.png", path)
    with pytest.raises(UserError, match="is not the picture that was written"):
        page(out)


def test_only_reports_are_replaced_and_none_lies_among_the_pictures(out: Path):
    assert page(out) == page(out)
    (out.parent / "mine.html").write_text("mine")
    with pytest.raises(UserError, match="is no report of miue"):
        page(out, "mine.html")
    (out.parent / "publish.sh").write_text("#!/bin/sh\nmiue report out --to page.html\nscp page.html host:\n")
    with pytest.raises(UserError, match=r"publish\.sh: exists and is no report of miue"):
        write_report(out, out.parent / "publish.sh")
    with pytest.raises(UserError, match="the published pictures"):
        write_report(out, out / "page.html")


# --- which records count ---


def test_evaluations_of_other_files_are_left_out_with_the_reason(out: Path):
    record = RunRecord.of(out)
    runs = victims({"clean": [0.9], "noise": [0.9], "protected": [0.1]})
    kept_at(out, outcome(record, runs, method="em"))
    kept_at(out, outcome(record, runs), "20010101-000000")
    evidence = Evidence.of(out)
    assert not evidence.outcomes and len(evidence.left_out) == 2
    text = plain(page(out))
    assert "it is older than the files" in text and "the files are of other settings" in text and "Not tested" in text


def test_an_evaluation_that_was_repeated_counts_once(out: Path):
    record = RunRecord.of(out)
    runs = victims({"clean": [0.9], "noise": [0.9], "protected": [0.1]})
    kept_at(out, outcome(record, runs))
    kept_at(out, outcome(record, runs), "29990103-000000")
    kept_at(out, outcome(record, runs, channel="jpeg:quality=75"), "29990104-000000")
    assert [each.at for each in Evidence.of(out).outcomes] == ["29990103-000000", "29990104-000000"]


def test_records_that_are_written_today_count(tmp_path: Path, run: Run):
    from miue.victims.recipe import Recipe

    source, test = coloured(tmp_path / "in"), coloured(tmp_path / "test", seed=1)
    carry_out(Job(source=str(source), out=tmp_path / "out", method="noise", canvas=8), run)
    recipe = Recipe(net="small-cnn:width=4", epochs=3, batch=8, augment=())
    result = evaluate(tmp_path / "out", source, recipes=[recipe], seeds=1, test=test, run=run)
    assert all(set(victim.epochs) == {1, 2, 3} and victim.epochs[3] == victim.last for victim in result.runs)
    assert [each.outcome for each in Evidence.of(tmp_path / "out").outcomes] == [result]
    first = RunRecord.of(tmp_path / "out")
    assert re.fullmatch(r"\d{8}-\d{6}", first.finished)
    again = carry_out(Job(source=str(source), out=tmp_path / "out", method="noise", canvas=8), run)
    assert again.finished == first.finished and "by epoch" in page(tmp_path / "out")


# --- judging ---


def dated(verdict: str, runs: list[VictimRun], made: Path, **others) -> Dated:
    each = Dated(outcome(RunRecord.of(made / "out"), runs, **others), "29990101-000000")
    assert each.outcome.verdict == verdict
    return each


def stopping(share: float, runs: list[VictimRun], role: Role = "protected") -> list[VictimRun]:
    """The same runs, with another accuracy of those of one role when they are stopped early."""
    return [run.model_copy(update={"stopped": share if run.role == role else run.last}) for run in runs]


@pytest.mark.parametrize(
    ("last", "early", "verdict"),
    [(0.12, 0.7, "not protected"), (0.12, 0.14, "protected"), (0.7, 0.12, "not protected"), (0.12, 0.26, "protected")],
)
def test_the_page_says_what_the_evaluation_says_of_who_stops_early(out: Path, last: float, early: float, verdict: str):
    runs = stopping(early, victims({"clean": [0.9], "noise": [0.9], "protected": [last]}))
    each = outcome(RunRecord.of(out), runs)
    kept_at(out, each)
    text, most = plain(page(out)), max(last, early)
    assert each.verdict == verdict and f" {verdict.capitalize()} " in text
    assert f"keeps {each.kept('net'):.0%} of what the originals teach" in text and f"names {most:.1%} of new" in text
    assert ("stopped early keeps" in text) == (early > last) == ("beside the controls, stopped early" in text)
    assert f"protected {last:.1%} {early:.1%} 100.0%" in text  # the early accuracy stands beside the last
    share = {name: f"{(value - 0.1) / 0.8:.0%}" for name, value in (("last", last), ("early", early))}
    assert f"plain training net {share['last']} {share['early']} one seed {verdict}" in text


def test_an_evaluation_that_judged_the_last_epoch_alone_is_left_out(out: Path):
    runs = victims({"clean": [0.9], "noise": [0.9], "protected": [0.12]})
    kept_at(out, outcome(RunRecord.of(out), runs, judgements=[]))
    text = plain(page(out))
    assert "Not tested" in text and "the last epoch alone (its verdict: protected); evaluate again" in text


def test_one_break_decides_and_what_shows_nothing_weakens_nothing(made: Path):
    good = victims({"clean": [0.9] * 2, "noise": [0.9] * 2, "protected": [0.1] * 2})
    bad = victims({"clean": [0.9], "noise": [0.9], "protected": [0.8]}, defense="at:eps=4")
    unsure = victims({"clean": [0.15], "noise": [0.15], "protected": [0.1]}, defense="op")
    records = {
        "good": dated("protected", good, made),
        "bad": dated("not protected", bad, made),
        "unsure": dated("inconclusive", unsure, made),
    }

    def word(*names: str) -> str:
        chosen = [records[name] for name in names]
        return judged.judge(judged.kept(chosen), chosen).word

    assert word("good") == word("good", "unsure") == word("unsure", "good") == "Protected"
    assert word("bad") == word("good", "bad") == word("bad", "unsure", "good") == "Not protected"
    assert word("unsure") == "Not shown" and judged.judge([], []).word == "Not tested"


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_share_that_is_not_known_is_not_drawn_as_none(out: Path, seeds: int):
    """Nothing kept would be the best protection there is."""
    weak = {"clean": [0.15, 0.3][:seeds], "noise": [0.15] * seeds, "protected": [0.1] * seeds}
    kept_at(out, outcome(RunRecord.of(out), victims(weak)))
    content = page(out)
    text = plain(content)
    assert (
        "Not shown" in text and f"not known not known {'one seed' if seeds == 1 else 'not known'} inconclusive" in text
    )
    (drawing,) = re.findall(r"<svg(?:(?!<svg).)*the threshold.*?</svg>", content, re.S)
    assert "not known" in plain(drawing) and "0%" not in plain(drawing).replace("20%", "")
    assert text.count("reaches only 15.0%") == 1 and ("in its worst seed" in text) == (seeds > 1)


def test_what_is_reserved_is_told_in_the_same_words(tmp_path: Path, run: Run):
    source = str(coloured(tmp_path / "in"))
    for value in ("none", "no-training", "no-generative"):
        rights = Rights(value=value)
        job = Job(source=source, out=tmp_path / value, method="noise", rights=rights)
        carry_out(job, run)
        for options in ({}, {"public": True}, {"format": "md"}):
            text = plain(page(job.out, f"{value}.{len(options)}.html", **options)).replace("\\`", "`")
            assert (" ".join(TOLD.split()) in text) == (value != "none"), (value, options)
            assert ("permits the training of classifiers" in text) == (value == "no-generative")


def test_shares_and_their_interval(made: Path):
    runs = victims({"clean": [0.9, 0.5, 0.7], "noise": [0.9] * 3, "protected": [0.18, 0.18, 0.05]})
    (line,) = judged.kept([each := dated("protected", runs, made)])
    shares = [0.1, 0.2, -0.05 / 0.6]
    assert line.share == each.outcome.kept("net") == pytest.approx(fmean(shares))
    low, high = line.interval or (0, 0)
    assert low == 0 and high == pytest.approx(fmean(shares) + 4.302653 * stdev(shares) / 3**0.5, abs=1e-5)
    (single,) = judged.kept([dated("protected", [run for run in runs if run.seed == 0], made)])
    assert single.interval is None
    (lost,) = judged.kept([dated("inconclusive", victims({"clean": [0.1], "noise": [0.1], "protected": [0.2]}), made)])
    assert lost.share is None and lost.interval is None


def test_every_defense_and_channel_belongs_to_one_way():
    names = [name for ways in judged.WAYS.values() for name in ways]
    assert sorted(set(names)) == sorted(names) and set(names) == {*DEFENSES, *CHANNELS}


def test_what_was_tried_is_not_listed_as_untested(made: Path):
    adaptive = [
        run.model_copy(update={"tried": {"gray+jpeg:quality=50": 0.1, "at:eps=4": 0.2}})
        for run in victims({"clean": [0.9], "noise": [0.9], "protected": [0.1]}, defense="adaptive")
    ]
    some = [dated("protected", adaptive, made, channel="resize:share=0.5")]
    gaps = judged.untested(judged.kept(some), some)
    assert "adversarial training" not in gaps and "grey pictures, or colour alone" not in gaps
    assert "compression and scaling" not in gaps and "strong augmentation" in gaps


# --- the noise ---


def test_the_noise_is_described_by_known_answers():
    side, rng = 16, torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (400, 3, side, side), generator=rng) * 2 - 1
    white = noise.measured(Perturbation((8 * signs).to(torch.int8), Budget(8), "white"), [i % 4 for i in range(400)])
    assert white.level == pytest.approx(8) and white.brightness == pytest.approx(1 / 3, abs=0.01)
    assert white.classes == pytest.approx(0.01, abs=0.002) and white.chance == 0.01
    assert sum(share for _, share in white.octaves) == pytest.approx(1, abs=1e-5)
    wave = (8 * torch.cos(2 * torch.pi * 5 * torch.arange(side) / side)).expand(6, 3, side, side)
    tied = noise.measured(Perturbation(wave.to(torch.int8), Budget(8), "wave"), [0, 0, 0, 1, 1, 1])
    assert tied.brightness == pytest.approx(1) and tied.classes == pytest.approx(1)
    assert dict(tied.octaves)["4 to 8"] > 0.95
    one = noise.measured(
        Perturbation((8 * signs[:2]).to(torch.int8), Budget(8), "two", torch.arange(6) % 2), [0, 1] * 3
    )
    assert one.classes == pytest.approx(1)


def test_the_first_look_is_shown(out: Path):
    first_look().save(data.private_of(out) / "detections" / "29990101-000000-00000000.json")
    assert "Somebody who looks would notice: linear reaches 90.0%" in plain(page(out))


# --- the ownership trace ---


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """A marked set whose victims were tested, and by whose secret two suspects were judged, one with a hostile name."""
    publish.export(data.shapes(2, 16), tmp_path / "in")
    tracing = Tracing(strength=3, keys=2, unmeasured=True)
    job = Job(source=str(tmp_path / "in"), out=tmp_path / "out", method="noise:cells=4", seed=7351, trace=tracing)
    carry_out(job, Run(device_name="cpu"))
    record = RunRecord.of(job.out)
    runs = victims({"clean": [0.9, 0.9], "noise": [0.9, 0.9], "protected": [0.1, 0.1]})
    kept_at(job.out, outcome(record, runs, traces=traces([2e-5, 3e-5], [0.4, 0.6])))
    kept_at(job.out, outcome(record, runs), "29990102-000000")  # later, without looking for the trace
    asked = Asked(count=400, base="b", declared="2026-01-02T03:04:05Z")
    judged_on = "2026-01-03T03:04:05Z"
    declared = Declaration(suspects=3, alpha=1e-3, when=judged_on, judged={EVIL: "x", "theirs": "y"})
    folder = place_of(job.out).folder
    declared.save(folder / "declaration.json")
    for name, p in ((EVIL, 1e-6), ("theirs", 0.31)):
        facts = {"commitment": record.commitment, "test": "signs", "asked": asked, "kind": "labels", "answers": "x"}
        numbers = {"statistic": 1.0, "z": 2.0, "p": p, "draws": 99, "alpha": 1e-3}
        numbers |= {"suspects": 3, "seconds": 1.0}
        verdict = Verdict(**facts, **numbers, evidence=p < 1e-3, reason="", when=judged_on, miue="0")
        verdict.save(folder / "verdicts" / f"{digest(name)}.json")
    return job.out


def traces(protected: list[float], others: list[float]) -> list[TraceRun]:
    values: dict[Role, list[float]] = {"protected": protected, "clean": others, "noise": others}
    return [
        TraceRun(role=role, victim="net", seed=seed, p=p, z=1.0, labels=10 * p, evidence=p <= 1e-3)
        for role, every in values.items()
        for seed, p in enumerate(every)
    ]


def test_the_trace_is_shown_with_its_controls_and_all_suspects(traced: Path):
    record, texts = RunRecord.of(traced), [plain(page(traced)), page(traced, "page.md", format="md")]
    for text in texts:
        assert "Who trained on it: the ownership trace" in text and record.commitment in text
        assert "the mark was found in 2 of 2" in text and "in 0 of 4. The latter are the controls" in text
        assert "2e-05, 3e-05" in text and "0.4, 0.6" in text and "3 of 8 grey levels" in text
        assert "2 of 3 declared suspects were judged. Against 1 of them there is evidence of use" in text
        assert "theirs" in text and "0.31" in text and "2026-01-03" in text and "signs" in text
        assert "No evidence never means that the set was not used" in text
        assert "found in every network of the owner's; 2 suspects judged" in text
    assert "learn the owner's mark" not in texts[0] and "<script>" not in page(traced)
    assert r"\<script\>alert(1)\</script\>" in texts[1] and "&lt;script&gt;" in page(traced)
    command = "--attack noise:cells=4 --trace --trace-strength 3 --trace-keys 2 --trace-unmeasured"
    assert command in texts[0] and "--clean" in texts[0] and "the mark is the same" in texts[0]


def test_a_public_page_tells_neither_the_secret_nor_who_was_judged(traced: Path):
    secret = Secret.load(data.private_of(traced) / "trace.json")
    hidden = [secret.master.hex(), *secret.opened.keys.values(), *(key[:16] for key in secret.opened.keys.values())]
    for form in ("html", "md"):
        for public in (False, True):
            text = page(traced, f"{public}.{form}", format=form, public=public)
            assert not any(each in text for each in hidden), public  # nor does a private one
        for name in ("theirs", "alert(1)", "3 of 8", "--trace", "7351", "2026-01-03", digest("theirs")):
            assert name not in text, name
        assert RunRecord.of(traced).commitment in text and "the mark was found in 2 of 2" in text
        assert "Against 1 of them there is evidence of use" in text


def test_a_trace_is_shown_without_its_secret_and_untested_as_untested(traced: Path):
    private, before = data.private_of(traced), page(traced)
    shutil.rmtree(private / "outcomes")
    shutil.rmtree(private / "trace")
    text = plain(page(traced))
    assert "Whether networks learn the mark was not tested. To test it: miue evaluate out" in text
    assert "whether networks learn the owner's mark" in text and "Nobody was judged yet" in text
    assert "--trace" not in plain(page(traced, "public.html", public=True))
    (private / "trace.json").unlink()
    assert "Who trained on it" in page(traced) and "Who trained on it" in before


def test_a_mark_that_is_not_found_and_one_that_is_found_in_controls(traced: Path):
    private, record = data.private_of(traced), RunRecord.of(traced)
    shutil.rmtree(private / "outcomes")
    runs = victims({"clean": [0.9, 0.9], "noise": [0.9, 0.9], "protected": [0.1, 0.1]})
    kept_at(traced, outcome(record, runs, traces=traces([0.2, 1e-5], [1e-5, 0.4])))
    text = plain(page(traced))
    assert "the mark was found in 1 of 2" in text and "in 2 of 4." in text
    assert "not found in every network of the owner's" in text


def test_verdicts_by_another_secret_are_left_out(traced: Path):
    for path in (place_of(traced).folder / "verdicts").glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"commitment": "0" * 64}))
    text = plain(page(traced))
    assert "verdicts on suspects by the secret of another set" in text and "Nobody was judged yet" in text
    path.write_text("{")
    with pytest.raises(UserError, match=path.name):
        page(traced)


def test_a_mark_alone_is_told(tmp_path: Path, run: Run):
    tracing = Tracing(alone=True)
    carry_out(Job(source=str(coloured(tmp_path / "in", size=16)), out=tmp_path / "out", canvas=16, trace=tracing), run)
    text = plain(page(tmp_path / "out"))
    assert text.count("The mark stands alone: there is no attack") == 2 and "a mark without an attack" in text
    assert "--trace-only --trace-strength" in text and "--attack" not in text


def test_a_set_without_a_trace_says_nothing_of_it_and_rights_are_named(out: Path, tmp_path: Path, run: Run):
    text = plain(page(out))
    assert "mark" not in text.replace("Markdown", "") and "ownership" not in text and "rights" not in text
    rights = Rights(value="no-training", creator="A. B.", path="/photos/")
    carry_out(Job(source=str(tmp_path / "in"), out=tmp_path / "own", method="noise", canvas=16, rights=rights), run)
    text = plain(page(tmp_path / "own"))
    assert "rights no-training" in text and "--rights no-training --creator 'A. B.' --rights-path /photos/" in text


# --- in a real browser ---


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; apt-get install chromium brings one")
def test_a_browser_shows_the_page_without_complaint(proven: Path, tmp_path: Path):
    """At two widths, light and dark: no error, no request, no sideways scrolling; headings and texts for pictures."""
    path = write_report(proven, tmp_path / "page.html", clean=proven.parent / "in")
    with browser() as chromium:
        for width in (360, 1200):
            colours = set()
            for dark in (False, True):
                chromium.open(path, width, dark)
                colours.add(chromium.value("getComputedStyle(document.body).backgroundColor"))
                assert chromium.value("document.documentElement.scrollWidth") <= width
                assert chromium.value("[...document.querySelectorAll('h1')].length") == 1
                assert chromium.value("document.querySelectorAll('h2').length") >= 8
                assert chromium.value("[...document.images].every(i => i.alt && i.complete && i.naturalWidth)")
                drawings = "document.querySelectorAll('svg')"
                assert chromium.value(f"[...{drawings}].every(s => s.getAttribute('aria-label').length > 20)")
                assert chromium.value(f"[...{drawings}].every(s => s.getBoundingClientRect().width > 250)")
                assert chromium.value("document.scripts.length") == 0
                assert chromium.value("document.body.innerText.includes('<script>alert(1)</script>')")
                assert not chromium.named("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
                assert not chromium.named("Page.javascriptDialogOpening")
                asked = {event["request"]["url"] for event in chromium.named("Network.requestWillBeSent")}
                assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
            assert len(colours) == 2


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; apt-get install chromium brings one")
def test_the_browser_of_these_tests_notices_what_is_wrong(tmp_path: Path):
    """So that the test above can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<div style='width: 2000px'>x</div><script>console.log(1); throw new Error('x')</script>"
                   "<img src='http://127.0.0.1:9/x.png'>")  # fmt: skip
    with browser() as chromium:
        chromium.open(bad, 360, False)
        assert chromium.value("document.documentElement.scrollWidth") > 360
        assert chromium.named("Runtime.exceptionThrown") and chromium.named("Runtime.consoleAPICalled")
        assert any("127.0.0.1" in event["request"]["url"] for event in chromium.named("Network.requestWillBeSent"))
