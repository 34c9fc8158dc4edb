"""One training loop for all methods, first order, zeroth order, or one on the adapter and the other on the head.

Zeroth order is SPSA with Rademacher directions (Spall 1992, doi 10.1109/9.119632) as ZO-FC uses it (arXiv
2510.21019): Q two-sided queries over all given parameters at once, the estimate clipped by its norm, then the
optimiser's ordinary step.

SPSA only fills ``.grad``, so every optimiser of torch works on it. Where the two orders differ, the head takes its step
first. The adapter's loss is then taken under the updated head, on the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edge_zofc.benchmarks.methods.heads import TorchHead
from edge_zofc.benchmarks.methods.problem import Problem, TaskData

Order = Literal["first", "zeroth"]
Schedule = Literal["cosine", "quarter-cosine", "constant"]
Loss = Callable[[], Tensor]
Represent = Callable[[Tensor], tuple[Tensor, Tensor | float]]
MIN_LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Training:
    """How a method trains. ``head_lr`` None: ``lr``. ``head_epochs`` None: all epochs train the head too.

    Before ``part_from_epoch`` the adapter (prompt, LoRA) rests. ``clip_norm`` is for SPSA alone. "cosine" falls over
    half a period to 1e-5, "quarter-cosine" over a quarter to 1.6 % (CODA-Prompt's and InfLoRA's). ``steps`` stand in
    place of the epochs where a method takes its batches from no epoch.
    """

    epochs: int
    batch_size: int
    lr: float
    head_lr: float | None = None
    head_epochs: int | None = None
    part_from_epoch: int = 0
    optimiser: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    head_schedule: Schedule = "cosine"
    part_order: Order = "first"
    head_order: Order = "first"
    queries: int = 4
    two_sided: bool = True
    eps: float = 1e-3
    clip_norm: float = 1.0
    steps: int = 0


@dataclass(frozen=True)
class Trainee:
    """What is trained: ``part`` are the parameters of the adapter, LoRA or prompt, ``head`` those of the head.

    ``represent`` maps pictures to (features, a term to add to the loss). ``loss`` maps features and class ids to the
    loss. ``kept`` [N, D] are features of the task's pictures that ``represent`` gets instead of the pictures.
    """

    represent: Represent
    loss: Callable[[Tensor, Tensor], Tensor]
    part: Sequence[nn.Parameter]
    head: Sequence[nn.Parameter]
    after_step: Callable[[], None] = lambda: None
    kept: Tensor | None = None


def fit_with_head(
    problem: Problem, task: TaskData, how: Training, head: TorchHead, part: Sequence[nn.Parameter], represent: Represent
) -> list[float]:
    """Grow ``head`` by the task's classes and train it with ``part`` under the local loss; returns as ``fit``."""
    head.begin(task.class_ids, task.classes_seen)
    losses = fit(problem, task, Trainee(represent, head.loss, part, head.trained()), how)
    head.end()
    return losses


def fit(problem: Problem, task: TaskData, trainee: Trainee, how: Training) -> list[float]:
    """Train in place on one task; returns the mean loss of each epoch. Each task has new optimisers."""
    head_lr = how.lr if how.head_lr is None else how.head_lr
    head_epochs = how.epochs if how.head_epochs is None else how.head_epochs
    part_optimiser = _optimiser(trainee.part, how, how.lr)
    head_optimiser = _optimiser(trainee.head, how, head_lr)
    step, means = 0, []
    for epoch in range(how.epochs):
        _set_rate(part_optimiser, how.lr, how.schedule, epoch, how.epochs)
        _set_rate(head_optimiser, head_lr, how.head_schedule, epoch, head_epochs)
        train_part, train_head = epoch >= how.part_from_epoch, epoch < head_epochs
        total, count = 0.0, 0
        for images, labels in problem.training_batches(task, how.batch_size, epoch, trainee.kept):
            batch = _Batch(problem, trainee, how, images, labels, _Directions(problem.seed, task.index, step))
            loss = batch.step(part_optimiser if train_part else None, head_optimiser if train_head else None)
            trainee.after_step()
            total, count, step = total + loss * len(images), count + len(images), step + 1
        means.append(total / max(count, 1))
    return means


