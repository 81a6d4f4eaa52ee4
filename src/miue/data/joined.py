"""Pictures that are added to a set: what is new of them, its names beside the set, and one source of several."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import PurePosixPath

from miue.core.errors import UserError
from miue.data.folder import folded, folders_of
from miue.data.source import Entry, Item, Payload, Source, Store, some

IN_ALREADY = "in the output already"


@dataclass(frozen=True, kw_only=True)
class JoinedStore(Store):
    """Some items of other stores. parts: for every item its store and its number there."""

    parts: tuple[tuple[Store, int], ...] = field(repr=False)

    def get(self, index: int) -> Payload:
        store, at = self.parts[index]
        return store.get(at)


def joined(model: Source, parts: Sequence[tuple[Source, int, Entry]], classes: tuple[str, ...]) -> Source:
    """One source of entries of several: each with its own source and its position there. Labels are of `classes`.

    model: the source whose kind, place, rules and notes it has.
    """
    entries = tuple(entry for _, _, entry in parts)
    store = JoinedStore(
        kind=model.kind,
        location=model.location,
        name=model.name,
        classes=classes,
        items=tuple(Item(entry.path, entry.label) for entry in entries),
        parts=tuple((source.store, at) for source, at, _ in parts),
    )
    return Source(store, entries, model.notes, model.rules)


@dataclass(frozen=True)
class Earlier:
    """An input of an output. pixels, published: digests of the picture before and after; empty if it has none."""

    path: str
    out: str
    class_name: str
    reason: str
    bytes: int
    sha256: str
    pixels: str
    published: str


@dataclass(frozen=True)
class New:
    """The part of some pictures that an output does not have yet."""

    source: Source
    """New inputs only, pictures with paths and names that no other has, and labels of the classes of the output."""
    known: tuple[str, ...]
    """Paths of pictures that the output has."""
    twins: tuple[str, ...]
    """Names that the output has for other pictures, each with its new name."""


def new_of(given: Source, earlier: Sequence[Earlier], classes: tuple[str, ...]) -> New:
    """Compare pictures with those of an output, by their pixels.

    classes: those of the output, in order. Raises UserError if there are pictures of other classes.
    """
    protected = [line for line in earlier if line.published]
    filled = {line.class_name for line in protected}
    if strange := sorted({given.classes[e.label] for e in given.usable} - (filled & set(classes))):
        raise UserError(
            f"{given.location}: pictures of classes that are new to the output: {some(strange)} (its classes: "
            f"{some(sorted(filled), 20)}); nothing kept knows how they differ from the others, so they need a whole "
            "run: protect all pictures together, to another output"
        )
    clean = {(line.pixels, line.class_name) for line in protected}
    published = {line.published for line in protected}
    left_out = {_input(line) for line in earlier if not line.published}
    paths = {line.path for line in protected} | {entry.path for entry in given.entries if entry.status != "ok"}
    taken = _Taken([line.out for line in protected], paths)
    parts, known, twins = list[tuple[Source, int, Entry]](), list[str](), list[str]()
    for at, entry in enumerate(given.entries):
        if entry.status != "ok":
            same = entry.sha256 or entry.status == "skipped"  # a file of which nothing is known may be another one
            if not same or _input(entry) not in left_out:
                parts.append((given, at, _relabelled(entry, given, classes)))
        elif (entry.pixels, given.classes[entry.label]) in clean or entry.pixels in published:
            known.append(entry.path)
        else:
            free = taken.free(_relabelled(entry, given, classes))
            if free.out != entry.out:
                twins.append(f"{entry.path} becomes {free.out}")
            parts.append((given, at, free))
    return New(joined(given, parts, classes), tuple(known), tuple(twins))


def _input(each: Earlier | Entry) -> tuple[str, str, int, str]:
    """The facts by which an input that is no picture of the output is known again."""
    return each.path, each.reason, each.bytes, each.sha256


def _relabelled(entry: Entry, given: Source, classes: tuple[str, ...]) -> Entry:
    name = given.classes[entry.label] if entry.label >= 0 else ""
    return replace(entry, label=classes.index(name) if name in classes else -1)


class _Taken:
    """Names and paths that an output has."""

    def __init__(self, outs: Collection[str], paths: set[str]) -> None:
        self.outs = {_key(out) for out in outs} | {_key(f"{folder}.png") for folder in folders_of(outs)}
        self.paths = set(paths)

    def free(self, entry: Entry) -> Entry:
        """The entry with an output name, and a path for the manifest, that are not taken; they are taken now."""
        out = next(name for name in _numbered(entry.out) if _key(name) not in self.outs)
        path = next(name for name in _numbered(entry.path) if name not in self.paths)
        self.outs.add(_key(out))
        self.paths.add(path)
        return replace(entry, out=out, path=path)


def _key(out: str) -> str:
    """A key that is equal for names which some file systems take for one, whatever the format of the output."""
    folder, _, name = str(PurePosixPath(out).with_suffix("")).rpartition("/")
    return f"{folder}/{folded(name)}"


def _numbered(path: str) -> Iterator[str]:
    yield path
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if stem else (name, "")
    yield from (f"{folder}{slash}{stem}~{k}{suffix}" for k in count(2))


def originals_of(
    lines: Sequence[tuple[str, str, str, str]], sources: Sequence[Source], classes: tuple[str, ...], out: str
) -> Source:
    """The originals of an output in the order of its manifest, found in these sources by the digest of their bytes.

    lines: SHA-256, class, path and name in the output, without its format, of every protected picture. Raises UserError
    if one is in none of the sources.
    """
    places: Mapping[tuple[str, str], tuple[Source, int]] = {
        (entry.sha256, source.classes[entry.label]): (source, at)
        for source in reversed(sources)
        for at, entry in reversed(list(enumerate(source.entries)))
        if entry.status == "ok"
    }
    missing = [path for sha, name, path, _ in lines if (sha, name) not in places]
    if missing:
        raise UserError(
            f"{sources[0].location}: of the originals of {out} these are neither there nor in "
            f"{' nor '.join(s.location for s in sources[1:]) or 'any other folder that was added'}: {some(missing)}; "
            "bring them back, unchanged, or put all originals into one folder and give that"
        )
    parts = []
    for sha, name, path, named in lines:
        source, at = places[sha, name]
        parts.append((source, at, replace(source.entries[at], path=path, out=named, label=classes.index(name))))
    return joined(sources[0], parts, classes)
