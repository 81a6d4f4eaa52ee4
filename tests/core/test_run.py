"""Generators, numerics, kept state, atomic writing, progress."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from miue import mi
from miue.core import files, progress
from miue.core.device import byte_count, choose_numerics, free_memory, global_draws
from miue.core.errors import UserError
from miue.core.files import write_atomically
from miue.core.run import Run
from processes import Rank

CPU = torch.device("cpu")
BASE = Run(seed=0, device_name="cpu")


def draws(generator: torch.Generator) -> list[float]:
    return torch.rand(4, generator=generator).tolist()


# --- randomness ---


def test_a_generator_follows_seed_and_names_only():
    first = Run(seed=1, device_name="cpu")
    expected = draws(first.rng("order", 3))
    torch.manual_seed(5)
    first.rng("something", "else")
    draws(first.rng("order", 3))
    assert draws(first.rng("order", 3)) == expected == draws(Run(seed=1, device_name="cpu").rng("order", 3))


def test_other_seeds_and_names_give_other_draws():
    run = Run(seed=1, device_name="cpu")
    names = [("a",), ("b",), ("a", 0), ("a", 1), ("a", "b"), ("ab",), ("a", 0, 1), ("a", 1, 0), ()]
    seen = {tuple(draws(run.rng(*n))) for n in names} | {tuple(draws(run.reseeded(2).rng(*n))) for n in names}
    assert len(seen) == 2 * len(names)


@given(seed=st.integers(0, 2**32), names=st.lists(st.text(max_size=4), max_size=3))
def test_entropy_is_63_bits(seed: int, names: list[str]):
    run = BASE.reseeded(seed)
    assert 0 <= run.entropy(*names) < 2**63
    assert run.entropy(*names) != run.entropy(*names, "x")


def test_draws_do_not_touch_the_global_generator(run: Run):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draws(run.rng("a"))
    with run.seeded("layers"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected) and not torch.equal(inside, expected)
    with run.seeded("layers"):
        assert torch.equal(torch.rand(3), inside)


def test_a_reseeded_run_keeps_nothing(keeping: Run):
    other = keeping.reseeded(7)
    assert (other.seed, other.keep, other.fabric) == (7, None, keeping.fabric)


# --- device and precision ---


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"avx512_f": True, "avx512_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_numerics_of_a_processor(monkeypatch: pytest.MonkeyPatch, capabilities: dict, precision: str):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    chosen = choose_numerics(CPU)
    assert chosen.precision == precision and chosen.layout == torch.channels_last and "bf16" in chosen.reason
    run = Run(device_name="cpu")
    net = run.place(torch.nn.Conv2d(3, 4, 3))
    with run.autocast():
        made = net(run.put(torch.zeros(1, 3, 8, 8)))
    assert made.dtype == (torch.bfloat16 if precision == "bf16-mixed" else torch.float32)


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_numerics_of_a_gpu_leave_out_emulated_bf16(monkeypatch: pytest.MonkeyPatch, native: bool, precision: str):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert choose_numerics(torch.device("cuda")).precision == precision


def test_other_devices_compute_in_float32():
    chosen = choose_numerics(torch.device("mps"))
    assert chosen.precision == "32-true" and "mps" in chosen.reason


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5k", 1500), ("0", 0), ("12b", 12), ("3T", 3 * 10**12)],
)
def test_sizes_of_memory(text: str, count: int):
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1", "2XB", "GB", "1,5GB"])
def test_a_size_of_memory_that_is_none(text: str):
    with pytest.raises(UserError, match="write 2GB"):
        byte_count(text)


def test_deltas_lie_in_files_beyond_the_memory(keeping: Run):
    assert replace(keeping, memory=100).overflow(100) is None
    assert replace(keeping, memory=100).overflow(101) == keeping.keep
    assert replace(keeping, keep=None, memory=100).overflow(101) is None  # nowhere to lie
    assert 0 < keeping.room < free_memory(CPU)


def test_a_tensor_beyond_the_memory_lies_in_a_file_without_a_name(keeping: Run, monkeypatch: pytest.MonkeyPatch):
    folders = []
    source = files.TemporaryFile
    monkeypatch.setattr(files, "TemporaryFile", lambda **how: folders.append(how["dir"]) or source(**how))
    small, large = (replace(keeping, memory=100).empty((count, 2), torch.int16) for count in (25, 26))
    assert folders == [keeping.keep] and not list(folders[0].iterdir())
    assert (small.shape, large.shape) == ((25, 2), (26, 2)) and large.dtype == torch.int16
    large[:] = torch.arange(52).reshape(26, 2)
    assert large[25].tolist() == [50, 51] and large[::25, 1].tolist() == [1, 51]


def test_draws_of_an_accelerator_are_restored(monkeypatch: pytest.MonkeyPatch):
    kept, real = [], torch.random.fork_rng

    def fork_rng(devices: list[torch.device], device_type: str) -> AbstractContextManager[None]:
        kept.append((device_type, devices))
        return real(devices=[])

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    for kind in ("cpu", "cuda", "mps"):
        with global_draws(0, torch.device(kind)):
            pass
    assert kept == [("cuda", []), ("cuda", [torch.device("cuda")]), ("mps", [torch.device("mps")])]


def test_a_gpu_has_no_part_in_the_room_for_results(keeping: Run, monkeypatch: pytest.MonkeyPatch):
    free = {"cuda": 10**15, "cpu": 300}
    monkeypatch.setattr("miue.core.run.free_memory", lambda device: free[device.type])
    monkeypatch.setitem(vars(keeping), "device", torch.device("cuda"))
    folders = []
    monkeypatch.setattr("miue.core.run.mapped", lambda *what: folders.append(what[-1]) or torch.zeros(1))
    assert keeping.room == 10**15 // 3 and keeping.room_for_results == 100
    keeping.empty((100,), torch.uint8)
    keeping.empty((101,), torch.uint8)
    assert folders == [keeping.keep]


def test_devices_that_are_not_there():
    with pytest.raises(UserError, match="'tpu' is unknown; allowed: auto, cpu, cuda, mps"):
        Run(device_name="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'cuda' cannot be used here"):
            Run(device_name="cuda")


def test_pictures_get_the_layout_of_the_device(run: Run):
    x = run.put(torch.zeros(2, 3, 4, 4))
    assert x.is_contiguous(memory_format=run.numerics.layout)
    labels = run.put(torch.arange(3))
    assert labels.tolist() == [0, 1, 2] and labels.dtype == torch.long


def test_a_record_of_the_machine(run: Run):
    assert run.machine["torch"] == torch.__version__ and run.machine["processes"] == "1"
    assert run.machine["device"].startswith("cpu (") and run.numerics.reason in run.machine["precision"]


# --- processes ---


@given(n=st.integers(0, 50), world=st.integers(1, 5))
def test_rows_belong_to_one_process(n: int, world: int):
    shares = [Rank(place=rank, size=world).mine(n).tolist() for rank in range(world)]
    assert sorted(row for share in shares for row in share) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("world", [2, 5])
def test_every_process_meets_every_class_of_a_set_that_lists_them_in_turn(world: int):
    for rank in range(world):
        assert (Rank(place=rank, size=world).mine(200) % 10).unique().tolist() == list(range(10))


def test_one_process_averages_nothing(run: Run):
    x = torch.tensor([1.0, 2.0])
    run.average([x, None])
    assert x.tolist() == [1, 2] and run.total(x) is x and run.least(5) == 5


# --- kept state ---


def test_saved_state_comes_back(keeping: Run):
    assert keeping.load("a", plan="p") is None
    keeping.save("a", {"w": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)}, {"plan": "p", "epoch": 4})
    tensors, meta = keeping.load("a", plan="p") or ({}, {})
    assert torch.equal(tensors["w"], torch.arange(6.0).reshape(2, 3).T) and tensors["n"].item() == 3
    assert meta == {"plan": "p", "epoch": 4}


def test_foreign_state_is_ignored(keeping: Run):
    keeping.save("a", {"w": torch.zeros(1)}, {"plan": "p", "seed": 1})
    assert keeping.load("a", plan="p", seed=1) is not None
    assert keeping.load("a", plan="q", seed=1) is None
    assert keeping.load("a", plan="p", seed=2) is None
    assert keeping.load("a", plan="p", other="x") is None
    assert keeping.load("b", plan="p") is None


def test_nothing_is_kept_without_a_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run.save("a", {"w": torch.zeros(1)}, {})
    run.forget()
    assert run.load("a") is None and list(tmp_path.iterdir()) == []


def test_forgetting_removes_state(keeping: Run):
    keeping.save("a", {"w": torch.zeros(1)}, {})
    keeping.forget()
    assert keeping.keep is not None and not keeping.keep.exists() and keeping.load("a") is None
    keeping.forget()


# --- atomic writing ---


def test_a_file_appears_complete(tmp_path: Path):
    path = tmp_path / "deep" / "er" / "file.json"
    write_atomically(path, b"one")
    write_atomically(path, lambda part: part.write_text("two") and None)
    assert path.read_bytes() == b"two" and [p.name for p in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException):
    path = tmp_path / "file.json"
    write_atomically(path, b"old")

    def half(part: Path) -> None:
        part.write_bytes(b"ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, half)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "fresh", half)
    assert list(tmp_path.iterdir()) == [path]


def test_float64_is_computed_where_there_is_some(run: Run, monkeypatch: pytest.MonkeyPatch):
    """An estimate never asks for the device of a Mac, which has no float64."""
    x, y = (torch.randn(64, 3, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    quick = {name: f"{name}:steps=20" if name in ("infonce", "mine", "smile") else name for name in mi.KNOWN}

    def told() -> list[float]:
        return [mi.estimator(text)(x, y, run, torch.arange(64) % 2).nats for text in quick.values()]

    expected = told()
    assert run.exact_device == run.device
    monkeypatch.setattr(Run, "device", torch.device("mps"))
    monkeypatch.setattr(Run, "put", lambda self, x: pytest.fail("to the device"))
    assert told() == expected


def test_the_old_file_is_there_while_the_new_one_is_written(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    seen = []

    def write(part: Path) -> None:
        seen.append((path.read_bytes(), part.parent, part.name.startswith(".")))
        part.write_bytes(b"new")

    write_atomically(path, write)
    assert seen == [(b"old", tmp_path, True)] and path.read_bytes() == b"new"


# --- progress ---


def test_progress_is_silent_where_asked(run: Run, capsys: pytest.CaptureFixture[str]):
    with run.progress("work", 2) as tick:
        tick()
        tick("note")
    assert capsys.readouterr() == ("", "")


def test_a_log_file_gets_lines_with_the_time_left(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = iter(float(t) for t in (0, 15, 30, 35, 60))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with replace(run, quiet=False).progress("work", 5, done=1) as tick:
        for _ in range(4):
            tick("loss 2")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["work: 3 of 5, 30 s left loss 2", "work: 5 of 5, took 60 s loss 2"]
