"""The state of one pass of the min-min driver: surrogate, deltas, and the two moves that alternate."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from miue import nets
from miue.attacks._trace import traced, watched
from miue.attacks.beside import Beside
from miue.attacks.shape import Shape
from miue.core.method import Kept
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Pieces, stretch
from miue.training import perturb
from miue.training.batches import Batch, Batches, prepare
from miue.training.loop import Training, cosines
from miue.training.mixture import look
from miue.training.rows import Rows, parts

if TYPE_CHECKING:
    from miue.attacks.min_min import Alternating


class Alternation:
    """State of one pass of the driver: the surrogate, the deltas of this process, and the progress.

    kept: state of an earlier set that these pictures are added to; its surrogate stays as it is. tied: deltas of a
    first pass that stay, while this one makes the colour part.
    """

    def __init__(
        self,
        plan: Alternating,
        data: ImageSet,
        budget: Budget,
        run: Run,
        kept: Kept | None = None,
        tied: Rows | None = None,
    ) -> None:
        self.plan, self.data, self.budget, self.run = plan, data, budget, run
        self.mine = run.mine(len(data))
        self.batches = Batches(data, run, self.mine)
        self.form = Shape(plan, data, budget, run, self.mine, tied is not None, kept)
        self.epochs = plan.rounds(len(data))[self.form.colour]
        lives = 1 if self.form.colour else plan.restarts + 1
        # epochs at which a surrogate begins, and the last one ends
        self.begins = [-(-life * self.epochs // lives) for life in range(lives + 1)]
        self.kept, self.beside = kept, Beside(plan.noise_batch, kept, run) if kept and plan.together else None
        self.net = self._fresh()
        if kept:
            weights, facts = kept.state(f"surrogate{self.form.suffix}")
            self.net.load_state_dict(weights)
            self.epochs = facts["epochs"]  # as many as the first pictures had
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
        )
        # row of delta that belongs to picture i: itself among ours, or its class
        self.owner = data.labels if plan.per == "class" else torch.zeros(len(data), dtype=torch.long)
        if plan.per == "image":
            self.owner[self.mine] = torch.arange(len(self.mine))
        rows = len(data.classes) if plan.per == "class" else len(self.mine)
        self.shape = (rows, self.form.count, *plan.grid(data.shape))
        passes = self.batches.count(plan.batch)
        wanted = 0 if kept else plan.surrogate_steps
        self.count = passes if wanted is None else min(wanted, passes)
        per_class = plan.noise_batch / run.world / max(len(data.classes), 1)
        self.group = plan.companions or (8 if per_class < 8 else 1)
        self.watched = watched(data, self.mine, run)
        self.identity = plan.identity(data, budget, run)
        text = f"{type(plan).__name__} on {data.name}{', colour' * self.form.colour}"
        slot = f"checkpoint{self.form.suffix}"
        self.tied = tied
        folder = run.overflow(sum(plan.delta_bytes(len(self.mine), data.shape, len(data.classes), 1)))
        self.delta = Rows(run, self.shape, "fixed", budget.levels, folder)
        self.velocity = Rows(run, self.shape, "scaled", folder=folder) if plan.noise_momentum else None
        deltas = {"delta": self.delta} | ({} if self.velocity is None else {"velocity": self.velocity})
        self.training = Training(self.net, self.optimizer, run, text, slot, self.identity, own=True, rows=deltas)
        if not self.training.done:
            self._begin(0, plan.start != "zero")
        if kept and plan.start == "anew":  # the last round alone counts
            self.training.done = max(self.training.done, self.epochs - 1)
        # results of `traced`, one per epoch
        self.generation: list[tuple[float, float, float]] = self.training.facts.setdefault("generation", [])

    def run_all(self) -> None:
        plan, run, rate = self.plan, self.run, cosines(self.plan.lr, self.begins, floor=1e-6)
        moves = self.batches.count(plan.noise_batch)
        for epoch in self.training.epochs(self.epochs, self.count, lambda step: rate(step // self.count), moves):
            if not self.kept:
                if plan.stop and epoch and self._accuracy(epoch) >= plan.stop:
                    break
                if epoch and epoch in self.begins:
                    self.net.load_state_dict(self._fresh(epoch).state_dict())
                    self.optimizer.state.clear()
                self._train_surrogate(epoch)
            self._move_deltas(epoch)
            self._trace()
        if not self.kept:
            facts = {**self.identity, "generation": self.generation, "epochs": self.training.done}
            if run.rank == 0:  # the same in every process
                run.save(f"surrogate{self.form.suffix}", self.net.state_dict(), facts)
            self.form.save_means(self.delta, self.identity)

    def _fresh(self, *names: object) -> Any:
        """A surrogate that has learned nothing."""
        with self.run.seeded(*self.form.names("surrogate", *names)):
            net = self.run.place(nets.build(self.plan.surrogate, self.data.shape, len(self.data.classes)))
        prepare(net, self.batches, self.run)
        return net

    def _train_surrogate(self, epoch: int) -> None:
        """Train the surrogate for one epoch on x + delta."""
        plan, run = self.plan, self.run
        generator = run.rng(*self.form.names("view", "train", epoch), run.rank)

        def loss(batch: Batch) -> Float[Tensor, ""]:
            index, x, y = batch
            base, view = plan.base(x, generator), plan.view(generator)
            with torch.no_grad():
                seen = view(perturb.add(base, self._stretched(self.delta[self.owner[index]])))
            return plan.learn(self.net, look(self.form.mixture, self.net, seen, y, generator), y, generator)

        self.net.train()
        stream = islice(self.batches.shuffled(plan.batch, *self.form.names("train", epoch)), self.count)
        self.training.learn(loss, stream, *self.form.names("layers", epoch), run.rank)

    def _move_deltas(self, epoch: int) -> None:
        """Take K signed steps on every delta, warm start, against the frozen surrogate in evaluation mode."""
        plan, run = self.plan, self.run
        share = epoch / max(self.epochs, 1)
        step = (plan.step_size + share * ((plan.step_size_end or plan.step_size) - plan.step_size)) / 255
        generator = run.rng(*self.form.names("view", "noise", epoch), run.rank)
        if plan.start == "anew":
            self._begin(epoch + 1, True)
        net = nets.frozen(self.net)
        for index, x, y in self.batches.shuffled(plan.noise_batch, *self.form.names("noise", epoch), group=self.group):
            rows, inverse = self._rows(index)
            others = self.beside and self.beside.draw(y, generator)
            if others:
                x, y = torch.cat([x, others.x]), torch.cat([y, others.y])
            base = plan.base(x, generator)
            leaf, velocity = self.delta[rows], None if self.velocity is None else self.velocity[rows]
            for _ in range(plan.steps):
                leaf = leaf.detach().requires_grad_()
                gradient = torch.zeros_like(leaf)
                for _ in range(plan.views):
                    view = plan.view(generator)
                    delta = self._stretched(leaf[inverse])
                    delta = torch.cat([delta, others.delta]) if others else delta
                    seen = look(self.form.mixture, net, view(perturb.add(base, delta)), y, generator)
                    value = plan.move(net, seen, y, delta, generator)
                    gradient += torch.autograd.grad(value, leaf)[0]
                b = len(index)
                leaf, velocity = self._step(index, leaf.detach(), velocity, gradient, y[:b], step, base[:b])
            self.delta[rows] = leaf
            if self.velocity is not None and velocity is not None:
                self.velocity[rows] = velocity
            self.training.tick()
        if plan.balanced:
            self.form.balance(self.delta)

    def _accuracy(self, epoch: int) -> float:
        """Accuracy of the surrogate on all protected pictures, through its mixture but without augmentation."""
        self.net.eval()
        right = torch.zeros((), device=self.run.device)
        generator = self.run.rng(*self.form.names("view", "accuracy", epoch), self.run.rank)
        for index, x, y in self.batches.in_order(self.plan.noise_batch):
            seen = perturb.add(x, self._stretched(self.delta[self.owner[index]]))
            seen = look(self.form.mixture, self.net, seen, y, generator)
            with torch.no_grad():  # an adversary in the mixture needs gradients
                right += (self.net(seen).argmax(1) == y).sum()
        return float(self.run.total(right)) / len(self.data)

    def _trace(self) -> None:
        """Record the surrogate's features of some protected pictures if state is kept; deltas do not depend on it.

        Not in the pass of the colour part, whose surrogate does not know pictures with luminance.
        """
        if self.run.keep is None or self.run.rank or self.form.colour or self.kept:
            return

        def see(rows: Tensor) -> Tensor:
            return perturb.add(self.batches.take(rows), self._stretched(self.delta[self.owner[rows]]))

        self.net.eval()
        self.generation.append(traced(self.net, see, self.watched, self.data.labels[self.watched]))

    def _begin(self, epoch: int, anew: bool) -> None:
        """Set all deltas to the start of an epoch, without velocity: uniform (`anew`), or zero; a tied part stays.

        Deltas of classes are the same in every process.
        """
        rank = self.run.rank if self.plan.per == "image" else "all"
        generator = self.run.rng(*self.form.names("start", epoch), rank)
        for index in parts(len(self.delta)) if anew or self.tied is not None else ():
            shape = (len(index), *self.shape[1:])
            planes = self.form.random_start(shape, generator) if anew else self.run.put(torch.zeros(shape))
            if self.tied is not None:
                planes[:, :1] = self.tied[index]
            self.delta[index] = planes
        if self.velocity is not None:
            self.velocity.clear()

    def _rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of delta that a batch moves, and for each of its pictures the number of its row among them.

        A class is shared by processes, so that all classes are moved in every batch.
        """
        if self.plan.per == "class":
            return torch.arange(len(self.delta)), self.run.put(self.owner[index])
        return self.owner[index], self.run.put(torch.arange(len(index)))

    def _step(
        self,
        index: Tensor,
        delta: Tensor,
        velocity: Tensor | None,
        gradient: Tensor,
        y: Tensor,
        step: float,
        base: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """The rows of a batch, and their velocity, after a step."""
        plan = self.plan
        if plan.per == "class":
            gradient = self.run.total(gradient)
        elif plan.class_gradient:
            gradient = self.form.shared(index, gradient, y)
        if velocity is not None:
            gradient = velocity = plan.noise_momentum * velocity + perturb.direction(gradient)
        moved = self.form.moved(delta, gradient, step)
        # only a pixel-wise delta of one picture can be clipped to the range of that picture
        single = plan.per == "image" and not plan.cells
        return self.form.keep_in_range(moved, base) if single else moved, velocity

    def _stretched(self, planes: Tensor) -> Tensor:
        return stretch(self.form.joined(planes), *self.data.shape[1:])

    def finished(self) -> Pieces:
        """All deltas, in data-set order."""
        if self.plan.per == "image":
            return self.form.whole(self.delta)
        k, _, h, w = self.shape
        shape = (k, self.data.shape[0], h, w)
        return Pieces(shape, lambda: (self.form.joined(self.delta[index]) for index in parts(k)))
