"""Full disks, streams, locks and archives as people have them: one message with the file and the way out."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from miue.core.errors import UserError
from miue.core.files import locked, write_atomically
from miue.core.run import Run
from miue.data import scan
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


def test_other_errors_of_safetensors_stay(tmp_path: Path):
    def wrong(part: Path) -> None:
        raise SafetensorError("invalid header")

    with pytest.raises(SafetensorError):
        write_atomically(tmp_path / "a", wrong)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
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


@pytest.mark.parametrize("names", [np.array("cat"), np.array(["cat"])])
def test_class_names_that_do_not_fit(tmp_path: Path, names: np.ndarray):
    images = np.arange(4 * 64).reshape(4, 8, 8).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, 0, 1], classes=names)
    with pytest.raises(UserError, match="one name for each of the 2 classes"):
        scan(tmp_path / "a.npz")


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
