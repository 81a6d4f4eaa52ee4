"""The workflow `rights`: what an owner reserves, written into files that are published, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from miue import data, publish
from miue.core.errors import UserError
from miue.core.run import Run
from miue.data.rights import Rights
from miue.workflows.exclusive import exclusive
from miue.workflows.record import RunRecord, fingerprint_with


def write_rights(out: str | Path, rights: Rights, run: Run | None = None) -> RunRecord:
    """Write other rights into every file of an output and into OUT.rights. The noise is not computed again.

    The originals are not needed. If a call is killed, the same call resumes it. Raises UserError.
    """
    run, out = run or Run(), Path(out)
    record, private = RunRecord.of(out), data.private_of(out)
    record.check_finished(out)
    with exclusive(out, run):
        count = record.written.counts.get("protected", 0) if record.written else 0
        with run.progress("rights", count) as tick:
            lines = publish.rewrite(out, rights, record.settings.format, tick)
        publish.write_rights(out, rights)
        size = sum(line.out_bytes for line in lines)
        written = record.written and record.written.model_copy(update={"bytes_out": size})
        settings = record.settings.model_copy(update={"rights": rights})
        update = {
            "settings": settings,
            "written": written,
            "noise": record.perturbation,
            "fingerprint": fingerprint_with(record.perturbation, rights),
        }
        record = record.model_copy(update=update)
        record.save(private / "run.json")
    return record


def write_server_files(out: str | Path) -> Path | None:
    """Write the files for a web server again, from the rights of an output. Returns None where nothing is reserved."""
    return publish.write_rights(Path(out), RunRecord.of(Path(out)).settings.rights)


def read_rights(path: str | Path) -> Mapping[str, str]:
    """The statements of a file, or of all pictures of a folder, on data mining: keys of the PLUS vocabulary, or empty.

    Raises UserError if there is no picture.
    """
    path = Path(path)
    if path.is_file():
        return {path.name: publish.shown_rights(path)}
    keys = {name: publish.shown_rights(path / name) for name in data.pictures_in(path)} if path.is_dir() else {}
    if not keys:
        raise UserError(f"{path}: there are no pictures there")
    return keys
