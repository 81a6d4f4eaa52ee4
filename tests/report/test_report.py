"""The report: what it says, what it leaves out, what it refuses; and that texts of others stay texts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from browser import CHROMIUM, browser
from easy import easy
from miue import data
from miue.analysis.analyzer import Analyzer
from miue.attacks.success import Success
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, Perturbation
from miue.data.channel import CHANNELS
from miue.defenses import KNOWN as DEFENSES
from miue.evaluation.records import Outcome, Role, VictimRun
from miue.publish.manifest import FINAL, read_lines, write_lines
from miue.report import charts, judged, noise, sections, write_report
from miue.report.content import Table
from miue.report.evidence import Dated, Evidence
from miue.victims.recipe import Recipe
from miue.workflows.evaluate import evaluate
from miue.workflows.protect import Job, carry_out
from miue.workflows.record import RunRecord
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


def outcome(record: RunRecord, runs: list[VictimRun], verdict: str = "protected", **others) -> Outcome:
    values = {
        "name": "out",
        "method": record.settings.attack,
        "budget": record.settings.budget,
        "classes": 3,
        "chance": 0.1,
        "images": 12,
        "data": {"clean": "c", "noise": "n", "protected": "p", "test": "t"},
        "recipe": {run.victim: {"net": "net"} for run in runs},
        "threshold": 0.25,
        "runs": runs,
        "verdict": verdict,
        "reason": "it was so",
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
    weak = outcome(record, victims(grey, defense="gray"), "not protected", recipe={f"net + {EVIL}": {}})
    kept_at(out, weak, "29990102-000000")
    return out


def page(out: Path, to: str = "page.html", **options) -> str:
    return write_report(out, out.parent / to, **options).read_text()


def plain(html: str) -> str:
    """The text of a page, without style and marks."""
    html = html.replace("<wbr>", "")
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<style>.*?</style>", "", html)).split())


# --- what it says ---


def test_the_page_says_what_the_attack_reached_on_its_surrogate(out: Path):
    path, record = data.private_of(out) / "run.json", RunRecord.of(out)
    assert "own surrogate" not in plain(page(out))  # noise has none
    said = Success(pictures=9, loss_before=2.0, loss=0.5, clean=0.4, protected=0.3, goal="are blue", reached=0.25)
    record.model_copy(update={"success": said}).save(path)
    text = plain(page(out))
    assert "loss 2 on clean pictures, 0.5 on protected ones" in text and "25.0% of the protected ones are blue" in text
    assert "are blue" not in plain(page(out, "public.html", public=True))


def test_the_page_has_the_crossed_control(run: Run):
    clean = easy(20)
    recipe = Recipe(net="small-cnn:width=4", epochs=1, batch=16, augment=())
    plan = Analyzer(recipe=recipe, seeds=1, rows=60, halves=2, shuffles=1, estimators=("ksg",))
    found = plan(clean, easy(5, seed=1), {"mine": clean}, run)
    section = sections.information(found)
    assert section is not None
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[:2] for row in tables[0].rows] == [list(pair) for pair in found.crosses] and len(found.crosses) == 4
    assert "s: saturated" in tables[0].caption and tables[0].head[2] == "ksg, n = 60"
    old = found.model_copy(update={"runs": [r.model_copy(update={"crossed": ()}) for r in found.runs]})
    assert not [block for block in sections.information(old).blocks if isinstance(block, Table)]  # type: ignore[union-attr]


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
    html = page(proven)
    assert "<script" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("&lt;script&gt;") >= 3  # in a caption, a table, a note
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", html)) - {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not addresses and not re.search(r"(src|href)=\"(?!data:|#)", html)
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
    assert "2 inputs are not in the output" in text and "blue/notes.txt" in text and "red/broken.png" in text
    public = plain(page(tmp_path / "out", "public.html", public=True))
    assert "2 inputs are not in the output" in public and "notes.txt" not in public


def test_grey_pictures_and_one_row_a_class(tmp_path: Path, run: Run):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9, 20, 20), dtype=np.uint8), np.arange(9) % 3
    np.savez(tmp_path / "in.npz", images=images, labels=labels)
    job = Job(source=str(tmp_path / "in.npz"), out=tmp_path / "out", method="noise:per=class", canvas=20)
    carry_out(job, run)
    text = plain(page(tmp_path / "out", clean=tmp_path / "in.npz"))
    assert "one for each class" in text and "100% of its energy" in text and "brightness" not in text


# --- what it refuses ---


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
    return Dated(outcome(RunRecord.of(made / "out"), runs, verdict, **others), "29990101-000000")


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


def test_shares_and_their_interval(made: Path):
    runs = victims({"clean": [0.9, 0.5, 0.7], "noise": [0.9] * 3, "protected": [0.18, 0.18, 0.05]})
    (line,) = judged.kept([dated("protected", runs, made)])
    assert line.shares == pytest.approx([0.1, 0.2, 0.0]) and line.share == pytest.approx(0.1)
    low, high = line.interval or (0, 0)
    assert low == 0 and high == pytest.approx(0.1 + 4.302653 * 0.1 / 3**0.5, abs=1e-5)
    (single,) = judged.kept([dated("protected", [run for run in runs if run.seed == 0], made)])
    assert single.interval is None
    (lost,) = judged.kept([dated("inconclusive", victims({"clean": [0.1], "noise": [0.1], "protected": [0.2]}), made)])
    assert lost.share is None and lost.shares == []


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
    simple = {"held_out": 0.9, "train": 1.0}
    look = {"version": 1, "data": "d", "reference": "r", "seed": 0, "noticed": True, "reason": "linear reaches 90.0%"}
    look |= {"looks": {"linear": simple}, "clean": {"linear": simple}}
    path = data.private_of(out) / "detections" / "29990101-000000-00000000.json"
    path.parent.mkdir()
    path.write_text(json.dumps(look))
    assert "Somebody who looks would notice: linear reaches 90.0%" in plain(page(out))


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
