"""The private records of a trace: what was declared, how all stand who were judged, which keys were shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from miue import data
from miue.core.errors import UserError
from miue.core.files import Record, digest
from miue.trace import Asked, Secret, Verdict
from miue.trace.answers import Kept
from miue.trace.judge import now, together
from miue.workflows.marking import secret_file
from miue.workflows.record import RunRecord


class Mismatch(UserError):
    """Something that does not belong to its commitment."""

    code = 3


class Declaration(Record):
    """The number of suspects and the level that an owner fixed before the first judgement, and who was judged since."""

    suspects: int
    alpha: float
    when: str
    judged: Mapping[str, str] = {}
    """Digest of the answers by the name of the suspect."""


class Given(Record):
    """The answers of a suspect."""

    blind: Kept
    direct: Kept | None = None


class Revealed(Record):
    """The keys of a secret that were shown to others."""

    when: str
    """The first time."""
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """All suspects of a set that were judged, in order."""

    declared: Declaration
    verdicts: Mapping[str, Verdict]
    """By the name of the suspect."""

    @property
    def decided(self) -> dict[str, Verdict]:
        """The verdicts by Holm's method over all suspects that were declared."""
        return together(self.verdicts, self.declared.alpha, self.declared.suspects)

    @property
    def evidence(self) -> dict[str, bool]:
        """True by suspect if there is evidence against it."""
        return {name: verdict.evidence for name, verdict in self.decided.items()}


@dataclass(frozen=True)
class Place:
    """The private records of a trace."""

    private: Path
    commitment: str
    """As it was published."""

    @property
    def folder(self) -> Path:
        return self.private / "trace" / self.commitment[:16]

    @cached_property
    def secret(self) -> Secret:
        """The secret. Raises Mismatch if it is not the one that the set was marked with."""
        path = secret_file(self.private)
        secret = Secret.load(path)
        if secret.commitment != self.commitment:
            raise Mismatch(
                f"{path}: this secret belongs to the commitment {secret.commitment}, and the set was published with "
                f"{self.commitment}; bring back the file that belongs to it"
            )
        return secret

    @property
    def lists(self) -> list[Asked]:
        return [Asked.load(path) for path in sorted((self.folder / "questions").glob("*.json"))]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts by the name of the suspect."""
        declared = self.declaration
        mend = "bring it back from a copy; the verdict cannot be made anew without the answers"
        return {name: Verdict.load(self.verdict(name), mend) for name in (declared.judged if declared else ())}

    @property
    def declaration(self) -> Declaration | None:
        path = self.folder / "declaration.json"
        mend = "bring it back from a copy; what was declared cannot be declared anew"
        return Declaration.load(path, mend) if path.exists() else None

    @property
    def revealed(self) -> Revealed | None:
        """The keys that were shown; None if all are secret."""
        path = self.folder / "revealed.json"
        return Revealed.load(path) if path.exists() else None

    def verdict(self, name: str) -> Path:
        return self.folder / "verdicts" / f"{digest(name)}.json"

    def given(self, name: str) -> Path:
        return self.folder / "answers" / f"{digest(name)}.json"

    def keep(self, declared: Declaration, name: str, verdict: Verdict, given: Given) -> None:
        """Save a verdict and what it was made from; the declaration comes last, so that it never names one too many."""
        given.save(self.given(name))
        verdict.save(self.verdict(name))
        declared.model_copy(update={"judged": {**declared.judged, name: verdict.answers}}).save(
            self.folder / "declaration.json"
        )

    def reveal(self, keys: Collection[str]) -> None:
        """Note that keys will be shown."""
        known = self.revealed or Revealed(when=now(), keys=())
        every = {*known.keys, *keys}
        known.model_copy(update={"keys": tuple(sorted(every))}).save(self.folder / "revealed.json")


def place_of(out: Path) -> Place:
    """The private records of an output. Raises UserError if it has no trace."""
    if not (commitment := RunRecord.of(out).commitment):
        raise UserError(f"{out}: carries no trace; `miue protect ... --trace` makes a set that can be traced")
    return Place(data.private_of(out), commitment)


def standing(out: str | Path) -> Standing | None:
    """The standing of all suspects of a set; None if nobody was judged. The secret is not read. Raises UserError."""
    place = place_of(Path(out))
    declared = place.declaration
    return Standing(declared, place.verdicts) if declared and declared.judged else None
