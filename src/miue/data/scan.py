"""Scan a data set: examine and decode every input, and make an entry for it, before anything is computed."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from miue.core.errors import UserError
from miue.data.arrays import open_npz
from miue.data.canvas import Held
from miue.data.folder import (
    NOTICE,
    choose_split,
    every_file,
    folded,
    folders_of,
    follow_links,
    open_folder,
    private_of,
    twins,
)
from miue.data.formats import EXTENSIONS
from miue.data.named import NAMES, is_named, open_named
from miue.data.picture import ANY_SIZE, Rules, Unfit, decode, quiet
from miue.data.source import TABLES, Entry, Source, Store, ahead, sha256, some
from miue.data.tables import has_images, open_parquet, shard_files, shards_of

_LONGEST = 240  # bytes of a file name: 255, minus room for the temporary name


def scan(
    source: str | Path,
    *,
    split: str | None = None,
    max_pixels: int = 50_000_000,
    frames: Literal["refuse", "first"] = "refuse",
    download: bool = False,
    drop_columns: Sequence[str] = (),
    part: bool = False,
    canvas: int | None = None,
) -> Source:
    """Scan a folder of class folders, parquet files, an .npz file or a named set such as "shapes" or "digits".

    split: "train", "test" and so on, if the source has splits. max_pixels: larger pictures are skipped.
    frames: "first" takes the first of several frames instead of skipping the file. download: fetch a named set.
    drop_columns: columns of a table that are not published; "*" means all except pictures and label. part: whether it
    is a part of a set, which may have a single class. canvas: the size at which the pictures are held for `read`; None:
    its default; 0: none are held.
    Raises UserError if nothing can be protected. Single bad files become skipped or failed entries.
    """
    store, rules = open_store(source, split, download, drop_columns), Rules(max_pixels, frames)
    held = Held(len(store.items), canvas) if canvas != 0 else None
    entries, remarks = survey(store, rules, held)
    _refuse(store, entries, part)
    counted = (f"{text} ({len(paths)} pictures, such as {paths[0]})" for text, paths in remarks.items())
    notes = (*store.notes, *_notes(store, entries), *counted)
    return Source(store, entries, notes, rules, held)


def scan_output(out: Path, canvas: int | None = 0) -> Source:
    """Scan a set that miue wrote. canvas: as for `scan`."""
    return scan(out, max_pixels=ANY_SIZE, canvas=canvas)


def scan_some(folder: Path, names: Sequence[str]) -> Source:
    """Scan some files of a set that miue wrote, in this order. Labels are of the folders that are there.

    Raises UserError if one is not there or no picture.
    """
    store = open_folder(folder)
    index = {item.path: at for at, item in enumerate(store.items)}
    if missing := [name for name in names if name not in index]:
        raise UserError(f"{folder}: {missing[0]} is not there any more; bring the published files back")
    rows = [index[name] for name in names]
    some = replace(store, items=tuple(store.items[i] for i in rows), paths=tuple(store.paths[i] for i in rows))
    rules = Rules(ANY_SIZE)
    entries, _ = survey(some, rules)
    if bad := [entry for entry in entries if entry.status != "ok"]:
        raise UserError(f"{folder}: {bad[0].path}: {bad[0].reason}; bring the published files back")
    return Source(some, entries, (), rules)


def open_store(source: str | Path, split: str | None = None, download: bool = False, drop: Sequence[str] = ()) -> Store:
    """The bytes of a source, of which nothing is decoded yet. Arguments and errors as for `scan`."""
    store = _opened(source, split, download, drop)
    if store.kind != "parquet" and set(drop) - {"*"}:
        raise UserError(f"{source}: is no table and has no columns; leave --drop-columns {','.join(drop)} out")
    return store


def _opened(source: str | Path, split: str | None, download: bool, drop: Sequence[str]) -> Store:
    path = Path(source)
    if isinstance(source, str) and is_named(source):
        if source in NAMES and path.exists():
            raise UserError(
                f"{source}: a named set, and here a {'folder' if path.is_dir() else 'file'} as well; "
                f"write ./{source} for what lies here, or {source}: (with the colon) for the named set"
            )
        return open_named(source, split, download)
    if not path.exists():
        hint = f" (./{path.name} is always a path)" if len(path.parts) == 1 else ""
        at = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"{source}: no such file or folder{at}, and no named set; named sets: {', '.join(NAMES)}{hint}")
    if split is not None and path.is_file():
        raise UserError(f"{path}: is a single file and has no splits; leave split={split!r} (--split) out")
    if split is not None and ((path / split).is_dir() or not shard_files(path)):
        path, split = choose_split(path, split), None
    if (shards := shards_of(path, split)) and not _are_metadata(path, shards):
        store = open_parquet(path, shards, drop)
        return replace(store, notes=(*store.notes, *_beside(path, shard_files(path))))
    if path.is_dir():
        arrays = list(path.glob("*.npz"))
        alone = len(arrays) == 1 and not any(p.is_dir() for p in path.iterdir())
        return replace(open_npz(arrays[0]), notes=_beside(path, arrays)) if alone else open_folder(path)
    if path.suffix == ".npz":
        return open_npz(path)
    raise UserError(f"{path}: is no data set; allowed are a folder of class folders, .parquet files and .npz files")


def _are_metadata(folder: Path, tables: Sequence[Path]) -> bool:
    """True if no table has a column of pictures and folders beside them have pictures, which then are the set."""
    inside = (path for path in every_file(folder) if path.parent != folder) if folder.is_dir() else ()
    return any(path.suffix.lower() in EXTENSIONS for path in inside) and not any(map(has_images, tables))


def _beside(folder: Path, tables: list[Path]) -> tuple[str, ...]:
    """A note on other files beside a table. Raises UserError if they are pictures or tables, which is ambiguous."""
    if not folder.is_dir():
        return ()
    others = [path for path in every_file(folder) if path not in tables and path.name != NOTICE]
    if pictures := [path for path in others if path.suffix.lower() in (*EXTENSIONS, *TABLES)]:
        raise UserError(
            f"{folder}: holds the table {tables[0].name} and beside it {len(pictures)} pictures or other tables "
            f"({pictures[0].relative_to(folder).as_posix()!r}, ...); point at the table itself, or move it out"
        )
    names = some([path.relative_to(folder).as_posix() for path in others])
    return (f"not part of the table, not in the output: {names}",) if others else ()


def survey(store: Store, rules: Rules, held: Held | None = None) -> tuple[tuple[Entry, ...], dict[str, list[str]]]:
    """An entry for every item; and the remarks about metadata and conversion, each with the paths it is about.

    held: takes the usable pictures.
    """
    remarks: dict[str, list[str]] = defaultdict(list)
    entries = []
    with quiet():
        for entry, own, pixels in ahead(lambda i: _examine(store, i, rules, held), range(len(store.items))):
            if held and pixels is not None:
                held.add(len(entries), pixels)
            entries.append(entry)
            for remark in own:
                remarks[remark].append(entry.path)
    by_count = sorted(remarks.items(), key=lambda one: -len(one[1]))
    return tuple(_with_outs(store, entries)), dict(by_count)


_Examined = tuple[Entry, tuple[str, ...], "np.ndarray | None"]
"""An entry, the remarks about it, and its pixels on the canvas if they are to be held."""


def _examine(store: Store, index: int, rules: Rules, held: Held | None) -> _Examined:
    item = store.items[index]
    if item.skip:
        return Entry(item.path, "", item.label, "skipped", item.skip), (), None
    try:
        payload, size = store.seen(index)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return Entry(item.path, "", item.label, "failed", reason), (), None
    try:
        picture = decode(payload, rules, item.expected, item.path)
    except Unfit as unfit:
        sha = sha256(payload) if not isinstance(payload, bytes) or len(payload) == size else ""
        return Entry(item.path, "", item.label, unfit.status, unfit.reason, bytes=size, sha256=sha), (), None
    width, height = picture.size
    usable = item.label >= 0
    entry = Entry(
        item.path,
        "",
        item.label,
        "ok" if usable else "skipped",
        "" if usable else "lies in no class folder",
        picture.mode,
        width,
        height,
        size,
        sha256(payload),
        picture.digest,
    )
    if not usable:
        return entry, (), None
    return entry, picture.meta.notes, held and held.fitted(picture)


# --- names of output files ---


def _with_outs(store: Store, entries: list[Entry]) -> list[Entry]:
    """Set the output path of every usable entry. Table rows are renumbered; files keep their stem."""
    ok = [i for i, entry in enumerate(entries) if entry.status == "ok"]
    if store.kind == "folder":
        outs = _file_names([entries[i].path for i in ok])
    elif store.kind == "named":
        outs = [f"{store.classes[entries[i].label]}/{i:05d}.png" for i in ok]
    else:
        outs = [f"row {row}" for row in range(len(ok))]
    for i, out in zip(ok, outs, strict=True):
        fields: dict[str, Any] = vars(entries[i]) | {"out": out}
        entries[i] = Entry(**fields)  # `replace` takes three times as long
    return entries


def _key(path: str) -> str:
    """A key that is equal for files of one folder which some file systems treat as the same file."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{folded(name)}"


