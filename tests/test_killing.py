"""Interrupted anywhere, the same command ends in the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from killing import kill_and_compare


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(tmp_path: Path):
    record = kill_and_compare(6, tmp_path)
    assert record.identical == [True] * 6, list(zip(record.moments, record.reached, record.identical, strict=True))
    assert len(set(record.reached)) > 1  # otherwise the moments were no sample of the whole
