"""Kill `miue protect` or `miue add` at random moments, run the same command again, compare every byte with those of an
uninterrupted run.

python tests/killing.py 20 record.json
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from miue import data, publish
from pictures import hashes

ATTACK = "mi-ue:surrogate=small-cnn:width=8,epochs=8,steps=3,step_size=2,cells=8,noise_batch=16,batch=16"


@dataclass
class Record:
    """moments: when each run was killed, in seconds from the first sign of work, or of writing for every other one;
    reached: what the private folder held then."""

    pictures: int
    seconds: float
    """From the first sign of work to the finished manifest, uninterrupted."""
    writing: float
    """Its last part, from the finished perturbation on."""
    moments: list[float] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    identical: list[bool] = field(default_factory=list)


def command(source: Path, out: Path) -> list[str]:
    options = ["--attack", ATTACK, "--seed", "3", "--device", "cpu", "--quiet"]
    return [sys.executable, "-m", "miue.cli.main", "protect", str(source), str(out), *options]


def published(out: Path) -> dict[str, str]:
    """What must not differ: the published tree, and the manifest that leads back from it."""
    private = data.private_of(out)
    return hashes(out) | {"manifest": hashes(private)["manifest.jsonl"]}


def started(out: Path, process: subprocess.Popen[bytes]) -> float:
    """Wait for the first sign of work: the private folder."""
    private = data.private_of(out)
    while not private.is_dir():
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before it began")
        time.sleep(0.002)
    return time.monotonic()


def attacked(out: Path) -> bool:
    return any(data.private_of(out).glob("perturbation-*.safetensors"))


def reached(out: Path) -> str:
    """How far a run had come."""
    private = data.private_of(out)
    if attacked(out):
        return f"writing, {sum(1 for _ in out.rglob('*.png'))} pictures there"
    kept = any((private / "checkpoint").glob("*.safetensors"))
    return "attacking, a checkpoint is kept" if kept else "attacking, nothing is kept yet"


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_to_the_end(source: Path, out: Path) -> tuple[float, float]:
    """Seconds from the first sign of work to the finished manifest, and those of writing alone."""
    process = start(source, out)
    begin = writing = started(out, process)
    while process.poll() is None and not (data.private_of(out) / "manifest.jsonl").is_file():
        writing = writing if attacked(out) else time.monotonic()
        time.sleep(0.005)
    end = time.monotonic()
    if process.wait() != 0:
        raise RuntimeError(f"ended with {process.returncode}")
    return end - begin, end - writing


def kill_at(moment: float, source: Path, out: Path, writing: bool) -> str:
    """Start, wait `moment` seconds from the first sign of work or of writing, SIGKILL."""
    process = start(source, out)
    begin = started(out, process)
    while writing and not attacked(out) and process.poll() is None:
        begin = time.monotonic()
        time.sleep(0.002)
    time.sleep(max(begin + moment - time.monotonic(), 0))
    process.kill()
    process.wait()
    return reached(out)


def kill_and_compare(count: int, folder: Path, seed: int = 0, per_class: int = 3, size: int = 96) -> Record:
    """`count` runs, each killed once, then finished: half of them evenly over the attack, half over the writing.

    Counted from the beginning of their part, so that a machine that slows down does not move all of them into one.
    """
    source, whole = folder / "shapes", folder / "whole"
    publish.export(data.shapes(per_class, size, 0, "train"), source)
    record = Record(len(hashes(source)), *run_to_the_end(source, whole))
    expected, rng = published(whole), random.Random(seed)
    for i in range(count):
        out, writing = folder / f"killed-{i}", i % 2 == 1
        part = record.writing if writing else record.seconds - record.writing
        moment = part * (i // 2 + rng.random()) / ((count + 1) // 2)
        record.moments.append(moment)
        record.reached.append(kill_at(moment, source, out, writing))
        run_to_the_end(source, out)
        record.identical.append(published(out) == expected)
        shutil.rmtree(out)
        shutil.rmtree(data.private_of(out))
    return record


def kill_additions(count: int, folder: Path, seed: int = 0, per_class: int = 2, size: int = 96) -> list[bool]:
    """`count` additions, each killed once at a random moment and then finished: whether each ended like one unkilled.

    The published set that they are added to is copied, with its private folder.
    """
    source, new, first = folder / "shapes", folder / "new", folder / "first"
    publish.export(data.shapes(per_class, size, 0, "train"), source)
    publish.export(data.shapes(per_class, size, 0, "test"), new)
    run_to_the_end(source, first)
    rng, ends = random.Random(seed), list[dict[str, str]]()
    whole, seconds = folder / "whole", 0.0
    for out in (whole, *(folder / f"killed-{i}" for i in range(count))):
        shutil.copytree(first, out)
        shutil.copytree(data.private_of(first), data.private_of(out))
        line = [sys.executable, "-m", "miue.cli.main", "add", str(out), str(new), "--device", "cpu", "--quiet"]
        start = time.monotonic()
        if out != whole:
            process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not list(data.private_of(out).glob("added-*")) and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.random() * seconds / 2)  # half of the time is that of starting
            process.kill()
            process.wait()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        seconds = seconds or time.monotonic() - start
        ends.append(published(out))
    return [end == ends[0] for end in ends[1:]]


def main(count: str, path: str = "") -> int:
    with TemporaryDirectory() as folder:
        text = json.dumps(asdict(record := kill_and_compare(int(count), Path(folder))), indent=1)
    if path:
        Path(path).write_text(text + "\n")
    print(text)
    return 0 if all(record.identical) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
