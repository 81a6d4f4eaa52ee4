"""Lines about additions and rights, for `show` to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from miue import data, publish
from miue.core.files import Record
from miue.data.rights import GENERATIVE, TOLD, VALUES, Rights
from miue.workflows.add import Addition
from miue.workflows.record import RunRecord


def added(addition: Addition, record: RunRecord) -> Iterator[str]:
    """Say what `add` did."""
    new, out, private = addition.new, data.readable(str(addition.out)), data.readable(str(addition.private))
    whole = record.written.counts.get("protected", 0) if record.written else 0
    count = len(new.source.usable)
    if addition.again or not count:
        yield f"nothing to add: {out} has all {count + len(new.known)} pictures already"
    else:
        yield f"{count} pictures added to {out}, which has {whole} now; its other files are as before"
    examples = new.source.examples()
    for reason, n in new.source.summary().items():
        if reason != "ok":
            yield f"NOT added: {n} {reason} ({data.some([*examples[reason], *[''] * (n - 5)])})"
    if count and not addition.again:
        yield f"Keep {private} private. Keep the originals: `evaluate` looks for them where they are now."


class Reserved(Record):
    """What files say of data mining, by path."""

    rights: dict[str, str]


def reserved(keys: Mapping[str, str]) -> Iterator[str]:
    """Say what every file says of data mining."""
    return (data.readable(f"{path}: {key or 'no reservation'}") for path, key in keys.items())


def by_key(keys: Sequence[str]) -> Iterator[str]:
    """Say how many files reserve what; nothing where nothing is reserved."""
    counts = Counter(keys)
    if set(counts) - {""}:
        for key, count in counts.most_common():
            yield f"{key or 'no reservation'}: {count} of {len(keys)} files"


def rewritten(out: Path, record: RunRecord) -> Iterator[str]:
    """Say what `rights write` did."""
    count = record.written.counts.get("protected", 0) if record.written else 0
    rights = record.settings.rights
    yield f"rights of {count} files of {data.readable(str(out))}: {rights.value}; their pixels are as before"
    yield from about_rights(out, rights)


def about_rights(out: Path, rights: Rights, kind: str = "folder") -> Iterator[str]:
    """Say what was reserved; nothing where nothing was."""
    if rights.value == "none":
        return
    if rights.value == "no-generative":
        yield f"note: {GENERATIVE}"
    if kind == "npz":
        yield "note: an .npz file has no place for rights: nothing was embedded"
    else:
        yield f"Every file says {VALUES[rights.value]}, or what its source said, where that is stricter."
    if (folder := publish.rights_of(out)).is_dir():
        yield f"For your web server: {data.readable(str(folder))}/README.md says which file goes where."
    yield TOLD
