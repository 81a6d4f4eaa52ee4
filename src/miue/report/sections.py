"""The sections of a report after its first screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from miue.core.types import Perturbation
from miue.data.rights import GENERATIVE, TOLD, Rights
from miue.data.source import some
from miue.evaluation.records import Outcome, Role, spread
from miue.grid.leaderboard import Board
from miue.publish.manifest import Line
from miue.report import charts, noise
from miue.report.content import Block, Chart, Facts, Items, Section, Table, Text
from miue.report.evidence import Evidence, day
from miue.report.judged import CONFIDENCE, Kept
from miue.workflows.record import Looked

MOST = 24  # lines of a table or chart that are shown
LIMITS = (
    "It makes training on these pictures harder. It does not prevent it, and somebody who has the pictures can wait "
    "for a better way around it.",
    "It is for classifiers that are trained from scratch on these pictures with these labels. It does nothing against "
    "generators, search by picture, or networks that recognise the pictures already.",
    "Clean copies undo it: an old post, a thumbnail, a backup, somebody else's upload. This command looks for them in "
    "a folder: miue verify OUT --clean-twins FOLDER.",
    "Lossy compression, scaling and cropping on the way can weaken it. Look at what the web site really serves: miue "
    "verify DOWNLOADED --as-published OUT.",
    "It can be noticed, and somebody who notices it can drop the pictures or try to clean them.",
    "What is published cannot be improved later.",
    "The owner's own training on these pictures fails as well: keep the originals.",
)


def accuracy(outcomes: Sequence[Outcome]) -> Section:
    """Accuracies of every victim by role, and by epoch where that was recorded."""
    blocks: list[Block] = []
    for number, outcome in enumerate(outcomes):
        for victim in dict.fromkeys(run.victim for run in outcome.runs):
            blocks += _curves(f"epochs-{number}-{len(blocks)}", outcome, victim)
    roles: tuple[Role, ...] = ("clean", "noise", "protected")
    rows = [
        [victim, outcome.channel or "none", charts.ROLES[role][0]]
        + [spread(outcome.accuracies(role, victim, which)) for which in ("last", "early", "train")]
        + [str(len(outcome.accuracies(role, victim)))]
        for outcome in outcomes
        for victim in dict.fromkeys(run.victim for run in outcome.runs)
        for role in roles
        if outcome.accuracies(role, victim)
    ]
    head = ("network", "channel", "trained on", "last epoch", "stopped early", "its own training pictures", "seeds")
    caption = "Share of new, clean pictures that a network names correctly (± standard deviation over seeds)"
    lead = Text(
        "Networks were trained on the originals, on the originals with plain noise of the same size, and on the "
        "published pictures, and then shown clean pictures that none of them had seen. The first two are the controls: "
        "they must learn, or a failure on protected pictures would prove nothing. Stopped early: at the epoch that is "
        "best on a few clean pictures, and tested on others."
    )
    notes = list(dict.fromkeys(note for outcome in outcomes for note in outcome.notes))
    return Section(
        "accuracy", "What networks learn", [lead, *blocks, Table(caption, head, rows, (3, 4, 5, 6)), *_list(notes)]
    )


def _curves(name: str, outcome: Outcome, victim: str) -> list[Block]:
    own = [run for run in outcome.runs if run.victim == victim and run.epochs]
    if not own:
        return []
    rows = []
    for role, (text, _) in charts.ROLES.items():
        curves = [run.epochs for run in own if run.role == role]
        shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        rows += [[text, str(epoch), spread([curve[epoch] for curve in curves])] for epoch in shared]
    where = f" on pictures that went through {outcome.channel}" if outcome.channel else ""
    title = f"{victim}{where}, by epoch"
    alt = f"Accuracy of {victim} on clean pictures by epoch{where}; the numbers are in the table below."
    table = Table(
        f"{title}: accuracy on clean pictures", ("trained on", "epoch", "accuracy"), rows, (1, 2), folded=True
    )
    return [Chart(title, alt, table, charts.epochs(name, outcome, victim, alt))]


def defenses(lines: Sequence[Kept], board: Board | None) -> Section:
    """The section on the share that is kept in each way that was tested, with its interval, and on a grid."""
    blocks = [*(_shares(lines) if lines else []), *_grid(board)]
    return Section("defenses", "What each way of training leaves", blocks)


def _shares(lines: Sequence[Kept]) -> list[Block]:
    head = ("what was done", "network", "last epoch", "stopped early", f"{CONFIDENCE:.0%} interval", "shown")
    rows = [
        [line.way, line.net, _share(line.last), _share(line.early), _interval(line), line.judgement.verdict]
        for line in lines
    ]
    chosen = [f"{line.way}: the trainer chose {', '.join(line.chosen)}" for line in lines if line.chosen]
    alt = "What is kept in each way: " + "; ".join(f"{line.way} {_share(line.share)}" for line in lines[:MOST]) + "."
    table = Table("What a network keeps of what the originals teach, above guessing", head, rows, (2, 3, 4))
    few = lines[:MOST]
    lead = Text(
        "Kept: of what a network learns from the originals above guessing, the share that it still learns from the "
        "published pictures when it is trained the same way: to the last epoch, or stopped early. The threshold was "
        "set before the test. Drawing and interval are of the one that decides. Where two seeds or more were trained, "
        f"the interval is Student's for {CONFIDENCE:.0%}."
    )
    chart = Chart("Kept in every way that was tested", alt, table, charts.shares(few, alt), listed=True)
    return [lead, chart, *_list(chosen)]


def _grid(board: Board | None) -> list[Block]:
    if board is None:
        return []
    rows = [
        [line.recipe, line.name, place.defense, str(place), f"{place.most:.1%}" if place.n else "", place.verdict or ""]
        for line in board.lines
        for place in line.places
    ]
    head = ("victim", "trained on", "defense", "last epoch", "at most, also stopped early", "shown")
    failed = [f"failed: {name}: {error}" for name, error in board.failed.items()]
    caption = f"From a grid, with sets of its own ({board.measured} of {board.cells} cells measured)"
    return [Table(caption, head, rows, (3, 4), folded=len(rows) > MOST), *_list(failed)]


def quality(lines: Sequence[Line], worst: Sequence[Block]) -> Section:
    """The section on the distance of the published pictures from the originals. worst: pictures, or nothing."""
    psnr = [line.psnr for line in lines if line.psnr is not None]
    ssim = [line.ssim for line in lines if line.ssim is not None]
    blocks: list[Block] = [
        Text("Measured on the files as they were written and read back. Flat areas show the noise first.")
    ]
    for name, values, label, digits in (("psnr", psnr, "PSNR, dB", 1), ("ssim", ssim, "SSIM", 3)):
        if values:
            low, mean, high = (f"{f(values):.{digits}f}" for f in (min, fmean, max))
            alt = f"{label} of {len(values)} pictures: from {low} to {high}, {mean} on average."
            table = Table(
                label, ("pictures", "least", "mean", "largest"), [[str(len(values)), low, mean, high]], (0, 1, 2, 3)
            )
            blocks.append(Chart(label, alt, table, charts.histogram(name, values, label, alt, digits)))
    least = sorted((line for line in lines if line.ssim is not None), key=lambda line: (line.ssim or 0.0, line.out))[:5]
    rows = [
        [
            line.out,
            line.class_name,
            f"{line.ssim:.3f}",
            "" if line.psnr is None else f"{line.psnr:.1f}",
            str(line.max_change),
        ]
        for line in least
    ]
    head = ("picture", "class", "SSIM", "PSNR, dB", "largest change")
    return Section(
        "quality", "How the pictures look", [*blocks, Table("The five worst pictures", head, rows, (2, 3, 4)), *worst]
    )


def quality_in_short(evidence: Evidence) -> Section:
    """The same from the summary alone, for a page that names no picture."""
    written, pairs = evidence.record.written, []
    for name, values, digits in (("PSNR, dB", written and written.psnr, 1), ("SSIM", written and written.ssim, 3)):
        if values:
            parts = ("least", values.least), ("5 % lie below", values.low), ("mean", values.mean)
            pairs.append((name, ", ".join(f"{text} {value:.{digits}f}" for text, value in parts)))
    return Section("quality", "How the pictures look", [Facts(pairs)])


def structure(evidence: Evidence) -> Section:
    """The section on the form of the noise, or that its file is missing."""
    blocks = _noise(evidence) if evidence.perturbation.exists() else [_missing(evidence.perturbation)]
    success = evidence.record.success
    reached = [Facts([("on the attack's own surrogate", str(success))])] if success else []
    return Section("noise", "What the noise is like", [*blocks, *reached])


def _missing(path: Path) -> Text:
    return Text(
        f"Not known: {path.name} is not in the private folder. Bring it back from a copy, or run the same protect "
        "command once more, which makes it again."
    )


def _noise(evidence: Evidence) -> list[Block]:
    perturbation = Perturbation.load(evidence.perturbation)
    order = {name: place for place, name in enumerate(evidence.record.source.classes)}
    first = [line for line in evidence.protected if line.part == 0]  # pictures that were added have files of their own
    it = noise.measured(perturbation, [order[line.class_name] for line in first])
    one = perturbation.labels is not None
    pairs = [
        ("strength", f"{it.level:.2f} grey levels (root mean square)"),
        ("grid", f"{it.side} x {it.side}, stretched to each picture" + (", one for each class" if one else "")),
        ("the same for a class", f"{it.classes:.0%} of its energy" + ("" if one else f" ({it.chance:.1%} by chance)")),
    ]
    if it.brightness is not None:
        pairs.insert(
            2, ("brightness", f"{it.brightness:.0%} of its energy is equal in red, green and blue; the rest is colour")
        )
    rows = [[name, f"{share:.1%}"] for name, share in it.octaves]
    alt = "The noise's energy by waves across a side: " + ", ".join(f"{name} {share}" for name, share in rows) + "."
    table = Table("Energy of the noise by frequency", ("waves across a side", "share"), rows, (1,), folded=True)
    lead = Text(
        "What this tells also helps somebody who wants to remove the noise: noise that is all colour is undone by grey "
        "pictures, noise that a class has in common by averaging, and fine noise by compression."
    )
    chart = Chart("Where the noise lives", alt, table, charts.octaves(it.octaves, alt))
    return [lead, Facts(pairs), chart]


def inputs(evidence: Evidence, public: bool) -> Section:
    """The section on inputs that were not protected, with reasons, and remarks about the pictures."""
    record, written = evidence.record, evidence.record.written
    sources = [record.source, *(part.source for part in record.added)]
    remarks = [] if public else [note for source in sources for note in source.notes]
    if written and written.unchanged:
        remarks.insert(
            0, f"{written.unchanged} pictures did not change at all: in the output they are as clean as before"
        )
    left = record.unprotected
    text = f"Not in the output: {left} of the inputs." if left else "Every input is in the output."
    tables = [_went_in("Inputs by what became of them", record.source, public)]
    for part in record.added:
        when = f"finished {day(part.finished)}" if part.status == "finished" else "not finished"
        place = "" if public else f", from {part.source.location}"
        tables.append(_went_in(f"{part.protected} pictures that were added later, {when}{place}", part.source, public))
    return Section("inputs", "What went in", [Text(text), *tables, *_list(remarks)])


def _went_in(caption: str, source: Looked, public: bool) -> Table:
    rows = []
    for reason, count in source.counts.items():
        names = "" if public or reason == "ok" else some(list(source.examples.get(reason, ())))
        rows.append([str(count), "protected" if reason == "ok" else reason, *([] if public else [names])])
    return Table(caption, ("inputs", "what became of them", *(() if public else ("such as",))), rows, (0,))


def detected(evidence: Evidence) -> Section | None:
    """The section on a first look, which may give the protection away; None if there was none."""
    look = evidence.detection
    if look is None:
        return None
    rows = [
        [net, text, f"{simple.held_out:.1%}", f"{simple.train:.1%}"]
        for net in look.looks
        for text, simple in (("protected", look.looks[net]), ("originals", look.clean[net]))
    ]
    head = ("network", "pictures", "on held-out pictures of the same set", "on its own")
    verdict = "Somebody who looks would notice" if look.noticed else "A first look would not notice anything"
    table = Table("Accuracy of simple networks", head, rows, (2, 3))
    texts = [Text(f"{verdict}: {look.reason}."), *evidence.missed(evidence.detected)]
    return Section("detection", "Would a trainer notice?", [*texts, table])


def limits(tested: bool, rights: Rights) -> Section:
    """Limits, in plain words. tested: whether there is a table of ways that were tested. rights: those in the files."""
    ways = "A way that is not in the table above was not tested." if tested else "No way around it was tested here."
    items = [LIMITS[0], f"{ways} That is not the same as withstood.", *LIMITS[1:]]
    items += {"none": [], "no-generative": [TOLD, f"{GENERATIVE}."]}.get(rights.value, [TOLD])
    return Section("limits", "What this does not do", [Items(items)])


def _list(notes: Sequence[str]) -> list[Block]:
    return [Items(notes)] if notes else []


def _share(share: float | None) -> str:
    return "not known" if share is None else f"{share:.0%}"


def _interval(line: Kept) -> str:
    if line.interval:
        return f"{line.interval[0]:.0%} to {line.interval[1]:.0%}"
    return "one seed" if len(line.protected) == 1 else "not known"
