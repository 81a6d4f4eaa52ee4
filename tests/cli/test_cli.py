"""The verbs: what they print, what they refuse and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from miue import mi
from miue.analysis.records import Analysis
from miue.attacks import KNOWN
from miue.cli import catalogue, listing, show
from miue.cli import main as cli
from miue.core.method import facts
from miue.core.run import Run
from miue.defenses import KNOWN as DEFENSES
from miue.evaluation.records import Judgement, Outcome
from miue.nets import list_networks
from miue.victims.recipes import RECIPES
from miue.workflows import demo
from miue.workflows import protect as jobs
from miue.workflows.job import Job
from miue.workflows.record import RunRecord
from pictures import coloured, hashes, listed

ATTACK = "mi-ue:surrogate=small-cnn:width=4,epochs=2,steps=2,step_size=2.0"
RECIPE = "quick:net=small-cnn:width=4,epochs=8,batch=8"
VERBS = sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands)  # type: ignore


class Ended(NamedTuple):
    code: int | str | None
    out: str
    err: str


Miue = Callable[..., Ended]


@pytest.fixture
def miue(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Miue]:
    """The command, in this process."""
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["miue", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(ended.value.code or 0, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, in a place of its own."""
    monkeypatch.chdir(tmp_path)
    return coloured(tmp_path / "in")


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with pictures and their protected copy, for tests that change neither."""
    place = tmp_path_factory.mktemp("protected")
    coloured(place / "test", seed=1)
    job = Job(source=str(coloured(place / "in")), out=place / "out", method="noise", canvas=8)
    jobs.carry_out(job, Run(device_name="cpu"))
    return place


# --- help ---


def test_the_verbs():
    verbs = {
        "protect",
        "evaluate",
        "detect",
        "analyze",
        "verify",
        "preview",
        "shapes",
        "demo",
        "doctor",
        "attacks",
        "defenses",
        "grid",
    }
    assert verbs <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help(miue: Miue, verb: str):
    ended = miue(verb, "--help")
    assert ended.code == 0 and ended.err == "" and f" {verb} " in ended.out.split("Usage:")[1].splitlines()[0]


def test_no_arguments_show_what_there_is(miue: Miue):
    ended = miue()
    assert all(verb in ended.out + ended.err for verb in VERBS)


# --- the whole way ---


def test_protect_verify_evaluate_preview(miue: Miue, folder: Path, tmp_path: Path):
    test = coloured(tmp_path / "test", seed=1)
    ended = miue("protect", "in", "out", "--attack", ATTACK, "--canvas", 8, "--device", "cpu", "--json")
    assert ended.code == 0
    record = json.loads(ended.out)
    assert record["status"] == "finished" and record["settings"]["canvas"] == 8
    assert record["written"]["counts"] == {"protected": 12} and 0 < record["written"]["worst"] <= 8
    ended = miue("verify", "out", "--clean", "in")
    assert ended.code == 0 and "12 checked, 0 wrong" in ended.out
    ended = miue("verify", "out", "--json")
    checked = json.loads(ended.out)
    assert ended.code == 0 and (checked["checked"], checked["wrong"]) == (12, {})
    assert len(checked["rights"]) == 12 and not any(checked["rights"].values())  # nothing is reserved
    options = ("--recipe", RECIPE, "--seeds", 1, "--device", "cpu", "--defense", "none")
    ended = miue("evaluate", "out", "--clean", "in", "--test", test, *options, "--json")
    outcome = Outcome.model_validate_json(ended.out)
    assert ended.code == (0 if outcome.verdict == "protected" else 3) and outcome.images == 12
    assert {r.role for r in outcome.runs} == {"clean", "noise", "protected"}
    ended = miue("preview", "out", "--clean", "in", "--to", "seen.png", "-n", 2)
    assert ended.code == 0 and "seen.png" in ended.out
    with Image.open("seen.png") as picture:
        assert picture.format == "PNG" and picture.width > 3 * 8 and picture.height > 2 * 8
    before = hashes(Path("seen.png").parent / "out")
    assert miue("preview", "out", "--clean", "in", "--to", "seen.png").code == 2
    assert hashes(tmp_path / "out") == before


def test_what_protect_says(miue: Miue, folder: Path):
    ended = miue("protect", "in", "out", "--attack", "noise")
    assert ended.code == 0
    assert "12 pictures protected in out" in ended.out and "largest change 8 grey levels" in ended.out
    assert "PSNR at least" in ended.out and "out.private private" in ended.out
    assert "does not prevent it" in ended.out and "miue evaluate out --clean in" in ended.out


def test_pictures_that_did_not_change_are_told_even_if_quiet(miue: Miue, folder: Path):
    ended = miue("protect", "in", "out", "--attack", "noise", "--budget", "l2:0.0001", "--quiet")
    assert "NOT changed, as clean in the output as before: 12 pictures" in ended.out
    assert "NOT changed" not in miue("protect", "in", "other", "--attack", "noise").out


def test_quiet_says_less(miue: Miue, folder: Path):
    assert miue("protect", "in", "out", "--attack", ATTACK, "--quiet").err == ""


def test_an_evaluation_for_people(miue: Miue, folder: Path):
    miue("protect", "in", "out", "--attack", "noise")
    options = ("--recipe", RECIPE, "--seeds", 2, "--canvas", 8, "--defense", "none")
    ended = miue("evaluate", "out", "--clean", "in", *options)
    assert ended.code == 3
    for expected in ("clean", "noise", "protected", "±", "Threshold, set before: a victim may keep 25%", "Verdict: "):
        assert expected in ended.out
    assert re.search(r"6 trainings to do.*: about \d+ second", ended.err)
    assert "3 of 12 clean pictures are held out" in ended.err
    assert "Not tested: trainers who compress, turn pictures grey, train adversarially, purify; who" in ended.out
    assert len(list(Path("out.private/outcomes").iterdir())) == 1


@pytest.mark.parametrize(
    ("recipe", "verdict"), [(RECIPE, "not protected"), (f"{RECIPE},epochs=1,lr=1e-6", "inconclusive")]
)
def test_exit_code_3_unless_protected(
    miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, verdict: str
):
    monkeypatch.chdir(protected)
    options = ("--test", "test", "--recipe", recipe, "--seeds", 1, "--defense", "none", "--json")
    ended = miue("evaluate", "out", "--clean", "in", *options)
    assert ended.code == 3 and json.loads(ended.out)["verdict"] == verdict


def test_test_pictures_that_victims_train_on(miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(protected)
    for test in ("in", "out"):
        ended = miue("evaluate", "out", "--clean", "in", "--test", test, "--recipe", RECIPE, "--seeds", 1)
        assert ended.code == 2 and "12 of its 12 test pictures are among those that victims train on" in ended.err
        ended = miue(
            "evaluate", "out", "--clean", "in", "--test", test, "--recipe", RECIPE, "--channel", "jpeg:quality=75"
        )
        assert ended.code == 2 and "12 of its 12 test pictures" in ended.err  # although none of them is the same now


def test_a_few_test_pictures_that_victims_train_on_are_told(
    miue: Miue, protected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where a channel makes other pictures of those that are trained on."""
    monkeypatch.chdir(protected)
    test = coloured(tmp_path / "test", seed=1)
    (test / "red" / "0.png").write_bytes((protected / "in" / "red" / "0.png").read_bytes())
    for channel in ((), ("--channel", "jpeg:quality=75")):
        options = ("--recipe", f"{RECIPE},epochs=1", "--seeds", 1, "--defense", "none", *channel)
        ended = miue("evaluate", "out", "--clean", "in", "--test", test, *options)
        assert ended.out.count("1 of 12 test pictures are training pictures, too") == 1
        assert ("went through jpeg:quality=75" in ended.out) == bool(channel)


