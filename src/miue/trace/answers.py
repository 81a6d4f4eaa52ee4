"""Answers of a suspect: from a callable, or from a file with one line a question."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import Record
from miue.data.plain import read_columns

Suspect = Callable[[Tensor], Any]
"""From uint8 pictures [b c h w] to scores [b k] (probabilities or logits), or to labels [b] as whole numbers."""
SCORES, LABELS = "scores", "labels"
Kind = Literal["scores", "labels"]
_LEAST_LOG = -30.0  # natural logarithm of a probability that was written as 0


class Kept(Record):
    """Answers as a record keeps them, to the last bit."""

    outputs: tuple[str, ...]
    kind: Kind
    known: bool
    scores: tuple[tuple[float, ...], ...] = ()
    """A row for every question; empty for labels."""
    labels: tuple[int, ...] = ()
    """The place in `outputs` of every answer; empty for scores."""

    @property
    def answers(self) -> Answers:
        """The answers. Raises UserError if they are none: a place that does not exist, rows of several lengths."""
        width = len(self.outputs)
        if self.kind == LABELS and self.labels and all(0 <= label < width for label in self.labels):
            values = F.one_hot(torch.tensor(self.labels), width).double()
        elif self.kind == SCORES and self.scores and all(len(row) == width for row in self.scores):
            values = torch.tensor(self.scores, dtype=torch.float64)
        else:
            raise UserError("these answers are not what a judgement keeps; ask for the disclosure again")
        return Answers(values, self.outputs, self.kind, self.known)


@dataclass(frozen=True)
class Answers:
    """The answers to all questions, in the order of the questions.

    values: log-probabilities less their mean over outputs, so that logits, log-probabilities and probabilities give the
    same; or one-hot labels. outputs: the class of every column, or made-up names if nobody knows them.
    """

    values: Float64[Tensor, "q l"]
    outputs: tuple[str, ...]
    kind: Kind
    known: bool = True
    """True if outputs are named like classes."""

    @property
    def digest(self) -> str:
        """SHA-256 of outputs and values."""
        content = repr((self.outputs, self.kind, tuple(self.values.shape))).encode()
        return hashlib.sha256(content + self.values.contiguous().numpy().tobytes()).hexdigest()

    @property
    def kept(self) -> Kept:
        """The form for a record."""
        empty = Kept(outputs=self.outputs, kind=self.kind, known=self.known)
        if self.kind == LABELS:
            return empty.model_copy(update={"labels": tuple(self.values.argmax(1).tolist())})
        return empty.model_copy(update={"scores": tuple(map(tuple, self.values.tolist()))})

    def columns(self, classes: Sequence[str], owners: Sequence[int]) -> Float64[Tensor, "q k"]:
        """The output that belongs to each key; zeros for a class that the suspect does not know."""
        empty = torch.zeros(len(self.values), dtype=torch.float64)
        place = {name: column for column, name in enumerate(self.outputs)}
        columns = [self.values[:, place[name]] if name in place else empty for name in (classes[o] for o in owners)]
        return torch.stack(columns, 1)


def of_scores(scores: Float64[Tensor, "q l"], outputs: Sequence[str], known: bool = True) -> Answers:
    """Answers from probabilities or logits. Probabilities are recognised: none is negative, and rows sum to 1."""
    if not scores.isfinite().all():
        raise UserError(f"{int((~scores.isfinite()).any(1).sum())} answers have scores that are not finite")
    shares = bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-2).all())
    logs = scores.clamp_min(1e-300).log().clamp_min(_LEAST_LOG) if shares else scores
    return Answers(logs - logs.mean(1, keepdim=True), tuple(outputs), SCORES, known)


def of_labels(labels: Sequence[str], outputs: Sequence[str], known: bool = True) -> Answers:
    """Answers from labels. Raises UserError if a label is none of the outputs."""
    place = {name: column for column, name in enumerate(outputs)}
    if strange := sorted({label for label in labels if label not in place}):
        raise UserError(
            f"the answer {strange[0]!r} is none of the classes ({', '.join(list(outputs)[:8])}); write class names, or "
            "give --labels unknown if the suspect's labels mean something else"
        )
    rows = torch.tensor([place[label] for label in labels])
    return Answers(F.one_hot(rows, len(place)).double(), tuple(outputs), LABELS, known)


def ask(suspect: Suspect, batches: Iterable[Tensor], classes: Sequence[str], labels_only: bool = False) -> Answers:
    """The answers of a callable, whose outputs are in the order of the classes.

    labels_only: as if it showed no scores. Raises UserError if it gives neither scores nor labels.
    """
    parts = list[Tensor]()
    for pictures in batches:
        answer = suspect(pictures)
        part = answer if isinstance(answer, Tensor) else torch.as_tensor(answer)
        if len(part) != len(pictures) or part.ndim not in (1, 2):
            raise UserError(
                f"the suspect gave {tuple(part.shape)} for {len(pictures)} pictures; scores of every class, or one "
                "label a picture, are understood"
            )
        parts.append(part.detach().cpu())
    whole = torch.cat(parts)
    if whole.ndim == 1:
        if whole.is_floating_point():
            raise UserError("the suspect gave one fraction a picture; a label is a whole number")
        known = dict(enumerate(classes))
        return of_labels([known.get(i, f"output {i}") for i in whole.tolist()], classes)
    if whole.shape[1] != len(classes):
        raise UserError(f"the suspect gave {whole.shape[1]} scores a picture, and there are {len(classes)} classes")
    scores = of_scores(whole.double(), classes)
    return hardened(scores) if labels_only else scores


def hardened(answers: Answers) -> Answers:
    """The labels alone: what a suspect would say that shows no scores."""
    best = [answers.outputs[i] for i in answers.values.argmax(1).tolist()]
    return of_labels(best, answers.outputs, answers.known)


def read(path: Path, classes: Sequence[str], count: int, unknown: bool = False) -> Answers:
    """Answers from a CSV file or parquet with a column `question` and either `label` or a column for every class.

    Questions are numbered from 0, or named like their files. Order and names of columns do not matter. unknown: whether
    labels or columns mean other classes than ours. Raises UserError if answers are missing, doubled or not understood.
    """
    columns = read_columns(path)
    if "question" not in columns:
        raise UserError(f"{path}: has no column `question`; its columns are {', '.join(list(columns)[:8])}")
    order = _order(path, columns.pop("question"), count)
    columns.pop("file", None)  # as in the table of questions
    if set(columns) == {"label"}:
        labels = [str(columns["label"][i]) for i in order]
        return of_labels(labels, sorted(set(labels)) if unknown else classes, not unknown)
    names = sorted(columns) if unknown else [name for name in classes if name in columns]
    if not unknown and (strange := [name for name in columns if name not in classes]):
        raise UserError(
            f"{path}: the column {strange[0]!r} is none of the classes ({', '.join(classes[:8])}); name columns like "
            "classes, or give --labels unknown"
        )
    if not names:
        raise UserError(f"{path}: has neither a column `label` nor columns that are named like classes")
    try:
        scores = torch.tensor([[float(columns[name][i]) for name in names] for i in order], dtype=torch.float64)
    except (TypeError, ValueError):
        raise UserError(f"{path}: a score is no number") from None
    return of_scores(scores, names, not unknown)


def number_of(question: object) -> int | None:
    """The number of a question from what a file of answers calls it: 17, "17", "0017.png" or "DIR/0017.png"."""
    text = str(question).replace("\\", "/").rpartition("/")[2].partition(".")[0]
    return int(text) if text.isascii() and text.isdecimal() else None


def _order(path: Path, questions: Sequence[object], count: int) -> list[int]:
    """The line of every question. Raises UserError if some are missing, doubled or unknown."""
    places: dict[int, int] = {}
    for line, question in enumerate(questions):
        number = number_of(question)
        if number is None or not 0 <= number < count:
            raise UserError(f"{path}: {question!r} is none of the {count} questions")
        if number in places:
            raise UserError(f"{path}: question {number} is answered twice")
        places[number] = line
    if missing := [number for number in range(count) if number not in places]:
        names = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(f"{path}: {len(missing)} of {count} questions have no answer: {names}")
    return [places[number] for number in range(count)]
