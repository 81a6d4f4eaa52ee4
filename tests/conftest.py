"""What all tests share: one thread, examples that do not change from run to run, a run on the processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from miue.core.run import Run

torch.set_num_threads(1)
settings.register_profile("miue", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("miue")


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Torch's global generator as it is at the start of every test, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker processes unless a test asks for them: what a test replaces is replaced in this process only."""
    monkeypatch.setattr("miue.core.run.free_cores", lambda: 1)


@pytest.fixture
def run() -> Run:
    """A run on the processor that keeps nothing."""
    return Run(seed=1, device_name="cpu")


@pytest.fixture
def keeping(tmp_path: Path) -> Run:
    """A run on the processor that keeps its state."""
    return Run(seed=1, device_name="cpu", keep=tmp_path / "kept")
