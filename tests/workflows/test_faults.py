"""Full disks, streams, locks and archives as people have them: one message with the file and the way out."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from miue.cli import show
from miue.core.errors import UserError
from miue.core.files import locked, write_atomically
from miue.core.run import Run
from miue.data import scan, shapes
from miue.publish import export
from miue.workflows import room
from miue.workflows.forecast import planned
from miue.workflows.job import Job
from miue.workflows.protect import carry_out
from pictures import coloured

NAMES = ("中文", "😀é")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_a_disk_that_takes_no_tensors_is_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    def full(*_: Any) -> None:
        raise SafetensorError(f"I/O error: {os.strerror(code)} (os error {code})")

    monkeypatch.setattr("miue.core.run.save_file", full)
    with pytest.raises(OSError) as caught:
        Run(device_name="cpu", keep=tmp_path).save("surrogate", {"x": torch.zeros(2)}, {})
    assert caught.value.errno == code and caught.value.filename == str(tmp_path / "surrogate.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_example_pictures_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(OSError) as caught:
        export(shapes(1, 8, 0, "train"), tmp_path / "example")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "example")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_safetensors_stay(tmp_path: Path):
    def wrong(part: Path) -> None:
        raise SafetensorError("invalid header")

    with pytest.raises(SafetensorError):
        write_atomically(tmp_path / "a", wrong)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EIO, errno.ESTALE])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no flock") if code == errno.ENOSYS else OSError(code, os.strerror(code))

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    with (
        pytest.raises(UserError, match=r"locks/job\.lock: the file system there refuses locks.*local disk"),
        locked(tmp_path, "job"),
    ):
        pass


def test_a_lock_that_is_held_is_no_error_of_the_file_system(tmp_path: Path):
    with locked(tmp_path, "job"), pytest.raises(Timeout), locked(tmp_path, "job", wait=False):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize("json_wanted", [False, True])
def test_streams_that_lack_a_letter(tmp_path: Path, encoding: str, json_wanted: bool):
    coloured(tmp_path / "in", 2)
    for old, new in zip(("red", "blue"), NAMES, strict=True):
        (tmp_path / "in" / old).rename(tmp_path / "in" / new)
    words = ["protect", "in", "out", "--attack", "noise", *(["--json"] if json_wanted else [])]
    ended = subprocess.run(
        [sys.executable, "-m", "miue.cli.main", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert ended.returncode == 0 and b"Traceback" not in ended.stderr, ended
    if json_wanted:
        classes = json.loads(ended.stdout.decode(encoding))["source"]["classes"]
        assert sorted(classes) == sorted(["green", *NAMES])


@pytest.mark.parametrize("name", ["README.txt", "__MACOSX/._images.npy", "empty.npy", "folder/notes.md"])
def test_members_that_are_no_arrays(tmp_path: Path, name: str):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((4, 8, 8), np.uint8), labels=[0, 1, 0, 1])
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"text")
    with pytest.raises(UserError, match=r"a\.npz: "):
        scan(path)


def test_a_damaged_stream(tmp_path: Path):
    path = tmp_path / "a.npz"
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), np.uint8)
    np.savez_compressed(path, images=images, labels=[0, 1, 0, 1])
    data = bytearray(path.read_bytes())
    data[200:1200] = b"\xff" * 1000
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz: not readable"):
        scan(path)


def test_a_single_array(tmp_path: Path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(UserError, match="a single array"):
        scan(tmp_path / "a.npz")


IMAGES, LABELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])


def archive(path: Path, **members: bytes | np.ndarray) -> Path:
    """An .npz file, by hand: what numpy would not write is given as bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, member in members.items():
            content = BytesIO()
            content.write(member) if isinstance(member, bytes) else np.save(content, member, allow_pickle=True)
            file.writestr(f"{name}.npy", content.getvalue())
    return path