def test_every_victim_is_known_before_the_first_one_trains(
    miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(protected)
    monkeypatch.setattr("miue.evaluation.victim.watched_fit", lambda *a, **k: pytest.fail("a victim was trained"))
    options = ("--victim", "small-cnn:width=2", "--victim", "resnet19", "--recipe", RECIPE)
    assert "net 'resnet19' is unknown" in miue("evaluate", "out", "--clean", "in", *options).err


def test_another_network_as_victim(miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(protected)
    victims = ("--victim", "small-cnn:width=2", "--victim", "small-resnet:width=2")
    options = ("--recipe", "quick:epochs=1", *victims, "--seeds", 1, "--defense", "none", "--json")
    ended = miue("evaluate", "out", "--clean", "in", *options)
    assert {r["victim"] for r in json.loads(ended.out)["runs"]} == {"small-cnn:width=2", "small-resnet:width=2"}


def test_the_cheap_counter_measures_are_tried_unless_plain_training_is_asked_for(
    miue: Miue, protected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The verdict says against what; what breaks it stands first."""
    monkeypatch.chdir(protected)
    many = coloured(tmp_path / "test", per_class=20, seed=1)  # with 12 pictures, an early epoch may pass for the best
    options = ("--test", many, "--recipe", RECIPE, "--seeds", 1)
    ended = miue("evaluate", "out", "--clean", "in", *options)
    assert "trainings to do" in ended.err and "--defense none: plain training alone" in ended.err
    outcome = Outcome.model_validate_json(miue("evaluate", "out", "--clean", "in", *options, "--json").out)
    assert list(dict.fromkeys(j.trainer for j in outcome.judgements)) == ["plain training", "gray", "jpeg:quality=75"]
    verdict = "Verdict: NOT PROTECTED against plain training, jpeg:quality=75; inconclusive against gray."
    assert verdict in ended.out  # the classes are colours, so nobody learns them in grey
    plain = miue("evaluate", "out", "--clean", "in", *options, "--defense", "none")
    assert "Verdict: NOT PROTECTED against plain training." in plain.out and "trainings to do" not in plain.err


def test_what_the_verdict_says(capsys: pytest.CaptureFixture[str]):
    def told(**verdicts: str) -> str:
        judgements = [
            Judgement(victim=name, trainer=name, early=early, verdict=verdict, kept=0.1, reason="")  # type: ignore[arg-type]
            for name, verdict in verdicts.items()
            for early in (False, True)
        ]
        worst = next(v for v in ("not protected", "inconclusive", "protected") if v in verdicts.values())
        return show._verdict(Outcome.model_construct(judgements=judgements, verdict=worst))

    assert told(plain="protected", gray="protected") == "PROTECTED against plain, gray, also stopped early."
    assert told(plain="protected", gray="not protected") == "NOT PROTECTED against gray; protected against plain."
    assert told(plain="protected", gray="inconclusive") == "INCONCLUSIVE against gray; protected against plain."


def test_defended_victims(miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch):
    """Each defense for every victim, beside the undefended ones; every one with its controls."""
    monkeypatch.chdir(protected)
    options = (
        "--recipe",
        f"{RECIPE},epochs=1",
        "--seeds",
        1,
        "--defense",
        "gray+jpeg:quality=30",
        "--defense",
        "cutout",
    )
    ended = miue("evaluate", "out", "--clean", "in", *options, "--json")
    runs = json.loads(ended.out)["runs"]
    assert [r["defense"] for r in runs] == [""] * 3 + ["gray+jpeg:quality=30"] * 3 + ["cutout"] * 3
    assert [r["role"] for r in runs] == ["clean", "noise", "protected"] * 3
    ended = miue("evaluate", "out", "--clean", "in", *options)
    assert "+ cutout" in ended.out and "Not tested: trainers who defend themselves in other ways" in ended.out
    told = " ".join(ended.out.split())
    assert told.count("start from a trained network; who have clean copies (docs/limits.md)") == 1
    ended = miue("evaluate", "out", "--clean", "in", *options[:4], "--defense", "tune:clean=test,epochs=1")
    assert "start from a trained network (docs/limits.md)" in " ".join(ended.out.split())
    refused(
        miue("evaluate", "out", "--clean", "in", *options[:4], "--defense", "tune:clean=in", "--quiet"),
        "test pictures are among those that a defense learns from",
    )
    ended = miue("evaluate", "out", "--clean", "in", "--defense", "jpg", "--quiet")
    assert ended.code == 2 and "defense 'jpg' is unknown; allowed: at," in ended.err


def test_defenses_are_listed(miue: Miue):
    found = {row["name"]: row for row in json.loads(miue("defenses", "--json").out)}
    assert found["gray"]["slot"] == "purify" and "2301.13838" in found["jpeg"]["reference"] and len(found) > 15
    assert "ueraser" in miue("defenses").out


def test_the_same_protect_again_is_a_no_op(miue: Miue, folder: Path):
    first = miue("protect", "in", "out", "--attack", ATTACK, "--canvas", 8)
    before, times = hashes(Path("out")), {p: p.stat().st_mtime_ns for p in Path("out").rglob("*.png")}
    again = miue("protect", "in", "out", "--attack", ATTACK, "--canvas", 8)
    assert first.code == again.code == 0
    assert hashes(Path("out")) == before and {p: p.stat().st_mtime_ns for p in times} == times


def test_embedded_digits(miue: Miue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sklearn.datasets.load_digits", _few(__import__("sklearn.datasets").datasets.load_digits()))
    assert miue("protect", "digits", "out", "--attack", "noise", "--quiet").code == 0
    assert miue("verify", "out", "--clean", "digits").code == 0


def _few(digits):
    digits.images, digits.target = digits.images[:60], digits.target[:60]
    return lambda: digits


def test_shapes_become_a_folder(miue: Miue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert miue("shapes", "drawn", "--per-class", 1, "--size", 16, "--split", "test").code == 0
    assert len(list(Path("drawn").rglob("*.png"))) == 10
    assert miue("shapes", "small", "--size", 4).code == 2 and not Path("small").exists()


def test_the_demo(miue: Miue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "PER_CLASS", 3)
    monkeypatch.setattr(demo, "TEST_PER_CLASS", 2)
    monkeypatch.setattr(demo, "ATTACK", ATTACK)
    monkeypatch.setattr(demo, "RECIPE", "quick:net=small-cnn:width=4,epochs=1")
    ended = miue("demo", "here", "--json")
    assert ended.code == 3 and Outcome.model_validate_json(ended.out).verdict == "inconclusive"
    assert {p.name for p in Path("here").iterdir()} >= {"shapes", "protected", "protected.private"}
    before = hashes(Path("here/protected"))
    assert miue("demo", "here", "--quiet", "--json").code == 3 and hashes(Path("here/protected")) == before


@pytest.mark.parametrize(
    "verb, key, names",
    [
        ("recipes", "recipe", RECIPES),
        ("networks", "network", list_networks()),
        ("estimators", "estimator", mi.KNOWN),
        ("defenses", "name", DEFENSES),
    ],
)
def test_what_there_is_to_choose_from(miue: Miue, verb: str, key: str, names: Iterable[str]):
    lines = json.loads(miue(verb, "--json").out)
    assert [line[key] for line in lines] == list(names)
    table = miue(verb)
    assert table.code == 0 and all(value for line in lines for value in line.values())
    assert {line[key] for line in lines} <= set(table.out.split())


OWN = """
import torch


class Net(torch.nn.Module):
    def __init__(self, classes, image_shape):
        super().__init__()
        self.body = torch.nn.Conv2d(image_shape[0], 4, 3, 2)
        self.fc = torch.nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.body(x).relu().mean((2, 3)))
"""


def test_a_network_of_ones_own_is_surrogate_and_victim(miue: Miue, folder: Path):
    Path("mine.py").write_text(OWN)
    own = "mi-ue:surrogate=mine.py:Net,epochs=1,steps=1,step_size=2.0"
    assert miue("protect", folder, "out", "--attack", own, "--quiet").code == 0
    record = RunRecord.of(Path("out")).settings
    assert "surrogate=mine.py:Net" in record.attack and len(record.code) == 17
    assert miue("protect", folder, "out", "--attack", own, "--quiet").code == 0  # the same again
    asked = ("--clean", folder, "--recipe", "quick:epochs=1,batch=8", "--quiet", "--json", "--defense", "none")
    ended = miue("evaluate", "out", *asked, "--victim", "mine.py:Net", "--seeds", 1)
    assert ended.code == 3
    outcome = Outcome.model_validate_json(ended.out)
    assert {run.victim for run in outcome.runs} == {"mine.py:Net"}
    assert len(outcome.recipe["mine.py:Net"]["net_code"]) == 16
    named = miue("evaluate", "out", "--clean", folder, "--recipe", "quick:net=mine.py:Net,epochs=1,batch=8", *asked[4:])
    assert [run.last for run in Outcome.model_validate_json(named.out).runs][:3] == [run.last for run in outcome.runs]
    victims = set(Path("out.private/victims").iterdir())
    Path("mine.py").write_text(OWN.replace("relu", "tanh"))  # another network: nothing old is taken
    assert miue("evaluate", "out", *asked, "--victim", "mine.py:Net", "--seeds", 1).code == 3
    assert len(set(Path("out.private/victims").iterdir()) - victims) >= 3
    refused = miue("protect", folder, "out", "--attack", own, "--quiet")
    assert refused.code == 2 and refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "net", "told"),
    [
        (None, "mine.py:Net", "net file mine.py does not exist"),
        ("import nothing_like_it", "mine.py:Net", "mine.py does not load: ModuleNotFoundError"),
        (OWN, "mine.py:Nets", "there is no 'Nets' in the file; in it are: Net"),
        (OWN, "mine.py", "in it are: Net"),
        ("Net = 3", "mine.py:Net", "Net is an int, not a class or function"),
        (OWN.replace(", image_shape)", ")"), "mine.py:Net", "got an unexpected keyword argument 'image_shape'"),
        (OWN.replace("Linear(4, classes)", "Linear(4, 9)"), "mine.py:Net", "gives (2, 9); 2 pictures of"),
    ],
)
def test_a_broken_network_is_one_message(
    miue: Miue,
    protected: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str | None,
    net: str,
    told: str,
):
    monkeypatch.chdir(tmp_path)
    if source:
        Path("mine.py").write_text(source)
    asked = ("evaluate", protected / "out", "--clean", protected / "in", "--quiet")
    for ended in (
        miue(*asked, "--victim", net),
        miue(*asked, "--recipe", f"quick:net={net}"),
        miue("protect", protected / "in", "new", "--attack", f"em:surrogate={net}", "--quiet"),
    ):
        assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1
    assert not Path("new").exists()


def test_the_doctor(miue: Miue):
    ended = miue("doctor", "--json")
    checks = {c["what"]: c for c in json.loads(ended.out)["checks"]}
    assert checks["torch"]["ok"] and "PNG" in checks and "device cpu" in checks
    assert re.match("usable|not usable; pip install", checks["content credentials"]["found"])
    assert ended.code == (0 if all(c["ok"] for c in checks.values()) else 3)
    assert "torch and torchvision: " in miue("doctor").out


@pytest.mark.slow
@pytest.mark.parametrize(
    "package, code, what",
    [
        ("torchvision", 'raise RuntimeError("operator torchvision::nms does not exist")', "torch and torchvision"),
        (
            "torchvision",
            'raise ImportError("libcudart.so.13: cannot open")',
            "torch and torchvision",
        ),
        ("torchvision", "raise ModuleNotFoundError(\"No module named 'torchvision'\")", "torch and torchvision"),
        ("torchvision", 'raise AttributeError("partially initialized")', "torch and torchvision"),
        ("lightning_fabric", "raise ImportError(\"cannot import name 'x'\")", "several processes"),
        ("lightning_fabric", "raise AttributeError", "several processes"),
        ("torch", 'raise OSError("libcudart.so.13: cannot open shared object file")', "torch"),
        ("numpy", 'raise ImportError("numpy.core.multiarray failed to import")', "numpy"),
        ("PIL", 'raise ImportError("libwebp.so.7: cannot open shared object file")', "pillow"),
    ],
)
def test_the_doctor_names_a_broken_package(tmp_path: Path, package: str, code: str, what: str):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(code)
    told = doctor(tmp_path)
    (line,) = (line for line in told if line.startswith(f"BAD  {what}: "))
    assert "pip install --force-reinstall" in line and any(line.startswith("ok   free space") for line in told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "what"), [("torchvision", "torch and torchvision"), ("lightning_fabric", "several processes")]
)
def test_the_doctor_names_a_package_that_is_not_there(tmp_path: Path, package: str, what: str):
    """Neither its module nor its metadata can be found, as where nobody installed it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib import metadata\n"
        "version = metadata.version\n"
        "def without(name):\n"
        f"    if name.replace('-', '_') == {package!r}:\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        f"metadata.version, sys.modules[{package!r}] = without, None\n"
    )
    told = doctor(tmp_path)
    assert f"BAD  {package.replace('_', '-')}: not installed; install miue again" in told
    (line,) = (line for line in told if line.startswith(f"BAD  {what}: "))
    assert "pip install --force-reinstall" in line and any(line.startswith("ok   torch: ") for line in told)


def doctor(first: Path) -> list[str]:
    """The lines of `miue doctor` in a process that looks for modules in this folder first, and ends in code 3."""
    path = os.pathsep.join([str(first), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "miue.cli.main", "doctor"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 3 and "Traceback" not in ended.stderr, ended
    return ended.stdout.splitlines()


# --- exit codes ---


def refused(ended: Ended, *told: str) -> None:
    """Exit code 2, one line of at most a few sentences on stderr, no traceback, nothing on stdout."""
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err and ended.out == ""
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert ended.err.startswith("miue: ")
    for text in told:
        assert text in ended.err, ended.err


def test_protect_says_what_was_measured_of_its_attack(miue: Miue, folder: Path, tmp_path: Path, monkeypatch):
    file = tmp_path / "measured.json"
    figures = [
        {"who": "trainers", "set": "9 pictures", "kept": {"gray": 0.2, "no defense": 0.1, "at:eps=4": 0.9}},
        {"who": "other networks", "set": "8 pictures", "kept": {f"mlp{i}": 1 + i / 100 for i in range(8)}},
    ]
    file.write_text(json.dumps({ATTACK: figures}))
    monkeypatch.setattr(catalogue, "MEASURED", file)
    told = miue("protect", folder, tmp_path / "out", "--attack", ATTACK, "-q").out
    taught = "Of what clean pictures teach,"
    rest = "mlp6 (106%), mlp5 (105%), mlp4 (104%), mlp3 (103%), mlp2 (102%), 2 others (docs/limits.md)"
    both = "at most 25% with: no defense, gray; more with: at:eps=4 (90%)."
    assert f"{taught} trainers kept on 9 pictures {both}\n" in told
    assert (
        f"{taught} other networks kept on 8 pictures more with: mlp7 (107%), {rest}.\nYour pictures may differ" in told
    )
    other = miue("protect", folder, tmp_path / "other", "--attack", ATTACK, "--budget", "6", "-q").out
    assert taught not in other
    otherwise = "mi-ue:step_size=2.0,steps=2,epochs=2,surrogate=small-cnn:width=4"  # the same attack
    file.write_text(json.dumps({otherwise: figures[:1]}))
    assert both in miue("protect", folder, tmp_path / "third", "--attack", ATTACK, "-q").out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--attack", "mi"], ["attack 'mi' is unknown", "mi-ue, noise"]),
        (["--attack", "mi-ue:fast"], ["'fast' is neither a preset", "paper"]),
        (["--attack", "mi-ue:epoch=3"], ["no field 'epoch'", "epochs"]),
        (["--attack", "mi-ue:epochs=x"], ["epochs=x is not a int"]),
        (["--attack", "nowhere.py:Theirs"], ["nowhere.py does not exist"]),
        (["--attack", "mi-ue:surrogate=bignet"], ["net 'bignet' is unknown", "resnet18"]),
        (["--attack", "noise", "--budget", "0"], ["budget of 0"]),
        (["--attack", "noise", "--budget", "much"], ["budget 'much' is not understood", "8/255"]),
        (["--attack", "mi-ue:quick", "--budget", "l2:1"], ["cannot keep", "l2", "linf"]),
        (["--attack", "noise", "--canvas", "4"], ["canvas of 4"]),
        (["--attack", "noise", "--device", "tpu"], ["device 'tpu' is unknown", "auto, cpu, cuda, mps"]),
        (["--attack", "noise", "--format", "jpeg"], ["'jpeg' is not lossless", "png, webp"]),
        (["--attack", "noise", "--frames", "all"], ["frames 'all' is unknown", "refuse, first"]),
        (["--attack", "noise", "--processes", "0"], ["0 processes"]),
        (["--attack", "noise", "--split", "train"], ["split"]),
        (["--config", "none.toml"], ["none.toml"]),
    ],
)
def test_wrong_values_for_protect(miue: Miue, folder: Path, options: list[str], told: list[str]):
    refused(miue("protect", "in", "out", *options, "--quiet"), *told)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--recipe", "fastest"], ["recipe 'fastest' is unknown", "quick"]),
        (["--recipe", "quick:rate=1"], ["no field 'rate'"]),
        (["--recipe", RECIPE, "--victim", "bignet"], ["net 'bignet' is unknown"]),
        (["--recipe", RECIPE, "--seeds", "0"], ["0 seeds"]),
        (["--recipe", RECIPE, "--threshold", "2"], ["threshold 2"]),
        (["--recipe", RECIPE, "--channel", "jpeg"], ["channel 'jpeg'", "jpeg:quality=75"]),
        (["--recipe", RECIPE, "--test", "nowhere"], ["nowhere"]),
        (["--recipe", RECIPE, "--device", "tpu"], ["device 'tpu' is unknown"]),
    ],
)
def test_wrong_values_for_evaluate(
    miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: list[str]
):
    monkeypatch.chdir(protected)
    refused(miue("evaluate", "out", "--clean", "in", *options, "--quiet"), *told)


