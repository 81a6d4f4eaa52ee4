"""Victims side by side: the same records, errors and ends as one after another."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from easy import FAST, easy
from miue import nets
from miue.core import device, workers
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.core.workers import Sets, side_by_side
from miue.evaluation.adaptive import Adaptive
from miue.evaluation.evaluation import Evaluation
from miue.evaluation.records import Outcome
from miue.training.loop import Training

SETS = {"easy": easy()}
SLOW = """
import sys, time
from pathlib import Path
from easy import easy
from miue.core.run import Run
from miue.core.workers import side_by_side
from test_side_by_side import slow

if __name__ == "__main__":
    print("begun", flush=True)
    side_by_side(slow, {"easy": easy()}, {"a": sys.argv[1], "b": sys.argv[1]}, Run(0, "cpu", workers=2))
"""


def seen(sets: Sets, job: int, run: Run) -> tuple[int, int, int, bool]:
    shared = sets["easy"].images.is_shared()
    return os.getpid(), run.seed + job, int(sets["easy"].images.sum()), shared


def broken(sets: Sets, job: int, run: Run) -> int:
    if job == 1:
        raise UserError("1 is too much; at most 0")
    return job


def dying(sets: Sets, job: Path, run: Run) -> None:
    if job.name == "b":
        while not job.with_name("a").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    job.touch()


def slow(sets: Sets, job: str, run: Run) -> None:
    Path(job, str(os.getpid())).touch()
    time.sleep(60)


def at_work(sets: Sets, job: int, run: Run) -> int:
    return torch.get_num_threads()


def test_jobs_share_pictures_in_other_processes():
    run, told = Run(5, "cpu", workers=2), []
    results = side_by_side(seen, SETS, {"a": 1, "b": 2, "c": 3}, run, ended=lambda place, _: told.append(place))
    assert [r[1] for r in results] == [6, 7, 8] and sorted(told) == [0, 1, 2]
    assert os.getpid() not in {r[0] for r in results} and len({r[0] for r in results}) <= 2
    assert all(r[2] == int(SETS["easy"].images.sum()) and r[3] for r in results)
    (alone,) = side_by_side(seen, SETS, {"a": 1}, run)
    assert alone[0] == os.getpid()


def test_errors_are_those_of_the_job():
    with pytest.raises(UserError, match="1 is too much; at most 0"):
        side_by_side(broken, SETS, {"a": 0, "b": 1}, Run(0, "cpu", workers=2))


def test_a_worker_that_dies_is_one_message_and_the_rest_is_kept(tmp_path: Path):
    with pytest.raises(UserError, match=r"a worker process died.*is kept.*fewer --workers"):
        side_by_side(dying, SETS, {"a": tmp_path / "a", "b": tmp_path / "b"}, Run(0, "cpu", workers=2))
    assert (tmp_path / "a").exists()


def alive(pid: int) -> bool:
    try:
        state = re.search(r"^State:\s+(\w)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state is not None and state[1] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path: Path, number: signal.Signals):
    (tmp_path / "slow.py").write_text(SLOW)
    folder = tmp_path / "pids"
    folder.mkdir()
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    command = subprocess.Popen(
        [sys.executable, str(tmp_path / "slow.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    while len(pids := [int(path.name) for path in folder.iterdir()]) < 2:
        assert command.poll() is None, command.stderr and command.stderr.read()
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(command.pid, number)  # as a terminal does: to all of them
    else:
        command.kill()
    _, err = command.communicate(timeout=20)
    assert err.count("KeyboardInterrupt") == (number == signal.SIGINT)  # that of the first process alone
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_where_shared_memory_is_too_small_they_take_turns(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(workers, "SHARED_MEMORY", Path())
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    data = easy(seed=3)
    results = side_by_side(seen, {"easy": data}, {"a": 1, "b": 2}, Run(0, "cpu", quiet=False, workers=2))
    assert {r[0] for r in results} == {os.getpid()} and "one after another" in capsys.readouterr().err


# --- evaluations ---


def outcome(keep: Path | None, workers: int, recipes: list, seeds: int = 2) -> Outcome:
    clean, run = easy(), Run(0, "cpu", keep, workers=workers)
    protected = clean.with_images(clean.images // 2, "darker")
    return Evaluation(recipes=recipes, seeds=seeds)(clean, easy(seed=1), protected, Budget(8), run)


def timeless(text: str) -> str:
    return re.sub(r'"seconds": ?[\d.e-]+', "", text)


def records(folder: Path) -> dict[str, str]:
    return {path.name: timeless(path.read_text()) for path in sorted(folder.glob("victims/*.json"))}


def test_two_workers_keep_the_same_records(tmp_path: Path):
    recipes = [FAST, replace(FAST, net="linear")]
    turns, side = outcome(tmp_path / "turns", 1, recipes), outcome(tmp_path / "side", 2, recipes)
    assert timeless(turns.model_dump_json()) == timeless(side.model_dump_json())
    assert records(tmp_path / "turns") == records(tmp_path / "side") and len(records(tmp_path / "side")) == 12
    weights = [{p.name: p.read_bytes() for p in (tmp_path / f / "trained").iterdir()} for f in ("turns", "side")]
    assert weights[0] == weights[1] and len(weights[0]) == 12


def test_without_a_folder_records_come_back(tmp_path: Path):
    turns, side = outcome(None, 1, [FAST], 1), outcome(None, 2, [FAST], 1)
    assert timeless(turns.model_dump_json()) == timeless(side.model_dump_json())


def test_what_an_adaptive_trainer_tries_runs_side_by_side(tmp_path: Path):
    victims = [Adaptive(recipe=replace(FAST, epochs=2), tried=("none", "gray"))]
    turns, side = outcome(tmp_path / "turns", 1, victims, 1), outcome(tmp_path / "side", 2, victims, 1)
    assert timeless(turns.model_dump_json()) == timeless(side.model_dump_json())
    assert records(tmp_path / "turns") == records(tmp_path / "side") and len(records(tmp_path / "side")) == 9


# --- threads ---


def test_the_rule_for_threads(monkeypatch: pytest.MonkeyPatch):
    count = [16]
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: count.__setitem__(0, n))
    run = Run(0, "cpu")
    large, small = nn.Linear(1000, 1000), nn.Linear(10, 10)
    with run.threads_for(small):
        assert count == [1]
    with run.threads_for(small, large):
        assert count == [16]
    with run.threads_side_by_side(), run.threads_for(large):
        assert count == [2]
    with pytest.raises(KeyError), run.threads_for(small):
        raise KeyError
    assert count == [16] and "1 for networks below 1,000,000 parameters, at most 2 for a victim" in str(run.machine)
    count[0] = 4
    with run.threads_side_by_side():
        assert count == [1]


def test_the_rule_holds_where_networks_are_trained(monkeypatch: pytest.MonkeyPatch):
    limits: list[int] = []
    monkeypatch.setattr("miue.core.run.threads", lambda most: limits.append(most) or device.threads(most))
    net = nets.build("small-cnn:width=4", (3, 8, 8), 3)
    training = Training(net, torch.optim.SGD(net.parameters(), 0.1), Run(0, "cpu"), "text", "name", {})
    assert list(training.epochs(2, 1)) == [0, 1] and limits == [1]


def test_workers_compute_with_the_threads_of_the_first_process():
    torch.set_num_threads(3)
    try:
        assert side_by_side(at_work, SETS, {"a": 0, "b": 0}, Run(0, "cpu", workers=2)) == [3, 3]
    finally:
        torch.set_num_threads(1)


def test_the_number_of_workers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("miue.core.run.free_cores", lambda: 6)
    assert [Run(0, "cpu", workers=count).processes_for(4) for count in (1, 3, 9, 0)] == [1, 3, 4, 4]
    assert Run(0, "cpu", workers=0).processes_for(9) == 6 and Run(0, "cpu", workers=2).processes_for(1) == 1
    with pytest.raises(UserError, match="-1 workers: at least 1, or 0"):
        Run(workers=-1)
    monkeypatch.setattr(Run, "accelerated", property(lambda self: True))
    assert Run(0, "cpu", workers=0).processes_for(9) == 1 and Run(0, "cpu", workers=2).processes_for(9) == 2


def test_busy_cores_are_not_free(monkeypatch: pytest.MonkeyPatch):
    looks = iter([(1000, 5000), (1030, 5080)])  # 30 of 80 ticks idle
    monkeypatch.setattr(device, "_idle_and_all", lambda: next(looks))
    monkeypatch.setattr(device, "_allowed_cores", lambda: 8)
    monkeypatch.setattr(device, "SAMPLE", 0)
    assert device.free_cores() == 3
    monkeypatch.setattr(device, "_idle_and_all", lambda: None)
    assert device.free_cores() == 8
