"""The hot path beside its plain form, in one run on whatever device is there.

(a) MI-UE's loss and gradient at B = 512, d = 512: one matrix product and two logsumexp, against broadcast cosines and a
    Python loop over anchors. (b) one MI-UE epoch with ResNet-18 (a training pass, then K = 10 noise steps), against the
    same arithmetic in float32, NCHW, with a PIL DataLoader and the plain loss. (c) what share of the
    machine's matrix-product rate noise steps of ResNet-18 and of small networks reach, with one thread and with all of
    them, and where the time of an epoch goes, by kinds of operators.
Writes benchmarks/results/hot_path.json.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from common import record
from PIL import Image
from torch import Tensor, profiler
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

import miue
from miue import nets
from miue.attacks.alternation import Alternation
from miue.attacks.mi_ue import distance_loss, similarity_loss

TAU, ZETA, STEPS = 0.1, 0.1, 10
BATCHES = {"resnet18": 128, "small-resnet:width=8": 512, "small-resnet:width=4": 512}  # pictures of a noise step
KINDS = {
    "convolutions": "conv",
    "norms": "norm",
    "indexing": "index|gather|scatter|slice|select",
    "sign and clamp": "sign|clamp",
    "copies and conversions": "copy|clone|contiguous|cat|empty|fill|zero",
    "activations, sums, loss": "relu|threshold|add|mul|sub|div|sum|mean|softmax|logsumexp|pool|mm|linear|exp",
}
"""Kinds of operators, by the first pattern that their names match."""


def plain_loss(z: Tensor, y: Tensor) -> Tensor:
    """The two formulas as they are written: every pair of features as a difference or product of its own, a loop."""
    cosine = F.cosine_similarity(z[:, None, :], z[None, :, :], dim=2)
    affinity = (cosine / TAU).exp()
    same = (y[:, None] == y[None, :]).float()
    similarity = -((affinity * same).sum(1) / affinity.sum(1)).log().mean()
    distances = (z[:, None, :] - z[None, :, :]).norm(dim=2)
    distance, labels = torch.zeros((), device=z.device), y.tolist()
    for anchor, label in enumerate(labels):
        others = [j for j, other in enumerate(labels) if other == label and j != anchor]
        if others:
            distance = distance + (1 + distances[anchor, others].sum()).log()
    return similarity + ZETA * distance / len(z)


def our_loss(z: Tensor, y: Tensor) -> Tensor:
    return similarity_loss(z, y, TAU) + ZETA * distance_loss(z, y, False)


class Pictures(Dataset[tuple[int, Tensor, int]]):
    """Pictures as a PIL DataLoader serves them: one object each, converted one by one."""

    def __init__(self, data: miue.ImageSet) -> None:
        self.pictures = [Image.fromarray(i.permute(1, 2, 0).numpy()) for i in data.images]
        self.labels = data.labels.tolist()
        self.convert = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[int, Tensor, int]:
        return index, self.convert(self.pictures[index]), self.labels[index]


class Plain:
    """An epoch of the same method, written plainly."""

    def __init__(self, data: miue.ImageSet, run: miue.Run) -> None:
        self.run, self.data = run, Pictures(data)
        with run.seeded("surrogate"):
            self.net: Any = nets.build("resnet18", data.shape, len(data.classes)).to(run.device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        self.delta = torch.zeros(data.images.shape, device=run.device)

    def train(self) -> None:
        device = self.run.device
        self.net.train()
        for index, x, y in DataLoader(self.data, 128, shuffle=True):
            x, y = x.to(device), y.to(device)
            self.optimizer.zero_grad()
            F.cross_entropy(self.net(x + self.delta[index]), y).backward()
            self.optimizer.step()

    def noise(self) -> None:
        device = self.run.device
        self.net.eval()
        for index, x, y in DataLoader(self.data, 128, shuffle=True):
            x, y = x.to(device), y.to(device)
            delta = self.delta[index]
            for _ in range(STEPS):
                delta.requires_grad_()
                (gradient,) = torch.autograd.grad(plain_loss(self.net.embed(x + delta), y), delta)
                delta = (delta.detach() - 0.2 / 255 * gradient.sign()).clamp(-8 / 255, 8 / 255)
                delta = (x + delta).clamp(0, 1) - x
            self.delta[index] = delta


def timed(work: Callable[[], object], run: miue.Run) -> float:
    start = time.perf_counter()
    work()
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def paired(works: Sequence[Callable[[], object]], run: miue.Run, times: int) -> list[list[float]]:
    """Seconds of all of them in turn, round by round; the first round warms up and does not count."""
    return [[timed(work, run) for work in works] for _ in range(times + 1)][1:]


def compared(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Medians of (ours, plain), and the ratio round by round."""
    ratios = [plain / ours for ours, plain in pairs]
    return {
        "ours_s": median(ours for ours, _ in pairs),
        "plain_s": median(plain for _, plain in pairs),
        "ratio": median(ratios),
        "ratios": ratios,
    }