@pytest.mark.parametrize(
    "arguments",
    [
        ("protect", "nowhere", "out"),
        ("protect", "in/red/0.png", "out"),
        ("evaluate", "out", "--clean", "in"),
        ("evaluate", "in", "--clean", "in"),
        ("verify", "nowhere"),
        ("verify", "in"),
        ("preview", "nowhere", "--clean", "in"),
    ],
)
def test_wrong_paths(miue: Miue, folder: Path, arguments: tuple[str, ...]):
    before = hashes(folder)
    refused(miue(*arguments))
    assert hashes(folder) == before and not Path("out").exists()


@pytest.mark.parametrize(
    "arguments",
    [("protect", "in"), ("protect", "in", "out", "--seed", "x"), ("protect", "in", "out", "--nothing"), ("fly",)],
)
def test_mistakes_that_the_parser_finds(miue: Miue, folder: Path, arguments: tuple[str, ...]):
    ended = miue(*arguments)
    assert ended.code == 2 and "Traceback" not in ended.err and ended.err and ended.out == ""


def test_the_input_is_never_the_output(miue: Miue, folder: Path):
    before = hashes(folder)
    for out in ("in", "in/sub", "./in/../in", ".", "..", "/"):
        refused(miue("protect", "in", out, "--attack", "noise"))
    assert hashes(folder) == before and listed(folder.parent) == sorted(["in", *(f"in/{p}" for p in listed(folder))])


