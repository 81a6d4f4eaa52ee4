"""Deltas in few bytes: the same numbers in memory, in a file, and after they were saved."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from miue.attacks import attack
from miue.core.launch import launch
from miue.core.method import BaseAttack
from miue.core.run import Run
from miue.core.types import Budget
from miue.testing import tiny
from miue.training import rows as module
from miue.training.rows import Rows
from miue.workflows.protect import attacked

SHAPE = (50, 3, 5, 4)
FORMS = ["fixed", "scaled"]


def both(run: Run, form: str, folder: Path, levels: int = 8) -> list[Rows]:
    return [Rows(run, SHAPE, form, levels, where) for where in (None, folder)]  # type: ignore[arg-type]


def drawn(seed: int, count: int = 50) -> torch.Tensor:
    return (torch.rand(count, *SHAPE[1:], generator=torch.Generator().manual_seed(seed)) * 2 - 1) * 8 / 255


@pytest.mark.parametrize("form", FORMS)
def test_a_file_gives_the_numbers_of_the_memory(run: Run, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PART", 7)
    memory, file = both(run, form, tmp_path)
    assert len(file) == 50 and not file[torch.arange(50)].any()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for number, index in enumerate((order[:20], order[15:45], torch.arange(3, 30), order[:1])):
        for rows in (memory, file):
            rows[index] = drawn(number, len(index))
        assert torch.equal(memory[index], file[index])
    assert torch.equal(memory[order], file[order]) and memory[order].any()
    for rows in (memory, file):
        rows.save(tmp_path / "saved.rows", "mine")
        assert rows.saved(tmp_path / "saved.rows", "mine") and not rows.saved(tmp_path / "saved.rows", "none")
        other = both(run, form, tmp_path)[0]
        other.load(tmp_path / "saved.rows")
        assert torch.equal(other[order], memory[order])
        rows.clear()
        assert not rows[order].any()
        rows.load(tmp_path / "saved.rows")
        assert torch.equal(rows[order], other[order])
    assert [path.name for path in tmp_path.iterdir()] == ["saved.rows"]  # the other file has no name


def test_a_system_that_reads_a_little_at_a_time_gives_all(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Linux reads at most 2 GiB in one call."""
    _, rows = both(run, "fixed", tmp_path)
    rows[torch.arange(50)] = drawn(0)

    class Slow:
        seek = rows.file.seek

        def readinto(self, view: memoryview) -> int:
            return real.readinto(view[:100])  # type: ignore[attr-defined]

    real, expected = rows.file, rows[torch.arange(50)]
    monkeypatch.setattr(rows, "file", Slow())
    assert torch.equal(rows[torch.arange(50)], expected)
    real.truncate(3000)
    with pytest.raises(AssertionError, match="a file of deltas ended"):
        rows[torch.arange(50)]


def test_fixed_rows_are_exact_at_edges_and_near_elsewhere(run: Run):
    rows, every = Rows(run, SHAPE, "fixed", 8), torch.arange(50)
    values = drawn(0)
    rows[every] = values
    assert (rows[every] - values).abs().max() <= 0.5 / 256 / 255 + 1e-8
    edges = torch.randint(-8, 9, SHAPE, generator=torch.Generator().manual_seed(0)) / 255
    rows[every] = edges
    assert torch.equal(rows[every], edges)
    wide = Rows(run, SHAPE, "fixed", 255)
    wide[every] = torch.full(SHAPE, -1.0)
    assert torch.equal(wide[every], torch.full(SHAPE, -1.0))


def test_scaled_rows_keep_each_row_by_its_own_size(run: Run):
    rows, every = Rows(run, SHAPE, "scaled"), torch.arange(50)
    values = drawn(0) * torch.logspace(-6, 6, 50).reshape(-1, 1, 1, 1)
    values[7] = 0
    rows[every] = values
    largest = values.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    assert ((rows[every] - values).abs() <= largest / 253).all()
    assert not rows[every][7].any()


