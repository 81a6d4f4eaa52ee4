"""The clean pictures that an output was made from, wherever they lie by now."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from miue import data, publish
from miue.core.errors import UserError
from miue.data.picture import Rules
from miue.workflows.record import RunRecord


def originals(out: Path, clean: str, split: str | None, canvas: int = 0) -> data.Source:
    """Scan the clean pictures of an output by the rules that it was made with.

    Of an output to which pictures were added, those are searched for in `clean`, too, and then in the folders that they
    were added from. They are known by the digest of their bytes. canvas: the size at which they will be read; 0: not
    at all. Raises UserError if some are not found.
    """
    record = RunRecord.of(out)
    rules, done = record.source.rules, [part for part in record.added if part.status == "finished"]
    if not done:
        return data.scan(clean, split=split, canvas=canvas, **rules)
    _, lines = publish.finished(data.private_of(out))
    lines = [line for line in lines if line.status == "protected"]
    sources = [data.scan(clean, split=split, part=True, canvas=0, **rules)]
    wanted = {line.sha256 for line in lines}
    for location, part in dict.fromkeys(added.origin for added in done):
        if not wanted - {entry.sha256 for source in sources for entry in source.usable}:
            break
        try:
            sources.append(data.scan(location, split=part, part=True, canvas=0, **rules))
        except UserError:  # moved, or empty by now: what is missing then is told with its name
            continue
    named = [(line.sha256, line.class_name, line.path, _plain(line.out)) for line in lines]
    return data.originals_of(named, sources, tuple(record.source.classes), str(out))


def opened(record: RunRecord, clean: str | Path, split: str | None) -> publish.Originals:
    """The clean pictures of an output, each opened when it is asked for, by the rules that it was made with.

    Those that were added are searched for in `clean` and in the folders that they were added from.
    """
    rules = Rules(record.source.rules["max_pixels"], record.source.rules["frames"])
    added = [part.origin for part in record.added]
    return publish.Originals.of(clean, split or record.settings.split, rules, added)


def _plain(out: str) -> str:
    """The name in the output as a scan gives it, whatever the format."""
    return str(PurePosixPath(out).with_suffix(".png"))
