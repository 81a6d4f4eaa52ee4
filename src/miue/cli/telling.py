"""Lines about what was written: protections, the demo, additions, rights and signatures, for `show` to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote

from miue import data, publish
from miue.attacks import entry_of
from miue.cli import catalogue
from miue.core.files import Record
from miue.core.types import Budget
from miue.data.rights import GENERATIVE, TOLD, VALUES, Reservation, Rights
from miue.data.source import FILES
from miue.evaluation.evaluation import Evaluation
from miue.publish import Credentials
from miue.workflows import demo, marking
from miue.workflows.addition import Addition
from miue.workflows.job import Job
from miue.workflows.record import RunRecord
from miue.workflows.rights import Signing

HOLDS = Evaluation.threshold  # largest share of what clean pictures teach that counts as protected
BREAKS = 6  # trainers that are named of those who keep more


def protected(job: Job, record: RunRecord, quiet: bool = False) -> Iterator[str]:
    """Say what `protect` did. quiet: without notes on the pictures."""
    written = record.written
    assert written is not None  # of a finished protection
    count = written.counts.get("protected", 0)
    out, private, source = (data.readable(str(path)) for path in (job.out, job.private, job.source))
    yield f"{count} pictures protected in {out}, largest change {written.worst} grey levels (read back)"
    if written.psnr and written.ssim:
        yield f"PSNR at least {written.psnr.least:.1f} dB, SSIM at least {written.ssim.least:.3f}"
    if record.profile:
        yield f"Noise: {record.profile}"
    if record.success:
        yield f"On its own surrogate: {record.success}. A victim is another network: evaluate it."
    growth = written.bytes_out / max(written.bytes_in, 1)
    yield f"{written.bytes_out / 1e6:.1f} MB written, {growth:.1f} times the size of the source"
    for reason, n in record.source.counts.items():
        if reason != "ok":
            names = data.some([*record.source.examples[reason], *[""] * (n - 5)])
            yield f"NOT protected, not in the output: {n} {reason} ({names})"
    if len(record.source.counts) > 1:
        yield f"All of them are listed in {private}/{publish.MANIFEST}"
    if written.unchanged:
        yield f"NOT changed, as clean in the output as before: {written.unchanged} pictures"
    for note in () if quiet else (*record.source.notes, *written.notes):
        yield f"note: {note}"
    yield from about_rights(job.out, record.settings.rights, record.source.kind)
    yield f"Keep {private} private: with it anybody can undo the protection. Keep the originals safe."
    if not record.settings.alone:
        yield "This raises the cost of training on them; it does not prevent it (docs/limits.md: what breaks it)."
    if not record.settings.trace:
        yield from _measured(job.attack, record.settings.limit)
    yield from _traced(job, record)
    split = f" --split {quote(job.split)}" if job.split else ""
    yield f"Next: miue evaluate {quote(out)} --clean {quote(source)}{split}"


def _traced(job: Job, record: RunRecord) -> Iterator[str]:
    """Lines on the trace: its cost, and what to do before publishing."""
    if not (mark := record.settings.trace):
        return
    share = mark.strength / record.settings.limit.eps
    if not mark.alone:
        yield f"{share:.0%} of the budget carries the mark; the protection is weaker for it."
        if figures := entry_of(marking.offered(), job.attack):
            bare = "" if figures["without"] is None else f" and {figures['without']:.1%} without"
            yield (
                f"Measured on {figures['set']}: {figures['accuracy']:.1%} with the mark{bare}; its trace p is at most "
                f"{figures['p']:.1g} by 1,000 scores and {figures['labels']:.1g} by 1,000 labels."
            )
    yield f"commitment: {record.commitment}"
    yield "Before you publish: leave it where its date can be proved (docs/trace.md). Next: miue trace questions."


def _measured(attack: object, budget: Budget) -> Iterator[str]:
    """Lines on what trainers keep of an attack by a benchmark; none where it was not measured with this budget."""
    if budget != Budget() or not (measured := entry_of(catalogue.measured(), attack)):
        return
    for figures in measured:
        shares = sorted(figures["kept"].items(), key=lambda item: item[1])
        holds = [name for name, share in shares if share <= HOLDS]
        breaks = [f"{name} ({share:.0%})" for name, share in reversed(shares) if share > HOLDS]
        parts = [f"at most {HOLDS:.0%} with: {', '.join(holds)}"] if holds else []
        shown = [*breaks[:BREAKS], *([f"{len(breaks) - BREAKS} others (docs/limits.md)"] if breaks[BREAKS:] else [])]
        parts += [f"more with: {', '.join(shown)}"] if shown else []
        yield f"Of what clean pictures teach, {figures['who']} kept on {figures['set']} {'; '.join(parts)}."
    yield "Your pictures may differ: evaluate them."


def demo_breaks(folder: Path) -> Iterator[str]:
    """Say what undoes the preset of the demo, and the command that shows it."""
    train, test, out = (quote(data.readable(str(folder / part))) for part in (demo.TRAIN, demo.TEST, demo.OUT))
    yield "Plain training is what was tried here. Turning all pictures grey undoes this preset, which is for drawings:"
    yield (
        f"  miue evaluate {out} --clean {train} --test {test} --recipe {demo.RECIPE} --seeds 1 --defense {demo.BREAKS}"
    )
    yield "For photographs leave --attack out of `miue protect`: the default stands more (docs/limits.md)."


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
    """The statements of files on their rights, and their content credentials, by path."""

    rights: Mapping[str, Reservation]
    credentials: Mapping[str, Credentials]


def reserved(shown: Reserved) -> Iterator[str]:
    """Say what every file says of data mining, whose it is, and who signed it."""
    for path, statement in shown.rights.items():
        if statement.broken:
            yield f"{path}: cannot be read: {statement.broken}"
            continue
        credentials = _credentials(shown.credentials[path])
        facts = (
            (statement.key or "no reservation") + ("" if statement.canonical else " (not as a full URI)"),
            f"creator: {statement.creator}" if statement.creator else "",
            f"copyright: {statement.copyright}" if statement.copyright else "",
            "" if statement.readable else "XMP that cannot be read",
            f"C2PA: {credentials}" if credentials else "",
        )
        yield f"{path}: {'; '.join(filter(None, facts))}"


def _credentials(it: Credentials) -> str:
    """The content credentials of a file in words; empty if there are none."""
    uses = [f"{use} {value}" for use, value in it.uses.items() if value != "allowed"]
    statement = ", ".join(uses) or ("all is allowed" if it.uses else "nothing is said of mining or training")
    when = f" at {it.stamped}" if it.stamped else ""
    return {
        "none": "",
        "valid": f"signed by {it.signer}{when} (its bytes fit; nobody vouched for the signer here); {statement}",
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


def rewritten(out: Path, record: RunRecord, kept: Sequence[str]) -> Iterator[str]:
    """Say what `rights write` did. kept: the names of texts that are as before."""
    count = record.written.counts.get("protected", 0) if record.written else 0
    rights = record.settings.rights
    yield f"rights of {count} files of {data.readable(str(out))}: {rights.value}; their pixels are as before"
    for name in kept:
        yield f"as before: {name.replace('_', '-')}, {data.readable(str(getattr(rights, name)))}"
    yield from about_rights(out, rights)


def for_server(out: Path, record: RunRecord, written: bool) -> Iterator[str]:
    """Say what `rights files` did. written: whether there is something for a web server."""
    kind, place = record.source.kind, data.readable(str(out))
    yield from about_rights(out, record.settings.rights, kind)
    if not written:
        way = (
            f"miue rights write {quote(place)} --rights no-training"
            if kind in FILES
            else "its protect command once more, with --overwrite --rights no-training"
        )
        yield f"{place} reserves nothing, so there are no files for a web server. To reserve something: {way}"


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
