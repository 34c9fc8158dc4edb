"""ZO-FC's adapter and cosine head (arXiv 2510.21019) with every split of orders between them, in torch.

    head                 the head alone, first order
    fo-fc                both first order, which ZO-FC is measured against
    zo-all               both by the same SPSA, old rows included: the naive way
    fo-adapter+zo-head   the orders swapped
    zo-fc-torch          zeroth order on the adapter, first on the head, where a gradient is needed beside it
    zo-fc-up             the same on the up-projections alone; the down-projections keep their random start

ZO-FC itself runs through the real runtime (``accuracy/runtime_cell.py``), not through this file.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from edge_zofc.benchmarks.methods.adapter_vector import AdapterVector
from edge_zofc.benchmarks.methods.heads import ClassMeans, TorchHead
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Trainee, Training, fit


class AdapterAndHead:
    """One adapter for all tasks and a cosine head. ``adapter`` "none": the head alone, "up": its up-projections move.

    ``head_init`` "class-means" starts the new rows from the means of the features under the present adapter, which
    takes one more forward pass over the task's pictures. The paper has "random".

    The head alone computes the features of a picture once, unless training pictures are cropped at random.
    """

    def __init__(
        self,
        problem: Problem,
        how: Training,
        adapter: Literal["all", "up", "none"] = "all",
        head_init: Literal["class-means", "random"] = "random",
        old_rows_too: bool = False,
    ) -> None:
        self.problem, self.how = problem, how
        self.head_init, self.old_rows_too = head_init, old_rows_too
        self.adapter: AdapterVector | None = None
        if adapter != "none":
            self.adapter = AdapterVector(problem.model.layout, problem.seed, adapter == "up")
        self.part: list[nn.Parameter] = [] if self.adapter is None else self.adapter.trained()
        self.head = TorchHead(problem.width, "cosine")
        self.frozen = self.adapter is None

    def learn(self, task: TaskData) -> list[float]:
        """Train both on one task."""
        reads_once = self.frozen and self.problem.augment == "none"
        kept = self.problem.frozen_features(task.train)[0] if reads_once else None
        rows = self._means(task, kept) if self.head_init == "class-means" else None
        old = tuple(range(len(self.head.rows))) if self.old_rows_too else ()
        self.head.begin(task.class_ids, task.classes_seen, rows, old)
        represent = self.features if kept is None else (lambda features: features)
        loss = self.head.loss
        trainee = Trainee(lambda x: (represent(x), 0.0), loss, self.part, self.head.trained(), kept=kept)
        losses = fit(self.problem, task, trainee, self.how)
        self.head.end()
        return losses

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures, or for frozen features if there is no adapter."""
        return self.head.logits(inputs if self.frozen else self.features(inputs))

    def parameters_of(self, task: TaskData) -> int:
        """The adapter's: 42,265 on blocks 0-4 of a ViT-B, 3,616 films of EfficientNet-Lite0; the same on every task."""
        return sum(p.numel() for p in self.part)

    def features(self, images: Tensor) -> Tensor:
        """[B, D] under the present adapter."""
        if self.adapter is None:
            return self.problem.features(images)
        return self.problem.adapted_features(images, self.adapter())

    @torch.no_grad()
    def _means(self, task: TaskData, kept: Tensor | None) -> Tensor:
        means = ClassMeans(self.problem.width)
        if kept is not None:
            means.add(kept, torch.tensor([sample.class_id for sample in task.train]), task.classes_seen)
            return means.rows()
        for images, labels in self.problem.plain_batches(task.train):
            means.add(self.features(images), labels, task.classes_seen)
        return means.rows()
