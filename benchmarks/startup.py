"""What starting costs: processor seconds and memory of help texts and of `import miue`, before and after, in turn.

python benchmarks/startup.py EARLIER_CHECKOUT/src src
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from common import record

import miue

VERB = "from miue.cli import main; main = getattr(main, 'main', main); sys.argv = {words}; main()"  # of either layout
LINES = {
    "miue --help": VERB.format(words=["miue", "--help"]),
    "miue protect --help": VERB.format(words=["miue", "protect", "--help"]),
    "miue --version": VERB.format(words=["miue", "--version"]),
    "miue attacks": VERB.format(words=["miue", "attacks"]),
    "miue defenses": VERB.format(words=["miue", "defenses"]),
    "import miue": "import miue",
    "a run on the processor": "import miue; miue.Run(device_name='cpu')",
}
PROBE = """
import json, pathlib, sys, time
try:
    {code}
except SystemExit:
    pass
peak = [line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(json.dumps([time.process_time(), int(peak[0]) / 1024]), file=sys.stderr)
"""


def once(code: str, source: Path) -> tuple[float, float]:
    """Processor seconds and peak MB of a fresh process."""
    ended = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)],
        env=os.environ | {"PYTHONPATH": str(source.resolve())},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = json.loads(ended.stderr.splitlines()[-1])
    return seconds, peak


def commit(source: Path) -> str:
    """The commit that a checkout is at."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, cwd=source, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    sides = {"before": asked.before, "after": asked.after}
    lines = []
    for name, code in LINES.items():
        runs = [(side, *once(code, source)) for _ in range(asked.repeats) for side, source in sides.items()]
        for side in sides:
            seconds, peaks = zip(*[(s, p) for other, s, p in runs if other == side], strict=True)
            lines.append({"line": name, "side": side, "seconds": median(seconds), "megabytes": median(peaks)})
    commits = {side: commit(source) for side, source in sides.items()}
    print(record("startup", miue.Run(), repeats=asked.repeats, commits=commits, lines=lines))


if __name__ == "__main__":
    main()
