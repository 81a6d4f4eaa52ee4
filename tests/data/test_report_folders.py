"""Folders and names as owners have them: what is a class, what is not, and what is said of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from making import encoded, folder, noise, pixels, put
from miue.cli.main import main
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data import default_canvas, scan, scan_output
from miue.evaluation.detect import first_look
from miue.publish import verify, write
from miue.publish.align import align


def raw(root: Path, *names: bytes) -> Path:
    """A picture at each path, given as bytes."""
    for i, name in enumerate(names):
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(i)))
    return root


def refusal(source: Path, **options) -> str:
    with pytest.raises(UserError) as error:
        scan(source, **options)
    return str(error.value)


# --- names ---


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ((b"\xe9t\xe9/0.png", b"zoo/0.png"), ("%xe9t%xe9", "zoo")),  # Latin-1
        ((b"a/0.png", b"\xff/0.png", b"b/0.png"), ("%xff", "a", "b")),
        ((b"\x8e\x9f/0.png", b"A/0.png"), ("%x8e%x9f", "A")),  # Shift-JIS
        ((b"z\xa4/0.png", "z\u0301".encode() + b"/0.png"), ("z%xa4", "z\u0301")),  # beside a valid accent
        ((b"x\xc3/\xe9/\xff.png", b"y/0.png"), ("x%xc3", "y")),  # cut-off UTF-8, and in folders below
    ],
)
def test_classes_are_ordered_by_the_names_that_are_written(tmp_path: Path, names, classes):
    source = scan(raw(tmp_path / "in", *names))
    assert source.classes == classes
    write(source, noise(len(source.usable)), tmp_path / "out", tmp_path / "out.private")
    again = scan_output(tmp_path / "out")
    assert again.classes == classes == tuple(sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()))
    assert align(source, again).tolist() == list(range(len(names)))
    assert all(finding.ok for finding in verify(tmp_path / "out", source))


def test_a_name_that_only_cannot_be_printed_is_kept(tmp_path: Path):
    assert "a\\b\u200d" in scan(raw(tmp_path, "a\\b\u200d/0.png".encode(), b"z/0.png")).classes


@pytest.mark.parametrize(
    "names",
    [
        (b"a\xffb/0.png", b"a%xffb/0.png"),
        (b"a/\xff.png", b"a/%xff.png", b"b/0.png"),
        (b"a/\xe9/0.png", b"a/%xe9/0.png", b"b/0.png"),
        (b"a/\xe9/0.png", b"a/%xe9/1.png", b"b/0.png"),
        (b"a/\xe9/x/0.png", b"a/%xe9/y/1.png", b"b/0.png"),
    ],
)
def test_names_that_would_become_one_are_refused(tmp_path: Path, names):
    assert "become" in refusal(raw(tmp_path, *names)) and "%x" in refusal(tmp_path)


@pytest.mark.parametrize(
    "twins",
    [("A", "a"), ("B", "b"), ("\u00e9", "e\u0301"), ("STRASSE", "stra\u00dfe"), ("x/Sub", "x/sub"), ("a", "a.")],
)
def test_files_of_folders_that_differ_in_case_keep_their_names(tmp_path: Path, twins):
    for name in twins:
        put(tmp_path, f"{name}/0.png")
    source = scan(put(tmp_path, "zoo/0.png").parents[1])
    assert [e.out for e in source.usable] == [e.path for e in source.usable]
    (note,) = [note for note in source.notes if "Windows and macOS" in note]
    assert " = ".join(sorted(twins)) in note


# --- what is no class ---


@pytest.mark.parametrize(
    "name",
    [
        "#recycle",
        "$RECYCLE.BIN",
        "lost+found",
        "System Volume Information",
        "__pycache__",
        "$Recycle.Bin",
        "@Recycle",
        "found.000",
        "Network Trash Folder",
        "#snapshot",
        "cat/#recycle",
        "RECYCLER",
        "~snapshot",
        "$WINDOWS.~BT",
        "node_modules",
    ],
)
def test_folders_of_a_system_are_not_published(tmp_path: Path, name):
    source = scan(folder(tmp_path, f"{name}/old/1.png"))
    assert source.classes == ("cat", "dog") and len(source.usable) == 4
    assert source.summary()["skipped: in a folder of the system"] == 1
    assert "/" in name or any(name in note for note in source.notes)


@pytest.mark.parametrize("name", ["recycle", "recycling", "found", "lost", "cache", "temporary", "$1"])
def test_classes_that_are_named_nearly_so_stay(tmp_path: Path, name):
    assert name in scan(folder(tmp_path, f"{name}/1.png")).classes


def test_an_empty_class_is_told_with_what_readers_do(tmp_path: Path):
    put(folder(tmp_path), "bird/broken.png", b"\0" * 99)
    (note,) = [note for note in scan(tmp_path).notes if "without pictures" in note]
    assert "bird" in note and "torchvision" in note and "timm" in note


# --- where the classes are ---


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("query", "gallery", "train"), ("mytrain", "myval")])
def test_equal_folders_in_all_classes_are_noted(tmp_path: Path, names):
    for name in names:
        folder(tmp_path / name)
    (note,) = [note for note in scan(tmp_path).notes if "if those are the classes" in note]
    assert "cat, dog" in note and str(tmp_path / min(names)) in note
    put(tmp_path, "other/0.png")
    assert not any("if those are the classes" in note for note in scan(tmp_path).notes)


@pytest.mark.parametrize("at", ["dataset", "images/all", "a/b/c"])
def test_one_level_too_deep_names_the_folder_to_point_at(tmp_path: Path, at):
    folder(tmp_path / at)
    (tmp_path / "docs").mkdir()
    assert str(tmp_path / at) in refusal(tmp_path)
    put(tmp_path / at, "cover.png")
    assert f"are cat, dog, point at {tmp_path / at}" in refusal(tmp_path)


@pytest.mark.parametrize("links", ["files", "dead", "folders"])
def test_links_alone_say_how_to_copy_them(tmp_path: Path, links):
    real, at = folder(tmp_path / "real"), tmp_path / "in"
    at.mkdir()
    if links == "folders":
        (at / "cat").symlink_to(real / "cat")
        (at / "dog").symlink_to(real / "dog")
    for name in ("cat", "dog") if links != "folders" else ():
        (at / name).mkdir()
        (at / name / "0.png").symlink_to(real / name / ("0.png" if links == "files" else "gone.png"))
    assert f"cp -rL {at}" in refusal(at)


@pytest.mark.parametrize(("side", "canvas"), [(1, 8), (4, 8), (7, 8), (8, 8), (9, 9)])
def test_the_chosen_canvas_is_one_that_may_be_given(tmp_path: Path, side, canvas):
    put(tmp_path, "a/0.png", pixels(0, side, side))
    put(tmp_path, "b/0.png", pixels(1, side, side))
    assert default_canvas(scan(tmp_path)) == canvas


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("seg_train", "seg_test", "seg_pred"),
        ("train2017", "val2017"),
        ("Train", "Valid"),
        ("images-train", "images-test"),
        ("myTrainData", "myTestData"),
        ("01 training", "02 validation", "03 testing"),
        ("train", "test", "notes"),
        ("trainset", "testset"),
        ("trainval", "test"),
        ("traindata", "valdata", "testdata"),
        ("trn", "tst"),
    ],
)
def test_splits_are_stopped_and_each_can_be_chosen(tmp_path: Path, names):
    for name in names:
        if name in ("seg_pred", "notes"):
            put(tmp_path, f"{name}/0.png")
        else:
            folder(tmp_path / name)
    text = refusal(tmp_path)
    assert "look like splits" in text and all(name in text for name in names if name != "notes")
    assert f"point at {tmp_path / names[0]}" in text.replace("'", "") or "train" in text
    for name in names:
        if name not in ("seg_pred", "notes"):
            assert scan(tmp_path, split=name).classes == ("cat", "dog")


@pytest.mark.parametrize("names", [("train2017", "val2017"), ("seg_train", "seg_test"), ("TrainSet", "TestSet")])
def test_splits_without_folders_below_are_stopped_by_the_rest_of_their_names(tmp_path: Path, names):
    for name in names:
        put(tmp_path, f"{name}/0.png")
    assert "look like splits" in refusal(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("test_tube", "train_station"),
        ("testTube", "trainStation"),
        ("test-猫", "train-犬"),
        ("test tube", "beaker", "flask"),
        ("train", "car", "plane"),
        ("bullet_train", "steam train", "valid_ticket"),
        ("training shoes", "test card", "boots"),
    ],
)
def test_classes_with_the_word_of_a_split_are_classes(tmp_path: Path, names):
    for name in names:
        put(tmp_path, f"{name}/0.png")
    assert scan(tmp_path).classes == tuple(sorted(names))


# --- the command line ---


def miue(monkeypatch, capsys, *args: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["miue", *args])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_a_parent_folder_that_is_not_utf8(tmp_path: Path, monkeypatch, capsys):
    root = folder(tmp_path / os.fsdecode(b"par\xe9nt/in"))
    args = "protect", str(root), str(tmp_path / "out"), "--attack", "noise"
    for _ in range(2):  # the second finds everything done
        assert miue(monkeypatch, capsys, *args)[0] == 0
    assert json.loads((tmp_path / "out.private/run.json").read_text())["source"]["location"].endswith("par%xe9nt/in")
    assert miue(monkeypatch, capsys, "verify", str(tmp_path / "out"), "--clean", str(root))[0] == 0
    (tmp_path / os.fsdecode(b"out/\xff")).touch()
    code, said, _ = miue(monkeypatch, capsys, "verify", str(tmp_path / "out"), "--json")
    assert code == 3 and json.loads(said)["wrong"] == {"%xff": "was not written by miue"}
    code, _, said = miue(monkeypatch, capsys, *args[:2], str(root.parent / "out"), *args[3:])
    assert code == 2 and "is not UTF-8" in said


def test_classes_are_told_before_the_work_and_failed_files_are_named(tmp_path: Path, monkeypatch, capsys):
    root = folder(tmp_path / "in", *(f"class{i:02}/{j}.png" for i in range(30) for j in range(2)))
    for i in range(7):
        put(root, f"bird/bad{i}.png", b"\0\1\2" * 50)
    args = "protect", str(root), str(tmp_path / "out"), "--attack", "noise"
    code, said, before = miue(monkeypatch, capsys, *args)
    assert code == 1 and "33 classes: bird (0), cat (2), class00 (2)" in before and "and 13 more" in before
    assert before.index("33 classes") < before.index("torchvision") < before.index("writing")
    assert "bird/bad0.png" in said and "bird/bad4.png and 2 more" in said and "out.private/manifest.jsonl" in said
    assert "torchvision" in said
    for flag in ("--quiet", "--json"):
        assert "classes" not in miue(monkeypatch, capsys, *args, flag)[2]


@pytest.mark.slow
def test_two_thousand_classes_cost_seconds(tmp_path: Path, monkeypatch, capsys):
    images = torch.randint(256, (4000, 3, 8, 8), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(4000) % 2000, tuple(f"c{i:04}" for i in range(2000)), "many")
    start = time.monotonic()
    found = first_look(data, data, Run(quiet=True))
    assert time.monotonic() - start < 30 and "100 of 2000 classes" in found.reason
    rows = data.first_per_class(1)
    assert rows.labels.tolist() == list(range(2000))
    for i in range(2000):
        put(tmp_path / "in", f"c{i:04}/0.png", pixels(i, 8, 8))
    start = time.monotonic()
    _, said, _ = miue(monkeypatch, capsys, "protect", str(tmp_path / "in"), str(tmp_path / "out"), "--dry-run")
    assert time.monotonic() - start < 30 and "and 1980 more" in said and len(said.splitlines()) < 60
