"""`protect` on two machines: network namespaces of this one, joined by a virtual cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from miue import data, publish
from miue.core.errors import ToldElsewhere, UserError
from miue.core.launch import joined, together
from miue.core.launcher import Started, started
from miue.core.run import Run

ATTACK = "em:quick,epochs=3,surrogate=small-cnn:width=4"
TORCHRUN = Path(sys.executable).with_name("torchrun")
NAMES, CABLE = ("miue-a", "miue-b"), ("miue-va", "miue-vb")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[None]:
    if os.name != "posix" or os.getuid() or not shutil.which("ip"):
        pytest.skip("needs root and the command ip, to make network namespaces")
    try:
        for name in NAMES:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", CABLE[0], "type", "veth", "peer", "name", CABLE[1])
        for number, (name, end) in enumerate(zip(NAMES, CABLE, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.19.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def on_both(folder: Path, out: str, attack: str = ATTACK) -> list[subprocess.Popen[str]]:
    """The same command on both machines. They see the same folder, as of a file server."""
    protect = ["-m", "miue", "protect", "pictures", out, "--attack", attack, "--device", "cpu"]
    processes = []
    for number, (name, end) in enumerate(zip(NAMES, CABLE, strict=True)):
        where = ["--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(number)]
        meet = ["--master_addr", "10.77.19.1", "--master_port", "29531"]
        processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, str(TORCHRUN), *where, *meet, *protect],
                cwd=folder,
                env={**os.environ, "GLOO_SOCKET_IFNAME": end, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
    return processes


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    try:
        return [(p.wait(), out, err) for p in processes for out, err in [p.communicate(timeout=240)]]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def written(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_two_machines_of_which_one_is_lost_give_what_two_processes_of_one_give(machines: None, tmp_path: Path):
    publish.export(data.shapes(20), tmp_path / "pictures")
    # the second machine is lost in the middle of the attack
    processes = on_both(tmp_path, "lost")
    state = tmp_path / "lost.private" / "checkpoint"
    limit = time.monotonic() + 120
    while not list(state.glob("checkpoint-1of2-*")):
        assert time.monotonic() < limit and processes[1].poll() is None, ended(processes)
        time.sleep(0.02)
    lost = subprocess.run(["ip", "netns", "pids", NAMES[1]], capture_output=True, text=True, check=True).stdout
    for pid in map(int, lost.split()):
        os.kill(pid, signal.SIGKILL)
    code, _, error = ended(processes)[0]
    assert code and error.count("another process of this run has ended or cannot be reached") == 1, error
    assert "start the same command again" in error

    again = ended(on_both(tmp_path, "lost"))
    assert [code for code, _, _ in again] == [0, 0], again
    assert "resumed after epoch" in again[0][2]
    assert "200 pictures protected" in again[0][1] and not again[1][1]  # told once

    command = ["-m", "miue", "protect", "pictures", "one", "--attack", ATTACK, "--device", "cpu", "--processes", "2"]
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, capture_output=True)
    assert written(tmp_path / "one") == written(tmp_path / "lost")
    manifests = [(tmp_path / f"{name}.private" / "manifest.jsonl").read_bytes() for name in ("one", "lost")]
    assert manifests[0] == manifests[1]
    assert not list((tmp_path / "lost.private").glob("manifest.part*"))


@pytest.mark.slow
def test_a_mistake_is_told_once_and_with_its_machine(machines: None, tmp_path: Path):
    publish.export(data.shapes(4), tmp_path / "pictures")
    results = ended(on_both(tmp_path, "out", "em:quick,epochs=no"))
    assert all(code for code, _, _ in results)
    assert sum(error.count("miue: ") for _, _, error in results) == 1, results
    assert not (tmp_path / "out").exists()


def test_what_torchrun_and_slurm_tell(monkeypatch: pytest.MonkeyPatch):
    assert started() is None
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}.items():  # the batch script itself
        monkeypatch.setenv(name, value)
    assert started() is None
    for name, value in {"SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert started() == Started(rank=3, local=1, world=4, machines=2)
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert started() == Started(rank=5, local=1, world=8, machines=2)


class Two(Run):
    """The first or second of two processes, of which the other has told this."""

    other: tuple[str, str] = ("b", "")
    place = 0

    @property
    def world(self) -> int:
        return 2

    @property
    def rank(self) -> int:
        return self.place

    def gathered(self, value: object) -> list:
        return [value, self.other]


def test_what_fails_in_one_process_fails_in_all():
    run = Two(0, "cpu")
    assert together(run, lambda: 7) == 7
    run.other = "b", "no such folder"
    with pytest.raises(UserError, match=r"^on b: no such folder$"):
        together(run, lambda: 7)
    run.place = 1
    with pytest.raises(ToldElsewhere):
        together(run, lambda: 7)


def test_one_process_joins_nobody():
    run = Run(0, "cpu")
    with joined(run) as same:
        assert same is run
