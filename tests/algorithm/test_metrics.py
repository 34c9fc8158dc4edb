"""Metrics: a matrix of three tasks, properties that hold for every run, and streams without tests."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.algorithm.metrics import FORGETTING_DEFINITION, mean_per_class_accuracy, summarise

# Three tasks of 10, 10 and 20 test pictures; task 0 is best at stage 1, so the definitions differ.
CORRECT = [[8], [9, 6], [5, 7, 10]]
TOTAL = [10, 10, 20]


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    total = draw(st.lists(st.integers(0, 20), min_size=1, max_size=6))
    rows = [[draw(st.integers(0, total[j])) for j in range(i + 1)] for i in range(len(total))]
    return rows, total


def test_three_tasks_worked_out_by_hand() -> None:
    summary = summarise(CORRECT, TOTAL)
    assert summary.accuracy_matrix == ((0.8,), (0.9, 0.6), (0.5, 0.7, 0.5))
    assert summary.stage_accuracy == (0.8, 0.75, 0.55)  # 8/10, 15/20, 22/40
    assert summary.average_accuracy == pytest.approx(0.7)
    assert summary.last_accuracy == 0.55
    # Task 0 loses 0.9 - 0.5, task 1 ends at its best: PILOT's mean is 0.2 (Avalanche's would be 0.1).
    assert summary.forgetting == pytest.approx(0.2)
    assert summary.backward_transfer == pytest.approx(((0.5 - 0.8) + (0.7 - 0.6)) / 2)


def test_one_task_has_an_accuracy_but_nothing_to_forget() -> None:
    summary = summarise([[3]], [4])
    assert (summary.average_accuracy, summary.last_accuracy) == (0.75, 0.75)
    assert summary.forgetting is None
    assert summary.backward_transfer is None


def test_a_task_without_test_pictures_is_left_out_and_not_counted_as_zero() -> None:
    summary = summarise([[0], [0, 4], [0, 2, 3]], [0, 4, 3])
    assert summary.accuracy_matrix == ((None,), (None, 1.0), (None, 0.5, 1.0))
    assert summary.stage_accuracy == (None, 1.0, 5 / 7)
    assert summary.average_accuracy == pytest.approx((1 + 5 / 7) / 2)
    assert summary.forgetting == 0.5
    assert summary.backward_transfer == -0.5


def test_a_stream_without_test_pictures_has_no_accuracy() -> None:
    summary = summarise([[0], [0, 0]], [0, 0])
    assert summary.average_accuracy is None
    assert summary.last_accuracy is None
    assert summary.forgetting is None


def test_no_task_yet_is_a_summary_of_nothing() -> None:
    summary = summarise([], [])
    assert summary.accuracy_matrix == ()
    assert summary.average_accuracy is None


@given(runs())
def test_forgetting_is_never_negative_and_bounds_backward_transfer(run: tuple[list[list[int]], list[int]]) -> None:
    summary = summarise(*run)
    if summary.forgetting is None:
        assert summary.backward_transfer is None
        return
    assert summary.backward_transfer is not None
    assert 0 <= summary.forgetting <= 1
    # The first accuracy is at most the best one.
    assert -summary.forgetting - 1e-12 <= summary.backward_transfer <= 1


@given(runs())
def test_every_accuracy_is_a_fraction_and_survives_json(run: tuple[list[list[int]], list[int]]) -> None:
    summary = summarise(*run)
    numbers = [value for row in summary.accuracy_matrix for value in row]
    numbers += [*summary.stage_accuracy, summary.average_accuracy, summary.last_accuracy]
    assert all(value is None or 0 <= value <= 1 for value in numbers)
    text = json.dumps(asdict(summary), allow_nan=False)
    assert json.loads(text)["average_accuracy"] == summary.average_accuracy


@given(runs(), st.integers(2, 5))
def test_more_copies_of_every_picture_change_nothing(run: tuple[list[list[int]], list[int]], copies: int) -> None:
    correct, total = run
    many = summarise([[copies * n for n in row] for row in correct], [copies * n for n in total])
    assert many == summarise(correct, total)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6))
def test_a_learner_that_never_changes_forgets_nothing(right: list[int]) -> None:
    rows = [right[: i + 1] for i in range(len(right))]
    summary = summarise(rows, [9] * len(right))
    assert summary.forgetting == 0
    assert summary.backward_transfer == 0


@given(runs())
def test_forgetting_equals_the_column_maximum_of_a_full_matrix(run: tuple[list[list[int]], list[int]]) -> None:
    """The reference: the definition as array code, with the upper triangle at zero as mammoth has it."""
    correct, total = run
    tested = [j for j in range(len(total) - 1) if total[j]]
    full = np.zeros((len(total), len(total)))
    for i, row in enumerate(correct):
        full[i, : i + 1] = [n / total[j] if total[j] else 0 for j, n in enumerate(row)]
    summary = summarise(correct, total)
    if not tested:
        assert summary.forgetting is None
        return
    assert summary.forgetting == pytest.approx(float(np.mean((full.max(axis=0) - full[-1])[tested])))
    assert summary.backward_transfer == pytest.approx(float(np.mean((full[-1] - full.diagonal())[tested])))


def test_small_classes_weigh_as_much_as_large_ones() -> None:
    assert mean_per_class_accuracy([90, 0], [100, 1]) == 0.45
    assert mean_per_class_accuracy([90, 0, 0], [100, 1, 0]) == 0.45
    assert mean_per_class_accuracy([0], [0]) is None
    assert mean_per_class_accuracy([], []) is None


def test_the_forgetting_definition_names_its_source() -> None:
    assert "PILOT" in FORGETTING_DEFINITION
    assert "mammoth" in FORGETTING_DEFINITION


@pytest.mark.parametrize(
    ("correct", "total"),
    [([[1, 1]], [1]), ([[1]], [1, 1]), ([[1], [1]], [1, 1]), ([[2]], [1]), ([[-1]], [1]), ([[1]], [0])],
)
def test_counts_that_no_run_can_have_are_refused(correct: list[list[int]], total: list[int]) -> None:
    with pytest.raises(ValueError, match=r"right answers|triangle"):
        summarise(correct, total)


def test_counts_by_class_that_no_run_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="classes"):
        mean_per_class_accuracy([1], [1, 1])
    with pytest.raises(ValueError, match="right answers"):
        mean_per_class_accuracy([3], [2])


def test_a_count_that_was_not_measured_is_none_and_leaves_the_stage_to_the_others() -> None:
    found = summarise([[4], [None, 2]], [4, 4])
    assert found.accuracy_matrix == ((1.0,), (None, 0.5))
    assert found.stage_accuracy == (1.0, 0.5)
    assert found.forgetting is None
    assert found.backward_transfer is None