class _Directions:
    """+-1 directions of one step, regenerated from (seed, task, step, query)."""

    def __init__(self, seed: int, task: int, step: int) -> None:
        self.key = (seed, task, step)

    def __call__(self, query: int, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        seed, task, step = self.key
        generator = torch.Generator().manual_seed((((seed * 1009 + task) << 24) + step) * 64 + query)
        return [torch.randint(0, 2, p.shape, generator=generator, dtype=p.dtype) * 2 - 1 for p in parameters]


@dataclass(frozen=True)
class _Batch:
    """One batch of a task, with what its step needs. ``images`` [B, 3, S, S], ``labels`` class ids [B]."""

    problem: Problem
    trainee: Trainee
    how: Training
    images: Tensor
    labels: Tensor
    directions: _Directions

    def step(self, part: torch.optim.Optimizer | None, head: torch.optim.Optimizer | None) -> float:
        """Train on the batch; returns its loss before the update. What has no optimiser rests."""
        trainee, how = self.trainee, self.how
        if part is not None and head is not None and how.part_order == how.head_order:
            loss = self._gradient([*trainee.part, *trainee.head], self._loss, how.part_order, len(self.images))
            part.step()
            head.step()
            return loss
        losses = []
        if head is not None:
            with torch.no_grad():
                found, more = trainee.represent(self.images)
            losses.append(
                self._gradient(trainee.head, lambda: trainee.loss(found, self.labels) + more, how.head_order, 0)
            )
            head.step()
        if part is not None:
            losses.append(self._gradient(trainee.part, self._loss, how.part_order, len(self.images)))
            part.step()
        return losses[0] if losses else math.nan

    def _loss(self) -> Tensor:
        found, more = self.trainee.represent(self.images)
        return self.trainee.loss(found, self.labels) + more

    def _gradient(self, parameters: Sequence[nn.Parameter], loss: Loss, order: Order, differentiated: int) -> float:
        """Fill ``.grad``; returns the loss at the parameters (two-sided SPSA: the mean over its queries).

        ``differentiated`` pictures go backwards through the backbone in first order.
        """
        if not parameters:
            with torch.no_grad():
                return float(loss())
        if order == "zeroth":
            return spsa(parameters, loss, self.how, self.directions)
        value = loss()
        found = torch.autograd.grad(value, list(parameters), allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
        self.problem.passes.backwards += differentiated
        return float(value.detach())


@torch.no_grad()
def spsa(parameters: Sequence[nn.Parameter], loss: Loss, how: Training, directions: _Directions) -> float:
    """Fill ``.grad`` with the SPSA estimate, clipped to ``how.clip_norm``; the parameters come back as they were.

    two-sided: sum over q of (L(p + eps z) - L(p - eps z)) / (2 eps Q) z; one-sided: (L(p + eps z) - L(p)) / (eps Q) z.
    Returns L(p), or the mean of the queries' losses where L(p) was not computed.
    """
    kept = [p.clone() for p in parameters]
    estimate = [torch.zeros_like(p) for p in parameters]
    base = None if how.two_sided else float(loss())
    losses: list[float] = []
    for query in range(how.queries):
        along = directions(query, parameters)
        sides = []
        for sign in (1, -1) if how.two_sided else (1,):
            for p, start, z in zip(parameters, kept, along, strict=True):
                p.copy_(start + sign * how.eps * z)
            sides.append(float(loss()))
        losses += sides
        slope = (sides[0] - (sides[1] if base is None else base)) / (how.eps * len(sides) * how.queries)
        for total, z in zip(estimate, along, strict=True):
            total += slope * z
    norm = math.sqrt(sum(float((g * g).sum()) for g in estimate))
    factor = min(1.0, how.clip_norm / (norm + 1e-6))
    for p, start, g in zip(parameters, kept, estimate, strict=True):
        p.copy_(start)
        p.grad = g * factor
    return sum(losses) / len(losses) if base is None else base


def _optimiser(parameters: Sequence[nn.Parameter], how: Training, lr: float) -> torch.optim.Optimizer | None:
    if not parameters:
        return None
    if how.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=how.weight_decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=how.weight_decay)


def _set_rate(optimiser: torch.optim.Optimizer | None, lr: float, schedule: Schedule, epoch: int, epochs: int) -> None:
    if optimiser is not None:
        for group in optimiser.param_groups:
            group["lr"] = rate(lr, schedule, epoch, epochs)


def rate(lr: float, schedule: Schedule, epoch: int, epochs: int) -> float:
    """The learning rate of ``epoch`` (from 0) out of ``epochs``."""
    if schedule == "constant":
        return lr
    if schedule == "quarter-cosine":
        return lr * math.cos(0.99 * math.pi / 2 * min(epoch, epochs - 1) / max(epochs - 1, 1))
    low = min(MIN_LEARNING_RATE, lr)
    return low + (lr - low) * (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) / 2
