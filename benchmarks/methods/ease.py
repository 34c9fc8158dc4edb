"""EASE (arXiv 2403.12030): a new adapter set for every task, and prototypes in every adapter's subspace.

A class is known in the subspaces of its own and of earlier adapters. Its prototypes in later subspaces are synthesised
from the prototypes of the new classes there. The weights are its similarities to the new classes in its own subspace.
At test a class's own subspace counts 1 and each other one alpha / T.

A test picture takes one forward pass for each task learnt, and the state grows with the tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edge_zofc.benchmarks.methods.aper import train_adapters
from edge_zofc.benchmarks.methods.heads import ClassMeans, cosines
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training
from edge_zofc.benchmarks.methods.vit_parts import Adapters


class Ease:
    """AdaptFormer sets of ``rank`` in every block; ``prototypes`` [C, T, D] and each class's task [C]."""

    frozen = False

    def __init__(self, problem: Problem, how: Training, rank: int = 64, alpha: float = 0.1) -> None:
        self.problem, self.how, self.rank, self.alpha = problem, how, rank, alpha
        self.sets: list[Adapters] = []
        self.prototypes = torch.zeros(0, 0, problem.width)
        self.task_of = torch.zeros(0, dtype=torch.int64)

    def learn(self, task: TaskData) -> list[float]:
        """Train a new set with a temporary head; then prototypes of the new classes, and of the old in it."""
        adapters = Adapters(self.problem.width, tuple(range(self.problem.depth)), self.rank, "relu", 0.1)
        losses = train_adapters(self.problem, task, self.how, adapters)
        self.sets.append(adapters.requires_grad_(False))
        means = ClassMeans(len(self.sets) * self.problem.width)
        for images, labels in self.problem.plain_batches(task.train):
            means.add(self._subspaces(images).flatten(1), labels, task.classes_seen)
        found = (means.sums / means.counts.clamp(min=1)[:, None]).reshape(len(means.sums), len(self.sets), -1)
        self.prototypes, self.task_of = grow_prototypes(self.prototypes, self.task_of, found)
        return losses

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures."""
        return reweighted(self._subspaces(inputs), self.prototypes, self.task_of, self.alpha)

    def parameters_of(self, task: TaskData) -> int:
        """1,189,632 on *every* task of a ViT-B at rank 64."""
        return sum(p.numel() for p in self.sets[-1].parameters())

    @torch.no_grad()
    def _subspaces(self, images: Tensor) -> Tensor:
        """Features under every set, [B, T, D]."""
        return torch.stack([self.problem.features(images, s.parts()) for s in self.sets], dim=1)


def grow_prototypes(old: Tensor, task_of: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Prototypes [C, T, D] and tasks [C] after a task, from those before, [C_old, T - 1, D] and [C_old], and
    ``found`` [C, T, D], the means of this task's pictures by class (zero for a class that is not in it).

    An old class c of task s gets in the new subspace: sum over new classes n of
    softmax_n(cos(old[c, s], found[n, s])) * found[n, T - 1]. A class of an earlier task that comes again keeps
    what it has.
    """
    known, task = len(old), found.shape[1] - 1
    if known == 0:
        return found, torch.zeros(len(found), dtype=torch.int64)
    new = found[known:] if len(found) > known else found[found.flatten(1).any(dim=1)]
    synthesised = torch.empty(known, found.shape[2])
    for c in range(known):
        s = int(task_of[c])
        weights = functional.softmax(cosines(old[c, s][None], new[:, s])[0], dim=0)
        synthesised[c] = weights @ new[:, task]
    completed = torch.cat([old, synthesised[:, None]], dim=1)
    tasks = torch.cat([task_of, torch.full((len(found) - known,), task)])
    return torch.cat([completed, found[known:]]), tasks


def reweighted(features: Tensor, prototypes: Tensor, task_of: Tensor, alpha: float) -> Tensor:
    """Logits [B, C] of features [B, T, D]: a class's cosine in its own subspace + alpha / T * the others'."""
    each = torch.einsum(
        "btd,ctd->bct", functional.normalize(features, dim=-1), functional.normalize(prototypes, dim=-1)
    )
    count = features.shape[1]
    weights = torch.full((len(prototypes), count), alpha / count)
    weights[torch.arange(len(prototypes)), task_of] = 1.0
    return (each * weights).sum(dim=-1)
