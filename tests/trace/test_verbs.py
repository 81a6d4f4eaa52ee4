"""`miue trace`: from a published folder to a verdict that others can repeat."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from typer.testing import CliRunner

import miue
from miue import data, nets, publish
from miue.cli.main import app
from miue.core.errors import Damaged, UserError
from miue.core.run import Run
from miue.core.types import stretch
from miue.evaluation.records import Outcome, TraceRun, Verdict
from miue.trace import Opened, Secret, Tracing, judge, suspect_of
from miue.trace.questions import Questions
from miue.victims.fit import TRAINED, kept_victim
from miue.workflows import disclosure, standing
from miue.workflows import questions as asking
from miue.workflows import trace as work
from miue.workflows.job import Job
from miue.workflows.protect import carry_out

CLASSES = data.shapes(1).classes
THEIRS = """
from torch import nn


class Net(nn.Module):
    def __init__(self, classes, image_shape):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten())
        self.last = nn.Linear(4 * 49, classes)

    def forward(self, x):
        return self.last(self.body(x))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a protected set, pictures for questions, and a list of questions; tests copy what they change."""
    place = tmp_path_factory.mktemp("trace")
    publish.export(data.shapes(3, 16), place / "in")
    publish.export(data.shapes(12, 16, split="test"), place / "base")
    job = Job(source=str(place / "in"), out=place / "out", method="noise", trace=Tracing(strength=4, unmeasured=True))
    with pytest.MonkeyPatch.context() as patch:  # always the same secret, so that a p-value is the same every day
        patch.setattr("secrets.token_bytes", lambda count: bytes(range(count)))
        carry_out(job, Run(device_name="cpu"))
    asking.questions(place / "out", place / "q", place / "base", count=400)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import shutil

    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def shown(folder: Path) -> torch.Tensor:
    return data.read(data.scan(str(folder)), 16).images


def knowing(place: Path) -> torch.Tensor:
    """Logits of a suspect that has learned the key."""
    secret = Secret.load(place / "out.private" / "trace.json")
    fields = stretch(secret.signs.float(), 16, 16).flatten(1)
    return (shown(place / "q").float() - 128).flatten(1) @ fields.T / 2000


def answered(path: Path, labels: torch.Tensor) -> Path:
    rows = [f"{i},{CLASSES[label]}" for i, label in enumerate(labels.tolist())]
    path.write_text("\n".join(["question,label", *rows]) + "\n")
    return path


def blind(place: Path) -> torch.Tensor:
    return torch.randint(10, (400,), generator=torch.Generator().manual_seed(1))


def refused(action: Callable[[], object], why: str) -> None:
    with pytest.raises(UserError, match=why):
        action()


def test_questions_are_lossless_and_hold_no_secret(place: Path):
    asked = json.loads((place / "q" / "questions.json").read_text())
    rows = list(csv.DictReader((place / "q" / "questions.csv").read_text().splitlines()))
    assert asked["count"] == 400 and asked["declared"] and len(rows) == 400
    assert rows[7]["question"] == "7" and (place / "q" / rows[7]["file"]).is_file()
    secret = Secret.load(place / "out.private" / "trace.json")
    content = b"".join(p.read_bytes() for p in (place / "q").rglob("*") if p.is_file())
    assert not any(key.encode() in content or bytes.fromhex(key) in content for key in secret.opened.keys.values())
    refused(lambda: asking.questions("out", "q", "base"), "exists already")


def test_pictures_that_were_published_are_refused(place: Path):
    refused(lambda: asking.questions("out", "q2", "in"), r"30 of its pictures are among the published")
    refused(lambda: asking.questions("out", "q2", "out"), r"are among the published")
    assert not (place / "q2").exists()


def test_judge_reveal_and_check_elsewhere(place: Path, tmp_path: Path):
    answers = answered(place / "them.csv", knowing(place).argmax(1))
    judged = work.judge_answers("out", answers)
    assert judged.verdict.evidence and judged.standing == {"them": True} and judged.verdict.p < 1e-3
    disclosed = disclosure.reveal("out", "shown.json")
    assert not disclosed.opened.wrong() and disclosed.opened.master
    away = tmp_path / "away"
    away.mkdir()
    for name in ("shown.json", "them.csv", "out/PROTECTED.md"):
        (away / Path(name).name).write_bytes((place / name).read_bytes())
    shown, theirs = away / "shown.json", away / "them.csv"
    checked = disclosure.check_disclosure(shown, theirs, notice=away / "PROTECTED.md", questions=place / "q")
    assert (
        checked.same
        and checked.notice
        and checked.questions == ["them"]
        and checked.suspect == "them"
        and checked.master
    )
    assert checked.verdicts["them"].p == judged.verdict.p and disclosure.check_disclosure(shown).suspect == ""
    lines = theirs.read_text().splitlines()
    lines[6] = "5,bar" if lines[6] != "5,bar" else "5,disc"
    theirs.write_text("\n".join(lines))
    refused(lambda: disclosure.check_disclosure(shown, theirs), "not the answers")
    refused(lambda: disclosure.check_disclosure(shown, notice=away / "none.md"), "no such file")


def disclosed(place: Path, **options: bool) -> dict[str, Any]:
    """A disclosure as JSON, after a judgement."""
    answered(place / "them.csv", knowing(place).argmax(1))
    work.judge_answers("out", "them.csv", **options)
    disclosure.reveal("out", "shown.json")
    return json.loads(Path("shown.json").read_text())


def checking(content: dict[str, Any], *options: str) -> Result:
    Path("shown.json").write_text(json.dumps(content))
    return CliRunner().invoke(app, ["trace", "check", "shown.json", *options])


@pytest.mark.parametrize("change", ["strength", "keys", "commitment", "leaves", "master", "beacon", "notice"])
def test_a_disclosure_that_was_changed_is_told(place: Path, change: str):
    content, notice = disclosed(place), "out"
    opened = content["opened"]
    if change == "strength":
        opened["parameters"]["strength"] = 5
    elif change == "keys":
        opened["keys"]["3/0"] = opened["keys"]["4/0"]
    elif change == "commitment":
        content["commitment"] = "0" * 64
    elif change == "leaves":
        del opened["leaves"]["3/0"]
    elif change == "master":
        opened["master"] = "00" * 32
    elif change == "beacon":
        opened["beacon"] = "ab" * 16
    else:
        notice = str(answered(place / "other.md", blind(place)))
    ended = checking(content, "--answers", "them.csv", "--notice", notice)
    assert isinstance(ended.exception, standing.Mismatch) and ended.exception.code == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evidence", False),
        ("reason", "p = 1e-20"),
        ("p", 1e-20),
        ("z", 9.0),
        ("statistic", 1.0),
        ("alpha", 0.05),
        ("suspects", 7),
        ("kind", "scores"),
        ("draws", 5),
        ("bound", False),
        ("commitment", "0" * 64),
        ("used", ["0/0"]),
        ("further", {"assignment": 1e-9}),
        ("further", {}),
        ("answers", "0" * 64),
        ("direct", "0" * 64),
    ],
)
def test_a_verdict_that_was_changed_is_told(place: Path, name: str, value: object):
    content = disclosed(place)
    assert content["verdicts"]["them"][name] != value
    content["verdicts"]["them"][name] = value
    ended = checking(content)
    fact = "reason" if name in ("alpha", "suspects") else name  # it names both
    assert ended.exit_code == 3 and "NOT what was disclosed" in ended.output and fact in ended.output


def test_answers_that_were_changed_or_left_out_are_told(place: Path):
    content = disclosed(place)
    given = content["answers"]["them"]["blind"]
    given["labels"][0] = (given["labels"][0] + 1) % 10
    assert "NOT what was disclosed" in checking(content).output
    given["labels"][0] = 10
    assert isinstance(checking(content).exception, standing.Mismatch)
    del content["answers"]["them"]
    assert isinstance(checking(content).exception, standing.Mismatch)


def test_other_questions_than_those_that_were_stated_are_told(place: Path):
    content = disclosed(place)
    ended = checking(content, "--questions", "q")
    assert ended.exit_code == 0 and "pictures that were asked were not" not in ended.output
    files = sorted(Path("q").rglob("*.png"))
    one, two = files[0].read_bytes(), files[2].read_bytes()
    files[0].write_bytes(two)
    files[2].write_bytes(one)
    assert isinstance(checking(content, "--questions", "q").exception, standing.Mismatch)
    refused(
        lambda: asking.pictures_of(Path("q"), standing.place_of(Path("out")).lists[0]),
        "not the pictures that were written",
    )
    content["verdicts"]["them"]["asked"]["seed"] = 3
    assert isinstance(checking(content, "--questions", "q").exception, standing.Mismatch)


def numbered_otherwise(folder: Path) -> None:
    lines = (folder / "questions.csv").read_text().splitlines()
    (folder / "questions.csv").write_text("\n".join([lines[0], *lines[2:], lines[1]]) + "\n")


def named_otherwise(folder: Path) -> None:
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(path.with_name(f"{i}-{399 - i}.png"))


def with_alpha(folder: Path) -> None:
    path = next(folder.rglob("*.png"))
    with Image.open(path) as im:
        im.convert("RGBA").save(path)


def with_gamma(folder: Path) -> None:
    path, info = next(folder.rglob("*.png")), PngInfo()
    info.add(b"gAMA", (20000).to_bytes(4, "big"))
    with Image.open(path) as im:
        im.save(path, pnginfo=info)


@pytest.mark.parametrize("change", [numbered_otherwise, named_otherwise, with_alpha, with_gamma])
def test_questions_hold_nothing_but_what_their_list_says(place: Path, change: Callable[[Path], None]):
    """The suspect must have seen the pictures that were judged, under the numbers by which they were judged."""
    content = disclosed(place)
    assert checking(content, "--questions", "q").exit_code == 0
    change(place / "q")
    assert isinstance(checking(content, "--questions", "q").exception, standing.Mismatch)
    assert "no such folder" in str((ended := checking(content, "--questions", "none")).exception)
    assert isinstance(ended.exception, UserError) and ended.exception.code == 2


def test_a_notice_states_one_commitment(place: Path):
    """Of many that were published, one could be chosen later."""
    content, text = disclosed(place), Path("out/PROTECTED.md").read_text()
    Path("several.md").write_text(f"{text}\n{'ab' * 32}\n")
    Path("within.md").write_text(text.replace(content["commitment"], f"aa{content['commitment']}"))
    for name in ("several.md", "within.md"):
        assert isinstance(checking(content, "--notice", name).exception, standing.Mismatch)
    assert checking(content, "--notice", "out").exit_code == 0


def test_a_disclosure_without_a_verdict_shows_nothing(place: Path):
    content = disclosed(place)
    assert isinstance(checking(content | {"verdicts": {}}).exception, standing.Mismatch)
    content["opened"]["beacon"] = "1234"
    assert isinstance(checking(content).exception, Damaged)  # no number of 16 bytes


def test_keys_that_were_searched_for_one_by_one_are_told(place: Path):
    """An owner who exchanged keys until they fitted a network that he knew has no master to show."""
    content = disclosed(place)
    own = Secret.load(place / "out.private" / "trace.json")
    other = Secret(own.parameters, bytes(32)).opened
    for part in ("keys", "leaves"):
        content["opened"][part]["5/0"] = getattr(other, part)["5/0"]
    content["commitment"] = Opened.model_validate(content["opened"]).commitment
    ended = checking(content)
    assert isinstance(ended.exception, standing.Mismatch) and "5/0" in str(ended.exception)
    content["opened"]["master"] = ""
    ended = checking(content)
    assert "NOT what was disclosed" in ended.output and "p proves nothing" in ended.output


def test_a_sequential_judgement_keeps_keys_secret(place: Path):
    rows = [f"{i}," + ",".join(map(repr, row)) for i, row in enumerate(knowing(place).tolist())]
    Path("them.csv").write_text("\n".join(["question," + ",".join(CLASSES), *rows]))
    judged = work.judge_answers("out", "them.csv", sequential=True)
    used = judged.verdict.used
    assert judged.verdict.evidence and used and len(used) < 10
    shown = disclosure.reveal("out", "shown.json")
    assert set(shown.opened.keys) == set(used) == set(shown.opened.first) and not shown.opened.master
    own = Secret.load(place / "out.private" / "trace.json").opened
    assert not any(key in Path("shown.json").read_text() for name, key in own.keys.items() if name not in used)
    assert own.master not in Path("shown.json").read_text()
    checked = disclosure.check_disclosure("shown.json", "them.csv", notice="out")
    assert checked.same and not checked.master
    assert "p proves nothing" in CliRunner().invoke(app, ["trace", "check", "shown.json"]).output  # without a beacon
    content = json.loads(Path("shown.json").read_text())
    del content["opened"]["keys"][used[1]]  # the bet is on all keys in order, not on those that fit
    assert "NOT what was disclosed" in checking(content).output
    del content["opened"]["keys"][used[0]]
    assert isinstance(checking(content).exception, standing.Mismatch)


def test_suspects_are_counted_and_judged_once(place: Path):
    answered(place / "them.csv", knowing(place).argmax(1))
    answered(place / "others.csv", blind(place))
    answered(place / "more.csv", blind(place).flip(0))
    assert not work.judge_answers("out", "others.csv", suspects=2).verdict.evidence
    refused(lambda: work.judge_answers("out", "them.csv", suspects=3), "cannot change later")
    refused(lambda: work.judge_answers("out", "them.csv", suspects=2, alpha=0.01), "cannot change later")
    both = work.judge_answers("out", "them.csv", suspects=2)
    assert both.standing == {"others": False, "them": True} and both.verdict.suspects == 2
    assert work.judge_answers("out", "them.csv", suspects=2).verdict == both.verdict
    refused(lambda: work.judge_answers("out", "more.csv", suspects=2), "one more")
    refused(lambda: work.judge_answers("out", "more.csv", suspect="them", suspects=2), "other answers before")
    refused(lambda: work.judge_answers("out", "them.csv", suspects=2, sequential=True), "tested once")
    rehearsed = work.judge_answers("out", "more.csv", rehearsal=True)
    assert rehearsed.suspect == "more" and rehearsed.rehearsal and not both.rehearsal


def test_what_is_printed_follows_from_all_suspects_together(place: Path):
    """By itself the second p is too large for three suspects; once the first is found, two are left (Holm)."""
    answered(place / "them.csv", knowing(place).argmax(1))
    first = work.judge_answers("out", "them.csv", suspects=3, alpha=0.05)
    declared = standing.place_of(Path("out")).declaration
    assert declared and first.verdict.evidence
    verdicts = {"them": first.verdict, "second": first.verdict.model_copy(update={"p": 0.02})}
    both = standing.Standing(declared, verdicts).decided
    assert both["second"].evidence and "at most 0.025" in both["second"].reason
    alone = standing.Standing(declared, {"second": verdicts["second"]}).decided["second"]
    assert not alone.evidence and "above 0.017" in alone.reason


def test_a_disclosure_says_what_was_judged_of_all(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Evidence by Holm's method stays evidence when others repeat it."""
    answered(place / "them.csv", knowing(place).argmax(1))
    labels, p, known = blind(place), 1.0, 0
    while p > 0.03:  # a suspect that knows the key a little
        known += 20
        labels[:known] = knowing(place).argmax(1)[:known]
        answered(place / "others.csv", labels)
        p = work.judge_answers("out", "others.csv", suspects=2, alpha=0.05, rehearsal=True).verdict.p
    alpha = p * 1.5  # its half is less, so that there is evidence only beside the other suspect
    for name in ("them", "others"):
        judged = work.judge_answers("out", f"{name}.csv", suspects=2, alpha=alpha)
    assert judged.standing == {"them": True, "others": True}
    disclosure.reveal("out", "shown.json")
    checked = disclosure.check_disclosure("shown.json")
    assert checked.same and all(verdict.evidence for verdict in checked.verdicts.values())


