"""`miue trace`: from a published folder to a verdict that others can repeat."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from miue import data, nets, publish
from miue.cli.main import app
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import stretch
from miue.trace import Secret, Tracing
from miue.workflows import trace as work
from miue.workflows.protect import Job, carry_out

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
    job = Job(source=str(place / "in"), out=place / "out", method="noise", trace=Tracing(unmeasured=True))
    with pytest.MonkeyPatch.context() as patch:  # always the same secret, so that a p-value is the same every day
        patch.setattr("secrets.token_bytes", lambda count: bytes(range(count)))
        carry_out(job, Run(device_name="cpu"))
    work.questions(place / "out", place / "q", place / "base", count=400)
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
    refused(lambda: work.questions("out", "q", "base"), "exists already")


def test_pictures_that_were_published_are_refused(place: Path):
    refused(lambda: work.questions("out", "q2", "in"), r"30 of its pictures are among the published")
    refused(lambda: work.questions("out", "q2", "out"), r"are among the published")
    assert not (place / "q2").exists()


def test_judge_reveal_and_check_elsewhere(place: Path, tmp_path: Path):
    answers = answered(place / "them.csv", knowing(place).argmax(1))
    judged = work.judge_answers("out", answers)
    assert judged.verdict.evidence and judged.standing == {"them": True} and judged.verdict.p < 1e-3
    disclosed = work.reveal("out", "shown.json")
    assert not disclosed.opened.wrong() and "coins" not in disclosed.opened.keys
    away = tmp_path / "away"
    away.mkdir()
    for name in ("shown.json", "them.csv", "out/PROTECTED.md"):
        (away / Path(name).name).write_bytes((place / name).read_bytes())
    checked = work.check_disclosure(away / "shown.json", away / "them.csv", notice=away / "PROTECTED.md")
    assert checked.same and checked.published and checked.verdict.p == judged.verdict.p
    lines = (away / "them.csv").read_text().splitlines()
    lines[6] = "5,bar" if lines[6] != "5,bar" else "5,disc"
    (away / "them.csv").write_text("\n".join(lines))
    refused(lambda: work.check_disclosure(away / "shown.json", away / "them.csv"), "not the answers")


@pytest.mark.parametrize("change", ["strength", "keys", "commitment", "leaves", "notice"])
def test_a_disclosure_that_was_changed_is_told(place: Path, change: str):
    answered(place / "them.csv", knowing(place).argmax(1))
    work.judge_answers("out", "them.csv")
    work.reveal("out", "shown.json")
    content = json.loads(Path("shown.json").read_text())
    opened, notice = content["opened"], "out"
    if change == "strength":
        opened["parameters"]["strength"] = 5
    elif change == "keys":
        opened["keys"]["3/0"] = opened["keys"]["4/0"]
    elif change == "commitment":
        content["commitment"] = "0" * 64
    elif change == "leaves":
        opened["leaves"] = opened["leaves"][:-1]
    else:
        notice = str(answered(place / "other.md", blind(place)))
    Path("shown.json").write_text(json.dumps(content))
    ended = CliRunner().invoke(app, ["trace", "check", "shown.json", "--answers", "them.csv", "--notice", notice])
    assert isinstance(ended.exception, work.Mismatch) and ended.exception.code == 3


def test_a_sequential_judgement_keeps_keys_secret(place: Path):
    rows = [f"{i}," + ",".join(map(repr, row)) for i, row in enumerate(knowing(place).tolist())]
    Path("them.csv").write_text("\n".join(["question," + ",".join(CLASSES), *rows]))
    judged = work.judge_answers("out", "them.csv", sequential=True)
    used = judged.verdict.used
    assert judged.verdict.evidence and used and len(used) < 10
    disclosed = work.reveal("out", "shown.json")
    assert set(disclosed.opened.keys) == set(used)
    own = Secret.load(place / "out.private" / "trace.json").opened
    assert not any(key in Path("shown.json").read_text() for name, key in own.keys.items() if name not in used)
    assert work.check_disclosure("shown.json", "them.csv", notice="out").same


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
    assert work.judge_answers("out", "more.csv", rehearsal=True).suspect == "more"


def test_nothing_is_revealed_before_anybody_was_judged(place: Path):
    refused(lambda: work.reveal("out", "shown.json"), "burns the keys")
    assert not Path("shown.json").exists()


def test_lists_are_stated_before_they_are_asked(place: Path):
    answered(place / "them.csv", knowing(place).argmax(1))
    work.questions("out", "second", "base", count=400, seed=1)
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
    more = work.judge_weights("out", "net.safetensors", "small-cnn:width=4", gradient=True, direct=True, **options)
    assert {"gradient", "blind", "direct"} <= set(more.verdict.further) and more.verdict.test == "two stages"
    refused(lambda: work.judge_weights("out", "net.safetensors", "small-cnn:width=8", **options), "width=8")
    for file in ("q/questions.csv", "none.pt"):
        refused(
            lambda file=file: work.judge_weights("out", file, "small-cnn:width=4", **options), "no weights|more than"
        )


def test_weights_of_a_plain_network_are_read(place: Path):
    Path("theirs.py").write_text(THEIRS)
    from miue.core.spelling import UserFile

    with torch.random.fork_rng():
        plain = UserFile.read("theirs.py", "net").load().Net(10, (3, 16, 16))
    torch.save(plain.state_dict(), "plain.pt")
    pictures = shown(place / "q")
    with torch.no_grad():
        labels = torch.cat([plain(part.float() / 255) for part in pictures.split(64)]).argmax(1)
    by_file = work.judge_answers("out", answered(place / "them.csv", labels), rehearsal=True)
    by_weights = work.judge_weights("out", "plain.pt", "theirs.py:Net", asked="q", rehearsal=True, labels_only=True)
    assert by_weights.verdict.answers == by_file.verdict.answers


def test_a_set_without_a_trace_is_told(place: Path):
    carry_out(Job(source="in", out=Path("plain"), method="noise"), Run(device_name="cpu"))
    refused(lambda: work.questions("plain", "q3", "base"), "carries no trace")


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
    assert "10 keys are shown" in call(app, ["trace", "reveal", "out", "shown.json"]).output
    assert "the same as disclosed" in call(app, ["trace", "check", "shown.json", "--answers", "them.csv"]).output
