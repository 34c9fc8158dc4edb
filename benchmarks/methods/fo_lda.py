"""The edge preset's learner with a first-order adapter: the same head and loss under backpropagation.

A task goes as in the runtime. The class statistics are taken under the present adapter. The discriminant is solved with
those of all earlier tasks. The adapter is trained on the loss over every class seen. Then the task's statistics are
taken again and the discriminant is solved again.

The loss is small from the start, because the rows are solved on the same pictures. When the adapter moves, the
statistics of the earlier tasks no longer fit it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edge_zofc.benchmarks.methods.adapter_vector import AdapterVector
from edge_zofc.benchmarks.methods.heads import Discriminant
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Trainee, Training, fit


class AdapterAndLda:
    """One adapter for all tasks and a head in closed form."""

    frozen = False

    def __init__(self, problem: Problem, how: Training) -> None:
        self.problem, self.how = problem, how
        self.adapter = AdapterVector(problem.model.layout, problem.seed)
        self.head = Discriminant(problem.width)

    def learn(self, task: TaskData) -> list[float]:
        """Solve, train the adapter, solve again."""
        self._solve(task, keep=False)

        def loss(features: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(self.head.logits(features), labels)

        trainee = Trainee(lambda x: (self._features(x), 0.0), loss, self.adapter.trained(), [])
        losses = fit(self.problem, task, trainee, self.how)
        self._solve(task, keep=True)
        return losses

    def logits(self, inputs: Tensor) -> Tensor:
        """Log-likelihoods up to a constant, [B, C], for pictures."""
        return self.head.logits(self._features(inputs))

    def parameters_of(self, task: TaskData) -> int:
        """The adapter's, the same on every task."""
        return sum(p.numel() for p in self.adapter.parameters())

    def _features(self, images: Tensor) -> Tensor:
        return self.problem.adapted_features(images, self.adapter())

    def _solve(self, task: TaskData, keep: bool) -> None:
        batches = self.problem.plain_batches(task.train)
        with torch.no_grad():
            self.head.take(((self._features(x), y) for x, y in batches), task.classes_seen, keep)