ATTACKS = {
    "picture": "em:noise_momentum=0.9,start=uniform",
    "balanced": "mi-ue:balanced=true,class_gradient=2.0",
    "anew": "em:start=anew,noise_momentum=0.5",
    "colour": "em:channels=luma,colour=3.0,noise_momentum=0.9",
    "class": "em:per=class,noise_momentum=0.5",
    "cells": "em:cells=2",
    "crafted": "tap:channels=luma,colour=3.0,balanced=true",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_noise_is_the_same_from_files(keeping: Run, text: str, monkeypatch: pytest.MonkeyPatch):
    data = tiny(per_class=6)
    method = attack(f"{text},surrogate=small-cnn:width=4,epochs=2,batch=8,noise_batch=8,steps=2")
    folders = []
    monkeypatch.setattr(module, "PART", 5)
    monkeypatch.setattr(module, "TemporaryFile", lambda **how: folders.append(how["dir"]) or SOURCE(**how))
    expected = method(data, Budget(8), replace(keeping, keep=None, memory=0)).delta
    assert expected.any() and not folders
    assert torch.equal(method(data, Budget(8), replace(keeping, memory=0)).delta, expected)
    assert bool(folders) == (keeping.keep is not None)
    assert not [path for path in (keeping.keep or Path()).iterdir() if path.suffix not in (".safetensors", ".rows")]


SOURCE = module.TemporaryFile


@pytest.mark.parametrize("text", [ATTACKS["colour"], ATTACKS["anew"], ATTACKS["crafted"]])
def test_a_run_on_files_that_is_stopped_goes_on_to_the_same_noise(keeping: Run, text: str, tmp_path: Path):
    data = tiny(per_class=6)
    method = attack(f"{text},surrogate=small-cnn:width=4,epochs=3,batch=8,noise_batch=8,steps=2")
    expected = method(data, Budget(8), replace(keeping, keep=None)).delta

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    for number, memory in enumerate((0, None)):  # what goes on may have more memory than what was stopped
        run = replace(keeping, keep=tmp_path / str(number), memory=0)
        with pytest.raises(KeyboardInterrupt):
            method(data, Budget(8), replace(run, report=stop))
        assert any((tmp_path / str(number)).iterdir())
        assert torch.equal(method(data, Budget(8), replace(run, memory=memory)).delta, expected)


@pytest.mark.slow
@pytest.mark.slow
def test_two_processes_on_files_make_the_same_noise(keeping: Run):
    data = tiny(per_class=6)
    method = attack("em:noise_momentum=0.9,surrogate=small-cnn:width=4,epochs=2,batch=8,noise_batch=8,steps=2")
    made = [launch(partial(attacked, method, data, Budget(8)), replace(keeping, memory=m), 2).delta for m in (None, 0)]
    assert made[0].any() and torch.equal(*made)


def test_rows_of_a_state_that_are_lost_make_it_void(keeping: Run):
    data, text = tiny(per_class=6), "em:surrogate=small-cnn:width=4,epochs=2,batch=8,noise_batch=8,steps=2"
    first = attack(text)(data, Budget(8), keeping)
    files = list((keeping.keep or Path()).glob("*.rows"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(path.read_bytes()[:-1] + b"?")  # of another state
    assert torch.equal(attack(text)(data, Budget(8), keeping).delta, first.delta)


def test_noise_that_an_earlier_version_kept_is_made_anew(keeping: Run):
    data = tiny(per_class=6)
    method = attack("tap:surrogate=small-cnn:width=4,epochs=2,batch=8,noise_batch=8,steps=2")
    assert isinstance(method, BaseAttack)
    old = {"delta": torch.zeros(8, *data.shape)}
    keeping.save("noise-0of1-0", old, method.identity(data, Budget(8), keeping))
    expected = method(data, Budget(8), replace(keeping, keep=None)).delta
    assert torch.equal(method(data, Budget(8), keeping).delta, expected)
