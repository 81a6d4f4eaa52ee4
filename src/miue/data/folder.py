"""Data sets that are a folder of class folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from shlex import quote

from miue.core.errors import UserError
from miue.core.progress import readable
from miue.data.formats import EXTENSIONS, may_be_picture
from miue.data.source import Item, Store, some
from miue.data.splits import split_of

NOTICE = "PROTECTED.md"
_START = 2**16  # bytes that identify the format of a file
SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))
_SYSTEM = re.compile(
    r"#recycle|#snapshot|@recycle|@recently-snapshot|@tmp|\$?recycle\.bin|\$winreagent|\$extend|\$sysreset|found\.\d{3}"
    r"|lost\+found|system volume information|network trash folder|temporary items|__pycache__|recycler|~snapshot"
    r"|\$windows\.~\w\w|config\.msi|msdownld\.tmp|node_modules",
    re.IGNORECASE,
)
_JUNK = frozenset((".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", ".git", ".svn", "@eaDir"))


@dataclass(frozen=True, kw_only=True)
class FolderStore(Store):
    """Store of files. The class is the first folder of the path. paths: the real path of every item."""

    paths: tuple[Path, ...] = field(repr=False)

    def get(self, index: int) -> bytes:
        return self.paths[index].read_bytes()

    def seen(self, index: int) -> tuple[bytes, int]:
        return begun(self.paths[index])


def begun(path: Path) -> tuple[bytes, int]:
    """The bytes of a file and its size. Only the start if it is no picture, because a film can exceed the memory."""
    with path.open("rb") as file:
        start = file.read(_START)
        return start + file.read() if may_be_picture(start) else start, os.fstat(file.fileno()).st_size


def open_folder(root: Path) -> FolderStore:
    """Open a folder of class folders. Links are not followed. All files are items, except files of the system.

    Raises UserError if there are no class folders, or if the folders are splits.
    """
    entries = list(os.scandir(root))
    names = sorted((e.name for e in entries if e.is_dir(follow_symlinks=False) and not _hidden(e.name)), key=readable)
    folders = [name for name in names if not _system(name)]
    _refuse_splits(root, folders)
    paths = tuple(every_file(root))
    if not folders:
        what = "pictures lie directly in it" if any(p.suffix.lower() in EXTENSIONS for p in paths) else "it has none"
        way = "make one folder per class and put the pictures there"
        if any(e.is_symlink() and e.is_dir() for e in entries):
            what, way = "only links to folders, and links are not followed", follow_links(root)
        raise UserError(f"{root}: there are no class folders ({what}); {way}")
    label = {name: i for i, name in enumerate(folders)}
    items = tuple(_item(root, path, label) for path in paths)
    classes = tuple(readable(name) for name in folders)
    _refuse_twins(root, folders, [path.relative_to(root).as_posix() for path in paths])
    left = [readable(name) for name in names if _system(name)]
    notes = [f"folders of the system, no classes, nothing of them is published: {', '.join(left)}"] if left else []
    notes += _alike(root, folders)
    return FolderStore(
        kind="folder",
        location=str(root),
        name=readable(root.resolve().name),
        classes=classes,
        items=items,
        notes=tuple(notes),
        paths=paths,
    )


def private_of(out: Path) -> Path:
    """The private folder of an output folder, for manifest, perturbation and state. Never publish it."""
    folder = out if out.name not in ("", "..") else out.resolve()
    if not folder.name:
        raise UserError(f"{out}: nothing can lie beside it; choose another output")
    return folder.with_name(f"{folder.name}.private")


def folders_of(paths: Iterable[str]) -> set[str]:
    """Every folder in the paths of these files."""
    nearest = {path.rpartition("/")[0] for path in paths}
    return (nearest | {str(folder) for path in nearest for folder in PurePosixPath(path).parents}) - {".", ""}


def folded(name: str) -> str:
    """A key that is equal for names which some file systems treat as one (case, accents, dots at the end)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).rstrip(". ")


def twins(folders: Iterable[str]) -> list[list[str]]:
    """Groups of folders with one parent that some file systems treat as the same folder."""
    same: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(folders):
        parent, _, name = folder.rpartition("/")
        same[f"{parent}/{folded(name)}"].append(folder)
    return [group for group in same.values() if len(group) > 1]


def follow_links(root: Path) -> str:
    """Advice for the user if the pictures are links."""
    return f"copy them as files first (cp -rL {quote(readable(str(root)))} COPY) and point at the copy"


