"""Checks of the output folder and of the private folder beside it, so that no other file is changed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from miue.core.errors import UserError
from miue.core.files import part_of, refuse_folder
from miue.core.progress import readable
from miue.data.folder import NOTICE, folders_of, private_of, twins
from miue.data.source import FILES, Source
from miue.publish.manifest import FINAL, PLAN, Plan, parts_of

NOTICE_TEXT = """# Protected pictures

The pictures in this folder carry a small, deliberate change (made with miue) that keeps classifiers from learning
from them. Do not use them as training data: a model trained on them fails on ordinary pictures. In particular, do not
add them to shared collections or to the training data of anything that people's safety depends on.
"""


def check_output(source_location: str | Path, out: Path, private: Path, overwrite: bool, fingerprint: str) -> None:
    """Raise UserError unless `out` may be written. Changes nothing.

    overwrite: everything in `out` must be deletable, that is, written by miue. fingerprint: digest of data and
    settings; an output with the same fingerprint in run.json may be resumed.
    """
    source = Path(source_location)
    if source.exists():
        _refuse_overlap(source.resolve(), out, private)
    if readable(str(out.resolve())) != str(out.resolve()):
        raise UserError(
            f"{readable(str(out))}: its name, or that of a folder above it, is not UTF-8 (%xNN is such a byte), and "
            "the perturbation cannot be read back from there; choose another output folder"
        )
    for above in out.resolve().parents[:-1]:  # beside the root there is nothing
        records = private_of(above), *([above] if above.suffix == ".private" else [])
        if any((folder / "run.json").is_file() for folder in records):
            raise UserError(f"{out}: lies in {above}, another output or its private folder; choose a folder beside it")
    if private.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{private}: the private folder lies in the published one; put it elsewhere")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out}: is a {'link' if out.is_symlink() else 'file'}; give a folder that is new or empty")
    existing = files_in(out)
    if links := [p for p in existing if p.is_symlink()]:
        raise UserError(
            f"{links[0]}: is a link, and nothing is written through links; remove it or choose another output folder"
        )
    for path in (private / "run.json", private / FINAL, private / PLAN, *parts_of(private)):
        refuse_folder(path)
    previous = _fingerprint(private)
    if overwrite:
        ours = _ours(out, private)
        if foreign := [path for path in existing if path not in ours]:
            raise UserError(
                f"{foreign[0]}: was not written by miue, so --overwrite does not touch it; move it away first"
            )
    elif previous != fingerprint and not existing and (private / FINAL).exists():
        raise UserError(
            f"{private}: holds the records of another set that was written to {out}, without which that set can be "
            "neither verified nor evaluated; choose another output folder, or give them up with --overwrite"
        )
    elif existing and previous != fingerprint:
        if previous is None:
            raise UserError(
                f"{out}: is not empty and was not written by miue; choose another output folder or empty it"
            )
        raise UserError(
            f"{out}: was written with other settings or from other data; choose another output folder, replace what "
            "was written with --overwrite, or add pictures of the same classes to it with `miue add`"
        )


def check_folders(source: Source, out: Path) -> None:
    """Raise UserError if two folders of a set would be one folder on the file system of `out`, and mix."""
    if source.kind not in FILES:
        return
    at = next(path for path in (out, *out.resolve().parents) if path.is_dir())
    for group in twins(folders_of(e.out for e in source.usable) | set(source.classes)):
        if _is_merged(at, [PurePosixPath(folder).name for folder in group]):
            raise UserError(
                f"{out}: the file system there takes the folders {' and '.join(map(repr, group))} for one, and their "
                "pictures would mix; rename all but one of them, or choose an output on another file system"
            )


def _is_merged(at: Path, names: Sequence[str]) -> bool:
    """True if two of these names would be one folder below `at`. Tries it in a temporary folder."""
    with TemporaryDirectory(prefix=".miue-", dir=at) as probe:
        try:
            for name in names:
                (Path(probe) / name).mkdir()
        except FileExistsError:
            return True
    return False


def refuse_existing(path: Path, instead: str) -> None:
    """Raise UserError if `path` exists. Call it before the work, and again before writing."""
    if path.exists():
        raise UserError(f"{path}: exists already; choose {instead}")


def files_in(folder: Path) -> list[Path]:
    """Every file and link below a folder, sorted. Links are not followed."""
    paths = []
    for root, folders, files in os.walk(folder):
        at = Path(root)
        paths += [at / name for name in files] + [at / name for name in folders if (at / name).is_symlink()]
    return sorted(paths)


def _refuse_overlap(source: Path, out: Path, private: Path) -> None:
    for what, path in (("output", out.resolve()), ("private folder", private.resolve())):
        if path == source:
            raise UserError(
                f"{path}: the {what} is the input; the originals are never overwritten, choose another output folder"
            )
        if path.is_relative_to(source) or source.is_relative_to(path):
            where = "in the input" if path.is_relative_to(source) else "around the input"
            raise UserError(f"{path}: the {what} lies {where} ({source}); choose a folder beside it")


def _fingerprint(private: Path) -> str | None:
    path = private / "run.json"
    try:
        return str(json.loads(path.read_text("utf-8"))["fingerprint"]) if path.exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: is no record of miue, or it is damaged; bring it back from a copy or choose another output folder"
        ) from None


def _ours(out: Path, private: Path) -> set[Path]:
    """The files that an earlier run wrote, or began to write, in `out`."""
    plan = Plan.of(private)
    ours = {out / name for name in (NOTICE, *(plan.files if plan else ()))}
    return ours | {part_of(path) for path in ours}


def clear_output(out: Path, private: Path) -> None:
    """Delete the files of an earlier run in `out`, and its manifest. Other files stay, and so do their folders."""
    for path in _ours(out, private):
        path.unlink(missing_ok=True)
    for root, _, _ in os.walk(out, topdown=False):
        with suppress(OSError):  # not empty
            Path(root).rmdir()
    for path in (private / FINAL, private / PLAN, *parts_of(private)):
        path.unlink(missing_ok=True)
