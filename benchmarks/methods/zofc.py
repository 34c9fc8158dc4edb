"""ZO-FC's adapter and cosine head (arXiv 2510.21019) with every split of orders between them, in torch.

head                 the head alone, first order
fo-fc                both first order: the memory-hungry twin that ZO-FC is measured against
zo-all               both by the same SPSA, old rows included: the naive way
fo-adapter+zo-head   the orders swapped
zo-fc-torch          zeroth order on the adapter, first on the head, for what the runtime cannot tell (``names.py``)
zo-fc-up             the same on the up-projections alone; the down-projections keep their random start

ZO-FC itself runs through the real runtime (``runtime.py``), not through this file.

What may surprise: ``head_init`` "class-means" starts the new rows from the means of the features under the *present*
adapter, which costs one forward pass more over the task's pictures; the paper has "random".
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from edge_zofc.benchmarks.methods.heads import ClassMeans, Head
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training, fit_with_head
from edge_zofc.benchmarks.methods.vit_parts import NOTHING, Adapters


class AdapterAndHead:
    """One adapter set for all tasks, never grown, and a cosine head. ``blocks`` () leaves the head alone."""

    def __init__(
        self,
        problem: Problem,
        how: Training,
        blocks: tuple[int, ...],
        rank: int,
        scale: float,
        head_init: Literal["class-means", "random"] = "random",
        old_rows_too: bool = False,
        up_only: bool = False,
    ) -> None:
        self.problem, self.how = problem, how
        self.head_init, self.old_rows_too = head_init, old_rows_too
        self.adapters = Adapters(problem.width, blocks, rank, "gelu", scale) if blocks else None
        self.part: list[nn.Parameter] = []
        if self.adapters is not None:
            named = self.adapters.named_parameters()
            self.part = [p for name, p in named if not up_only or ".up." in name]
        self.head = Head(problem.width, "cosine")
        self.frozen = self.adapters is None

    def learn(self, task: TaskData) -> list[float]:
        """Both on one task."""
        rows = self._means(task) if self.head_init == "class-means" else None
        old = tuple(range(len(self.head.rows))) if self.old_rows_too else ()
        return fit_with_head(
            self.problem, task, self.how, self.head, self.part,
            lambda x: (self._features(x), 0.0), new_rows=rows, also=old,
        )  # fmt: skip

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
