"""Run the demo and write benchmarks/results/demo.json; an interrupted one goes on in its folder.

python benchmarks/demo.py [FOLDER]. Seconds are those of the attack, of writing and of the victims, over all tries.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import record

import miue
from miue.workflows.demo import demo
from miue.workflows.record import RunRecord


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    outcome = demo(folder, miue.Run(0, quiet=False))
    stages = RunRecord.of(folder / "protected").seconds
    seconds = sum(stages.values()) + sum(victim.seconds for victim in outcome.runs)
    facts = outcome.model_dump(exclude={"name", "recipe", "inputs", "machine"})
    print(record("demo", miue.Run(0), seconds=seconds, stages=dict(stages), **facts))


if __name__ == "__main__":
    main()
