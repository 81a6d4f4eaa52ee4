"""The grid: what is planned, that nothing runs twice, that failures are records, that it resumes and shares out."""

from __future__ import annotations

import errno
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partialmethod
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from easy import easy
from miue.attacks import Alternating, attack
from miue.cli import main as cli
from miue.cli import show
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.spelling import spell
from miue.evaluation.adaptive import Adaptive
from miue.evaluation.records import VictimRun
from miue.grid import bench as grid
from miue.grid.bench import Bench, standing
from miue.grid.leaderboard import board
from miue.grid.plan import Cell, Grid
from miue.grid.records import CellRecord, Craft, Sets
from miue.grid.workers import in_turn, parse_shard, work
from pictures import coloured

RECIPE = "quick:net=small-cnn:width=4,epochs=2,batch=16"
MIUE = "mi-ue:surrogate=small-cnn:width=4,epochs=2,steps=1,step_size=2.0"
BENCHMARK = Path(grid.__file__).parents[3] / "benchmarks" / "grid.toml"
SETS = Sets(source="", name="s", data="d", test="t", shape=(3, 8, 8), images=9, tested=900, classes=3, chance=1 / 3)
BROKEN = """
from dataclasses import replace, dataclass
from pathlib import Path

@dataclass(frozen=True, kw_only=True)
class Broken:
    mended: str = "mended"

    def __call__(self, data, budget, run):
        from miue.attacks import Noise
        calls = Path("calls")
        calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
        if not Path(self.mended).exists():
            raise RuntimeError("no luck")
        return Noise()(data, budget, run)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an easy training and test set."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("train", 0), ("test", 1)):
        images = easy(6, seed=seed)
        np.savez(f"{name}.npz", images=images.images.permute(0, 2, 3, 1).numpy(), labels=images.labels.numpy())
    return tmp_path


def planned(out: str = "out", **changes: object) -> Grid:
    values = {"data": "train.npz", "test": "test.npz", "out": out, "attacks": ["noise", "ops"], "recipes": [RECIPE]}
    return Grid.model_validate(values | changes)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Instead of training: which victims would have been trained, on what."""
    trained: list[tuple[str, str]] = []

    def train(role, data, test, training, run, keep):
        trained.append((training.defense, data.digest))
        share = int(data.digest[:4], 16) / 65536
        return VictimRun(role=role, victim=training.victim, defense=training.defense, seed=run.seed, data=data.digest,
                         last=share, best=share, best_epoch=1, train=1.0, seconds=len(trained))  # fmt: skip

    monkeypatch.setattr(grid, "train", train)
    return trained


def files(out: str = "out") -> dict[str, dict]:
    """Every record, without what the clock or an interruption has put there."""
    found = {}
    for path in sorted(Path(out, "cells").iterdir()):
        found[path.name] = json.loads(path.read_text())
        for part, key in (("victim", "seconds"), ("craft", "seconds"), ("craft", "passes")):
            (found[path.name][part] or {}).pop(key, None)
    return found


# --- the plan ---


def test_a_plan_is_every_combination_with_its_controls():
    cells = planned(defenses=["none", "gray"], recipes=[RECIPE, "vit"], seeds=3, seed=5).cells(SETS)
    assert len(cells) == (2 + 1) * 2 * 2 * 3  # clean, noise (asked for as an attack, too) and ops
    assert [c.attack for c in cells[:12]] == ["clean"] * 4 + ["noise"] * 4 + ["ops"] * 4
    assert [c.seed for c in cells[::12]] == [5, 6, 7]
    assert len({c.key for c in cells}) == len(cells) and len({c.perturbation for c in cells}) == 1 + 2 * 3
    assert {str(c.budget) for c in cells} == {"None", "linf:8", "l0:1"}


def test_a_plan_of_partial_protection():
    cells = planned(attacks=["ops"], shares=[0.5, 1.0], leaked=[0.0, 0.2], which="random").cells(SETS)
    told = [f"{c.attack}{c.partial}" for c in cells]
    ways = [", 50% protected (random)", ", 50% protected (random), 20% leaked", ", 20% leaked"]
    assert told == ["clean", "noise", *(f"without{w}" for w in ways)] + [f"ops{w}" for w in (*ways[:2], "", ways[2])]
    assert len({c.perturbation for c in cells if c.attack == "ops"}) == 1


def test_a_plan_of_several_budgets():
    """Each has its own noise; clean victims are the same for all."""
    cells = planned(attacks=["mi-ue:quick"], budget=[4, "8", 12]).cells(SETS)
    budgets = ["linf:4", "linf:8", "linf:12"]
    assert [(c.attack, str(c.budget or "")) for c in cells] == [
        ("clean", ""),
        *(("noise", budget) for budget in budgets),
        *(("mi-ue:quick", budget) for budget in budgets),
    ]
    assert str(cells[4]) == f"mi-ue:quick, linf:4, {RECIPE} + none, seed 0"
    assert {c.key for c in planned(attacks=["mi-ue:quick"], budget=4).cells(SETS)} < {c.key for c in cells}


