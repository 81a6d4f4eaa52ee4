"""Run the demo in a fresh folder, time it, and write benchmarks/results/demo.json and docs/preview.png."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from common import ROOT, record

import miue
from miue.demo import demo


def main() -> None:
    run, start = miue.Run(0, quiet=False), time.monotonic()
    with TemporaryDirectory() as folder:
        outcome = demo(Path(folder), run, print)
        seconds = time.monotonic() - start
        shutil.copy(Path(folder) / "preview.png", ROOT / "docs" / "preview.png")
    facts = outcome.model_dump(exclude={"machine", "name", "recipe"})
    print(record("demo", run, seconds=seconds, **facts))


if __name__ == "__main__":
    main()