def announced(*shape: int) -> bytes:
    """The header of an array of this shape, and a little of its content."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue() + bytes(1000)


@pytest.mark.parametrize("shape", [(10**9, 32, 32, 3), (2**40, 2**20, 2**20), (10, 32, 32)])
def test_an_array_that_is_smaller_than_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple):
    monkeypatch.setattr(np, "load", None)  # nothing is read into memory
    path = archive(tmp_path / "a.npz", images=announced(*shape), labels=LABELS)
    with pytest.raises(UserError, match=rf"a\.npz: the array 'images' announces {math.prod(shape):,} bytes.*but 1,000"):
        scan(path)


def test_arrays_that_are_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = archive(tmp_path / "a.npz", images=np.zeros((100, 32, 32, 3), np.uint8), labels=np.arange(100) % 2)
    assert path.stat().st_size < 3000
    monkeypatch.setattr("miue.data.arrays._memory", lambda: 200_000)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(UserError, match=r"a\.npz: its arrays announce 308,000 bytes.* 200,000 of memory"):
        scan(path)


def test_an_encrypted_member(tmp_path: Path):
    path = archive(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    data = bytearray(path.read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz: the member 'images' is encrypted; unpack it"):
        scan(path)


def test_a_name_that_is_there_twice(tmp_path: Path):
    path = archive(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("images.npy", announced(4, 8, 8))
    with pytest.raises(UserError, match=r"two members called 'images\.npy'"):
        scan(path)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_pickled_objects(tmp_path: Path, name: str):
    members: dict[str, Any] = {"images": IMAGES, "labels": LABELS} | {name: np.array([1, "a", {}, None], object)}
    with pytest.raises(UserError, match=rf"the array '{name}' holds Python objects, which could run code"):
        scan(archive(tmp_path / "a.npz", **members))


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.array([0.0, 1, 0, 1]), r"is float64, although its values are whole; save labels\.astype\(int\)"),
        (np.array([0, 1, 0.5, 1]), r"has 0\.5 in row 2; allowed: one integer"),
        (np.array([0, 1, 0, np.nan]), "has nan in row 3; allowed"),
        (np.array([0, np.inf, 0, 1]), "has inf in row 1; allowed"),
        (np.array([0, -1, 0, 1]), "has -1 in row 1; allowed: one integer of at least 0 for each of the 4 pictures"),
    ],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: np.ndarray, text: str):
    with pytest.raises(UserError, match=rf"a\.npz: 'labels' {text}"):
        scan(archive(tmp_path / "a.npz", images=IMAGES, labels=labels))


@pytest.mark.parametrize("names", [np.array("cat"), np.array(["cat"])])
def test_class_names_that_do_not_fit(tmp_path: Path, names: np.ndarray):
    images = np.arange(4 * 64).reshape(4, 8, 8).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, 0, 1], classes=names)
    with pytest.raises(UserError, match="one name for each of the 2 classes"):
        scan(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "names", [np.array(["a", "a"]), np.array(["\ud800", "b"]), np.array([2**32 - 1, 98], np.uint32).view("<U1")]
)
def test_class_names_that_are_no_texts_or_are_there_twice(tmp_path: Path, names: np.ndarray):
    with pytest.raises(UserError, match=r"a\.npz: (two classes are called 'a'|the class name)"):
        scan(archive(tmp_path / "a.npz", images=IMAGES, labels=np.array([0, 1, 0, 1]), classes=names))


@pytest.mark.parametrize("shape", [(4, 0, 8, 3), (4, 8, 0), (4, 0, 0)])
def test_pictures_without_pixels(tmp_path: Path, shape: tuple[int, ...]):
    with pytest.raises(UserError, match="its pictures have no pixels"):
        scan(archive(tmp_path / "a.npz", images=np.zeros(shape, np.uint8), labels=np.array([0, 1, 0, 1])))


def test_pixels_as_arrays_and_pictures_as_names(tmp_path: Path):
    images = np.arange(4 * 64).reshape(4, 8, 8).astype(np.uint8)
    own: dict[str, Any] = {"images": images, "labels": [0, 1, 0, 1]}
    np.savez(tmp_path / "a.npz", **own, **{f"p{i}": np.arange(4) for i in range(65)})
    with pytest.raises(UserError, match="67 arrays could hold the pixels"):
        scan(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **own, classes=np.array(["a", "b" * 300]))
    with pytest.raises(UserError, match="more than 255 characters"):
        scan(tmp_path / "b.npz")


def test_a_reader_that_has_seen_enough():
    ended = subprocess.run(
        f"{sys.executable} -m miue.cli.main attacks | head -1", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in ended.stderr and "BrokenPipe" not in ended.stderr


# --- room on the disk ---

SURROGATE = "surrogate=small-cnn:width=16,epochs=2,batch=8"
STATES = [
    f"mi-ue:{SURROGATE},steps=1,step_size=2.0",
    f"mi-ue:{SURROGATE},steps=1,step_size=2.0,cells=4,per=class,noise_momentum=0.5",
    f"sep:{SURROGATE},checkpoints=2,steps=1",
    "gue:surrogate=small-cnn:width=16,epochs=2,batch=8,width=8",
    "ops",
    "noise:per=class",
]


def usage(free: Callable[[Path], int]) -> Callable[[Path], Any]:
    return lambda path: SimpleNamespace(free=free(Path(path)))


def needs(job: Job) -> dict[str, int]:
    source = job.scan()
    return {name: size for parts in job.disk(source, job.settings(source)).values() for name, size in parts.items()}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(source=str(coloured(tmp_path / "in", size=16)), out=tmp_path / "out", method="noise")


def written_most(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    """Protect, and the most bytes that ever lay in the folder of checkpoints, with files that were being replaced."""
    most, replace_file = [0], Path.replace

    def watched(part: Path, path: Path) -> Path:
        if part.parent.name == "checkpoint":
            most.append(sum(file.stat().st_size for file in part.parent.iterdir()))
        return replace_file(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", watched)
        carry_out(job, run)
    return max(most)


@pytest.mark.parametrize("method", STATES)
def test_all_that_a_run_keeps_is_counted(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch, method: str):
    job = replace(job, method=method)
    counted, most = needs(job), written_most(job, run, monkeypatch)
    assert most <= counted["checkpoints"] + 20_000 and counted["checkpoints"] <= 1.5 * most
    (file,) = job.private.glob("perturbation-*")
    assert file.stat().st_size - 2000 <= counted["perturbation"] <= file.stat().st_size + 8 * 12
    written = sum(path.stat().st_size for path in job.out.rglob("*.png"))
    assert written <= counted["pictures"] <= written + 4096 * 12
    assert (job.private / "manifest.jsonl").stat().st_size * 2 < counted["manifest and margin"]


def test_a_canvas_on_disk_is_counted(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    assert needs(job)["canvas"] == 0
    monkeypatch.setattr(sys.modules["miue.data.read"], "_IN_MEMORY", 1000)
    assert needs(job)["canvas"] == 12 * 3 * 16 * 16
    carry_out(job, run)
    (file,) = (job.private / "canvas").iterdir()
    assert file.stat().st_size == 12 * 3 * 16 * 16 and "canvas" not in needs(job)


def test_too_little_room_is_told_by_part(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    need = sum(needs(job).values())
    monkeypatch.setattr("shutil.disk_usage", usage(lambda path: need - 1))
    text = (
        rf"out and .*out\.private: about {need:,} bytes.*pictures 49,152, perturbation 9,312, .*{need - 1:,} are free"
    )
    with pytest.raises(UserError, match=text):
        carry_out(job, run)
    assert not job.out.exists() and not job.private.exists()
    monkeypatch.setattr("shutil.disk_usage", usage(lambda path: need))
    carry_out(job, run)


@pytest.mark.parametrize("full", ["out", "out.private"])
def test_two_disks_are_looked_at_one_by_one(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch, full: str):
    source, other = job.scan(), job.private.with_name("other")
    other.mkdir()
    job.private.symlink_to(other)
    parts = job.disk(source, job.settings(source))
    out, private = (sum(parts[path].values()) for path in (job.out, job.private))
    monkeypatch.setattr("miue.workflows.room._device", lambda folder: 1 if folder == job.out else 2)
    free = {job.out.parent: out, job.private: private}
    assert set(map(room.existing, parts)) == set(free)
    short = free | {room.existing(job.out.with_name(full)): 10}
    monkeypatch.setattr("shutil.disk_usage", usage(lambda path: short[path]))
    with pytest.raises(UserError, match=rf"{full}: about .*10 are free"):
        carry_out(job, run)
    monkeypatch.setattr("shutil.disk_usage", usage(lambda path: free.get(path, out)))
    carry_out(job, run)


def test_a_continued_run_needs_what_is_missing(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    job = replace(job, method=f"mi-ue:{SURROGATE},steps=1,step_size=2.0")
    before = needs(job)
    carry_out(job, run)
    assert needs(job) == {"pictures": 0, "manifest and margin": before["manifest and margin"]}
    again = needs(replace(job, overwrite=True))
    assert again["pictures"] == before["pictures"] - sum(p.stat().st_size for p in job.out.rglob("*") if p.is_file())
    for path in (job.out / "red").iterdir():
        path.unlink()
    assert needs(job)["pictures"] == 4 * 4096
    next(job.private.glob("perturbation-*")).unlink()
    rest = needs(job)
    assert rest["perturbation"] == before["perturbation"] and 0 < rest["checkpoints"] < before["checkpoints"]
    monkeypatch.setattr("shutil.disk_usage", usage(lambda path: sum(rest.values()) - 1))
    with pytest.raises(UserError, match="pictures 16,384"):
        carry_out(job, run)


def test_a_dry_run_tells_the_same_number(job: Job, run: Run, capsys: pytest.CaptureFixture[str]):
    show.plan(planned(job, run), json=True)
    assert json.loads(capsys.readouterr().out)["disk_mb"] == sum(needs(job).values()) / 1e6 > 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [1000, 20_000])
def test_a_limit_on_files_is_told_with_the_file(tmp_path: Path, size: int):
    """What the system refuses to take, a canvas in a mapped file included, is one message."""
    coloured(tmp_path / "in", size=64)
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "from miue.cli import main as cli; import miue.data; sys.modules['miue.data.read']._IN_MEMORY = 0; cli.main()"
    )
    words = ["protect", "in", "out", "--attack", "noise", "--quiet"]
    ended = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended
    assert re.fullmatch(r"miue: \[Errno 27\] File too large: '.+'; the same command goes on.*\n", ended.stderr), ended
    assert not list(tmp_path.rglob("*.u8"))
