"""Kill `miue protect` at many moments, go on with the same command, compare bytes: benchmarks/results/killed.json."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from common import ROOT, record

import miue

sys.path.insert(0, str(ROOT / "tests"))
from killing import kill_and_compare


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with TemporaryDirectory() as folder:
        found = kill_and_compare(count, Path(folder))
    print(record("killed", miue.Run(), **asdict(found)))


if __name__ == "__main__":
    main()