def _alike(root: Path, folders: list[str]) -> list[str]:
    """A note if all class folders contain the same folders, which may be the real classes."""
    below = {tuple(sorted(map(readable, _folders_in(root / name)))) for name in folders}
    if len(folders) < 2 or len(below) != 1 or len(names := below.pop()) < 2:
        return []
    return [
        f"all classes have the folders {some(names)} in them; if those are the classes, point at one of "
        f"{some([readable(str(root / name)) for name in folders], 3)}"
    ]


def _refuse_twins(root: Path, classes: list[str], paths: list[str]) -> None:
    """Raise UserError if two names of files or folders that are not UTF-8 become the same readable name."""
    names = Counter(map(readable, {*classes, *paths, *folders_of(paths)}))
    if twins := [name for name, n in names.items() if n > 1]:
        raise UserError(
            f"{root}: two names become {twins[0]!r}, because a byte that is not UTF-8 is written as %xNN; rename one"
        )


def _system(name: str) -> bool:
    """True if a folder belongs to the system and not to the set, such as a recycle bin or a cache."""
    return bool(_SYSTEM.fullmatch(name))


def _hidden(name: str) -> bool:
    return name in _JUNK or name.startswith(".")


def every_file(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, sorted, except files of the system. Also yields links and unreadable folders."""
    try:
        entries = sorted(os.scandir(folder), key=lambda e: readable(e.name))
    except PermissionError:
        yield folder
        return
    for entry in entries:
        if entry.name in _JUNK or entry.name.startswith("._"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from every_file(Path(entry.path))
        else:
            yield Path(entry.path)


def pictures_in(folder: Path) -> list[str]:
    """Paths of the files below a folder whose names say that they are pictures, relative to it, sorted."""
    files = (path for path in every_file(folder) if path.is_file() and path.suffix.lower() in EXTENSIONS)
    return [path.relative_to(folder).as_posix() for path in files]


def _item(root: Path, path: Path, label: dict[str, int]) -> Item:
    parts = path.relative_to(root).parts
    name = "/".join(map(readable, parts))
    own = label.get(parts[0], -1) if len(parts) > 1 else -1
    return Item(name, own, _unopened(root, path, parts), path.suffix.lower() in EXTENSIONS)


def _unopened(root: Path, path: Path, parts: tuple[str, ...]) -> str:
    """The reason why a file is not opened; empty if it is."""
    if any(part.startswith(".") for part in parts):
        return "hidden file or folder"
    if any(map(_system, parts[:-1])) or (path.is_dir() and _system(parts[-1])):
        return "in a folder of the system"
    if path.is_symlink():
        if path.is_dir():
            return "a link to a folder: links are not followed"
        if not path.exists():
            return "a link that leads nowhere"
        inside = path.resolve().is_relative_to(root.resolve())
        return "a link to another file of this folder" if inside else "a link out of this folder"
    if not path.is_file():
        return "a folder that may not be read" if path.is_dir() else "not a regular file"
    return ""


def _refuse_splits(root: Path, folders: list[str]) -> None:
    """Raise UserError if folders are splits and not classes.

    Splits have the name of a split (`train`), or are named after different splits and have the rest of the name
    (`val2017`) or a folder inside in common. `test_tube` beside `train_station` are classes.
    """
    candidates = [name for name in folders if split_of(name)]
    below = {name: frozenset(_folders_in(root / name)) for name in candidates}
    alike = [
        name
        for name in candidates
        if any(
            below[name] & below[other] or _rest(name) == _rest(other)
            for other in candidates
            if split_of(other) != split_of(name)
        )
    ]
    bare = [name for name in folders if name.lower() in SPLITS]
    splits = alike or (bare if len(bare) > 1 or bare == folders else [])
    if not splits:
        return
    splits = [name for name in candidates if name in splits or not below[name]] if alike else splits
    first = next((name for name in splits if split_of(name) == "train"), splits[0])
    raise UserError(
        f"{root}: the folders {', '.join(map(readable, splits))} look like splits, not classes; choose one with "
        f"split={first!r} (--split {quote(first)}) or point at {root / first}"
    )


def _rest(name: str) -> list[str]:
    """The words of a name that do not mean a split."""
    return [word for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^\W0-9_A-Za-z]+", name) if not split_of(word)]


def _folders_in(folder: Path) -> list[str]:
    try:
        return [e.name for e in os.scandir(folder) if e.is_dir() and not _hidden(e.name) and not _system(e.name)]
    except PermissionError:
        return []


def choose_split(root: Path, split: str) -> Path:
    """The folder of a split. Raises UserError if there is none."""
    if (root / split).is_dir():
        return root / split
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not _hidden(p.name))
    raise UserError(f"{root}: there is no split {split!r}; folders there: {', '.join(names) or 'none'}")
