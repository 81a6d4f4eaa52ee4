"""The catalogue of methods, as lines of tables: stored in a file of the package, so that listing needs no torch.

`make docs` writes the file from the facts of the methods. `make check` and a test report when it is out of date.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent.parent / "catalogue.json"
MEASURED = Path(__file__).parent.parent / "measured.json"


def stored() -> dict[str, Any]:
    """Read the catalogue: lines by verb ("attacks", "defenses", ...), and the "facts" of attacks by name."""
    return json.loads(PLACE.read_text(encoding="utf-8"))


def measured() -> dict[str, list[dict[str, Any]]]:
    """Figures of attacks by spelling, one entry a benchmark.

    "who" kept on which "set", and by defense or network the share that was "kept" of what clean pictures teach.

    `make docs` writes the file from the records of benchmarks.
    """
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


def current() -> str:
    """Return the text that the file should have. Imports everything."""
    from miue import attacks, defenses, mi
    from miue.core.method import facts, summary
    from miue.nets import facts as net_facts
    from miue.nets import list_networks
    from miue.victims.recipes import RECIPES

    content = {
        "facts": {name: _without_name(asdict(of)) for name, of in facts(attacks.KNOWN).items()},
        "attacks": attack_lines(),
        "defenses": [
            {"name": name, "slot": cls.slot, "what it does": summary(cls), "reference": cls.facts.reference}
            for name, cls in defenses.KNOWN.items()
        ],
        "recipes": [
            {"recipe": name, "network": of.net, "epochs": str(of.epochs), "batch": str(of.batch), "source": of.source}
            for name, of in RECIPES.items()
        ],
        "networks": [
            {"network": name, "optimizer": net_facts(name).optimizer, "rate": net_facts(name).rate}
            for name in list_networks()
        ],
        "estimators": [{"estimator": name, "what it does": summary(cls)} for name, cls in mi.KNOWN.items()],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def attack_lines() -> list[dict[str, str]]:
    """Table lines, one for every attack and every preset that is a method of its own."""
    from miue.attacks import KNOWN
    from miue.core.method import facts
    from miue.core.types import Budget

    lines = []
    for name, of in facts(KNOWN).items():
        own = Budget(float(f"{of.natural.eps:.4g}"), of.natural.norm)
        others = [norm for norm in of.norms if norm != own.norm]
        presets = getattr(KNOWN[name], "presets", ()) if name in KNOWN else ()
        lines.append(
            {
                "name": name,
                "year": str(of.year),
                "budget": f"{own} (or {', '.join(others)})" if others else str(own),
                "passes": str(of.passes),
                "needs": of.needs,
                "what it does": of.summary,
                "reference": of.reference,
                "presets": ", ".join(presets),
            }
        )
    return lines


def _without_name(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "name"}
