"""Memory and time of `miue protect` on large folders of pictures, with all deltas in memory and with --memory 2GB.

Pictures are drawn: a random field of 8 x 8 values, stretched to the side, saved as JPEG. Every run is one process,
whose memory is read ten times a second: "own" is what only a swap file could take over, "mapped" are pages of files,
which the system drops where memory is short. What is measured already is not measured again.
python benchmarks/large.py [--sets 5000x64 50000x64 200000x64 20000x224] [--ways files memory] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, record
from PIL import Image

import miue
from miue import data

ATTACK = "mi-ue:surrogate=small-cnn:width=4,epochs=2,steps=1,step_size=2"
WAYS = {"files": "2GB", "memory": "1TB"}
FOLDER = 1000  # pictures of one class folder


def draw(folder: Path, first: int, side: int) -> None:
    """Draw the pictures of one class folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + FOLDER):
        field = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:07}.jpg")


def drawn(count: int, side: int, work: Path) -> Path:
    """The folder of so many pictures."""
    root = work / f"{count}x{side}"
    if not root.exists():
        part = work / f"part-{count}x{side}"
        for at in range(count // FOLDER):
            draw(part / f"class {at:03}", at * FOLDER, side)
        part.rename(root)
    return root


def status(process: int) -> dict[str, float]:
    """Megabytes of a process, own and mapped."""
    text = Path(f"/proc/{process}/status").read_text()
    fields = {"own": "RssAnon:", "mapped": "RssFile:"}
    return {key: int(text.partition(field)[2].split()[0]) / 1024 for key, field in fields.items()}


def once(source: Path, way: str, side: int, work: Path) -> dict[str, Any]:
    """Seconds and peaks of one run, and a digest of what it wrote."""
    out = work / "out"
    for folder in (out, data.private_of(out)):
        shutil.rmtree(folder, ignore_errors=True)
    options = ["--attack", ATTACK, "--memory", WAYS[way], "--canvas", str(side), "--device", "cpu", "--quiet"]
    start, peak = time.monotonic(), {"own": 0.0, "mapped": 0.0}
    process = subprocess.Popen([sys.executable, "-m", "miue.cli.main", "protect", str(source), str(out), *options])
    while process.poll() is None:
        try:
            peak = {key: max(value, peak[key]) for key, value in status(process.pid).items()}
        except (OSError, IndexError):  # it has just ended
            break
        time.sleep(0.1)
    if process.wait():
        raise SystemExit(process.returncode)
    seconds = time.monotonic() - start
    digest = hashlib.sha256()
    for path in sorted(out.rglob("*.png")):
        digest.update(path.read_bytes())
    stages = json.loads((data.private_of(out) / "run.json").read_text())["seconds"]
    return {"seconds": seconds, "stages": stages, "peak": peak, "digest": digest.hexdigest()[:16]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["5000x64", "50000x64", "200000x64", "20000x224"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--work", type=Path, default=Path("build/large"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "large.json"
    lines = json.loads(path.read_text())["lines"] if path.exists() else []
    for name in options.sets:
        count, side = map(int, name.split("x"))
        for way in options.ways:
            if any((line["pictures"], line["side"], line["way"]) == (count, side, way) for line in lines):
                continue
            line = once(drawn(count, side, options.work), way, side, options.work)
            digests = {old["digest"] for old in lines if (old["pictures"], old["side"]) == (count, side)}
            if digests - {line["digest"]}:
                raise SystemExit(f"{name}: the two ways write other files")
            lines.append({"pictures": count, "side": side, "way": way} | line)
            print(lines[-1], flush=True)
            record("large", miue.Run(), attack=ATTACK, memory=WAYS, lines=lines)


if __name__ == "__main__":
    main()