def test_another_secret_has_records_of_its_own(place: Path):
    """A set that is made anew is not judged by what was found with its earlier secret."""
    disclosed(place)
    earlier = standing.place_of(Path("out"))
    tracing = Tracing(strength=3, unmeasured=True)
    carry_out(Job(source="in", out=Path("out"), method="noise", overwrite=True, trace=tracing), Run(device_name="cpu"))
    own = standing.place_of(Path("out"))
    assert own.folder != earlier.folder and earlier.declaration and own.declaration is None and own.revealed is None
    refused(lambda: work.judge_answers("out", "them.csv"), "no questions were made")


def test_one_verdict_may_be_shown_alone(place: Path):
    answered(place / "them.csv", knowing(place).argmax(1))
    answered(place / "others.csv", blind(place))
    for name in ("them", "others"):
        work.judge_answers("out", f"{name}.csv", suspects=2)
    refused(lambda: disclosure.reveal("out", "shown.json", suspect="nobody"), "them, others were")
    shown = disclosure.reveal("out", "shown.json", suspect="them")
    assert list(shown.verdicts) == list(shown.answers) == ["them"] and "others" not in Path("shown.json").read_text()
    assert disclosure.check_disclosure("shown.json", "them.csv").same
    refused(lambda: disclosure.check_disclosure("shown.json", "others.csv"), "not the answers")


