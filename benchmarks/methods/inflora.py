"""InfLoRA (arXiv 2404.00228): each task's LoRA may move only where it does not disturb older tasks.

The down matrix A of a task is fixed before training. It is the leading directions of the second-moment matrix of the
task's inputs, without the gradient subspace of the older tasks. Only B (zero at start) and the new rows train. DualGPM
keeps the subspace of each block: what to avoid, or, once that is more than half of the space, what is still free.

Keys and values see the same input and share A. Each has its own B. At test the branches of all tasks are summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from edge_zofc.benchmarks.methods.heads import TorchHead
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training, fit_with_head
from edge_zofc.benchmarks.methods.vit_parts import Parts


class Branch(nn.Module):
    """One task's LoRA on one block's keys and values: ``down`` [r, D] fixed, ``up`` [2, D, r] trained from 0."""

    def __init__(self, down: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(torch.zeros(2, down.shape[1], down.shape[0]))

    def forward(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the keys and to the values, [B, T, D] each."""
        hidden = n @ self.down.T
        return hidden @ self.up[0].T, hidden @ self.up[1].T


class InfLora:
    """LoRA of ``rank`` on keys and values of every block, and a linear head.

    ``lamb`` is the share of a task's energy that its subspace must hold: lamb + (1 - lamb) * t / T.
    """

    frozen = False

    def __init__(self, problem: Problem, how: Training, rank: int = 10, lamb: float = 0.95) -> None:
        self.problem, self.how, self.rank, self.lamb = problem, how, rank, lamb
        self.branches: list[list[Branch]] = [[] for _ in range(problem.depth)]
        self.memory = [DualGpm(problem.width) for _ in range(problem.depth)]
        self.head = TorchHead(problem.width, "linear")

    def learn(self, task: TaskData) -> list[float]:
        """Design A, train B, remember the task's subspace."""
        moments = self._moments(task)
        for block, (memory, moment) in enumerate(zip(self.memory, moments, strict=True)):
            self.branches[block].append(Branch(design(memory.free_part(moment), self.rank)))
        current = [branches[-1].up for branches in self.branches]

        def represent(images: Tensor) -> tuple[Tensor, float]:
            return self.problem.features(images, self._parts()), 0.0

        losses = fit_with_head(self.problem, task, self.how, self.head, current, represent)
        for up in current:
            up.requires_grad_(False)
        share = self.lamb + (1 - self.lamb) * task.index / self.problem.task_count
        for memory, moment in zip(self.memory, self._moments(task), strict=True):
            memory.update(moment, share)
        return losses

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures."""
        return self.head.logits(self.problem.features(inputs, self._parts()))

    def parameters_of(self, task: TaskData) -> int:
        """2 D r in each block, 184,320 for a ViT-B at rank 10, on every task."""
        return sum(branches[-1].up.numel() for branches in self.branches)

    def _parts(self) -> Parts:
        def added(branches: list[Branch]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
            def sums(n: Tensor) -> tuple[Tensor, Tensor]:
                keys, values = zip(*(branch(n) for branch in branches), strict=True)
                return torch.stack(keys).sum(dim=0), torch.stack(values).sum(dim=0)

            return sums

        return Parts(lora={i: added(branches) for i, branches in enumerate(self.branches) if branches})

    @torch.no_grad()
    def _moments(self, task: TaskData) -> list[Tensor]:
        """Second-moment matrices float32 [D, D] of the inputs of keys and values, for each block."""
        width = self.problem.width
        moments = [torch.zeros(width, width) for _ in self.branches]
        count = 0

        def watch(block: int, n: Tensor) -> None:
            flat = n.flatten(0, 1)
            moments[block] += flat.T @ flat

        parts = replace(self._parts(), watch=watch)
        for images, _ in self.problem.plain_batches(task.train):
            count += len(images)
            self.problem.features(images, parts)
        result: list[Tensor] = [moment / count for moment in moments]
        return result


def design(moment: Tensor, rank: int) -> Tensor:
    """The down matrix [r, D]: leading left singular vectors of ``moment`` [D, D], divided by sqrt 3."""
    left: Tensor = torch.linalg.svd(moment).U
    return (left[:, :rank].T / 3**0.5).contiguous()


class DualGpm:
    """A basis [D, m]: of the older tasks' subspace while m <= D/2 (``avoids``), then of what is free of it."""

    def __init__(self, width: int) -> None:
        self.basis = torch.zeros(width, 0)
        self.avoids = True

    def free_part(self, moment: Tensor) -> Tensor:
        """``moment`` [D, D] without what lies in the older tasks' subspace."""
        inside = self.basis @ (self.basis.T @ moment)
        return moment - inside if self.avoids else inside

    def update(self, moment: Tensor, share: float) -> None:
        """Let the subspace hold ``share`` of the energy (squared singular values) of ``moment`` [D, D]."""
        total = float(torch.linalg.svdvals(moment).square().sum())
        left, values, _ = torch.linalg.svd(self.free_part(moment))
        energy = values.square() / total
        # How many directions must go over from the free side: what is left there holds at most 1 - share.
        left_over = energy.sum() - torch.cat([torch.zeros(1), energy.cumsum(0)])
        more = int((left_over > 1 - share).sum())
        if self.avoids:
            self.basis = torch.cat([self.basis, left[:, :more]], dim=1)
            self._turn_over()
        elif more:
            taken = left[:, :more]
            kept, _, _ = torch.linalg.svd(self.basis - taken @ (taken.T @ self.basis))
            self.basis = kept[:, : max(0, self.basis.shape[1] - more)]

    def _turn_over(self) -> None:
        width, used = self.basis.shape
        if used > width // 2:
            full, _, _ = torch.linalg.svd(self.basis)
            self.basis, self.avoids = full[:, min(used, width) :], False
