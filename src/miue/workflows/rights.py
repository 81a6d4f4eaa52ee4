"""The workflow `rights`: what an owner reserves, written into files that are published, signed, and read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from miue import data, publish
from miue.core.errors import UserError
from miue.core.files import Record, write_atomically
from miue.core.run import Run
from miue.data.rights import Reservation, Rights
from miue.data.source import TABLES
from miue.publish import Credentials, Line, Signer
from miue.workflows import marking
from miue.workflows.exclusive import exclusive
from miue.workflows.record import RunRecord, fingerprint_with


class Signing(Record):
    """The result of `sign_rights`."""

    files: int
    before: int
    """Files that were signed in the same way before, and stayed as they are."""
    larger: float
    """Bytes that the credentials add to a file, on average over those that were signed now."""
    reserved: Mapping[str, int]
    """Number of files by what they say of data mining, a key of the PLUS vocabulary; empty for nothing."""
    signer: str
    """Subject of the certificate."""
    until: str
    """Last day of the certificate."""
    timestamp: str
    """Address of the time stamp authority; empty if none was asked."""
    legacy: bool


def changed_rights(out: str | Path, value: str, given: Mapping[str, str | bool]) -> Rights:
    """Another reservation for an output: what is not given is as its files say it now. Raises UserError."""
    return RunRecord.of(Path(out)).settings.rights.changed(value, given)


def write_rights(out: str | Path, rights: Rights, run: Run | None = None) -> RunRecord:
    """Write other rights into every file of an output, its PROTECTED.md and OUT.rights. No noise is computed again.

    The originals are not needed. Content credentials are taken out of the files: they were signed for other bytes. If a
    call is killed, the same call resumes it. Raises UserError.
    """
    run, out = run or Run(), Path(out)
    record, private = RunRecord.of(out), data.private_of(out)
    record.check_finished(out)
    with exclusive(out, run):
        signed = sum(line.signed for line in publish.finished(private)[1])
        with run.progress("rights", _count(record)) as tick:
            lines = publish.rewrite(out, rights, record.settings.format, tick)
        publish.write_rights(out, rights)
        write_atomically(out / publish.NOTICE, marking.notice(record, rights).encode())
        settings = record.settings.model_copy(update={"rights": rights})
        update = {
            "settings": settings,
            "written": _measured(record, lines),
            "noise": record.perturbation,
            "fingerprint": fingerprint_with(record.perturbation, rights),
        }
        record = record.model_copy(update=update)
        record.save(private / "run.json")
    if signed:
        run.say(f"content credentials of {signed} files are gone, because they were signed for other bytes: sign again")
    return record


def sign_rights(
    out: str | Path,
    cert: str | Path,
    key: str | Path,
    *,
    timestamp: str = "",
    legacy: bool = False,
    run: Run | None = None,
) -> Signing:
    """Sign every file of an output with content credentials (C2PA) that say what it reserves. Needs the extra `c2pa`.

    cert: the chain of the owner's certificate (PEM), that certificate first. key: its private key (PEM, not encrypted).
    timestamp: address of an authority that is asked for a time stamp for every file; without it there is no network.
    legacy: whether to say it in the words of C2PA 1.x, too. Pixels and metadata stay. So do files that are signed in
    the same way already; others are signed anew. If a call is killed, the same call resumes it. Raises UserError.
    """
    signer, run, out = Signer.of(Path(cert), Path(key), timestamp, legacy), run or Run(), Path(out)
    record, private = RunRecord.of(out), data.private_of(out)
    record.check_finished(out)
    with exclusive(out, run):
        with run.progress("signing", _count(record)) as tick:
            lines, added = publish.sign(out, record.settings.rights, record.settings.format, signer, tick)
        record.model_copy(update={"written": _measured(record, lines)}).save(private / "run.json")
    own = [line for line in lines if line.status == "protected"]
    return Signing(
        files=len(own),
        before=len(own) - len(added),
        larger=fmean(added) if added else 0.0,
        reserved=dict(Counter(line.rights for line in own)),
        signer=signer.name,
        until=signer.until,
        timestamp=timestamp,
        legacy=legacy,
    )


def _count(record: RunRecord) -> int:
    return record.written.counts.get("protected", 0) if record.written else 0


def _measured(record: RunRecord, lines: Sequence[Line]) -> publish.Written | None:
    """The summary of what was written, with the size of the files as they are now."""
    size = sum(line.out_bytes for line in lines)
    return record.written and record.written.model_copy(update={"bytes_out": size})


def write_server_files(out: str | Path) -> Path | None:
    """Write the files for a web server again, from the rights of an output. Returns None where nothing is reserved."""
    return publish.write_rights(Path(out), RunRecord.of(Path(out)).settings.rights)


def read_rights(path: str | Path) -> Mapping[str, Reservation]:
    """The statements of a file, of all pictures of a folder or of all rows of a parquet table.

    Each is a key of the PLUS vocabulary, creator and copyright, or the reason why that file cannot be read. Raises
    UserError if there is no picture.
    """
    statements = {name: publish.shown_rights(payload) for name, payload in _payloads(Path(path))}
    if all(statement.broken for statement in statements.values()):
        name, statement = next(iter(statements.items()))
        raise UserError(f"{name}: cannot be read: {statement.broken}")
    return statements


def read_credentials(path: str | Path) -> Mapping[str, Credentials]:
    """The content credentials (C2PA) of a file, of every picture of a folder or row of a parquet table.

    Nothing is fetched. Without the extra `c2pa` they are noticed, but not read. Raises UserError if there is no
    picture.
    """
    return {name: publish.shown_credentials(payload) for name, payload in _payloads(Path(path))}


def _payloads(path: Path) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of a file, of every picture of a folder, or of every row of a table."""
    files = [path] if path.is_file() and path.suffix not in TABLES else []
    if path.is_dir():
        files = [path / name for name in data.pictures_in(path)]
    if not files:
        yield from _rows(path)
    for each in files:
        try:
            payload = each.read_bytes()
        except OSError as error:
            raise UserError(f"{each}: cannot be read ({error.strerror})") from None
        yield (each.relative_to(path).as_posix() if each != path else path.name), payload


def _rows(path: Path) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of every row of a table."""
    if path.suffix not in TABLES and not (path.is_dir() and any(each.suffix in TABLES for each in path.rglob("*"))):
        raise UserError(f"{path}: {'there are no pictures there' if path.exists() else 'no such file or folder'}")
    store = data.open_store(path)
    for at, item in enumerate(store.items):
        payload = store.get(at)
        if not isinstance(payload, bytes):
            raise UserError(
                f"{path}: holds bare values and no picture files, so it has no place for a reservation, and says none"
            )
        yield item.path, payload
