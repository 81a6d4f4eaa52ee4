"""PSNR and SSIM of the perturbations of a grid that are there: python benchmarks/quality.py lasting

Writes benchmarks/results/quality.json. It makes no perturbation: `python benchmarks/grid.py lasting` does.
"""

from __future__ import annotations

import sys

from common import ROOT, record

import miue
from miue.data.quality import Spread, measure, ssim
from miue.grid.bench import Bench
from miue.grid.plan import Grid


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "lasting"
    run = miue.Run()
    bench = Bench.of(Grid.from_file(ROOT / "benchmarks" / f"{name}.toml"), run)
    lines, done = [], set[tuple[str, int]]()
    for cell in bench.cells.values():
        if not cell.perturbation or (cell.attack, cell.seed) in done:
            continue
        try:
            protected = bench.protected(cell)
        except FileNotFoundError:
            continue
        done.add((cell.attack, cell.seed))
        pairs = zip(bench.clean.images, protected.images, strict=True)
        values = [ssim(before.permute(1, 2, 0).numpy(), after.permute(1, 2, 0).numpy()) for before, after in pairs]
        spread, changed = Spread.over([value for value in values if value is not None]), measure(bench.clean, protected)
        assert spread and changed, "pictures of a grid have a size"
        lines.append({"attack": cell.attack, "seed": cell.seed, "psnr": changed.psnr, "ssim": spread.model_dump()})
    print(record("quality", run, plan=name, pictures=len(bench.clean), lines=lines))


if __name__ == "__main__":
    main()
