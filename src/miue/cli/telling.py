"""Lines about additions, rights and signatures, for `show` to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from miue import data, publish
from miue.core.files import Record
from miue.data.rights import GENERATIVE, TOLD, VALUES, Rights
from miue.publish import Credentials
from miue.workflows.add import Addition
from miue.workflows.record import RunRecord
from miue.workflows.rights import Signing


def added(addition: Addition, record: RunRecord) -> Iterator[str]:
    """Say what `add` did."""
    new, out, private = addition.new, data.readable(str(addition.out)), data.readable(str(addition.private))
    whole = record.written.counts.get("protected", 0) if record.written else 0
    count = len(new.source.usable)
    if addition.again or not count:
        yield f"nothing to add: {out} has all {count + len(new.known)} pictures already"
    else:
        yield f"{count} pictures added to {out}, which has {whole} now; its other files are as before"
    if count and not addition.again and any(line.signed for line in publish.finished(addition.private)[1]):
        yield "The new files have no content credentials, and others have: sign again with `miue rights sign`."
    examples = new.source.examples()
    for reason, n in new.source.summary().items():
        if reason != "ok":
            yield f"NOT added: {n} {reason} ({data.some([*examples[reason], *[''] * (n - 5)])})"
    if count and not addition.again:
        yield f"Keep {private} private. Keep the originals: `evaluate` looks for them where they are now."


class Reserved(Record):
    """What files say of data mining, and their content credentials, by path."""

    rights: Mapping[str, str]
    credentials: Mapping[str, Credentials]


def reserved(shown: Reserved) -> Iterator[str]:
    """Say what every file says of data mining, and who signed it."""
    for path, key in shown.rights.items():
        credentials = _credentials(shown.credentials[path])
        yield data.readable(f"{path}: {key or 'no reservation'}{'; C2PA: ' if credentials else ''}{credentials}")


def _credentials(it: Credentials) -> str:
    """The content credentials of a file in words; empty if there are none."""
    uses = [f"{use} {value}" for use, value in it.uses.items() if value != "allowed"]
    said = ", ".join(uses) or ("all is allowed" if it.uses else "nothing is said of mining or training")
    when = f" at {it.stamped}" if it.stamped else ""
    return {
        "none": "",
        "valid": f"signed by {it.signer}{when} (its bytes fit; nobody vouched for the signer here); {said}",
        "broken": f"BROKEN ({it.why}), said to be by {it.signer or 'somebody unknown'}",
        "elsewhere": f"at {it.why}, not fetched",
        "not read": f"there, not read; {it.why}",
    }[it.state]


def signed(out: Path, signing: Signing) -> Iterator[str]:
    """Say what `rights sign` did, and what was signed."""
    now, place = signing.files - signing.before, data.readable(str(out))
    if now:
        yield (
            f"{now} files of {place} signed by {data.readable(signing.signer)}; their pixels are as before, "
            f"{signing.larger / 1000:.1f} kB were added to each"
        )
    if signing.before:
        yield f"{signing.before} files were signed in the same way already, and stayed as they are"
    for key, count in signing.reserved.items():
        yield f"signed: {key or 'that miue changed them, and nothing of mining or training'} ({count} files)"
    if not any(signing.reserved):
        yield "Nothing is reserved in these files. To sign a reservation: first `miue rights write`, then sign again."
    if not signing.timestamp:
        yield f"No time stamp: from {signing.until}, when the certificate ends, readers show these signatures as void."
    yield "Readers show an unknown signer, unless they trust your certificate. Many sites remove content credentials."
    yield "They hold for these very bytes, and `miue rights write` takes them out: sign last."


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