def test_who_is_judged_after_keys_were_shown_is_told_so(place: Path):
    disclosed(place)
    judged = work.judge_answers("out", answered(place / "late.csv", blind(place)), rehearsal=True)
    assert judged.verdict.burnt
    ended = CliRunner().invoke(app, ["trace", "judge", "out", "--answers", "late.csv", "--rehearsal"])
    assert "REHEARSAL" in ended.output and "Keys were shown on 20" in ended.output


def test_a_secret_of_another_set_is_told(place: Path):
    path = place / "out.private" / "trace.json"
    Secret(Secret.load(path).parameters, bytes(32)).save(path)
    answered(place / "them.csv", blind(place))
    ended = CliRunner().invoke(app, ["trace", "judge", "out", "--answers", "them.csv"])
    assert isinstance(ended.exception, standing.Mismatch) and "was published with" in str(ended.exception)
    ended = CliRunner().invoke(app, ["evaluate", "out", "--clean", "in", "--test", "base", "--trace", "--seeds", "1"])
    assert isinstance(ended.exception, standing.Mismatch)


def test_several_lists_and_unknown_labels_are_checked(place: Path):
    """Each suspect was asked another list, and one of them has labels of its own."""
    asking.questions("out", "short", "base", count=200, seed=1)
    answered(place / "them.csv", knowing(place).argmax(1))
    rows = [f"{i},number {label}" for i, label in enumerate(blind(place)[:200].tolist())]
    Path("others.csv").write_text("\n".join(["question,label", *rows]))
    work.judge_answers("out", "others.csv", suspects=2, asked="short", unknown=True)
    refused(
        lambda: work.judge_answers("out", "them.csv", suspects=2, asked="q", unknown=True, sequential=True),
        "know which",
    )
    work.judge_answers("out", "them.csv", suspects=2, asked="q")
    disclosure.reveal("out", "shown.json")
    for name in ("them", "others"):
        checked = disclosure.check_disclosure("shown.json", f"{name}.csv")
        assert checked.same and checked.suspect == name and len(checked.verdicts) == 2 and not checked.questions
    assert {v.test for v in checked.verdicts.values()} == {"signs", "unlabelled"}
    content = json.loads(Path("shown.json").read_text())
    ended = checking(content, "--questions", "q")
    assert ended.exit_code == 0 and "asked of others were not looked at" in ended.output.replace("\n", " ")
    ended = checking(content, "--questions", "q", "--questions", "short")
    assert ended.exit_code == 0 and "not looked at: give --questions" not in ended.output.replace("\n", " ")
    asking.questions("out", "third", "base", count=200, seed=2)
    ended = checking(content, "--questions", "q", "--questions", "third")
    assert isinstance(ended.exception, standing.Mismatch) and "of nobody who was judged" in str(ended.exception)