def _file_names(paths: list[str]) -> list[str]:
    plain = [_with_png(path) for path in paths]
    uses = Counter(map(_key, plain))
    # first assign names that are unique or need no new extension, then find free names for the others
    easy = [uses[_key(out)] == 1 or path == out for path, out in zip(paths, plain, strict=True)]
    outs, taken = [""] * len(paths), set(map(_key, folders_of(paths)))
    for i in sorted(range(len(paths)), key=lambda i: not easy[i]):
        tries = (f"{paths[i]}{mark}.png" for mark in chain([""], (f"~{k}" for k in count(2))))
        outs[i] = next(name for name in chain([plain[i]] if easy[i] else [], tries) if _key(name) not in taken)
        outs[i] = _shortened(outs[i])
        taken.add(_key(outs[i]))
    return outs


def _with_png(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem else name}.png"


def _shortened(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    if len(name.encode()) <= _LONGEST:
        return path
    stem = name.encode()[: _LONGEST - 20].decode("utf-8", "ignore")
    return f"{folder}{slash}{stem}~{hashlib.sha256(name.encode()).hexdigest()[:12]}.png"


# --- what a scan refuses, and what it remarks ---


def _refuse(store: Store, entries: tuple[Entry, ...], part: bool) -> None:
    ok = Counter(entry.label for entry in entries if entry.status == "ok")
    if not ok:
        reasons = Counter(e.reason for e in entries if e.status != "ok").most_common(3)
        why = "; ".join(f"{n} x {reason}" for reason, n in reasons)
        links = store.kind == "folder" and any("link" in e.reason for e in entries if e.status == "skipped")
        way = f"; {follow_links(Path(store.location))}" if links else ""
        raise UserError(f"{store.location}: there are no pictures that can be protected ({why or 'it is empty'}){way}")
    if len(ok) == 1 and not part:
        way = "add the other classes"
        if store.kind == "folder" and (deeper := _deeper([e.path for e in entries if e.status == "ok"])):
            at, names = deeper
            way = f"add the other classes, or, if the classes are {some(names)}, point at {Path(store.location) / at}"
        raise UserError(
            f"{store.location}: all pictures belong to one class ({store.classes[next(iter(ok))]!r}); at least two "
            f"classes are needed, because the perturbation moves a class away from the others: {way}"
        )


def _deeper(paths: list[str]) -> tuple[str, list[str]] | None:
    """The deepest folder that contains all pictures, and its subfolders; None unless most pictures are in several."""
    folders = [path.rpartition("/")[0] for path in paths]
    shared = posixpath.commonpath(folders)
    below = Counter(folder[len(shared) + 1 :].partition("/")[0] for folder in folders)
    beside = below.pop("", 0)  # pictures in no subfolder, such as a cover
    return (shared, sorted(below)) if len(below) > 1 and 2 * beside < len(folders) else None


def _notes(store: Store, entries: tuple[Entry, ...]) -> list[str]:
    ok = [entry for entry in entries if entry.status == "ok"]
    sizes = Counter(entry.label for entry in ok)
    least, most = min(sizes.values()), max(sizes.values())
    notes = []
    if empty := [name for i, name in enumerate(store.classes) if not sizes[i]]:
        notes.append(
            f"classes without pictures, kept: {some(empty)}; their empty folders keep the numbers of the labels, but "
            "torchvision refuses an empty folder (allow_empty=True reads it) and timm gives all later classes other "
            "labels: mend or remove these classes first"
            if store.kind == "folder"
            else f"classes without pictures, kept: {some(empty)}"
        )
    folders = folders_of(e.out for e in ok) | set(store.classes) if store.kind == "folder" else ()
    if same := [" = ".join(group) for group in twins(folders)]:
        notes.append(
            f"folders that differ in case, accents or dots at the end only: {some(same)}; on Windows and macOS they "
            "become one, and files of one name overwrite each other: rename them before you publish"
        )
    if single := [store.classes[i] for i, n in sizes.items() if n == 1]:
        notes.append(f"classes with one picture: {some(single)}")
    if most >= 10 * least:
        notes.append(f"severe imbalance: {least} to {most} pictures a class; the theory assumes balanced classes")
    notes += _duplicates(ok)
    if tiny := sum(min(e.width, e.height) < 8 for e in ok):
        notes.append(f"{tiny} pictures have a side below 8 pixels: hardly any room for a perturbation")
    if len(shapes := {(e.width, e.height) for e in ok}) > 1:
        notes.append(f"{len(shapes)} different sizes: the perturbation is stretched to each picture's own size")
    if store.kind != "named" and looks_protected(Path(store.location)):
        notes.append("looks protected already (a notice or a private folder of an earlier run): do not protect twice")
    return notes


def looks_protected(place: Path) -> bool:
    """True if there is a notice of miue, or a private folder beside."""
    folders = (place,) if place.is_dir() else (place, place.parent)
    return any((folder / NOTICE).exists() or private_of(folder).exists() for folder in folders)


def _duplicates(ok: list[Entry]) -> list[str]:
    same: dict[str, list[Entry]] = defaultdict(list)
    for entry in ok:
        same[entry.pixels].append(entry)
    groups = [group for group in same.values() if len(group) > 1]
    torn = [group for group in groups if len({entry.label for entry in group}) > 1]
    notes = []
    if torn:
        names = some([" = ".join(entry.path for entry in group[:3]) for group in torn])
        notes.append(f"identical pictures with different labels, a contradiction: {names}")
    if len(groups) > len(torn):
        notes.append(f"{sum(len(g) - 1 for g in groups if g not in torn)} pictures repeat another one of their class")
    return notes