def test_a_plan_without_the_noise_control():
    cells = planned(noise=False, defenses=["none", "gray"]).cells(SETS)
    assert [cell.attack for cell in cells] == ["clean", "clean", "noise", "noise", "ops", "ops"]  # "noise" as an attack
    assert {cell.attack for cell in planned(noise=False, attacks=["ops"]).cells(SETS)} == {"clean", "ops"}


def test_content_is_known_by_what_decides_it():
    def keys(sets: Sets = SETS, **changes: object) -> set[str]:
        return {c.key for c in planned(**changes).cells(sets)}

    first = keys()
    assert keys(out="elsewhere", threshold=0.5) == first and len(first) == 3
    assert keys(attacks=["ops", "noise:per=image"]) == first
    assert keys(defenses=["jpeg"]) == keys(defenses=["jpeg:quality=10"]) != keys(defenses=["jpeg:quality=20"])
    for change in ({"seed": 1}, {"defenses": ["gray"]}, {"recipes": ["quick"]}):
        assert not keys(**change) & first
    for field in ("data", "test"):
        assert not keys(SETS.model_copy(update={field: "x"})) & first
    assert len(keys(attacks=["noise"], budget="4") & first) == 1  # the clean victim


TOML = 'data = "train.npz"\ntest = "test.npz"\nattacks = ["ops"]\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TOML + "colour = 3", "unknown key 'colour'; allowed: data, test, split"),
        ('data = "train.npz"', "the key 'attacks' is missing"),
        (TOML + "seeds = 0", "seeds = 0: Input should be greater than or equal to 1"),
        (TOML + 'seeds = "two"', "seeds = 'two': Input should be a valid integer"),
        (TOML + "defenses = []", "defenses = .*at least 1 item"),
        (TOML + 'which = "most"', "which = 'most': Input should be 'random', 'stratified' or 'classes'"),
        (TOML + "shares = [0.0]", "share=0, leaked=0: a protected share is above 0"),
        (TOML + 'defenses = ["magic"]', "defense 'magic' is unknown; allowed: at, blur"),
        (TOML + 'defenses = ["at+ueraser"]', "a victim has one loss"),
        (TOML + 'recipes = ["slow"]', "recipe 'slow' is unknown; allowed: quick"),
        (TOML + 'budget = "8"', "cannot keep a budget in linf, only in l0"),
        (TOML + 'budget = ["l0:1", 4]', "cannot keep a budget in linf, only in l0"),
        (TOML + "budget = []", "budget = .*at least 1 item"),
        (TOML + "budget = true", "budget.0 = True: Input should be a valid string"),
        (TOML.replace('"ops"', '"opps"'), "attack 'opps' is unknown; allowed: ar"),
        ("data =", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, told: str):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as refused:
        Grid.from_file(path)
    assert str(refused.value).startswith(str(path))


def test_a_file_is_read(place: Path):
    path = place / "plan.toml"
    path.write_text(TOML + "per_class = 2\ntest_per_class = 1\nseeds = 2")
    plan = Grid.from_file(path)
    assert (plan.out, plan.seeds, plan.defenses) == (place / "plan", 2, ("none",))
    clean, test = plan.read(Run(device_name="cpu"))
    assert (len(clean), len(test), clean.shape) == (6, 3, (3, 8, 8))
    with pytest.raises(UserError, match=r"nothing\.toml: No such file"):
        Grid.from_file(place / "nothing.toml")


