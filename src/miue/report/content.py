"""The content of a page, free of its form: HTML and Markdown are made from the same content.

All texts here are plain and may hold names of files and classes: the templates escape them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Text:
    """A paragraph. A note is set apart."""

    text: str
    note: bool = False
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str]
    kind: Literal["items"] = "items"


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value."""

    pairs: Sequence[tuple[str, str]]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True)
class Table:
    """A table. numbers: columns that are set to the right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    folded: bool = False
    """True if a page on a screen shows it only when it is opened."""
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Chart:
    """A drawing, with a title, a text for those who do not see it, and the same numbers as a table."""

    title: str
    alt: str
    table: Table
    svg: str = ""
    """Empty where it cannot be drawn: then the table stands in its place."""
    listed: bool = False
    """True if the table stands below the drawing, too."""
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Picture:
    """A picture, as a data: address, with a text for those who do not see it."""

    address: str
    alt: str
    caption: str
    small: bool = False
    """True if it has so few pixels that they are shown as squares."""


@dataclass(frozen=True)
class Pictures:
    """Pictures in rows of `columns`."""

    pictures: Sequence[Picture]
    columns: int
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True)
class Code:
    """Commands or other text that is shown as it is."""

    lines: Sequence[str]
    kind: Literal["code"] = "code"


Block = Text | Items | Facts | Table | Chart | Pictures | Code


@dataclass(frozen=True)
class Section:
    """A section with its heading. name: for links within the page."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report: what stands on its first screen, and the sections after it."""

    title: str
    subtitle: str
    verdict: str
    """One or two words."""
    tone: Literal["good", "bad", "open"]
    sentence: str
    """The verdict in one sentence, with its numbers."""
    remarks: Sequence[str]
    """Sentences that must be read with the verdict."""
    figures: Sequence[tuple[str, str]]
    """A few numbers in large type, each with what it is."""
    chart: Chart | None
    untested: Sequence[str]
    examples: Pictures | None
    examples_note: str
    published: Facts
    sections: Sequence[Section] = field(default_factory=tuple)
    public: bool = False