def test_a_foreign_output_is_refused(miue: Miue, folder: Path):
    Path("out").mkdir()
    Path("out/diary.txt").write_text("mine")
    for more in ((), ("--overwrite",), ("--dry-run",)):
        refused(miue("protect", "in", "out", "--attack", "noise", *more), "out")
    assert listed(Path("out")) == ["diary.txt"] and Path("out/diary.txt").read_text() == "mine"


def test_exit_code_1_where_an_input_was_skipped(miue: Miue, folder: Path):
    (folder / "red" / "broken.png").write_bytes(b"")
    ended = miue("protect", "in", "out", "--attack", "noise", "--canvas", 8)
    assert ended.code == 1
    assert "12 pictures protected" in ended.out and "NOT protected, not in the output: 1" in ended.out
    assert not Path("out/red/broken.png").exists()


def test_what_can_be_known_is_refused_before_the_attack_runs(miue: Miue, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "_perturbation", lambda *a: pytest.fail("the attack ran"))
    for more in ((), ("--dry-run",)):
        refused(miue("protect", "in", "out", "--attack", "lsp", "--canvas", 16, *more), "size of the noise grid")
        refused(miue("protect", "in", "out", "--attack", "noise", "--canvas", 100_000, *more), "8 to 1024")
        refused(miue("protect", "in", "in/out", "--attack", "noise", *more), "in the input")
    assert not Path("out.private").exists()


