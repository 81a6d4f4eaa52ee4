"""Interrupted anywhere, the same command ends in the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from killing import kill_additions, kill_and_compare


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(tmp_path: Path):
    record = kill_and_compare(6, tmp_path)
    assert record.identical == [True] * 6, list(zip(record.moments, record.reached, record.identical, strict=True))
    assert len({text.partition(",")[0] for text in record.reached}) == 2  # killed in the attack, and while writing


@pytest.mark.slow
def test_an_addition_that_is_killed_ends_in_the_same_bytes(tmp_path: Path):
    assert kill_additions(4, tmp_path) == [True] * 4
