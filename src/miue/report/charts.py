"""Charts as SVG that stands in a page: its colours and its font are the page's, and no two names in it are alike.

Without matplotlib, an extra, there are none: the tables have the same numbers.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

import numpy as np

from miue.analysis.records import Analysis
from miue.evaluation.records import Outcome, Role
from miue.report.judged import Kept

WIDTH = 4.5  # inches of 72 units: as wide as a telephone, so that letters are never scaled down much
LONGEST = 44  # letters of a label that has a number at its right; the table has all of it
INK, SOFT, RULE, ACCENT = "#010203", "#040506", "#070809", "#0a0b0c"
COLOURS = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)", ACCENT: "var(--accent)"}
ROLES: dict[Role, tuple[str, str]] = {
    "clean": ("originals", INK),
    "noise": ("plain noise", SOFT),
    "protected": ("protected", ACCENT),
}
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}


def ready() -> bool:
    """True if charts can be drawn."""
    return find_spec("matplotlib") is not None


def drawn(name: str, alt: str, height: float, draw: Callable[[Any], None]) -> str:
    """SVG of one panel, `height` inches high. name: unique in the page. Empty where matplotlib is missing."""
    if not ready():
        return ""
    import matplotlib as mpl  # here: it is an extra and takes a second
    from matplotlib.figure import Figure

    content = io.BytesIO()
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts show the text, not the one that measures it
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        figure.savefig(content, format="svg", metadata={"Date": None})
    return _placed(content.getvalue(), name, alt)


def _placed(svg: bytes, name: str, alt: str) -> str:
    """A drawing without size, style sheet and metadata, with an `alt` text, and with names that begin with `name`."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)  # a style sheet would hold for the whole page
        for key, value in list(parent.attrib.items()):
            parent.set(key, _renamed(key, value, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode")


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == f"{{{_LINK}}}href":
        return value.replace("#", f"#{name}-", 1)
    value = value.replace("url(#", f"url(#{name}-")
    for colour, own in COLOURS.items():
        value = value.replace(colour, own)
    return value


def controls(kept: Kept, alt: str) -> str:
    """Accuracies of the victim on originals, plain noise and protected pictures: a dot a seed, the mean beside it."""

    def draw(panel: Any) -> None:
        for row, (role, (_, colour)) in enumerate(reversed(ROLES.items())):
            values = [100 * value for value in getattr(kept, role)]
            mean = fmean(values)
            panel.plot([0, mean], [row, row], color=colour, linewidth=5, alpha=0.16, solid_capstyle="butt")
            panel.plot(values, [row] * len(values), "o", color=colour, markersize=6.5, alpha=0.85)
            _write(panel, max(values) + 3.5, row, f"{mean:.1f}%", colour, "left", "bold")
        _guessing(panel, 100 * kept.chance, 2.72)
        panel.set(xlim=(0, 121), ylim=(-0.6, 3.0), yticks=range(3), xticks=[0, 25, 50, 75, 100])
        panel.set_xticklabels(["0", "25", "50", "75", "100%"])
        panel.spines["bottom"].set_bounds(0, 100)
        panel.set_yticklabels([text for text, _ in reversed(ROLES.values())], color=INK)

    return drawn("controls", alt, 1.75, draw)


def epochs(name: str, outcome: Outcome, victim: str, alt: str) -> str:
    """Accuracy by epoch for the three roles: the mean over seeds, with all seeds between the edges of a band."""

    def draw(panel: Any) -> None:
        ends, last = [], 1
        for role, (text, colour) in ROLES.items():
            curves = [run.epochs for run in outcome.runs if (run.role, run.victim) == (role, victim) and run.epochs]
            if not curves:
                continue
            shared = sorted(set.intersection(*(set(curve) for curve in curves)))
            rows = np.array([[100 * curve[epoch] for epoch in shared] for curve in curves])
            if len(curves) > 1:
                panel.fill_between(shared, rows.min(0), rows.max(0), color=colour, alpha=0.14, linewidth=0)
            panel.plot(shared, rows.mean(0), color=colour, linewidth=1.8)
            ends.append((text, float(rows.mean(0)[-1]), colour))
            last = shared[-1]
        panel.axhline(100 * outcome.chance, color=SOFT, linewidth=0.8, linestyle=(0, (1, 2)))
        ends.append(("guessing", 100 * outcome.chance, SOFT))
        for (text, _, colour), at in zip(ends, _apart([value for _, value, _ in ends], 8.5), strict=True):
            _write(panel, last * 1.03, at, text, colour, "left")
        panel.set(xlim=(1, max(last, 2)), ylim=(0, 100), yticks=[0, 25, 50, 75, 100], xlabel="epoch of the training")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_title("new pictures named correctly, %", fontsize=11, color=SOFT, loc="left")
        panel.grid(axis="y")

    return drawn(name, alt, 2.7, draw)


def shares(kept: Sequence[Kept], alt: str) -> str:
    """A drawing of the share that is kept in every way that was tested: a dot, its interval, and the threshold."""

    def draw(panel: Any) -> None:
        for row, line in enumerate(reversed(kept)):
            colour = ACCENT if line.judgement.verdict == "protected" else INK
            if interval := line.interval:
                panel.plot([100 * interval[0], min(100 * interval[1], 100)], [row, row], color=colour, linewidth=1.2)
            hollow = "none" if line.judgement.verdict == "inconclusive" else colour
            if line.share is not None:
                panel.plot([100 * line.share], [row], "o", color=colour, markersize=6.5, markerfacecolor=hollow)
            label = f"{line.way}, {line.net}"
            _write(panel, 0, row + 0.42, label if len(label) <= LONGEST else f"{label[:LONGEST]}...", INK, "left")
            value = "not known" if line.share is None else f"{line.share:.0%}"
            _write(panel, 101, row + 0.42, value, colour, "right", "bold")
            panel.plot([0, 100], [row, row], color=RULE, linewidth=0.6, zorder=0)
        limit = 100 * kept[0].threshold
        panel.vlines(
            [limit] * len(kept),
            *([row + side for row in range(len(kept))] for side in (-0.22, 0.22)),
            color=SOFT,
            linewidth=1,
        )
        panel.set(xlim=(-1, 101), ylim=(-0.5, len(kept) - 0.2), yticks=[], xticks=[0, 25, 50, 75, 100])
        panel.set_xlabel(f"kept, %; upright stroke: the threshold, {limit:.0f}%")

    return drawn("shares", alt, 0.75 + 0.5 * len(kept), draw)


def histogram(name: str, values: Sequence[float], label: str, alt: str, digits: int) -> str:
    """A histogram of the quality of pictures, with the least and the mean written at their places."""

    def draw(panel: Any) -> None:
        low, mean = min(values), fmean(values)
        counts, _, _ = panel.hist(values, bins=min(30, max(len(values) // 4, 5)), color=ACCENT, alpha=0.45)
        top = float(np.max(counts))
        for value, text, place in ((low, "least", 1.32), (mean, "mean", 1.13)):
            panel.plot([value, value], [0, top * (place - 0.03)], color=INK, linewidth=0.8)
            right = value > (low + max(values)) / 2
            _write(panel, value, top * place, f"{text} {value:.{digits}f}", INK, "right" if right else "left")
        panel.set(ylim=(0, top * 1.45), yticks=[], xlabel=label)

    return drawn(name, alt, 1.9, draw)


def octaves(bands: Sequence[tuple[str, float]], alt: str) -> str:
    """The energy of the noise by octaves of frequency."""

    def draw(panel: Any) -> None:
        for row, (_, share) in enumerate(reversed(bands)):
            panel.barh([row], [100 * share], color=ACCENT, alpha=0.45, height=0.7)
            _write(panel, 100 * share + 1.5, row, f"{100 * share:.0f}%", INK, "left")
        panel.set(yticks=range(len(bands)), xticks=[], xlim=(0, 112), xlabel="share of the noise's energy")
        panel.set_yticklabels([text for text, _ in reversed(bands)])
        panel.set_title("waves across a side", fontsize=11, color=SOFT, loc="left")
        panel.spines["bottom"].set_visible(False)

    return drawn("octaves", alt, 0.8 + 0.28 * len(bands), draw)


def depths(analysis: Analysis, estimator: str, alt: str) -> str:
    """Mutual information by depth, for clean, noisy and protected pictures; seeds as their mean."""

    def draw(panel: Any) -> None:
        places, ends = range(len(analysis.stages)), []
        roles: dict[str, Role] = {run.name: run.role for run in analysis.runs}
        for name in analysis.names:
            colour = ROLES[roles[name]][1]
            means = [fmean(m.nats for m in analysis.found(name, estimator, stage)) for stage in analysis.stages]
            panel.plot(places, means, color=colour, linewidth=1.8, marker="o", markersize=4)
            ends.append((name, means[-1], colour))
        low, high = panel.get_ylim()
        low = min(low, 0.0)
        for (text, _, colour), at in zip(ends, _apart([end for _, end, _ in ends], (high - low) * 0.09), strict=True):
            _write(panel, places[-1] + 0.15, at, text, colour, "left")
        panel.set(ylim=(low, high), xticks=list(places))
        panel.set_xticklabels(analysis.stages, parse_math=False)
        panel.set_xlabel("depth in the network, shallow to deep")
        panel.set_title("mutual information, nats", fontsize=11, color=SOFT, loc="left")
        panel.grid(axis="y")

    return drawn("depths", alt, 2.6, draw)


def _guessing(panel: Any, chance: float, top: float) -> None:
    panel.plot([chance, chance], [-0.45, top - 0.18], color=SOFT, linewidth=0.8, linestyle=(0, (1, 2)))
    _write(panel, chance, top + 0.05, f"guessing {chance:.1f}%", SOFT, "left" if chance < 70 else "right")


def _write(
    panel: Any, x: float | int, y: float | int, text: str, colour: str, side: str, weight: str = "normal"
) -> None:
    options = {"ha": side, "va": "center", "fontweight": weight, "fontsize": 11, "clip_on": False}
    panel.text(x, y, text, color=colour, parse_math=False, **options)


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """The values, moved up where two are nearer than `gap`: places of labels."""
    placed, least = list(values), -float("inf")
    for at in sorted(range(len(values)), key=lambda i: values[i]):
        placed[at] = least = max(values[at], least + gap)
    return placed
