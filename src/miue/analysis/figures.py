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

CREATOR = "miue"  # written into every file, and looked for before one is replaced
GREY = "0.45"
GAP = 0.075  # between two names, as a share of a panel's height


def ready(folder: Path, sets: Sequence[Path] = ()) -> None:
    """Raise UserError where figures could not be drawn into `folder`: asked before hours of work, not after.

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


def draw(found: Analysis, folder: Path) -> list[Path]:
    """Write the figures for which there is anything to show; their paths."""
    ready(folder)
    import matplotlib as mpl  # here: an extra, and it takes a second to import

    written = []
    # text stays text, names of elements come from a fixed salt, no date: the same record gives the same bytes
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": CREATOR, "font.size": 9, "axes.spines.top": False}
    with mpl.rc_context({**style, "axes.spines.right": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts show the text, not the one it is measured with
        for name, draws in FIGURES.items():
            figure = draws(found)
            if figure is not None:
                content = io.BytesIO()
                figure.savefig(content, format="svg", metadata={"Creator": CREATOR, "Date": None}, bbox_inches="tight")
                write_atomically(folder / f"{name}.svg", content.getvalue())
                written.append(folder / f"{name}.svg")
            else:  # one of an earlier analysis would be taken for a part of this one
                (folder / f"{name}.svg").unlink(missing_ok=True)
    return written


def missing(found: Analysis) -> list[str]:
    """What could not be drawn, and why."""
    there = {trace.name for trace in found.generation}
    without = [run.name for run in found.runs[: len(found.names)] if run.role == "protected" and run.name not in there]
    text = "features are noted only by attacks that alternate with a surrogate, and since version 0.1.0"
    return [f"not in generation.svg: {', '.join(without)} ({text})"] if without else []


def accuracy(found: Analysis) -> Any:
    """Mutual information of the deepest features against accuracy, a panel for each estimator."""
    figure, axes = _panels(len(found.estimators), 3.9, 3.2)
    stage = found.stages[-1]
    for panel, estimator in zip(axes, found.estimators, strict=True):
        labels = []
        for colour, name in _coloured(found):
            x = [m.nats for m in found.found(name, estimator, stage)]
            y = [100 * a for a in found.accuracies(name)]
            at = fmean(x), fmean(y)
            panel.errorbar(*at, xerr=_sd(x), yerr=_sd(y), fmt="o", color=colour, markersize=5, elinewidth=0.8)
            labels.append((name, *at, colour))
        panel.axhline(100 * found.chance, color=GREY, linewidth=0.8, linestyle=":")
        panel.set(ylim=(0, 100), xlim=(min(0.0, panel.get_xlim()[0]), panel.get_xlim()[1]))
        panel.set(xlabel=f"mutual information at {stage} (nats)", ylabel="accuracy, clean test pictures (%)")
        panel.set_title(estimator, fontsize=9, parse_math=False)
        _label(panel, [*labels, ("guessing", float(panel.get_xlim()[1]), 100 * found.chance, GREY)])
    _title(figure, "What a network keeps of the clean picture, and how well it does on clean pictures", found)
    return figure


def depth(found: Analysis) -> Any:
    """Mutual information by depth, a panel for each estimator, a line for each attack."""
    figure, axes = _panels(len(found.estimators), 3.9, 3.2)
    places = range(len(found.stages))
    for panel, estimator in zip(axes, found.estimators, strict=True):
        null = [fmean(m.null for n in found.names for m in found.found(n, estimator, s)) for s in found.stages]
        labels = [("pictures shuffled", len(places) - 1.0, null[-1], GREY)]
        for colour, name in _coloured(found):
            nats = [[m.nats for m in found.found(name, estimator, s)] for s in found.stages]
            means, errors = [fmean(v) for v in nats], [_sd(v) for v in nats]
            panel.errorbar(places, means, errors, color=colour, marker="o", markersize=3, elinewidth=0.8)
            labels.append((name, len(places) - 1.0, means[-1], colour))
        panel.plot(places, null, color=GREY, linewidth=0.8, linestyle=":")
        panel.set_xticks(list(places), found.stages, rotation=30, ha="right")
        panel.set(xlabel="depth in the victim, shallow to deep", ylabel="mutual information (nats)")
        panel.set_title(estimator, fontsize=9, parse_math=False)
        _label(panel, labels)
    _title(figure, "How much features of a protected picture tell about the clean one, layer by layer", found)
    return figure


def generation(found: Analysis) -> Any:
    """Cosine and covariance of the surrogate's features while attacks were made."""
    if not found.generation:
        return None
    figure, axes = _panels(2, 4.4, 3.2)
    names, cosines, shares = [name for _, name in _coloured(found)], [], []
    for trace in found.generation:
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
    _title(figure, "How alike a surrogate's features of protected pictures are while an attack is made", found, False)
    return figure


def plane(found: Analysis) -> Any:
    """Deepest features of some clean and protected pictures on their two leading components, a panel a victim."""
    first = found.runs[: len(found.names)]
    figure, axes = _panels(len(first), 2.9, 2.9)
    for panel, run in zip(axes, first, strict=True):
        _scatter(panel, run)
    _title(figure, "Where the deepest features of clean (o) and protected (x) pictures lie; a colour is a class", found)
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
    "generation": generation,
    "plane": plane,
}


def _panels(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure with so many panels, four a row; no window, no global state."""
    from matplotlib.figure import Figure

    columns = min(count, 4)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count]


def _coloured(found: Analysis) -> Iterator[tuple[str, str]]:
    for place, name in enumerate(found.names):
        yield _colour(place), name


def _colour(place: int) -> str:
    return f"C{place % 10}"


def _label(panel: Any, labels: Sequence[tuple[str, float, float, str]]) -> None:
    """Names right of the panel, each with a thin line to its point, none on top of another; instead of a legend."""
    low, high = panel.get_ylim()
    panel.set_ylim(low, high)  # names must not move it
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


def _title(figure: Any, text: str, found: Analysis, measured: bool = True) -> None:
    seeds = len(found.accuracies(found.names[0]))
    told = f"\nvictim {found.victim}, {found.rows} pictures, {seeds} seed(s)" if measured else ""
    figure.suptitle(text + told, fontsize=10, parse_math=False)


def _sd(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