def test_the_next_command_can_be_pasted(miue: Miue, folder: Path):
    folder.parent.joinpath("my sets").mkdir()
    folder.rename("my sets/train")
    ended = miue("protect", "my sets", "my out", "--split", "train", "--attack", "noise", "--canvas", 8)
    assert "Next: miue evaluate 'my out' --clean 'my sets' --split train\n" in ended.out
    assert "note: " not in miue("protect", "my sets/train", "other", "--attack", "lsp", "--quiet").out


def test_a_preview_lies_in_no_set(miue: Miue, folder: Path):
    miue("protect", "in", "out", "--attack", "noise", "--canvas", 8)
    for to in ("out/preview.png", "in/red/preview.png"):
        refused(miue("preview", "out", "--clean", "in", "--to", to), "it shows clean pictures")


def test_shapes_are_not_drawn_in_vain(miue: Miue, folder: Path, monkeypatch: pytest.MonkeyPatch):
    refused(miue("shapes", "new", "--split", "trian"), "there is no split 'trian'", "train, test")
    Path(".new.part").mkdir()
    assert miue("shapes", "new", "--per-class", 1).code == 0 and Path(".new.part").is_dir()
    monkeypatch.setattr("miue.data.shapes", lambda *a: pytest.fail("drawn"))
    refused(miue("shapes", "new"), "exists already")


