"""Figures of an analysis, as SVG: drawn from the record alone, the same bytes for the same record."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from miue.analysis.records import Analysis, Examined
from miue.core.errors import UserError
from miue.core.files import write_atomically

CREATOR = "miue"  # marks files drawn here; only those are replaced
GREY = "0.45"
GAP = 0.075  # between two names, as a share of a panel's height


def ready(folder: Path, sets: Sequence[Path] = ()) -> None:
    """Raise UserError if figures cannot be drawn into `folder`. Called before hours of work, not after.

    sets: folders of pictures, clean or published, in which they must not lie.
    """
    if find_spec("matplotlib") is None:
        raise UserError('figures need matplotlib; pip install "miue[figures]" adds it')
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: no folder; give --figures another one")
    for pictures in sets:
        if folder.resolve().is_relative_to(pictures.resolve()):
            raise UserError(f"{folder}: lies in {pictures}, a set of pictures; give --figures a folder outside of it")
    for name in FIGURES:
        path = folder / f"{name}.svg"
        if path.is_file() and CREATOR.encode() not in path.read_bytes()[:4096]:
            raise UserError(f"{path}: exists and was not drawn by miue; give --figures another folder")


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Write the figures that have anything to show; return their paths."""
    ready(folder)
    import matplotlib as mpl  # imported here: it is an extra and takes a second

    written = []
    # text stays text, names of elements come from a fixed salt, no date: the same record gives the same bytes
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": CREATOR, "font.size": 9, "axes.spines.top": False}
    with mpl.rc_context({**style, "axes.spines.right": False}), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph"
        )  # the reader's fonts show the text, not the font that measures it here
        for name, draws in FIGURES.items():
            figure = draws(analysis)
            if figure is not None:
                content = io.BytesIO()
                figure.savefig(content, format="svg", metadata={"Creator": CREATOR, "Date": None}, bbox_inches="tight")
                write_atomically(folder / f"{name}.svg", content.getvalue())
                written.append(folder / f"{name}.svg")
            else:  # a file of an earlier analysis would be mistaken for a part of this one
                (folder / f"{name}.svg").unlink(missing_ok=True)
    return written


def missing(analysis: Analysis) -> list[str]:
    """Notes on what could not be drawn, and why."""
    traced = {trace.name for trace in analysis.generation}
    without = [
        run.name for run in analysis.runs[: len(analysis.names)] if run.role == "protected" and run.name not in traced
    ]
    text = "features are noted only by attacks that alternate with a surrogate, and since version 0.1.0"
    return [f"not in generation.svg: {', '.join(without)} ({text})"] if without else []


def accuracy(analysis: Analysis) -> Any:
    """Mutual information of the deepest features against accuracy, a panel for each estimator."""
    figure, axes = _panels(len(analysis.estimators), 3.9, 3.2)
    stage = analysis.stages[-1]
    for panel, estimator in zip(axes, analysis.estimators, strict=True):
        labels = []
        for colour, name in _coloured(analysis):
            x = [m.nats for m in analysis.found(name, estimator, stage)]
            y = [100 * a for a in analysis.accuracies(name)]
            at = fmean(x), fmean(y)
            panel.errorbar(*at, xerr=_sd(x), yerr=_sd(y), fmt="o", color=colour, markersize=5, elinewidth=0.8)
            labels.append((name, *at, colour))
        panel.axhline(100 * analysis.chance, color=GREY, linewidth=0.8, linestyle=":")
        panel.set(ylim=(0, 100), xlim=(min(0.0, panel.get_xlim()[0]), panel.get_xlim()[1]))
        panel.set(xlabel=f"mutual information at {stage} (nats)", ylabel="accuracy, clean test pictures (%)")
        panel.set_title(estimator, fontsize=9, parse_math=False)
        _label(panel, [*labels, ("guessing", float(panel.get_xlim()[1]), 100 * analysis.chance, GREY)])
    _title(figure, "What a network keeps of the clean picture, and how well it does on clean pictures", analysis)
    return figure


def depth(analysis: Analysis) -> Any:
    """Mutual information by depth, a panel for each estimator, a line for each attack."""
    figure, axes = _panels(len(analysis.estimators), 3.9, 3.2)
    places = range(len(analysis.stages))
    for panel, estimator in zip(axes, analysis.estimators, strict=True):
        null = [fmean(m.null for n in analysis.names for m in analysis.found(n, estimator, s)) for s in analysis.stages]
        labels = [("pictures shuffled", len(places) - 1.0, null[-1], GREY)]
        for colour, name in _coloured(analysis):
            nats = [[m.nats for m in analysis.found(name, estimator, s)] for s in analysis.stages]
            means, errors = [fmean(v) for v in nats], [_sd(v) for v in nats]
            panel.errorbar(places, means, errors, color=colour, marker="o", markersize=3, elinewidth=0.8)
            labels.append((name, len(places) - 1.0, means[-1], colour))
        panel.plot(places, null, color=GREY, linewidth=0.8, linestyle=":")
        panel.set_xticks(list(places), analysis.stages, rotation=30, ha="right")
        panel.set(xlabel="depth in the victim, shallow to deep", ylabel="mutual information (nats)")
        panel.set_title(estimator, fontsize=9, parse_math=False)
        _label(panel, labels)
    _title(figure, "How much features of a protected picture tell about the clean one, layer by layer", analysis)
    return figure