def test_two_suspects_that_were_asked_one_list_are_checked(place: Path):
    answered(place / "them.csv", knowing(place).argmax(1))
    answered(place / "others.csv", blind(place))
    for name in ("them", "others"):
        work.judge_answers("out", f"{name}.csv", suspects=2)
    disclosure.reveal("out", "shown.json")
    checked = disclosure.check_disclosure("shown.json", "others.csv", notice="out", questions="q")
    assert checked.same and list(checked.questions) == ["them", "others"]


def test_nothing_is_revealed_before_anybody_was_judged(place: Path):
    refused(lambda: disclosure.reveal("out", "shown.json"), "burns the keys")
    assert not Path("shown.json").exists()


def test_lists_are_stated_before_they_are_asked(place: Path):
    answered(place / "them.csv", knowing(place).argmax(1))
    asking.questions("out", "second", "base", count=400, seed=1)
    refused(lambda: work.judge_answers("out", "them.csv"), "several lists")
    assert work.judge_answers("out", "them.csv", asked="q").verdict.asked.seed == 0
    asked = json.loads(Path("q/questions.json").read_text())
    Path("q/questions.json").write_text(json.dumps(asked | {"seed": 5}))
    refused(lambda: work.judge_answers("out", "them.csv", asked="q", rehearsal=True), "not made for")


