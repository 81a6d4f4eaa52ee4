"""Mutual information and covariance of attacks on CIFAR-10: the first pictures of every class, quick presets, 3 seeds.

python benchmarks/analysis.py [--attacks lsp mi-ue:quick] [--seeds 3] [--only SEED]   -> results/analysis.json
python benchmarks/analysis.py --depths [--only SEED]   -> results/analysis_depths.json
python benchmarks/analysis.py --crossed [--only SEED]   -> results/analysis_crossed.json
python benchmarks/analysis.py --whole [--only SEED]   -> results/analysis_whole.json: all pictures, one seed
python benchmarks/analysis.py --speed [--per-class 1000]   -> results/analysis_speed.json
Killed? The same command goes on (its state lies in --work). --only works on one seed and writes no record.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import cifar10, record

import miue
from miue.analysis.analyzer import Analyzer
from miue.analysis.comparison import correlations, notes
from miue.core.files import write_atomically
from miue.core.method import own_budget
from miue.data.quality import Size

ATTACKS = ("em:quick", "lsp", "tue:contrastive,quick", "tap:quick", "ar", "mi-ue:quick")
DEPTHS = {
    "the paper's": ("linear", "mlp2", "mlp3", "lenet5", "vgg11", "resnet18"),
    "wide residual": tuple(f"wrn:depth={depth},width=1" for depth in (10, 16, 22, 28)),
}
SPEED = ("quick:net=small-resnet,epochs=1", "vit:net=small-vit,epochs=1")
CROSSED = ("mi-ue:quick", "em:quick")
CROSSED_RECIPE = "quick:net=small-resnet:width=8,epochs=10"
WHOLE = ("mi-ue:quick", "em:quick", "tap:quick", "rem:sem,quick", "tue:quick")
WHOLE_RECIPE = "speedrun:net=speedrun:width=24"
RAW = ("sliced:raw,bins=10", "sliced:raw,bins=100")  # as the paper's, whose number of bins is not known
ESTIMATORS = ("ksg", "sliced", "sliced:directions=shared", "class-conditional", "agreement")


def made(text: str, clean: miue.ImageSet, run: miue.Run) -> miue.ImageSet:
    """The protected set, or what was made of it before."""
    folder = run.keep / f"{text.replace(':', '-').replace(',', '-').replace('=', '-')}-{run.seed}-{clean.digest}"
    path, method = folder / "perturbation.safetensors", miue.attack(text)
    if not path.is_file():
        start = time.monotonic()
        perturbation = method(clean, own_budget(method, clean.shape), miue.Run(run.seed, keep=folder, quiet=False))
        write_atomically(folder / "seconds", str(time.monotonic() - start).encode())
        write_atomically(path, perturbation.save)
    return miue.Perturbation.load(path).apply(clean)


def seed_of(
    seed: int, attacks: list[str], analyzer: Analyzer, sets: tuple[miue.ImageSet, miue.ImageSet], work: Path
) -> miue.Analysis:
    """Every attack made and examined with one seed."""
    clean, test = sets
    run = miue.Run(seed, keep=work, quiet=False)
    return analyzer(clean, test, {text: made(text, clean, run) for text in attacks}, run)


def merged(found: list[miue.Analysis], run: miue.Run) -> dict[str, Any]:
    """All seeds as one analysis, with correlations over their means; without the points of figures."""
    runs = [r.model_copy(update={"points": []}) for analysis in found for r in analysis.runs]
    sizes = {name: Size.over([analysis.sizes[name] for analysis in found]) for name in found[0].sizes}
    derived = {
        "correlations": correlations(runs, run),
        "sizes": sizes,
        "notes": notes(runs, sizes, found[0].chance, found[0].tested),
    }
    return found[0].model_copy(update={"runs": runs, **derived}).model_dump(mode="json", exclude={"machine"})


def speed(text: str, clean: miue.ImageSet, test: miue.ImageSet) -> dict[str, Any]:
    """Seconds to examine every picture of a set at all stages of a victim that is trained already."""
    noisy = miue.attack("lsp")(clean, miue.Budget(1.3, "l2"), miue.Run()).apply(clean)
    sets = (clean, test.first_per_class(10), clean, noisy)
    with TemporaryDirectory() as work:
        for rows in (100, len(clean)):  # the first one trains
            analyzer = Analyzer(recipe=miue.recipe(text), seeds=1, rows=rows)
            found = analyzer.examined("lsp", "protected", sets, torch.arange(rows), 0, miue.Run(keep=Path(work)))
    return {
        "recipe": text,
        "rows": len(clean),
        "seconds": found.seconds,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # of the whole process, in KiB on Linux
        "widths": [stage.width for stage in found.stages],
        "settings": {"estimators": analyzer.estimators, "halves": analyzer.halves, "shuffles": analyzer.shuffles},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+")
    parser.add_argument("--seeds", type=int, help="3, and 1 with --whole")
    parser.add_argument("--only", type=int, help="work on this seed alone, write no record")
    parser.add_argument(
        "--depths", action="store_true", help="several depths of two architectures instead of one victim"
    )
    parser.add_argument("--crossed", action="store_true", help="few attacks, for the crossed control alone")
    parser.add_argument("--whole", action="store_true", help="all pictures and a victim of few passes")
    parser.add_argument("--speed", action="store_true", help="how long it takes, of all --per-class pictures")
    parser.add_argument("--recipe")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--data", default="cifar10", choices=["cifar10", "shapes"])
    parser.add_argument("--work", type=Path, default=Path("build/analysis"))
    options = parser.parse_args()
    count = None if options.whole else options.per_class
    if options.data == "cifar10":
        sets = cifar10("train", count), cifar10("test")
    else:
        sets = miue.data.shapes(options.per_class), miue.data.shapes(100, split="test")
    if options.speed:
        print(record("analysis_speed", miue.Run(), cells=[speed(text, *sets) for text in SPEED]))
        return
    attacks, recipe, estimators, name = list(ATTACKS), "quick", ESTIMATORS, "analysis"
    if options.depths:
        attacks, estimators, name = ["mi-ue:quick"], ("ksg", "class-conditional"), "analysis_depths"
    if options.crossed:
        attacks, recipe, name = list(CROSSED), CROSSED_RECIPE, "analysis_crossed"
    if options.whole:
        attacks, recipe, name = list(WHOLE), WHOLE_RECIPE, "analysis_whole"
        estimators = (*RAW, "ksg", "class-conditional")
    attacks, base = options.attacks or attacks, miue.recipe(options.recipe or recipe)
    nets = {net: family for family, several in DEPTHS.items() for net in several} if options.depths else {base.net: ""}
    found: dict[str, list[miue.Analysis]] = {net: [] for net in nets}
    seeds = options.seeds or (1 if options.whole else 3)
    for seed in range(seeds) if options.only is None else [options.only]:
        for net in nets:
            recipe = miue.recipe(options.recipe or "quick", net) if options.depths else base
            analyzer = Analyzer(recipe=recipe, seeds=1, estimators=estimators, rows=options.rows)
            analysis = seed_of(seed, attacks, analyzer, sets, options.work)
            found[net].append(analysis)
            print(seed, net, {run.name: round(run.accuracy, 4) for run in analysis.runs}, flush=True)
    if options.only is not None:
        return
    run = miue.Run()
    facts = {
        "data": f"{options.data}, {f'{count} pictures per class' if count else 'all pictures'}",
        "data_digest": sets[0].digest,
        "test": f"{len(sets[1])} pictures",
        "recipe": base.described(),
        "attacks": attacks,
        "threads": torch.get_num_threads(),
    }
    if options.depths:
        facts["cells"] = [{"family": nets[net], "net": net} | merged(analyses, run) for net, analyses in found.items()]
    else:
        facts["analysis"] = merged(found[base.net], run)
    print(record(name, run, **facts))


if __name__ == "__main__":
    main()