def crossed(analysis: Analysis) -> Any:
    """A figure of what victims keep on noise and on protected pictures: of clean pictures, and of each attack."""
    if not analysis.crosses:
        return None
    clean, noise = analysis.names[:2]
    figure, axes = _panels(len(analysis.estimators), 3.9, 3.2)
    for panel, estimator in zip(axes, analysis.estimators, strict=True):
        labels = []
        for colour, name in list(_coloured(analysis))[2:]:
            for victim, style in ((clean, "--"), (name, "-")):
                nats = [[m.nats for m in analysis.across(victim, shown, estimator)] for shown in (noise, name)]
                means = [fmean(values) for values in nats]
                panel.errorbar((0, 1), means, [_sd(v) for v in nats], color=colour, linestyle=style, elinewidth=0.8)
                labels.append((name if victim == name else f"clean, on {name}", 1.0, means[-1], colour))
        panel.set_xticks((0, 1), ("noise", "protected"))
        panel.set(xlabel="looked at on", ylabel="mutual information (nats)", xlim=(-0.1, 1.1))
        panel.set_title(estimator, fontsize=9, parse_math=False)
        _label(panel, labels)
    _title(figure, "Victims of protected pictures (full line) and of clean ones (broken), on both", analysis)
    return figure


def generation(analysis: Analysis) -> Any:
    """Cosine and covariance of the surrogate's features while attacks were made."""
    if not analysis.generation:
        return None
    figure, axes = _panels(2, 4.4, 3.2)
    names, cosines, shares = [name for _, name in _coloured(analysis)], [], []
    for trace in analysis.generation:
        colour, epochs = _colour(names.index(trace.name)), range(1, len(trace.cosine) + 1)
        axes[0].plot(epochs, trace.cosine, color=colour)
        axes[0].plot(epochs, trace.between, color=colour, linestyle="--", linewidth=0.9)
        axes[1].plot(epochs, [100 * share for share in trace.within], color=colour)
        last = float(epochs[-1])
        cosines += [(f"{trace.name}: same class", last, trace.cosine[-1], colour)]
        cosines += [(f"{trace.name}: two classes", last, trace.between[-1], colour)]
        shares += [(trace.name, last, 100 * trace.within[-1], colour)]
    axes[0].set(xlabel="epoch of the attack", ylabel="mean cosine of two pictures")
    axes[0].set_title("cosine; 1 less that of a class is its trace", fontsize=9)
    axes[1].set(xlabel="epoch of the attack", ylabel="share of all variance (%)", ylim=(0, None))
    axes[1].set_title("variance of features within classes", fontsize=9)
    for panel, labels in zip(axes, (cosines, shares), strict=True):
        _label(panel, labels)
    _title(
        figure, "How alike a surrogate's features of protected pictures are while an attack is made", analysis, False
    )
    return figure


def plane(analysis: Analysis) -> Any:
    """Deepest features of some clean and protected pictures on two leading components, one panel per victim."""
    first = analysis.runs[: len(analysis.names)]
    figure, axes = _panels(len(first), 2.9, 2.9)
    for panel, run in zip(axes, first, strict=True):
        _scatter(panel, run)
    _title(
        figure, "Where the deepest features of clean (o) and protected (x) pictures lie; a colour is a class", analysis
    )
    return figure


def _scatter(panel: Any, run: Examined) -> None:
    classes = sorted({point[0] for point in run.points})
    for place, label in enumerate(classes):
        own = [point for point in run.points if point[0] == label]
        colour = _colour(place)
        panel.plot([p[1] for p in own], [p[2] for p in own], "o", color=colour, markersize=3, fillstyle="none")
        panel.plot([p[3] for p in own], [p[4] for p in own], "x", color=colour, markersize=3, alpha=0.7)
    panel.set_title(f"{run.name}\naccuracy {run.accuracy:.0%}", fontsize=9, parse_math=False)
    for axis, share, number in ((panel.xaxis, run.axes[0], "first"), (panel.yaxis, run.axes[1], "second")):
        axis.set_label_text(f"{number} component\n({share:.0%} of variance)", fontsize=8)


FIGURES: dict[str, Callable[[Analysis], Any]] = {
    "accuracy": accuracy,
    "depth": depth,
    "crossed": crossed,
    "generation": generation,
    "plane": plane,
}


def _panels(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Return a figure with `count` panels, four per row, and the panels. Opens no window, changes no global state."""
    from matplotlib.figure import Figure

    columns = min(count, 4)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count]


def _coloured(analysis: Analysis) -> Iterator[tuple[str, str]]:
    for place, name in enumerate(analysis.names):
        yield _colour(place), name


def _colour(place: int) -> str:
    return f"C{place % 10}"


def _label(panel: Any, labels: Sequence[tuple[str, float, float, str]]) -> None:
    """Write names right of the panel, each with a thin line to its point, without overlap; replaces a legend."""
    low, high = panel.get_ylim()
    panel.set_ylim(low, high)  # adding names must not change the range
    placed = -GAP
    for text, x, y, colour in sorted(labels, key=lambda label: label[2]):
        placed = max((y - low) / (high - low), placed + GAP)
        panel.annotate(
            text,
            (x, y),
            xytext=(1.04, placed),
            textcoords="axes fraction",
            color=colour,
            fontsize=7,
            va="center",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "alpha": 0.6},
        )


def _title(figure: Any, text: str, analysis: Analysis, measured: bool = True) -> None:
    seeds = len(analysis.accuracies(analysis.names[0]))
    details = f"\nvictim {analysis.victim}, {analysis.rows} pictures, {seeds} seed(s)" if measured else ""
    figure.suptitle(text + details, fontsize=10, parse_math=False)


def _sd(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
