"""The commands of an owner, one after the other, on pictures in a folder: seconds, sizes and exit codes.

python benchmarks/owner.py [photographs|demo|odd] [--work build/owner]
photographs: all of Imagenette as JPEG files of 224 px. demo: the shapes of the demo and its attack. odd: shapes, and
between them the odd files of the tests. The last pictures of every class come later. A copy of the output is recoded,
resized, renamed and thinned out, as web sites do, and looked at.
Writes that part of benchmarks/results/owner.json. Killed? The same command goes on with the step that was not finished.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, head, record
from photos import exported
from PIL import Image

import miue
from miue import data, publish
from miue.core.files import write_atomically
from miue.workflows import demo


def shapes(folder: Path) -> None:
    """The pictures of the demo."""
    publish.export(data.shapes(demo.PER_CLASS, 32, 0, "train"), folder)


def odd(folder: Path) -> None:
    """Thirty shapes in every class, and the odd files of the tests in two of them."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "data")]
    import test_odd_pictures as odd  # pyright: ignore[reportMissingImports]

    publish.export(data.shapes(30, 64, 0, "train"), folder)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [
        (kind, content if isinstance(content, bytes) else content[0])
        for kinds in (odd.RAW, odd.WHOLE, odd.OTHERS, odd.TEXTS, odd.SEVERAL)
        for kind, content in kinds.items()
    ]
    for number, (kind, content) in enumerate(files):
        (classes[number % 2] / f"0 {number:03} {kind.replace('/', '-')}.tif").write_bytes(content)


def photographs(folder: Path) -> None:
    """All of Imagenette."""
    exported("train", 10**9, folder)


SETS = {
    "photographs": (photographs, "Imagenette, JPEG of 224 px", "em:lasting", 20),
    "demo": (shapes, "the shapes of the demo, PNG of 32 px", demo.ATTACK, 20),
    "odd": (odd, "shapes, PNG of 64 px, and the odd files of the tests", "em:lasting", 5),
}
"""How each set is written, what it is, its attack, and how many pictures of every class come later."""


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def moved(folder: Path, later: Path, count: int) -> None:
    """Move the last pictures of every class to a folder of those that come later."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        (later / kind.name).mkdir(parents=True, exist_ok=True)
        missing = count - len(list((later / kind.name).iterdir()))
        for path in sorted(kind.iterdir())[len(list(kind.iterdir())) - missing :]:
            path.rename(later / kind.name / path.name)


def came_back(out: Path, folder: Path) -> None:
    """Every tenth published picture as a web site would give it back, a third of them under another name."""
    pictures = sorted(out.rglob("*.png"))[::10]
    for number, path in enumerate(pictures):
        name = path.relative_to(out).with_suffix(".jpg") if number % 3 else Path(f"{number:05}.jpg")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            half = picture.size if number % 2 else (picture.width // 2, picture.height // 2)
            picture.convert("RGB").resize(half, Image.Resampling.LANCZOS).save(target, quality=75)


def step(name: str, words: list[str]) -> dict[str, Any]:
    """Run a command of miue, and return its seconds, exit code and last lines."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "miue", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(
            f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return {
        "step": name,
        "command": " ".join(["miue", *words]),
        "exit": done.returncode,
        "seconds": time.monotonic() - start,
        "processor_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": after.ru_maxrss / 1024,  # of the largest command so far
        "last": done.stdout.replace(f"{Path.cwd()}/", "").strip().splitlines()[-12:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", choices=SETS, default="photographs")
    parser.add_argument("--work", type=Path, default=Path("build/owner"))
    options = parser.parse_args()
    make, what, attack, count = SETS[options.set]
    work = options.work / options.set
    state = work / "state.json"
    rows: list[dict[str, Any]] = json.loads(state.read_text()) if state.exists() else []
    if not (work / "pictures").exists():
        for part in (work / "pictures.part", work / "later"):
            shutil.rmtree(part, ignore_errors=True)  # of a killed call
        make(work / "pictures.part")
        moved(work / "pictures.part", work / "later", count)
        (work / "pictures.part").rename(work / "pictures")
    os.chdir(work)
    pictures, later, out, back = Path("pictures"), Path("later"), Path("out"), Path("back")
    for name, words in (
        ("protect", [str(pictures), str(out), "--attack", attack, "--quiet"]),
        ("verify", [str(out), "--clean", str(pictures)]),
        ("add", [str(out), str(later), "--quiet"]),
        ("rights write", [str(out), "--rights", "no-training", "--creator", "An owner"]),
        ("verify", [str(out)]),
        ("verify --as-published", [str(back), "--as-published", str(out)]),
        ("verify --clean-twins", [str(out), "--clean-twins", str(later)]),
        ("report", [str(out)]),
        ("report --public", [str(out), "--public"]),
    ):
        verb = name.split()[:2] if name.startswith("rights") else name.split()[:1]
        if " ".join(["miue", *verb, *words]) in [row["command"] for row in rows]:
            continue
        if name == "verify --as-published" and not back.exists():
            came_back(out, Path("back.part"))
            shutil.move("back.part", back)
        rows.append(step(name, [*verb, *words]))
        print(json.dumps(rows[-1]), flush=True)
        write_atomically(Path("state.json"), json.dumps(rows).encode())
    sizes = {str(folder): size_mb(folder) for folder in (pictures, later, out, Path("out.private"), back)}
    counts = {
        str(folder): sum(path.is_file() and path.name != publish.NOTICE for path in folder.rglob("*"))
        for folder in (pictures, later, out, back)
    }
    run, path = miue.Run(), RESULTS / "owner.json"
    facts = {"commit": head(), "machine": run.machine, "data": what, "attack": attack}
    sets = json.loads(path.read_text())["sets"] if path.exists() else {}
    sets |= {options.set: facts | {"rows": rows, "sizes_mb": sizes, "counts": counts}}
    print(record("owner", run, sets=sets))


if __name__ == "__main__":
    main()
