"""LAE (arXiv 2303.10070): one adapter that learns fast, and its moving average that forgets slowly.

A prediction asks both models and takes, class by class, the larger of the two softmax values. The adapter stands beside
the attention, not beside the MLP as those of ZO-FC and AdaptFormer. It rests during the first epochs of each new task,
while the new rows are trained.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from edge_zofc.benchmarks.methods.heads import TorchHead
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Trainee, Training, fit
from edge_zofc.benchmarks.methods.vit_parts import Adapters, Parts


class Lae:
    """Adapters of ZO-FC's size with a learnable scale, their average (``decay``), and one linear head for both."""

    frozen = False

    def __init__(
        self,
        problem: Problem,
        how: Training,
        blocks: tuple[int, ...] = (0, 1, 2, 3, 4),
        rank: int = 5,
        decay: float = 0.9999,
        rest_epochs: int = 3,
    ) -> None:
        self.problem, self.how, self.decay, self.rest_epochs = problem, how, decay, rest_epochs
        self.online = Adapters(problem.width, blocks, rank, "gelu", None)
        self.average = copy.deepcopy(self.online).requires_grad_(False)
        self.head = TorchHead(problem.width, "linear")

    def learn(self, task: TaskData) -> list[float]:
        """Train the online adapter and the new rows; the average follows after each step."""
        rest = min(self.rest_epochs, self.how.epochs - 1) if task.index else 0
        self.head.begin(task.class_ids, task.classes_seen)
        trainee = Trainee(
            lambda x: (self._features(x, self.online), 0.0),
            self.head.loss,
            list(self.online.parameters()),
            self.head.trained(),
            # The average starts where the first task ends. Before, it would be that of an untrained model.
            self._follow if task.index else lambda: None,
        )
        losses = fit(self.problem, task, trainee, replace(self.how, part_from_epoch=rest))
        self.head.end()
        if task.index == 0:
            self.average.load_state_dict(self.online.state_dict())
        return losses

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """The larger of the two softmax values, [B, C]."""
        both = [self._features(inputs, adapters) for adapters in (self.online, self.average)]
        return torch.stack([self.head.logits(x).softmax(dim=-1) for x in both]).amax(dim=0)

    def parameters_of(self, task: TaskData) -> int:
        """42,270 on blocks 0-4 of a ViT-B (a scale for each block beside ZO-FC's 42,265), on every task."""
        return sum(p.numel() for p in self.online.parameters())

    def _features(self, images: Tensor, adapters: Adapters) -> Tensor:
        return self.problem.features(images, Parts(beside_attention=adapters.by_block()))

    @torch.no_grad()
    def _follow(self) -> None:
        for slow, fast in zip(self.average.parameters(), self.online.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.decay)