def matrix_rate(run: miue.Run) -> float:
    """FLOP/s of a large matrix product in the precision that networks use here."""
    kind = torch.bfloat16 if run.numerics.precision == "bf16-mixed" else torch.float32
    a = torch.randn(4096 if run.device.type == "cuda" else 2048, 4096 if run.device.type == "cuda" else 2048)
    a = a.to(run.device, kind)
    best = min(timed(lambda: a @ a, run) for _ in range(5))
    return 2 * len(a) ** 3 / best


def alternation(net: str, data: miue.ImageSet, run: miue.Run) -> Alternation:
    """MI-UE with this network as its surrogate, before its first epoch."""
    words = f"mi-ue:paper,surrogate={net},epochs=1,augment=none,batch=128,steps={STEPS}"
    method = miue.attack(f"{words},noise_batch={BATCHES[net]}")
    assert isinstance(method, miue.attacks.MinMin)
    return Alternation(method, data, miue.Budget(), run)


@contextmanager
def open_epoch(state: Alternation) -> Iterator[None]:
    """A training takes its steps inside an epoch: the same one is repeated until its end."""
    epochs = state.training.epochs(1, state.count, lambda _: state.plan.lr)
    next(epochs)
    yield
    epochs.close()


def operators(work: Callable[[], object]) -> dict[str, float]:
    """Shares of the time of some work by kinds of operators; the rest is Python and operators of no kind."""
    spent: Counter[str] = Counter()
    start = time.perf_counter()
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as profile:
        work()
    whole = time.perf_counter() - start
    for event in profile.events():
        if event.name.startswith("aten::"):
            spent[_kind(event)] += event.self_cpu_time_total / 1e6
    return {kind: spent[kind] / whole for kind in ("optimizer", *KINDS)}


def _kind(event: Any) -> str:
    """The kind of an operator: the optimizer if it runs inside of one, else the first whose pattern its name has."""
    outer = event.cpu_parent
    while outer:
        if outer.name.startswith("Optimizer.step"):
            return "optimizer"
        outer = outer.cpu_parent
    return next((kind for kind, names in KINDS.items() if re.search(names, event.name)), "")


def shares(net: str, count: int, run: miue.Run, times: int) -> dict[str, Any]:
    """What noise steps of a network reach with so many threads, and where the time of an epoch goes."""
    pictures = BATCHES[net]
    data = miue.data.shapes(pictures // 10 + 1).select(torch.arange(pictures))
    state = alternation(net, data, run)
    with open_epoch(state):
        torch.set_num_threads(count)  # an epoch begins with as many as pay off, and restores all at its end
        state._train_surrogate(0)
        with FlopCounterMode(display=False) as counter:
            state._move_deltas(0)
        rounds = [(matrix_rate(run), timed(lambda: state._move_deltas(0), run)) for _ in range(times)]
        spent = operators(lambda: (state._train_surrogate(0), state._move_deltas(0))) if count == 1 else None
    rate, seconds = (median(values) for values in zip(*rounds, strict=True))
    flops = counter.get_total_flops()
    return {
        "net": net,
        "threads": count,
        "pictures": pictures,
        "flops": flops,
        "seconds": seconds,
        "pictures_per_second": pictures * STEPS / seconds,
        "rate": rate,
        "share_of_matrix_rate": median(flops / s / r for r, s in rounds),
        "operators": spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=128, help="pictures in an epoch, a multiple of 128")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    run = miue.Run(0, quiet=True)
    y = torch.arange(512, device=run.device) % 10
    z = torch.rand(512, 512, generator=run.rng("z")).to(run.device).requires_grad_()

    def gradient(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(z, y), z)

    agree = (our_loss(z, y) - plain_loss(z, y)).abs().item()
    loss = compared([(a, b) for a, b in paired([gradient(our_loss), gradient(plain_loss)], run, options.times)])
    print("loss and gradient", loss, "difference", agree, flush=True)

    data = miue.data.shapes(max(options.pictures // 10 + 1, 1)).select(torch.arange(options.pictures))
    ours, plain = alternation("resnet18", data, run), Plain(data, run)
    works = [lambda: ours._train_surrogate(0), lambda: ours._move_deltas(0), plain.train, plain.noise]
    with open_epoch(ours):
        rounds = paired(works, run, options.times)
    whole = compared([(r[0] + r[1], r[2] + r[3]) for r in rounds])
    noise = compared([(r[1], r[3]) for r in rounds])
    print("epoch", whole, "noise steps", noise, flush=True)
    lines = []
    for net in BATCHES:
        for count in sorted({1, torch.get_num_threads()}):
            lines.append(shares(net, count, run, options.times))
            print(lines[-1], flush=True)
    path = record(
        "hot_path",
        run,
        loss={"batch": 512, "dimension": 512, "difference": agree} | loss,
        epoch={"net": "resnet18", "pictures": options.pictures, "steps": STEPS} | whole,
        noise_steps=noise,
        shares=lines,
    )
    print(path)


if __name__ == "__main__":
    main()
