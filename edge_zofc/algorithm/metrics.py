"""Counts of right answers -> the numbers that continual learning is judged by.

``a[i][j]`` is the accuracy on task j's test pictures after task i was learnt, predicted over every class seen so far,
for j <= i. Definitions differ between papers, so each number names its own. What was not tested, or no task supports,
is ``None``, never 0 or NaN, and is left out of every mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FORGETTING_DEFINITION = (
    "mean over all tasks but the last of (max over all stages of a[stage][task]) - a[last][task]; "
    "PILOT's and mammoth's definition"
)
"""For reports: Avalanche (first - last) and Chaudhry et al. (max before the last stage) define others."""


@dataclass(frozen=True)
class Summary:
    """Metrics of a run after T tasks; every accuracy is a fraction from 0 to 1, None where undefined.

    accuracy_matrix: T rows, row i with the i + 1 entries a[i][0..i].
    stage_accuracy: T entries, right answers / test pictures over all tasks seen at that stage.
    average_accuracy: "Average" (A-bar): mean of stage_accuracy.
    last_accuracy: "Last" (A_B): the last entry of stage_accuracy.
    forgetting: see FORGETTING_DEFINITION; never negative.
    backward_transfer: mean over all tasks but the last of a[last][task] - a[task][task]
        (Lopez-Paz and Ranzato, "Gradient Episodic Memory", 2017, BWT); negative where tasks are forgotten.
    """

    accuracy_matrix: tuple[tuple[float | None, ...], ...]
    stage_accuracy: tuple[float | None, ...]
    average_accuracy: float | None
    last_accuracy: float | None
    forgetting: float | None
    backward_transfer: float | None


def summarise(correct: Sequence[Sequence[int | None]], total: Sequence[int]) -> Summary:
    """Metrics from ``correct[i][j]``, right answers on task j after task i (row i has i + 1 entries), and
    ``total[j]``, test pictures of task j.

    A count of None was not measured (the task's pictures were gone at that stage). A task that was not measured at the
    last stage has no forgetting.

    Raises ValueError if the rows are not a triangle over ``total`` or a count is outside 0..total[j].
    """
    if [len(row) for row in correct] != list(range(1, len(total) + 1)):
        raise ValueError(f"rows of {[len(row) for row in correct]} entries are no triangle over {len(total)} tasks")
    for row in correct:
        _check_counts(row, total[: len(row)])
    matrix = tuple(tuple(_ratio(right, total[j]) for j, right in enumerate(row)) for row in correct)
    stages = tuple(_stage(row, total) for row in correct)
    pairs = ((matrix[-1][task], matrix[task][task]) for task in range(len(total) - 1))
    return Summary(
        accuracy_matrix=matrix,
        stage_accuracy=stages,
        average_accuracy=_mean(stages),
        last_accuracy=stages[-1] if stages else None,
        forgetting=_mean(task_forgetting(matrix)),
        backward_transfer=_mean(last - first for last, first in pairs if last is not None and first is not None),
    )


def task_forgetting(matrix: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Best accuracy over all stages minus the last one, for every task but the last; None where not measured."""
    lost: list[float | None] = []
    for task, last in enumerate(matrix[-1][:-1] if matrix else []):
        seen = [value for row in matrix[task:] if (value := row[task]) is not None]
        lost.append(None if last is None else max(seen) - last)
    return lost


def mean_per_class_accuracy(correct_by_class: Sequence[int], total_by_class: Sequence[int]) -> float | None:
    """Mean over classes of right answers / test pictures: a large class weighs no more than a small one.

    Classes without test pictures are left out. Raises ValueError if the lengths differ or a count is outside 0..total.
    """
    if len(correct_by_class) != len(total_by_class):
        raise ValueError(f"{len(correct_by_class)} counts for {len(total_by_class)} classes")
    _check_counts(correct_by_class, total_by_class)
    return _mean(map(_ratio, correct_by_class, total_by_class))


def _check_counts(correct: Sequence[int | None], total: Sequence[int]) -> None:
    for right, count in zip(correct, total, strict=True):
        if right is not None and not 0 <= right <= count:
            raise ValueError(f"{right} right answers of {count}")


def _stage(row: Sequence[int | None], total: Sequence[int]) -> float | None:
    measured = [(right, count) for right, count in zip(row, total, strict=False) if right is not None]
    return _ratio(sum(right for right, _ in measured), sum(count for _, count in measured))


def _ratio(right: int | None, count: int) -> float | None:
    return right / count if count and right is not None else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
