"""One training loop for all methods, first order, zeroth order, or one on the adapter and the other on the head.

Zeroth order is SPSA with Rademacher directions (Spall 1992, doi 10.1109/9.119632) as ZO-FC uses it (arXiv
2510.21019): Q two-sided queries over all given parameters at once, the estimate clipped by its norm, then the
optimiser's ordinary step.

What may surprise: SPSA only fills ``.grad``, so every optimiser of torch works on it; and where the two
orders differ, the head goes first and the adapter's loss is taken under the updated head, on the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edge_zofc.benchmarks.methods.heads import Head
from edge_zofc.benchmarks.methods.problem import Problem, TaskData

Order = Literal["first", "zeroth"]
Schedule = Literal["cosine", "quarter-cosine", "constant"]
Loss = Callable[[], Tensor]
MIN_LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Training:
    """How a method trains. ``head_lr`` None: ``lr``; ``head_epochs`` None: all epochs train the head too;
    ``part_from_epoch``: before it the adapter (prompt, LoRA) rests; ``clip_norm`` is for SPSA alone.
    "cosine" falls over half a period to 1e-5, "quarter-cosine" over a quarter to 1.6 % (CODA-Prompt's and InfLoRA's).
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


@dataclass(frozen=True)
class Trainee:
    """What is trained: ``represent`` maps pictures to (features, a term to add to the loss), ``loss`` maps
    features and class ids to the loss; ``part`` (adapter, LoRA, prompt) and ``head`` are their parameters.
    """

    represent: Callable[[Tensor], tuple[Tensor, Tensor | float]]
    loss: Callable[[Tensor, Tensor], Tensor]
    part: Sequence[nn.Parameter]
    head: Sequence[nn.Parameter]
    after_step: Callable[[], None] = lambda: None


def fit_with_head(
    problem: Problem,
    task: TaskData,
    how: Training,
    head: Head,
    part: Sequence[nn.Parameter],
    represent: Callable[[Tensor], tuple[Tensor, Tensor | float]],
    after_step: Callable[[], None] = lambda: None,
    new_rows: Tensor | None = None,
    also: tuple[int, ...] = (),
) -> list[float]:
    """Grow ``head`` by the task's classes and train it with ``part`` under the local loss; returns as ``fit``.

    ``represent`` as in ``Trainee``; ``new_rows`` and ``also`` as in ``Head.begin``.
    """
    head.begin(task.class_ids, task.classes_seen, new_rows, also)
    losses = fit(problem, task, Trainee(represent, head.loss, part, head.trained(), after_step), how)
    head.end()
    return losses


def fit(problem: Problem, task: TaskData, trainee: Trainee, how: Training) -> list[float]:
    """Train in place on one task; returns the mean loss of each epoch. Optimisers are made anew."""
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
        for images, labels in problem.training_batches(task, how.batch_size, epoch):
            directions = _Directions(problem.seed, task.index, step)
            loss = _step(
                problem, trainee, how, images, labels, directions,
                part_optimiser if train_part else None, head_optimiser if train_head else None,
            )  # fmt: skip
            trainee.after_step()
            total, count, step = total + loss * len(images), count + len(images), step + 1
        means.append(total / max(count, 1))
    return means


def _step(
    problem: Problem,
    trainee: Trainee,
    how: Training,
    images: Tensor,
    labels: Tensor,
    directions: _Directions,
    part_optimiser: torch.optim.Optimizer | None,
    head_optimiser: torch.optim.Optimizer | None,
) -> float:
    """One batch; returns its loss before the update."""

    def whole() -> Tensor:
        found, more = trainee.represent(images)
        return trainee.loss(found, labels) + more

    both = part_optimiser is not None and head_optimiser is not None
    if both and how.part_order == how.head_order:
        chosen = [*trainee.part, *trainee.head]
        loss = _gradient(problem, chosen, whole, how.part_order, how, directions, len(images))
        for optimiser in (part_optimiser, head_optimiser):
            assert optimiser is not None
            optimiser.step()
        return loss
    loss = math.nan
    if head_optimiser is not None:
        with torch.no_grad():
            found, more = trainee.represent(images)
        loss = _gradient(
            problem,
            trainee.head,
            lambda: trainee.loss(found, labels) + more,
            how.head_order,
            how,
            directions,
            0,
        )
        head_optimiser.step()
    if part_optimiser is not None:
        after = _gradient(problem, trainee.part, whole, how.part_order, how, directions, len(images))
        part_optimiser.step()
        loss = after if math.isnan(loss) else loss
    return loss


def _gradient(
    problem: Problem,
    parameters: Sequence[nn.Parameter],
    loss: Loss,
    order: Order,
    how: Training,
    directions: _Directions,
    differentiated: int,
) -> float:
    """Fill ``.grad``; returns the loss at the parameters (two-sided SPSA: the mean over its queries)."""
    if not parameters:
        with torch.no_grad():
            return float(loss())
    if order == "zeroth":
        return spsa(parameters, loss, how, directions)
    value = loss()
    found = torch.autograd.grad(value, list(parameters), allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient
    problem.cost.backwards += differentiated
    return float(value.detach())


class _Directions:
    """+-1 directions of one step, regenerated from (seed, task, step, query)."""

    def __init__(self, seed: int, task: int, step: int) -> None:
        self.key = (seed, task, step)

    def __call__(self, query: int, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        seed, task, step = self.key
        generator = torch.Generator().manual_seed((((seed * 1009 + task) << 24) + step) * 64 + query)
        return [torch.randint(0, 2, p.shape, generator=generator, dtype=p.dtype) * 2 - 1 for p in parameters]


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


def _set_rate(
    optimiser: torch.optim.Optimizer | None, lr: float, schedule: Schedule, epoch: int, epochs: int
) -> None:
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
