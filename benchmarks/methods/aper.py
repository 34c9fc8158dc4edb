"""APER with AdaptFormer (arXiv 2303.07338): adapt once, on the first task, then only take class means.

``AperLda`` puts the linear discriminant of the edge preset on the same features, as RanPAC (arXiv 2307.02251)
does its ridge head. It shows what a frozen first-task adapter adds to the head of the edge preset.

The classifier that trains the adapter is discarded. Every class, also of the first task, is classified by the cosine to
its mean of [frozen feature ; adapted feature], 2D numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_zofc.benchmarks.methods.heads import ClassMeans, Discriminant, TorchHead, cosines
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training, fit_with_head
from edge_zofc.benchmarks.methods.vit_parts import Adapters


class Aper:
    """AdaptFormer in every block: rank 64, ReLU, scale 0.1."""

    frozen = False

    def __init__(self, problem: Problem, how: Training, rank: int = 64) -> None:
        self.problem, self.how = problem, how
        self.adapters = Adapters(problem.width, tuple(range(problem.depth)), rank, "relu", 0.1)
        self.means = ClassMeans(2 * problem.width)

    def learn(self, task: TaskData) -> list[float]:
        """Train the adapter if this is the first task; then class means."""
        losses: list[float] = []
        if task.index == 0:
            losses = train_adapters(self.problem, task, self.how, self.adapters)
        self._classify(task)
        return losses

    def logits(self, inputs: Tensor) -> Tensor:
        """Cosines [B, C] for pictures."""
        return cosines(self._both(inputs), self.means.rows())

    def parameters_of(self, task: TaskData) -> int:
        """1,189,632 on the first task of a ViT-B at rank 64, then none."""
        return sum(p.numel() for p in self.adapters.parameters()) if task.index == 0 else 0

    def _classify(self, task: TaskData) -> None:
        for images, labels in self.problem.plain_batches(task.train):
            self.means.add(self._both(images), labels, task.classes_seen)

    @torch.no_grad()
    def _both(self, images: Tensor) -> Tensor:
        plain, adapted = self.problem.features(images), self.problem.features(images, self.adapters.parts())
        return torch.cat([plain, adapted], dim=-1)


class AperLda(Aper):
    """The same adapter, classified by a linear discriminant on [frozen feature ; adapted feature]."""

    def __init__(self, problem: Problem, how: Training) -> None:
        super().__init__(problem, how)
        self.head = Discriminant(2 * problem.width)

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures."""
        return self.head.logits(self._both(inputs))

    def _classify(self, task: TaskData) -> None:
        batches = self.problem.plain_batches(task.train)
        self.head.take(((self._both(x), y) for x, y in batches), task.classes_seen, keep=True)


def train_adapters(problem: Problem, task: TaskData, how: Training, adapters: Adapters) -> list[float]:
    """Train ``adapters`` on one task with a linear head that is then discarded; losses by epoch."""
    head = TorchHead(problem.width, "linear")
    part = list(adapters.parameters())
    return fit_with_head(problem, task, how, head, part, lambda x: (problem.features(x, adapters.parts()), 0.0))
