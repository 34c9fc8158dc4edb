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

from torch import Tensor, nn

from edge_zofc.benchmarks.methods.heads import ClassMeans, TorchHead
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Trainee, Training, fit
from edge_zofc.benchmarks.methods.vit_parts import NOTHING, AdapterShape


class AdapterAndHead:
    """One adapter set for all tasks and a cosine head. ``shape`` None: the head alone.

    ``head_init`` "class-means" starts the new rows from the means of the features under the present adapter, which
    takes one more forward pass over the task's pictures. The paper has "random".
    """

    def __init__(
        self,
        problem: Problem,
        how: Training,
        shape: AdapterShape | None,
        head_init: Literal["class-means", "random"] = "random",
        old_rows_too: bool = False,
        up_only: bool = False,
    ) -> None:
        self.problem, self.how = problem, how
        self.head_init, self.old_rows_too = head_init, old_rows_too
        self.adapters = None if shape is None else shape.adapters(problem.width)
        self.part: list[nn.Parameter] = []
        if self.adapters is not None:
            named = self.adapters.named_parameters()
            self.part = [p for name, p in named if not up_only or ".up." in name]
        self.head = TorchHead(problem.width, "cosine")
        self.frozen = self.adapters is None

    def learn(self, task: TaskData) -> list[float]:
        """Train both on one task."""
        rows = self._means(task) if self.head_init == "class-means" else None
        old = tuple(range(len(self.head.rows))) if self.old_rows_too else ()
        self.head.begin(task.class_ids, task.classes_seen, rows, old)
        trainee = Trainee(lambda x: (self._features(x), 0.0), self.head.loss, self.part, self.head.trained())
        losses = fit(self.problem, task, trainee, self.how)
        self.head.end()
        return losses

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures, or for frozen features if there is no adapter."""
        return self.head.logits(inputs if self.frozen else self._features(inputs))

    def parameters_of(self, task: TaskData) -> int:
        """The adapter's: 42,265 on blocks 0-4 of a ViT-B, the same on every task."""
        return sum(p.numel() for p in self.part)

    def _features(self, images: Tensor) -> Tensor:
        return self.problem.features(images, NOTHING if self.adapters is None else self.adapters.parts())

    def _means(self, task: TaskData) -> Tensor:
        means = ClassMeans(self.problem.width)
        for images, labels in self.problem.plain_batches(task.train):
            means.add(self._features(images).detach(), labels, task.classes_seen)
        return means.rows()