def test_where_the_pictures_are(place: Path, monkeypatch: pytest.MonkeyPatch, run: Run):
    clean, test = planned(test=None).read(run)  # a fifth is held out, of every class
    assert (clean.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([5, 5, 5], [1, 1, 1])
    with pytest.raises(UserError, match="set the environment variable PICTURES"):
        planned(data="$PICTURES/train.npz").read(run)
    with pytest.raises(UserError, match="after a \\$ stands the name"):
        planned(data="$/train.npz").read(run)
    monkeypatch.setenv("PICTURES", str(place))
    assert len(planned(data="$PICTURES/train.npz").read(run)[0]) == 18


def test_the_benchmark_is_a_plan():
    """6 attacks and 2 controls x 9 defenses x 2 victims; no path of a machine."""
    plan = Grid.from_file(BENCHMARK)
    assert len(plan.cells(SETS)) == (6 + 2) * 9 * 2
    assert plan.data.startswith("$") and plan.test and plan.test.startswith("$") and not plan.out.is_absolute()


@pytest.mark.parametrize("path", sorted(BENCHMARK.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_every_plan_of_the_benchmarks_can_be_read(path: Path):
    if path.stem != "published":  # the values of papers
        plan = Grid.from_file(path)
        assert plan.cells(SETS) and plan.data.startswith("$")


def test_the_ablation_compares_losses_at_the_same_work():
    """Each loss with the same variants; rows of every loss have one surrogate, one number of passes, one step."""
    plan = Grid.from_file(BENCHMARK.with_name("ablation.toml"))
    assert (plan.skip_per_class, plan.per_class, plan.test_skip_per_class, plan.test_per_class) == (500, 500, 1000, 200)
    assert plan.test == plan.data and plan.noise and len(plan.cells(SETS)) == (30 + 2) * 3 * 2
    tricks = ("class_gradient", "noise_momentum", "cells", "channels")
    variants: dict[str, set[tuple]] = {}
    for text in plan.attacks:
        method: Any = attack(text)
        variants.setdefault(text.partition(":")[0], set()).add(tuple(getattr(method, name) for name in tricks))
        shared = (method.surrogate, method.batch, method.noise_batch, method.step_size, method.lr, method.weight_decay)
        assert shared == ("small-resnet:width=8", 32, 512, 3.0, 0.1, 5e-4)
        assert getattr(method, "augment", "flip-crop") == "flip-crop"  # AUE has its own
        if isinstance(method, Alternating):
            assert method.surrogate_steps is None and not method.stop and not method.restarts
            assert method.epochs == 12 and method.epochs * (1 + method.steps * method.views) == 48
        else:
            assert method.epochs == 12 and method.epochs + method.steps * method.checkpoints == 48
            assert method.adversary == 0
    plain = (0.0, 0.0, 0, "rgb")
    both = {
        (10.0, 0.0, 0, "rgb"),
        (0.0, 0.9, 0, "rgb"),
        (10.0, 0.9, 0, "rgb"),
        (0.0, 0.0, 8, "rgb"),
        (0.0, 0.0, 0, "luma"),
    }
    assert list(variants) == ["mi-ue", "em", "aue", "tap", "hypo"]
    assert all(of == {plain} | both for of in variants.values())


def test_the_first_pictures_of_every_class_can_be_left_out(place: Path, run: Run):
    plan = planned(test="train.npz", per_class=2, skip_per_class=1, test_per_class=2, test_skip_per_class=3)
    whole = planned(test="train.npz").read(run)[0]
    clean, test = plan.read(run)
    first = [(whole.labels == label).nonzero().flatten() for label in range(3)]
    for part, start in ((clean, 1), (test, 3)):
        rows = torch.cat([of[start : start + 2] for of in first]).sort().values
        assert torch.equal(part.images, whole.images[rows]) and "rows" in part.name
    assert len(planned(test="train.npz", skip_per_class=4).read(run)[0]) == 6  # all that are left
    assert plan.source != planned(test="train.npz", per_class=2, test_per_class=2).source
    with pytest.raises(UserError, match=r"skip_per_class = 6: class '.*' has 6 pictures, so none is left"):
        planned(test="train.npz", skip_per_class=6).read(run)


# --- running ---


def test_nothing_is_measured_twice(place: Path, run: Run, counted: list, monkeypatch: pytest.MonkeyPatch):
    made = []
    real = grid.attack
    monkeypatch.setattr(grid, "attack", lambda text: made.append(text) or real(text))
    plan = planned(defenses=["none", "gray"])
    records = work(Bench.of(plan, run))
    assert len(counted) == len(records) == 6 and made == ["noise", "ops"]
    assert work(Bench.of(plan, run)) == records and len(counted) == 6 and made == ["noise", "ops"]
    other = planned(attacks=["ops"], defenses=["jpeg", "gray"])  # another grid in the same folder
    more = work(Bench.of(other, run))
    assert len(counted) == 9 and {d for d, _ in counted[6:]} == {"jpeg"} and made == ["noise", "ops"]
    assert [r.attack for r in more] == ["clean", "clean", "noise", "noise", "ops", "ops"]
    assert more[1].model_copy(update={"attack": "clean"}) == records[1]
    work(Bench.of(planned(seeds=2), run))
    assert len(counted) == 12 and made == ["noise", "ops"] * 2


def test_a_record_says_what_was_measured(place: Path, run: Run, counted: list):
    bench = Bench.of(planned(attacks=["ops"], defenses=["jpeg:quality=10"], shares=[0.5]), run)
    records = {r.attack: r for r in work(bench)}
    assert list(records) == ["clean", "noise", "without", "ops"]
    ops = records["ops"]
    assert (ops.budget, ops.defense, ops.recipe, ops.share, ops.leaked) == ("l0:1", "jpeg:quality=10", RECIPE, 0.5, 0)
    assert ops.sets.data == bench.clean.digest and ops.sets.images == 18 and ops.training["purify"]
    assert ops.craft and (ops.craft.passes, ops.craft.outside) == (0, 18) and ops.craft.changed == 1 / 64
    assert ops.craft.linf > 8 and ops.craft.seconds > 0 and records["without"].craft is None
    assert ops.victim and ops.victim.role == "protected" and records["noise"].victim.role == "noise"  # type: ignore[union-attr]
    assert {p.stem for p in Path("out/cells").iterdir()} == {r.key for r in records.values()}
    assert len({data for _, data in counted}) == 4


def test_a_record_says_what_the_attack_reached_on_its_surrogate(place: Path, run: Run, counted: list):
    bench = Bench.of(planned(attacks=["pil:epochs=2,steps=2,batch=8"]), run)
    (craft,) = (record.craft for record in work(bench) if record.attack.startswith("pil"))
    assert craft and craft.success and craft.success.pictures == 18 and craft.success.reached is not None
    old = craft.model_dump(exclude={"success"})
    assert Craft.model_validate(old).success is None  # of an earlier version


def test_tables_say_how_far_an_attack_leaves_the_ball(
    place: Path, run: Run, counted: list, capsys: pytest.CaptureFixture[str]
):
    plan = planned(attacks=["noise:per=class", "ops"], defenses=["none", "gray"], seeds=2)
    work(Bench.of(plan, run))
    found = standing(plan, run)
    sizes = {line.attack: line.size for line in found.lines}
    assert sizes["clean"] is None and sizes["noise:per=class"] and not sizes["noise:per=class"].leaves
    assert sizes["ops"] and (sizes["ops"].pictures, sizes["ops"].outside) == (36, 36)  # of both seeds, once
    show.board(found, json=False)
    told = [line for line in capsys.readouterr().out.splitlines() if "8/255 ball" in line]
    assert told == [f"ops, l0:1: {sizes['ops'].leaves}"]


def test_a_failed_cell_is_a_record_and_the_others_go_on(place: Path, run: Run, counted: list, capsys):
    Path("their.py").write_text(BROKEN)
    plan = planned(attacks=["their.py:Broken", "ops"], defenses=["none", "gray"])
    records = work(Bench.of(plan, replace(run, quiet=False)))
    said = capsys.readouterr().err.splitlines()
    assert [bool(r.error) for r in records] == [False] * 4 + [True] * 2 + [False] * 2
    assert records[4].error == "RuntimeError: no luck" and records[4].victim is None
    assert Path("calls").read_text() == "x" and sum("failed: their.py:Broken" in s for s in said) == 2
    assert work(Bench.of(plan, run)) == records and Path("calls").read_text() == "x"
    Path("mended").touch()
    again = work(Bench.of(plan, run), retry=True)
    assert not any(r.error for r in again) and Path("calls").read_text() == "xx" and len(counted) == 8
    assert again[:4] == records[:4]


def test_a_victim_that_fails_fails_alone(place: Path, run: Run, counted: list, monkeypatch: pytest.MonkeyPatch):
    real = grid.train

    def sometimes(role, *rest):
        if role == "noise":
            raise MemoryError("too large")
        return real(role, *rest)

    monkeypatch.setattr(grid, "train", sometimes)
    assert [r.error for r in work(Bench.of(planned(), run))] == ["", "MemoryError: too large", ""]


def test_a_perturbation_that_cannot_be_described_fails_alone(
    place: Path, run: Run, counted: list, monkeypatch: pytest.MonkeyPatch
):
    def described(method, *rest):
        if spell(method) == "ops":
            raise RuntimeError("no figure")

    monkeypatch.setattr("miue.grid.bench.success", described)
    assert [r.error for r in work(Bench.of(planned(attacks=["ops"]), run))] == ["", "", "RuntimeError: no figure"]


def test_a_full_disk_is_no_result(place: Path, run: Run, counted: list, monkeypatch: pytest.MonkeyPatch):
    real, full = grid.train, OSError(errno.ENOSPC, "No space left on device")

    def sometimes(role, *rest):
        if role == "noise" and full.args:
            raise full
        return real(role, *rest)

    monkeypatch.setattr(grid, "train", sometimes)
    with pytest.raises(OSError, match="No space left"):
        work(Bench.of(planned(), run))
    assert len(list(Path("out").glob("cells/*.json"))) == 1
    full.args = ()
    assert [r.error for r in work(Bench.of(planned(), run))] == ["", "", ""]


def test_cells_of_another_machine_are_taken_over(place: Path, run: Run, counted: list):
    there, here = Bench.of(planned("there"), run), Bench.of(planned("here"), run)
    work(there)
    for cell in here.cells.values():
        record = there.measure(cell)
        here.put(cell, here.blank(cell).model_copy(update={"victim": record.victim, "craft": record.craft}))
    trained = len(counted)
    work(here)
    assert len(counted) == trained and standing(planned("here"), run) == standing(planned("there"), run)


def test_overlaps_of_test_and_training_pictures_are_told(place: Path, run: Run, counted: list, capsys):
    train, test = easy(6), easy(6, seed=1)
    images = torch.cat([train.images[:1], test.images]).permute(0, 2, 3, 1).numpy()
    np.savez("test.npz", images=images, labels=torch.cat([train.labels[:1], test.labels]).numpy())
    work(Bench.of(planned(), replace(run, quiet=False)))
    assert capsys.readouterr().err.splitlines()[0] == f"1 of {len(images)} test pictures are training pictures, too"
    with pytest.raises(UserError, match="test pictures are among those that victims train on"):
        work(Bench.of(planned("same", test="train.npz"), run))


def test_another_folder_behind_a_variable_is_another_source(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PICTURES", "train.npz")
    first = planned(data="$PICTURES").source
    monkeypatch.setenv("PICTURES", "test.npz")
    assert planned(data="$PICTURES").source != first and "test.npz'" in first and "train" not in first


def test_shards_are_disjoint_balanced_and_whole(place: Path, run: Run):
    bench = Bench.of(planned(defenses=["none", "gray", "jpeg", "cutout"], seeds=2), run)
    turned = Bench.of(planned(defenses=["cutout", "jpeg", "none", "gray"], attacks=["ops"], seeds=2), run)
    for count in (1, 2, 5):
        parts = [bench.shard(i + 1, count) for i in range(count)]
        keys = [cell.key for part in parts for cell in part]
        assert sorted(keys) == sorted(bench.cells) and len(keys) == 24
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        order = list(bench.cells)
        assert all(p == sorted(p, key=order.index) for p in ([c.key for c in part] for part in parts))
        assert [{c.key for c in turned.shard(i + 1, count)} for i in range(count)] == [
            {c.key for c in part} for part in parts
        ]


def test_shards_make_the_same_records(place: Path, run: Run, counted: list):
    whole = work(Bench.of(planned("whole"), run))
    halves = [work(Bench.of(planned("halves"), run), parse_shard(f"{i}/2")) for i in (1, 2)]
    assert sum(map(len, halves)) == len(whole) == 3 and files("halves") == files("whole")


def test_shards_in_words():
    assert parse_shard("2/4") == (2, 4)
    for wrong in ("0/2", "3/2", "2", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match="is not understood; write 1/4"):
            parse_shard(wrong)


def test_no_process_waits_while_a_cell_is_free(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    """Another one makes the perturbation of all cells first, and then works on the first cell."""
    bench, waits = Bench.of(planned(defenses=["none", "gray"]), run), []
    cells = list(bench.cells.values())
    locked = set(bench.cells)

    def measure(bench: Bench, cell: Cell, wait: bool = True) -> CellRecord:
        if cell.key in locked and not wait:
            raise Timeout(cell.key)
        if wait:
            waits.append(cell)
            locked.clear()
            locked.add(cells[0].key)
        return bench.blank(cell)

    monkeypatch.setattr(Bench, "measure", measure)
    order = [record.key for record in in_turn(bench, cells)]
    assert order == [cell.key for cell in (cells[-1], *cells[1:-1], cells[0])]
    assert waits == [cells[-1], cells[0]]


def test_what_another_process_is_at_comes_last(place: Path, run: Run, counted: list):
    """A cell and the cells of a perturbation, each held by somebody else until the first cell is done."""
    bench = Bench.of(planned(defenses=["none", "gray"]), run)
    cells = list(bench.cells.values())
    Path("out/locks").mkdir(parents=True)
    locks = [FileLock(f"out/locks/{name}.lock") for name in (cells[0].key, cells[2].perturbation)]
    for lock in locks:
        lock.acquire()
    order = []
    for record in in_turn(bench, cells):
        order.append((record.attack, record.defense))
        if len(order) == 3:
            for lock in locks:
                lock.release()
    assert order[:3] == [("clean", "gray"), ("ops", "none"), ("ops", "gray")]
    assert order[3:] == [("clean", "none"), ("noise", "none"), ("noise", "gray")]


@pytest.mark.parametrize(("moment", "done"), [(1, 0), (6, 2), (9, 2)])
def test_killed_and_resumed_gives_the_same_records(
    place: Path, run: Run, moment: int, done: int, monkeypatch: pytest.MonkeyPatch
):
    """Interrupted right after a checkpoint: of the clean victim, of the attack, of the protected victim."""
    real, saved = Run.save, []

    def save(self, name, tensors, meta):
        real(self, name, tensors, meta)
        saved.append(name)
        if len(saved) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", save)
    stop = 0
    work(Bench.of(planned("whole", attacks=[MIUE]), run))
    uninterrupted, stop = list(saved), moment
    saved.clear()
    stopped = planned("stopped", attacks=[MIUE])
    with pytest.raises(KeyboardInterrupt):
        work(Bench.of(stopped, run))
    assert len(list(Path("stopped").glob("cells/*"))) == done
    work(Bench.of(stopped, run))
    assert files("stopped") == files("whole")
    assert len(saved) <= len(uninterrupted) + 1  # no finished epoch was trained again
    assert not list(Path("stopped").rglob("victim.safetensors"))


# --- the leaderboard ---


def made(attack: str, defense: str, last: float | None, seed: int = 0, best: float | None = None) -> CellRecord:
    role = attack if attack in ("clean", "noise") else "protected"
    victim = last is not None and VictimRun(
        role=role, victim="net", seed=seed, data="d", last=last, best=best or last, best_epoch=1, train=0.99, seconds=1)  # type: ignore  # fmt: skip
    return CellRecord(key=f"{attack}{defense}{seed}", attack=attack, defense=defense, recipe="quick", share=1.0,
                      which="stratified", leaked=0.0, seed=seed, sets=SETS, training={}, victim=victim or None,
                      error="" if victim else "RuntimeError: no", machine={}, miue="0")  # fmt: skip


def test_the_arithmetic_of_the_leaderboard():
    records = [made("ops", "none", 0.3, 0, 0.42), made("ops", "none", 0.4, 1)]
    records += [made("ops", "gray", 0.8), made("ops", "gray", None, 1)]
    records += [made(role, d, 0.9, s) for role in ("noise", "clean") for d in ("none", "gray") for s in (0, 1)]
    found = board(records, 20, 0.25)
    assert (found.cells, found.measured, found.failed) == (20, 11, {"ops, quick + gray, seed 1": "RuntimeError: no"})
    assert [line.name for line in found.lines] == ["clean", "noise", "ops"]
    none, gray = found.lines[2].places
    assert (none.defense, none.n, none.failed) == ("none", 2, 0) and (gray.n, gray.failed) == (1, 1)
    assert none.mean == pytest.approx(0.35) and none.spread == pytest.approx(0.1 / 2**0.5)
    assert none.best == none.early == pytest.approx(0.41) and gray.spread is None
    assert (str(none), str(gray)) == ("35.0% ± 7.1%", "80.0%")
    assert found.lines[2].worst == gray  # the best that any tested defense reaches
    assert (none.verdict, gray.verdict) == ("protected", "not protected") and found.lines[0].places[0].verdict is None


def test_the_worst_case_counts_who_stops_early():
    """By the accuracy on pictures that did not choose the epoch, where the record has it."""
    records = [made("clean", d, 0.9) for d in ("none", "gray")] + [made("noise", d, 0.9) for d in ("none", "gray")]
    plain, gray = made("ops", "none", 0.35, best=0.8), made("ops", "gray", 0.4)
    assert plain.victim is not None
    line = board([*records, plain, gray], 6, 0.25).lines[-1]
    assert line.worst_text == "80.0% (none, stopped early)" and line.places[0].verdict == "not protected"
    stopped = plain.model_copy(update={"victim": plain.victim.model_copy(update={"stopped": 0.38})})
    line = board([*records, stopped, gray], 6, 0.25).lines[-1]
    assert line.worst_text == "40.0% (gray)" and line.places[0].early == 0.38 and line.places[0].verdict == "protected"


def test_one_verdict_a_victim():
    """An inconclusive victim says nothing about the others; without its controls there is no verdict."""
    records = [
        made("clean", "none", 0.9),
        made("noise", "none", 0.9),
        made("clean", "at", 0.3),
        made("noise", "at", 0.3),
    ]
    records += [made("ops", d, 0.3) for d in ("none", "at", "gray")]
    places = board(records, 7, 0.25).lines[-1].places
    assert [p.verdict for p in places] == ["protected", "inconclusive", None]
    assert "reaches only 30.0% when it is trained on clean pictures" in places[1].reason


def test_a_line_of_failures():
    (line,) = board([made("ops", "none", None)], 1, 0.25).lines
    assert line.worst is None and str(line.places[0]) == "failed"


# --- the command ---


@pytest.fixture
def miue(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable]:
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def call(*arguments: str) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["miue", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_command(place: Path, miue: Callable, counted: list):
    Path("their.py").write_text(BROKEN)
    text = TOML.replace('"ops"', '"their.py:Broken", "ops"')
    Path("plan.toml").write_text(f'{text}recipes = ["{RECIPE}"]\ndefenses = ["none", "gray"]\n')
    code, out, _ = miue("grid", "plan.toml", "--dry-run", "--device", "cpu")
    assert code == 0 and "8 cells, 8 to measure; nothing was done" in out and not Path("plan").exists()
    code, out, err = miue("grid", "plan.toml", "--shard", "1/2", "--device", "cpu", "--quiet")
    assert len(counted) <= 4 and "failed" in out and err == ""
    code, out, err = miue("grid", "plan.toml", "--device", "cpu")
    assert code == 1 and "6 of 8 cells measured, 2 failed" in out and len(counted) == 6
    assert "failed: their.py:Broken" in out and "RuntimeError: no luck" in out and "worst case" in out
    assert out.index("clean ") < out.index("noise ") < out.index("ops, l0:1 ")
    Path("train.npz").unlink()  # what was measured can be shown where the pictures are not
    code, shown, _ = miue("grid", "plan.toml", "--show")
    assert code == 0 and shown == out
    code, shown, _ = miue("grid", "plan.toml", "--show", "--json")
    assert code == 0 and json.loads(shown) == json.loads(
        standing(Grid.from_file(Path("plan.toml")), Run()).model_dump_json()
    )
    code, _, err = miue("grid", "plan.toml")
    assert code == 2 and "train.npz" in err


def test_it_mends_with_retry(place: Path, miue: Callable, counted: list):
    Path("their.py").write_text(BROKEN)
    Path("plan.toml").write_text(TOML.replace("ops", "their.py:Broken") + f'recipes = ["{RECIPE}"]\n')
    assert miue("grid", "plan.toml", "-q", "--device", "cpu")[0] == 1
    Path("mended").touch()
    assert miue("grid", "plan.toml", "-q", "--device", "cpu")[0] == 1
    code, out, _ = miue("grid", "plan.toml", "-q", "--device", "cpu", "--retry", "--json")
    assert code == 0 and json.loads(out)["failed"] == {}
    code, out, _ = miue("grid", "plan.toml", "--dry-run", "--json")
    assert [cell["state"] for cell in json.loads(out)] == ["there"] * 3


# --- in worker processes ---


def test_two_workers_make_the_same_records(place: Path, run: Run):
    Path("their.py").write_text(BROKEN)
    attacks = ["their.py:Broken", MIUE]
    turns = work(Bench.of(planned("turns", attacks=attacks), run))
    Path("calls").unlink()
    side = work(Bench.of(planned("side", attacks=attacks), replace(run, workers=2)))
    assert files("side") == files("turns") and len(side) == 4 and Path("calls").read_text() == "x"
    assert [bool(r.error) for r in side] == [bool(r.error) for r in turns] == [False, False, True, False]


# --- on Ray ---


class _Died(Exception): ...


def stand_in(dies: str = "") -> SimpleNamespace:
    """What is used of Ray, in this process: arguments and results travel as copies, references are resolved."""

    class Ref:
        def __init__(self, value: object) -> None:
            self.value = value

    def copied(value: object) -> object:
        return pickle.loads(pickle.dumps(value))

    def remote(**needs: object) -> Callable:
        assert needs == {"num_cpus": 1, "num_gpus": 0}

        def wrap(task: Callable) -> SimpleNamespace:
            def call(*arguments: object) -> Ref:
                given = [copied(a.value if isinstance(a, Ref) else a) for a in arguments]
                return Ref(_Died("gone") if dies and task.__name__ == dies else copied(task(*given)))

            return SimpleNamespace(remote=call)

        return wrap

    def get(ref: Ref) -> object:
        if isinstance(ref.value, Exception):
            raise ref.value
        return ref.value

    def init(**options: object) -> None:
        state["on"] = True

    state = {"on": False}
    return SimpleNamespace(
        put=Ref, remote=remote, get=get, init=init, is_initialized=lambda: state["on"], state=state,
        wait=lambda refs, num_returns: (refs[-num_returns:], refs[:-num_returns]),
        shutdown=lambda: state.update(on=False), exceptions=SimpleNamespace(RayError=_Died))  # fmt: skip


def test_tasks_and_what_they_wait_for(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    """The same records as one after the other, in whatever order tasks end. Not Ray itself: see below."""
    Path("their.py").write_text(BROKEN)
    attacks = ["their.py:Broken", MIUE]
    work(Bench.of(planned("turns", attacks=attacks, defenses=["none", "gray"]), run))
    Path("calls").unlink()
    monkeypatch.setitem(sys.modules, "ray", ray := stand_in())
    records = work(Bench.of(planned("tasks", attacks=attacks, defenses=["none", "gray"]), run), ray=True)
    assert files("tasks") == files("turns") and len(records) == 8 and Path("calls").read_text() == "x"
    assert [bool(r.error) for r in records] == [False] * 4 + [True] * 2 + [False] * 2 and ray.state == {"on": False}


def test_a_worker_that_dies(place: Path, run: Run, counted: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", stand_in(dies="_measure"))
    assert [r.error for r in work(Bench.of(planned(), run), ray=True)] == ["_Died: gone"] * 3
    assert not Path("out/cells").exists()
    assert not any(r.error for r in work(Bench.of(planned(), run)))


def test_without_ray(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "miue\[ray\]"'):
        work(Bench.of(planned(), run), ray=True)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra [ray]")
@pytest.mark.filterwarnings("ignore")
def test_two_workers_on_ray_make_the_same_records(place: Path, run: Run):
    import ray

    ray.init(num_cpus=2, include_dashboard=False)
    try:
        work(Bench.of(planned("ray", attacks=[MIUE, "ops"], defenses=["none", "gray"]), run), ray=True)
    finally:
        ray.shutdown()
    work(Bench.of(planned("turns", attacks=[MIUE, "ops"], defenses=["none", "gray"]), run))
    assert files("ray") == files("turns") and len(files("ray")) == 8
    assert torch.get_num_threads() == 1  # as the workers have


def test_a_noise_control_is_that_of_the_whole_set():
    """A row of partly noisy pictures is no control."""

    def record(attack: str, last: float, share: float = 1.0) -> CellRecord:
        victim = VictimRun(role="clean", victim="v", seed=0, data="d", last=last, best=last, best_epoch=1, train=1.0,
                           seconds=0)  # fmt: skip
        return CellRecord(key="k", attack=attack, defense="none", recipe="r", share=share, which="random", leaked=0,
                          seed=0, sets=SETS, training={}, machine={}, miue="0", victim=victim)  # fmt: skip

    records = [record("clean", 0.9), record("noise", 0.88), record("noise", 0.5, 0.2), record("ops", 0.4)]
    ops = next(line for line in board(records, 4, 0.25).lines if line.attack == "ops")
    assert ops.places[0].verdict == "protected"  # with noise at 50 % it would be inconclusive


def test_every_budget_is_judged_by_its_own_noise():
    def cells(budget: str, noise: float) -> list[CellRecord]:
        pair = made("noise", "none", noise), made("em", "none", 0.4)
        return [record.model_copy(update={"budget": budget}) for record in pair]

    records = [made("clean", "none", 0.9), *cells("linf:8", 0.88), *cells("linf:64", 0.4)]
    *_, small, large = board(records, 5, 0.25).lines
    assert (small.name, small.places[0].verdict) == ("em", "protected")
    assert (large.name, large.places[0].verdict) == ("em, linf:64", "inconclusive")  # such noise alone does as much


@pytest.mark.parametrize(
    ("budget", "left", "verdict"),
    [
        ("linf:8", 0.4, "protected"),
        ("linf:2", 0.4, "protected"),
        ("linf:16", 0.4, "inconclusive"),
        ("l0:1", 0.4, "inconclusive"),
        ("none", 0.4, "inconclusive"),
        ("none", 0.8, "not protected"),
    ],
)
def test_noise_of_another_size_shows_no_protection(budget: str, left: float, verdict: str):
    noise = made("noise", "none", 0.9).model_copy(update={"budget": "linf:8"})
    attacked = made("their", "none", left).model_copy(update={"budget": budget})
    place = board([made("clean", "none", 0.95), noise, attacked], 3, 0.5).lines[-1].places[0]
    assert place.verdict == verdict and ("the noise control has linf:8" in place.reason) == (verdict == "inconclusive")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attacks": ["without"]}, "'without' is the name of a control"),
        ({"attacks": ["clean", "ops"]}, "'clean' is the name of a control"),
        ({"canvas": 100_000}, "a canvas of 100000 pixels"),
    ],
)
def test_plans_that_cannot_be_meant(place: Path, changes: dict, told: str):
    lines = {"data": "train.npz", "attacks": ["noise"], "out": "out"} | changes
    Path("plan.toml").write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items()))
    with pytest.raises(UserError, match=told):
        Grid.from_file(Path("plan.toml"))


def test_a_network_that_does_not_exist_is_told_before_anything_is_made(place: Path, run: Run):
    bench = Bench.of(planned(recipes=[RECIPE, "quick:net=nothing_like_it"]), run)
    with pytest.raises(UserError, match="nothing_like_it"):
        work(bench)
    assert not list(Path("out").rglob("*.json")) and not list(Path("out").rglob("*.safetensors"))


def test_a_grid_is_not_written_among_the_pictures(place: Path, run: Run):
    coloured(place / "in")
    with pytest.raises(UserError, match="lies among the pictures"):
        Bench.of(planned(data="in", test=None, out="in/grid"), run)
    assert not Path("in/grid").exists()


def test_hidden_files_among_the_records_are_not_read(place: Path, run: Run):
    plan = planned(attacks=["noise"])
    work(Bench.of(plan, run))
    (place / "out" / "cells" / "._x.json").write_bytes(b"\xff\xfe")
    assert standing(plan, run).measured == 2


def test_an_adaptive_trainer_is_a_defense_of_the_grid(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    """It has a column, its clean control is adaptive, too, and it counts in the worst case."""
    monkeypatch.setattr(Adaptive, "__init__", partialmethod(Adaptive.__init__, tried=("none", "gray")))
    plan = planned(attacks=["ops"], defenses=["none", "adaptive"])
    records = work(Bench.of(plan, run))
    assert [r.error for r in records] == [""] * 6
    chosen = {r.attack: r.victim.chosen for r in records if r.victim and r.defense == "adaptive"}
    assert set(chosen) == {"clean", "noise", "ops"} and set(chosen.values()) <= {"none", "gray"}
    (line,) = [line for line in standing(plan, run).lines if line.attack == "ops"]
    assert [place.defense for place in line.places] == ["none", "adaptive"]
    assert line.worst is not None and line.worst.mean == max(place.mean for place in line.places)