def test_exit_code_3_after_a_file_was_changed(miue: Miue, folder: Path):
    miue("protect", "in", "out", "--attack", "noise", "--canvas", 8)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("out/red/0.png")
    ended = miue("verify", "out", "--json")
    assert ended.code == 3 and set(json.loads(ended.out)["wrong"]) == {"red/0.png"}
    ended = miue("verify", "out", "--clean", "in")
    assert ended.code == 3 and "red/0.png: " in ended.out and "leaves the budget" in ended.out


def test_interrupted_and_out_of_space(miue: Miue, folder: Path, monkeypatch: pytest.MonkeyPatch):
    for error, code, told in (
        (KeyboardInterrupt(), 130, "the same command goes on"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (OSError(30, "Read-only file system"), 2, "Read-only file system"),
    ):

        def fails(*a, error=error, **o):
            raise error

        monkeypatch.setattr(jobs, "_perturbation", fails)
        ended = miue("protect", "in", "out", "--attack", "noise", "--quiet")
        assert ended.code == code and told in ended.err and "Traceback" not in ended.err
    monkeypatch.undo()


# --- the list of attacks ---


def test_the_list_of_attacks(miue: Miue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "Console", partial(Console, width=80))
    ended = miue("attacks")
    assert ended.code == 0
    for name, of in facts(KNOWN).items():
        (line,) = (line for line in ended.out.splitlines() if line.startswith(f"{name} "))
        assert str(of.year) in line and f" {of.passes} " in line and of.needs in line
    assert max(map(len, ended.out.splitlines())) <= 80
    told = json.loads(miue("attacks", "--json").out)
    assert sorted(told) == sorted([*KNOWN, "rem:sem"])
    assert told["ops"]["natural"] == {"eps": 1, "norm": "l0"} and told["mi-ue"]["needs"] == "surrogate"


def test_a_budget_that_a_method_cannot_keep(miue: Miue, folder: Path):
    refused(
        miue("protect", "in", "out", "--attack", "cuda", "--budget", "8"), "CUDA cannot keep a budget in linf", "none"
    )
    assert not Path("out").exists() and not Path("out.private").exists()
    ended = miue("protect", "in", "out", "--attack", "ops")
    assert ended.code == 0 and "budget l0:1, the method's own" in ended.err
    assert "note: 12 of 12 pictures leave the 8/255 ball" in ended.out


# --- configuration files and dry runs ---


def test_a_configuration_file_gives_defaults_and_flags_win(miue: Miue, folder: Path):
    Path("miue.toml").write_text('attack = "noise"\nbudget = "4"\ncanvas = 8\nmax-pixels = 1000000\njson = true\n')
    ended = miue("protect", "in", "out", "--config", "miue.toml")
    settings = json.loads(ended.out)["settings"]
    assert (settings["attack"], settings["budget"], settings["canvas"]) == ("noise", "linf:4", 8)
    ended = miue("protect", "in", "other", "--config", "miue.toml", "--budget", "2")
    assert json.loads(ended.out)["settings"]["budget"] == "linf:2"
    ended = miue("protect", "in", "third", "--budget", "2", "--config", "miue.toml")
    assert json.loads(ended.out)["settings"]["budget"] == "linf:2"


@pytest.mark.parametrize(
    ("content", "told"),
    [("atack = 'noise'", ["unknown key 'atack'", "attack"]), ("attack = ", ["is not TOML"]), ("\xff", ["is not TOML"])],
)
def test_wrong_configuration_files(miue: Miue, folder: Path, content: str, told: list[str]):
    Path("miue.toml").write_bytes(content.encode("latin-1"))
    refused(miue("protect", "in", "out", "--config", "miue.toml"), "miue.toml", *told)
    assert not Path("out").exists()


@pytest.mark.parametrize("attack", ["noise", ATTACK])
def test_a_dry_run_writes_nothing(miue: Miue, folder: Path, attack: str):
    before = listed(folder.parent)
    ended = miue("protect", "in", "out", "--attack", attack, "--dry-run")
    assert ended.code == 0 and "nothing was written" in ended.out and "red: 4" in ended.out
    ended = miue("protect", "in", "out", "--attack", attack, "--dry-run", "--json")
    plan = json.loads(ended.out)
    assert plan["classes"] == {"blue": 4, "green": 4, "red": 4} and plan["seconds"] >= 0 and plan["private"]
    assert listed(folder.parent) == before


# --- as a process ---


@pytest.mark.slow
def test_as_a_process_of_its_own(folder: Path):
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "miue.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    ended = call("protect", "in", "out", "--attack", "noise", "--json")
    assert ended.returncode == 0 and json.loads(ended.stdout)["status"] == "finished"
    ended = call("protect", "nowhere", "other")
    assert ended.returncode == 2 and ended.stderr.startswith("miue: ") and ended.stderr.count("\n") == 1


# --- analyses ---

ANALYSE = ("--recipe", f"{RECIPE},epochs=2", "--seeds", 1, "--device", "cpu", "--canvas", 8)
ESTIMATORS = ("--estimator", "ksg", "--estimator", "sliced:slices=4")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with pictures and two protected copies, one of them by an attack with a surrogate."""
    place = tmp_path_factory.mktemp("two")
    coloured(place / "test", seed=1)
    source = str(coloured(place / "in", per_class=18))
    for name, method in (("flat", "noise"), ("made", ATTACK)):
        jobs.carry_out(Job(source=source, out=place / name, method=method, canvas=8), Run(device_name="cpu"))
    return place


def test_an_analysis(miue: Miue, two: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(two)
    before = hashes(two / "made") | hashes(two / "flat")
    arguments = ("analyze", "made", "flat", "--clean", "in", "--test", "test", *ANALYSE, *ESTIMATORS)
    ended = miue(*arguments, "--json", "--figures", "drawn")
    found = Analysis.model_validate_json(ended.out)
    assert ended.code == 0 and found.names == ["clean pictures", "random noise", "made", "flat"]
    assert found.runs[2].method == ATTACK and found.estimators == ["ksg", "sliced:slices=4"] and found.rows == 54
    assert [trace.name for trace in found.generation] == ["made"] and len(found.generation[0].cosine) == 2
    assert sorted(p.name for p in Path("drawn").iterdir()) == [
        f"{name}.svg" for name in ("accuracy", "crossed", "depth", "generation", "plane")
    ]
    assert "made" in Path("drawn/depth.svg").read_text() and "not in generation.svg: flat" in ended.err
    assert hashes(two / "made") | hashes(two / "flat") == before
    assert len(list((two / "made.private/analyses").iterdir())) == 1
    ended = miue(*arguments, "--quiet")
    assert ended.code == 0 and ended.err == ""
    for expected in (
        "made",
        "flat",
        "random noise",
        "by depth, ksg, n = 54",
        "crossed control",
        "interaction",
        "s: saturated",
        "shuffled in class",
        "standard error",
        "ceiling",
        "calibration",
        "theory on made",
    ):
        assert expected in ended.out, expected
    assert "MI gap and accuracy gap" not in ended.out and "No rank correlation" in ended.out
    assert "note: one seed only" in ended.out


def test_an_analysis_of_one_output_holds_out_a_part(miue: Miue, two: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(two)
    options = ("--recipe", "quick:epochs=1", "--victim", "small-cnn:width=2", "--seeds", 2, "--rows", 40)
    ended = miue("analyze", "flat", "--clean", "in", *options, "--estimator", "sliced:slices=2", "--json")
    found = json.loads(ended.out)
    assert ended.code == 0 and "9 of 54 clean pictures are held out" in ended.err
    assert found["victim"] == "small-cnn:width=2" and found["images"] == 45


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["flat", "--estimator", "kgs"], ["estimator 'kgs' is unknown", "infonce, ksg"]),
        (["flat", "--estimator", "ksg:k=0"], ["k=0"]),
        (["flat", "--rows", "10"], ["10 rows are too few"]),
        (["flat", "--seeds", "0"], ["seeds=0"]),
        (["flat", "--recipe", "fastest"], ["recipe 'fastest' is unknown"]),
        (["flat", "--victim", "bignet"], ["net 'bignet' is unknown"]),
        (["flat", "--figures", "flat/drawn"], ["a set of pictures"]),
        (["flat", "--figures", "in/red/0.png"], ["no folder"]),
        (["flat", "flat"], ["two outputs are called 'flat'"]),
        (["flat", "nowhere"], ["nowhere"]),
        (["in"], ["in"]),
    ],
)
def test_wrong_values_for_analyze(
    miue: Miue, two: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: list[str]
):
    monkeypatch.chdir(two)
    refused(miue("analyze", *arguments, "--clean", "in", "--test", "test", "--quiet"), *told)


def test_outputs_of_other_pictures_are_not_analysed(miue: Miue, two: Path, tmp_path: Path):
    other = coloured(tmp_path / "other", per_class=16, seed=3)
    refused(miue("analyze", two / "flat", "--clean", other, "--quiet"), "are not the pictures that")


def test_whether_a_trainer_would_notice(miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(protected)
    ended = miue("detect", "out", "--clean", "in")
    assert ended.code == 0 and "otice" in ended.out and "linear" in ended.out and "held-out" in ended.out
    found = json.loads(miue("detect", "out", "--clean", "in", "--json").out)
    assert found["data"] != found["reference"] and set(found["looks"]) == {"linear", "mlp2"}
    refused(miue("detect", "out", "--clean", "test"), "not the pictures")


def test_pictures_that_were_taken_by_other_rules_are_checked_by_them(miue: Miue, folder: Path):
    """What `protect` accepted, `verify`, `evaluate` and `preview` accept too."""
    frames = [Image.new("RGB", (8, 8), (40 * i, 90, 200)) for i in range(3)]
    frames[0].save(folder / "red" / "moving.gif", save_all=True, append_images=frames[1:])
    assert miue("protect", "in", "out", "--attack", "noise", "--frames", "first", "--canvas", 8).code == 0
    assert "13 checked, 0 wrong" in miue("verify", "out", "--clean", "in").out
    assert miue("preview", "out", "--clean", "in", "--to", "seen.png").code == 0
    ended = miue("evaluate", "out", "--clean", "in", "--recipe", f"{RECIPE},epochs=1", "--seeds", 1, "--json")
    assert json.loads(ended.out)["images"] == 13 - 3


def test_a_configuration_file_names_options_as_the_command_line_does(miue: Miue, protected: Path, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.chdir(protected)
    (tmp_path / "miue.toml").write_text(f'recipe = "{RECIPE},epochs=1"\nseeds = 1\ndefense = "gray"  # or a list\n')
    ended = miue("evaluate", "out", "--clean", "in", "--config", tmp_path / "miue.toml", "--json")
    assert {run["defense"] for run in json.loads(ended.out)["runs"]} == {"", "gray"}
    assert json.loads(ended.out)["recipe"]["small-cnn:width=4"]["epochs"] == 1
    (tmp_path / "miue.toml").write_text("recipe_name = 'quick'")
    wrong = miue("evaluate", "out", "--clean", "in", "--config", tmp_path / "miue.toml")
    refused(wrong, "unknown key 'recipe_name'", "recipe")


def test_figures_do_not_lie_among_pictures(miue: Miue, protected: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(protected)
    refused(miue("analyze", "out", "--clean", "in", "--figures", "in/figures"), "in/figures", "a set of pictures")
    assert not Path("in/figures").exists()


def test_a_demo_leaves_somebody_elses_preview_alone(miue: Miue, folder: Path):
    Path("demo").mkdir()
    Path("demo/preview.png").write_bytes(b"mine")
    refused(miue("demo"), "preview.png", "another folder")
    assert Path("demo/preview.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "command", [("shapes", "x", "--seed", -1), ("protect", "shapes:seed=-1", "out"), ("demo", "d", "--seed", -1)]
)
def test_seeds_below_zero(miue: Miue, folder: Path, command: tuple):
    refused(miue(*command, *(["--quiet"] if command[0] == "demo" else [])), "-1", "at least 0")


# --- what somebody holds ---


def test_report_prints_where_it_is(miue: Miue, protected: Path, tmp_path: Path):
    ended = miue("report", protected / "out", "--to", tmp_path / "page.html")
    assert ended.code == 0 and ended.out.strip() == str(tmp_path / "page.html") and (tmp_path / "page.html").is_file()
    refused = miue("report", protected / "out", "--format", "pdf")
    assert refused.code == 2 and "allowed: html, md" in refused.err
    assert miue("report", protected / "in").code == 2


def test_a_damaged_record_is_one_message(miue: Miue, protected: Path, tmp_path: Path):
    for name in ("out", "out.private"):
        shutil.copytree(protected / name, tmp_path / name)
    (tmp_path / "out.private" / "run.json").write_text("{")
    ended = miue("report", tmp_path / "out")
    assert ended.code == 2 and "run.json" in ended.err and "Traceback" not in ended.err


def test_reservations_that_came_back_lost_fail_the_check(miue: Miue, folder: Path):
    """Saved by Pillow without arguments: the noise is there, and no reservation. What lost its noise is told first."""
    assert miue("protect", folder, "out", "--attack", "noise", "--rights", "no-training", "-q").code == 0
    shutil.copytree("out", "back")
    assert miue("verify", "back", "--as-published", "out").code == 0
    for path in Path("back").rglob("*.png"):
        Image.open(path).save(path)
    last = Path("back") / "red" / "3.png"
    Image.open(last).convert("L").save(last)
    ended, lost = miue("verify", "back", "--as-published", "out"), "reservation: missing instead of DMI-PROHIBITED-"
    lines = [line for line in ended.out.splitlines() if lost in line]
    assert ended.code == 3 and lines[0].startswith("red/3.png: ")
    assert lines[1].startswith("blue/0.png: recoded, blue/0.png, 8 x 8 PNG; noise left 1.00; reservation")
    assert lines[-1] == f"{lost}AIMLTRAINING: 12 of 12 files that had one"


def test_other_rights_keep_the_texts_that_are_not_given(miue: Miue, folder: Path):
    given = ["--rights", "no-training", "--creator", "A. Photographer", "--rights-url", "https://a.example/rights"]
    assert miue("protect", folder, "out", "--attack", "noise", "-q", *given).code == 0
    ended = miue("rights", "write", "out", "--rights", "no-mining", "-q")
    assert (
        "as before: creator, A. Photographer" in ended.out and "as before: url, https://a.example/rights" in ended.out
    )
    shown = miue("rights", "show", Path("out") / "red")
    assert "0.png: DMI-PROHIBITED; creator: A. Photographer" in shown.out
    ended = miue("rights", "write", "out", "--rights", "no-mining", "--creator", "", "-q")
    assert ended.code == 0 and "creator" not in ended.out
    assert "0.png: DMI-PROHIBITED\n" in miue("rights", "show", Path("out") / "red").out
    broken = Path("out") / "red" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    shown = miue("rights", "show", Path("out") / "red")
    assert shown.code == 1 and "0.png: DMI-PROHIBITED" in shown.out and "1.png: cannot be read: " in shown.out


def test_names_cannot_write_lines_of_their_own(miue: Miue, protected: Path, tmp_path: Path):
    """A file of somebody else may be called as he likes: colours and line breaks in its name are escaped."""
    back = tmp_path / "back"
    shutil.copytree(protected / "out", back)
    name = "a\x1b[31mRED\n0 checked, 0 wrong.png"
    shutil.copy(protected / "in" / "red" / "0.png", back / "red" / name)
    shown = "a\\x1b[31mRED\\x0a0 checked, 0 wrong.png"
    for words in (["verify", back, "--as-published", protected / "out"], ["rights", "show", back / "red"]):
        ended = miue(*words)
        assert "\x1b" not in ended.out and shown in ended.out and "\n0 checked" not in ended.out
    shutil.copytree(protected / "out.private", tmp_path / "back.private")
    ended = miue("verify", back)
    assert ended.code == 3 and "\x1b" not in ended.out and f"red/{shown}: " in ended.out


def test_verify_tells_what_came_back_and_which_copies_are_clean(miue: Miue, protected: Path, tmp_path: Path):
    shutil.copytree(protected / "out", tmp_path / "back")
    same = miue("verify", tmp_path / "back", "--as-published", protected / "out")
    assert same.code == 0 and "identical" in same.out and "1.00" in same.out
    clean = miue("verify", protected / "in", "--as-published", protected / "out")
    assert clean.code == 3 and "pixel by pixel" in clean.out
    half = tmp_path / "back" / "red" / "1.png"
    half.write_bytes(half.read_bytes()[:80])
    broken = miue("verify", tmp_path / "back", "--as-published", protected / "out")
    assert broken.code == 3 and "red/1.png: is not the picture of that name, and cannot be read (" in broken.out
    half.unlink()
    half.with_suffix(".html").write_text("<html>404</html>")
    nothing = miue("verify", half.with_suffix(".html"), "--as-published", protected / "out")
    assert nothing.code == 3 and "None of these files shows a picture of" in nothing.out
    half.with_suffix(".html").unlink()
    twins = miue("verify", protected / "out", "--clean-twins", protected / "in")
    assert twins.code == 3 and "12 of them without its noise" in twins.out
    half.with_suffix(".zip").write_bytes(b"PK\3\4")
    packed = miue("verify", protected / "out", "--clean-twins", tmp_path / "back")
    assert packed.code == 0 and "1 could not be read, so clean pictures may be in them: red/1.zip (" in packed.out
    half.with_suffix(".zip").unlink()
    none = miue("verify", protected / "out", "--clean-twins", tmp_path / "back", "--json")
    assert none.code == 0 and len(json.loads(none.out)["files"]) == 11
    both = miue("verify", "x", "--as-published", protected / "out", "--clean-twins", "y")
    assert both.code == 2 and "one look at a time" in both.err
