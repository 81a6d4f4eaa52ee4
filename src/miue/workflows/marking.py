"""The trace of a protection: the secret of an output, which attacks offer one, and what is told to the public."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from miue import data, publish
from miue.attacks import entry_of
from miue.core.errors import Damaged, UserError
from miue.core.files import digest
from miue.data.rights import Rights
from miue.trace import Parameters, Secret, Tracing, rows_of
from miue.workflows.record import RunRecord

TABLE = Path(__file__).parent.parent / "traced.json"
FILE = "trace.json"

_TRACE = """
## Ownership

Each picture carries a secret mark as well. Whether a classifier was trained on these pictures can be tested with it
(`miue trace`). This commitment to the secret was made before the pictures were published:

    {commitment}
"""
_BEACON = """
The mark depends on a public random number as well. It was named before it was known, and the name is part of what was
committed to. Name and value:

    {named}
    {beacon}
"""
_MARKED = """# Marked pictures

The pictures in this folder carry a small, secret mark (made with miue). There is no other change: it is not meant to
keep classifiers from learning from them. Whether one was trained on these pictures may be tested with the mark
(`miue trace`). This commitment to the secret was made before the pictures were published:

    {commitment}
"""


def offered() -> dict[str, dict[str, Any]]:
    """Figures of a trace beside an attack, by its spelling: accuracies with and without it, and its p.

    `make docs` writes the file from the records of benchmarks.
    """
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}


def check_offered(method: object, name: str) -> None:
    """Raise UserError if no record shows that a trace survives beside the noise of an attack."""
    table = offered()
    row = entry_of(table, method)
    if row and row["works"]:
        return
    why = "no record shows that a trace survives its noise"
    if row:
        why = f"a trace is not shown to survive its noise (p is up to {row['p']:.2g} by 1,000 scores, {row['set']})"
    works = ", ".join(spelling for spelling, row in table.items() if row["works"]) or "none yet"
    raise UserError(f"{name}: {why}; measured and offered: {works}; --trace-unmeasured tries it all the same")


def secret_file(private: Path) -> Path:
    """Where the secret of an output lies, and nowhere else."""
    return private / FILE


def secret_of(tracing: Tracing, parameters: Parameters, private: Path, fingerprint: str, anew: bool) -> Secret:
    """The secret of this job: the one that an earlier call drew for it, or a new one. Nothing is written.

    fingerprint: digest of data and settings without the beacon. anew: whether what was written is written over. Raises
    UserError if the secret of a set that was partly written is missing, or if a beacon was given that cannot be later
    than the commitment.
    """
    path = secret_file(private)
    latest = Secret.load(path) if path.exists() else None
    every = [*([latest] if latest else []), *_earlier(private)]
    known = next((each for each in every if _is_of(each, tracing, fingerprint)), None)
    written = any((private / name).exists() for name in (publish.PART, publish.MANIFEST))
    if written and not anew and (known is None or latest is None or known.commitment != latest.commitment):
        same = latest is not None and latest.fingerprint == fingerprint
        why = (
            "names another public number, or none; give that, or protect to another output"
            if same
            else "is missing; bring it back from a copy, or protect anew with --overwrite"
        )
        raise UserError(f"{path}: the secret of what was written {why}")
    if known is None:
        if tracing.beacon and not tracing.named:
            if latest and latest.parameters.beacon:
                raise UserError(
                    f"{path}: pictures or settings have changed since the commitment {latest.commitment} was made; "
                    "give those of then, or commit anew with --beacon later:NAME"
                )
            raise UserError(
                "a beacon must be newer than the commitment: run the same command with --beacon later:NAME, which "
                "names a public number, publish the commitment that it prints, and then give the value once it is known"
            )
        return Secret.drawn(parameters, fingerprint)
    if tracing.named:
        return known
    if not tracing.beacon:
        if named := known.parameters.beacon:
            value = f"{known.beacon.hex()}; give it again" if known.beacon else "not given yet; give it"
            raise UserError(
                f"{path}: this secret names a public number, {named!r}, whose value is {value} with --beacon"
            )
        return known
    later = known.with_beacon(tracing.beacon)
    if known.beacon and known.beacon != later.beacon:
        raise UserError(f"{path}: this secret has the beacon {known.beacon.hex()} already, and a second proves nothing")
    return later


def _earlier(private: Path) -> Iterator[Secret]:
    """The secrets that were set aside. What cannot be read is left out."""
    for path in sorted(private.glob("trace-*.json")):
        with suppress(Damaged):
            yield Secret.load(path)


def _is_of(secret: Secret, tracing: Tracing, fingerprint: str) -> bool:
    return secret.fingerprint == fingerprint and tracing.named in ("", secret.parameters.beacon)


def keep(secret: Secret, private: Path) -> None:
    """Save the secret of a job. That of another one is kept beside it, because what has its marks can be traced."""
    path = secret_file(private)
    known = Secret.load(path) if path.exists() else None
    if known == secret:
        return
    if known and known.commitment != secret.commitment:
        path.replace(_aside(private, known))
    secret.save(path)
    _aside(private, secret).unlink(missing_ok=True)


def _aside(private: Path, secret: Secret) -> Path:
    return private / f"trace-{secret.commitment[:16]}.json"


def rows(secret: Secret | None, labels: Int[Tensor, "n"], source: data.Source) -> Int[Tensor, "n"]:
    """The row of the mark of every usable picture of a source; its class without a trace."""
    return rows_of(secret, labels, [entry.sha256 for entry in source.usable]) if secret else labels


def fingerprint_of(fingerprint: str, private: Path) -> str:
    """The digest under which the perturbation of a job with a trace is kept: that of another secret is not taken."""
    path = secret_file(private)
    if not path.exists():
        return fingerprint
    secret = Secret.load(path)
    return digest(fingerprint, secret.commitment, secret.beacon.hex())


def notice(record: RunRecord, rights: Rights) -> str:
    """The text of PROTECTED.md for an output with these rights."""
    mark = record.settings.trace
    parts = [_MARKED] if mark and mark.alone else [publish.NOTICE_TEXT, *([_TRACE] if mark else [])]
    parts += [_BEACON] if mark and mark.beacon else []
    facts = {"commitment": record.commitment, "named": record.named, "beacon": mark.beacon if mark else ""}
    text = "".join(parts)
    for name, value in facts.items():
        text = text.replace(f"{{{name}}}", value)
    return text + publish.rights_notice(rights)
