"""What attacks reach on their own surrogate: write benchmarks/results/success.json, attack by attack.

python benchmarks/success.py [ATTACK...] [--per-class 500]. Attacks that the record holds are not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import RESULTS, cifar10, record

import miue
from miue.attacks.success import success
from miue.core.method import own_budget

QUICK = ("pil", "tap", "sep", "hypo", "entf", "em", "mi-ue", "aue", "rem", "gue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", default=[f"{name}:quick" for name in QUICK])
    parser.add_argument("--per-class", type=int, default=500)
    options = parser.parse_args()
    clean, path = cifar10("train", options.per_class), RESULTS / "success.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    rows: dict[str, Any] = before["rows"] if before.get("digest") == clean.digest else {}
    for text in options.attacks:
        if text in rows:
            continue
        method = miue.attack(text)
        budget = own_budget(method, clean.shape)
        with TemporaryDirectory() as folder:
            run = miue.Run(keep=Path(folder), quiet=False)
            perturbation = method(clean, budget, run)
            reached = success(method, clean, perturbation.apply(clean), budget, perturbation.data, run)
        if reached is None:
            raise SystemExit(f"{text} has no surrogate that could be asked")
        rows[text] = {"budget": str(budget), "success": reached.model_dump()}
        data = f"CIFAR-10 (JPEG), {options.per_class} pictures per class"
        print(text, reached, record("success", run, data=data, digest=clean.digest, rows=rows), flush=True)


if __name__ == "__main__":
    main()