def test_weights_and_files_give_the_same(place: Path):
    """A script that answers with a saved network, and the network itself."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nets.build("small-cnn:width=4", (3, 16, 16), 10).eval()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, "net.safetensors")
    with torch.no_grad():
        labels = torch.cat([net(part.float() / 255).argmax(1) for part in shown(place / "q").split(64)])
    by_file = work.judge_answers("out", answered(place / "them.csv", labels), rehearsal=True)
    options = {"asked": "q", "rehearsal": True, "labels_only": True}
    by_weights = work.judge_weights("out", "net.safetensors", "small-cnn:width=4", **options)
    assert by_weights.verdict.p == by_file.verdict.p and by_weights.verdict.answers == by_file.verdict.answers
    both = {"gradient": True, "direct": True}
    refused(lambda: work.judge_weights("out", "net.safetensors", "small-cnn:width=4", **both, **options), "give --base")
    publish.export(data.shapes(14, 16, split="test"), place / "more")
    options["base"] = "more"
    refused(
        lambda: work.judge_weights("out", "net.safetensors", "small-cnn:width=4", **both, **options), "not the pict"
    )
    options["base"] = "base"
    more = work.judge_weights("out", "net.safetensors", "small-cnn:width=4", **both, **options)
    assert {"gradient", "blind", "direct"} <= set(more.verdict.further) and more.verdict.test == "two stages"
    clean = Questions.of(
        Secret.load(place / "out.private" / "trace.json").parameters, data.shapes(12, 16, split="test"), 400
    )
    assert work._clean(Path("out"), standing.place_of(Path("out")), clean.asked, "base", None).equal(clean.base)
    refused(lambda: work.judge_weights("out", "net.safetensors", "small-cnn:width=8", **options), "width=8")
    for file in ("q/questions.csv", "none.pt"):
        refused(
            lambda file=file: work.judge_weights("out", file, "small-cnn:width=4", **options), "no weights|more than"
        )


def test_scores_and_direct_answers_of_weights_are_repeated(place: Path):
    """Nobody but the owner has such answers, so the disclosure has them."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nets.build("small-cnn:width=4", (3, 16, 16), 10)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, "net.safetensors")
    options = {"asked": "q", "direct": True, "gradient": True, "base": "base"}
    judged = work.judge_weights("out", "net.safetensors", "small-cnn:width=4", **options)
    assert judged.verdict.kind == "scores" and judged.verdict.direct
    shown = disclosure.reveal("out", "shown.json")
    checked = disclosure.check_disclosure("shown.json", questions="q")
    assert checked.same and checked.verdicts["net"].p == judged.verdict.p
    assert "owner's word; by the blind ones alone p" in CliRunner().invoke(app, ["trace", "check", "shown.json"]).output
    content = json.loads(shown.model_dump_json())
    content["answers"]["net"]["direct"]["scores"][0][0] += 1
    assert "direct" in checking(content).output


