"""What the noise of attacks is: write benchmarks/results/noise.json, attack by attack.

python benchmarks/noise.py [ATTACK...] [--per-class 500]. Attacks that the record holds are not made again.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from common import RESULTS, cifar10, record

import miue
from miue.core.method import own_budget
from miue.evaluation.profile import profile

CHEAP = ("noise", "patterns", "lsp", "ar", "ops", "cuda")  # seconds each; the others take their surrogate's minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", default=CHEAP)
    parser.add_argument("--per-class", type=int, default=500)
    options = parser.parse_args()
    clean, run, path = cifar10("train", options.per_class), miue.Run(quiet=False), RESULTS / "noise.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    rows: dict[str, Any] = before["rows"] if before.get("digest") == clean.digest else {}
    for text in options.attacks:
        if text in rows:
            continue
        method = miue.attack(text)
        budget = own_budget(method, clean.shape)
        noise = profile(clean, method(clean, budget, run).apply(clean), run)
        rows[text] = {"budget": str(budget), **(noise.model_dump() if noise else {})}
        data = f"CIFAR-10 (JPEG), {options.per_class} pictures per class"
        print(text, noise, record("noise", run, data=data, digest=clean.digest, rows=rows), flush=True)


if __name__ == "__main__":
    main()
