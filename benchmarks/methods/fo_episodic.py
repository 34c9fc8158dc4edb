"""First-session adaptation by backpropagation: the runtime's episodic loss and adapter, moved by gradients of torch.

As in the runtime (``edge_zofc.algorithm.episodes``, ``edge_zofc.engine.training``) the adapter moves in the first task
alone, on class-balanced batches of the pictures that the gate does not hold out, and the head is the discriminant. So
what differs from ``zo-fc`` is how the gradient comes about, with the number, size and rate of the steps. There is no
gate: the moved adapter stays, and a first task of any number of classes moves it.

``later`` says what happens in later tasks. "rest": the adapter stays as the first task left it. "move": it is trained
in each task, with the means of all earlier classes as further candidates; their statistics stay as they were taken.
"drift": these follow the adapter by a map that is fitted on the task's own pictures (``drift.py``).

``balanced``: Adam works on c in theta = theta0 + s c, with the runtime's scales s of balanced directions.

First-session adaptation with films under a discriminant is that of arXiv 2303.13199, which trains by cross-entropy.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from edge_zofc.algorithm.directions import balanced_scales, episode
from edge_zofc.algorithm.episodes import Prototypes, held_out
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.benchmarks.methods.drift import Drift
from edge_zofc.benchmarks.methods.heads import Discriminant
from edge_zofc.benchmarks.methods.problem import EVALUATION_BATCH, Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training
from edge_zofc.export.adapters import initial_adapter
from edge_zofc.export.episodic import backward

Later = Literal["rest", "move", "drift"]


class EpisodicAdapter:
    """An adapter that moves in the first task, or in all, and a head in closed form."""

    frozen = False

    def __init__(self, problem: Problem, how: Training, balanced: bool, later: Later = "rest") -> None:
        layout = problem.model.layout
        self.problem, self.how, self.later = problem, how, later
        self.start = torch.from_numpy(initial_adapter(layout, problem.seed))
        sizes = [piece.size for piece in layout.pieces]
        self.scales = torch.from_numpy(balanced_scales(sizes)) if balanced else torch.ones(layout.size)
        self.moved = nn.Parameter(torch.zeros(layout.size))
        self.head = Discriminant(problem.width)

    def learn(self, task: TaskData) -> list[float]:
        """Move the adapter if this is a task for it, then take the statistics and solve; returns each step's loss."""
        losses: list[float] = []
        if task.index == 0 or self.later != "rest":
            follows = task.index > 0 and self.later == "drift"
            before = self._all_features(task) if follows else None
            losses = self._adapt(task)
            if before is not None:
                self.head.seen = Drift.between(before, self._all_features(task)).moved(self.head.seen)
        with torch.no_grad():
            batches = self.problem.plain_batches(task.train)
            self.head.take(((self._features(x), y) for x, y in batches), task.classes_seen, keep=True)
        return losses

    def logits(self, inputs: Tensor) -> Tensor:
        """Log-likelihoods up to a constant, [B, C], for pictures."""
        return self.head.logits(self._features(inputs))

    def parameters_of(self, task: TaskData) -> int:
        """The adapter's where it moves, else none."""
        return self.moved.numel() if task.index == 0 or self.later != "rest" else 0

    def adapter(self) -> Tensor:
        """The flat vector [P]."""
        return self.start + self.scales * self.moved

    def _features(self, images: Tensor) -> Tensor:
        return self.problem.adapted_features(images, self.adapter())

    def _adapt(self, task: TaskData) -> list[float]:
        how, seed = self.how, self.problem.seed
        labels = np.array([sample.class_id for sample in task.train])
        fit = np.flatnonzero(~held_out(labels))
        prototypes = self._prototypes(task, fit)
        optimiser = torch.optim.Adam([self.moved], lr=how.lr)
        losses = []
        for step in range(how.steps or how.epochs * -(-len(labels) // how.batch_size)):
            drawn = fit[episode(labels[fit], how.batch_size, seed, task.index, step)]
            optimiser.zero_grad()
            losses.append(self._backward(prototypes, *self.problem.some_pictures(task, drawn, step)))
            optimiser.step()
        return losses

    def _backward(self, prototypes: Prototypes, images: Tensor, labels: Tensor) -> float:
        """``episodic.backward`` of one batch; counted."""
        self.problem.passes.backwards += len(images)
        return backward(prototypes, self._features, images, labels, EVALUATION_BATCH)

    @torch.no_grad()
    def _all_features(self, task: TaskData) -> np.ndarray:
        """[n, D] of the task's pictures under the adapter as it is."""
        return np.concatenate([self._features(images).numpy() for images, _ in self.problem.plain_batches(task.train)])

    @torch.no_grad()
    def _prototypes(self, task: TaskData, fit: np.ndarray) -> Prototypes:
        """Those of the pictures at ``fit`` under the adapter before the task, and of earlier classes as kept."""
        statistics = Statistics.empty(task.classes_seen, self.problem.width)
        for images, labels in self.problem.plain_batches([task.train[i] for i in fit]):
            statistics.add(self._features(images).numpy(), labels.numpy())
        return Prototypes.of(self.head.seen.plus(statistics))