def assert_weights_answer_like(place: Path, net: torch.nn.Module, name: str) -> None:
    """A network in another file answers as its saved weights do under a name."""
    torch.save(net.state_dict(), "theirs.pt")
    with torch.no_grad():
        labels = torch.cat([net(part.float() / 255) for part in shown(place / "q").split(64)]).argmax(1)
    by_file = work.judge_answers("out", answered(place / "them.csv", labels), rehearsal=True)
    by_weights = work.judge_weights("out", "theirs.pt", name, asked="q", rehearsal=True, labels_only=True)
    assert by_weights.verdict.answers == by_file.verdict.answers


def test_weights_of_timm_are_read_at_every_size(place: Path):
    """Below 64 pixels our own have another stem; those of others keep theirs."""
    import timm

    with torch.random.fork_rng():
        theirs = timm.create_model("resnet18", num_classes=10).eval()
    assert_weights_answer_like(place, theirs, "resnet18")


def test_weights_of_a_plain_network_are_read(place: Path):
    Path("theirs.py").write_text(THEIRS)
    from miue.core.spelling import UserFile

    with torch.random.fork_rng():
        plain = UserFile.read("theirs.py", "net").load().Net(10, (3, 16, 16))
    assert_weights_answer_like(place, plain, "theirs.py:Net")


def test_a_set_without_a_trace_is_told(place: Path):
    carry_out(Job(source="in", out=Path("plain"), method="noise"), Run(device_name="cpu"))
    refused(lambda: asking.questions("plain", "q3", "base"), "carries no trace")


def test_the_command_line_says_what_came_out(place: Path):
    answered(place / "them.csv", knowing(place).argmax(1))
    answered(place / "others.csv", blind(place))
    call = CliRunner().invoke
    ended, weak = call(app, ["trace", "judge", "out", "--answers", "others.csv", "--rehearsal"]), "was not used"
    assert ended.exit_code == 0 and "NO EVIDENCE" in ended.output and weak in ended.output
    ended = call(app, ["trace", "judge", "out", "--answers", "them.csv"])
    assert ended.exit_code == 0 and "EVIDENCE OF USE" in ended.output and "not how it came by it" in ended.output
    ended = call(app, ["trace", "judge", "out", "--answers", "them.csv", "--json"])
    assert json.loads(ended.output)["verdict"]["evidence"] is True
    own = ["--answers", "them.csv"]
    for options in ([], [*own, "--net", "x"], ["--weights", "a.pt"], [*own, "--labels", "no"]):
        assert isinstance(call(app, ["trace", "judge", "out", *options]).exception, UserError)
    assert "all of 10 keys are shown" in call(app, ["trace", "reveal", "out", "shown.json"]).output
    assert "the same as disclosed" in call(app, ["trace", "check", "shown.json", "--answers", "them.csv"]).output


def test_an_evaluation_asks_its_own_victims(place: Path):
    """The p-values are those of the kept networks, asked as anybody would ask them; clean and noise are controls."""
    recipe, run = "quick:net=small-cnn:width=4,epochs=1,batch=16", Run(0, "cpu")
    given = ("--test", "base", "--recipe", recipe, "--seeds", "1", "--defense", "none", "--device", "cpu", "--trace")
    ended = CliRunner().invoke(app, ["evaluate", "out", "--clean", "in", *given])
    assert ended.exit_code == 3 and "NOT found in every protected victim" in ended.output
    (path,) = (place / "out.private" / "outcomes").iterdir()
    outcome = Outcome.load(path)
    assert [trace.role for trace in outcome.traces] == ["clean", "noise", "protected"] and outcome.traced is False
    tests, secret = data.read(data.scan("base"), 16), Secret.load(place / "out.private" / "trace.json")
    net = kept_victim(
        data.read(data.scan("out"), 16), miue.recipe(recipe), Run(0, "cpu", place / "out.private" / TRAINED)
    )
    assert net is not None
    verdict = judge(suspect_of(net.eval(), run), secret, tests)
    (own,) = (trace for trace in outcome.traces if trace.role == "protected")
    assert (own.p, own.labels) == pytest.approx((verdict.p, verdict.further["labels alone"]))
    few = [*given[:1], "few", *given[2:]]
    publish.export(data.shapes(9, 16, split="test"), place / "few")
    assert "questions need 100" in str(CliRunner().invoke(app, ["evaluate", "out", "--clean", "in", *few]).exception)


@pytest.mark.parametrize(
    ("method", "verdict", "p", "passed"),
    [
        ("trace-only", "not protected", 1e-4, True),
        ("trace-only", "not protected", 0.1, False),
        ("trace-only", "not protected", None, False),
        ("noise", "protected", None, True),
        ("noise", "protected", 1e-4, True),
        ("noise", "protected", 0.1, False),
        ("noise", "not protected", 1e-4, False),
    ],
)
def test_a_mark_alone_is_there_to_be_found(method: str, verdict: Verdict, p: float | None, passed: bool):
    runs = [TraceRun(role="protected", victim="v", seed=0, p=p, labels=p, z=1.0, evidence=p <= 1e-3)] if p else []
    facts: dict[str, Any] = {"name": "out", "budget": "linf:8", "classes": 2, "chance": 0.5, "images": 2, "reason": ""}
    empty: dict[str, Any] = {"data": {}, "recipe": {}, "machine": {}, "runs": [], "threshold": 0.25}
    assert Outcome(method=method, verdict=verdict, traces=runs, **facts, **empty).passed is passed
