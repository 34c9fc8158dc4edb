"""Likeness, the limit below which a picture is unknown, and classes that look alike."""

from __future__ import annotations

import numpy as np
import pytest

from edge_zofc.algorithm.likeness import WITHOUT, Likeness, lookalikes, unknown_limit
from edge_zofc.algorithm.statistics import Statistics


def statistics(*classes: np.ndarray) -> Statistics:
    found = Statistics.empty(len(classes), classes[0].shape[1], moment=False)
    for label, features in enumerate(classes):
        found.add(features.astype(np.float32), np.full(len(features), label, np.int64))
    return found


def test_likeness_is_the_cosine_to_each_class_mean_and_minus_one_to_a_class_without_pictures() -> None:
    known = statistics(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[0.0, 2.0]]), np.zeros((0, 2)))
    found = Likeness(known).to_classes(np.array([[3.0, 4.0]], np.float32))
    assert found == pytest.approx(np.array([[0.6, 0.8, -1.0]]))


def test_a_picture_is_measured_against_its_class_without_its_own_group() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    likeness = Likeness(statistics(rows, np.array([[1.0, 0.0]])))
    groups = [(0, rows[:2], True), (0, rows[2:], True)]
    found, pairs = likeness.left_out(groups)
    assert found == pytest.approx([0.0, 0.0, 0.0])  # the first two against the third alone, and the other way round
    assert pairs.tolist() == [[0, 1], [0, 1], [0, 0]]


def test_a_group_that_is_all_of_its_class_says_nothing_and_one_that_is_kept_back_is_not_taken_out() -> None:
    rows = np.array([[1.0, 0.0]], np.float32)
    likeness = Likeness(statistics(rows))
    assert len(likeness.left_out([(0, rows, True)])[0]) == 0
    assert likeness.left_out([(0, np.array([[3.0, 4.0]], np.float32), False)])[0] == pytest.approx([0.6])


def test_the_limit_is_a_part_of_the_median_once_there_are_five() -> None:
    assert unknown_limit(np.array([0.8] * 4)) == WITHOUT
    assert unknown_limit(np.array([0.1, 0.6, 0.8, 0.9, 1.0])) == pytest.approx(0.6)


def test_classes_look_alike_where_three_pictures_and_a_third_of_them_are_nearer_to_the_other() -> None:
    pairs = np.array([[0, 1]] * 3 + [[0, 0]] * 4 + [[1, 0]] * 2 + [[1, 1]] + [[2, 0]] * 3 + [[2, 2]] * 17)
    assert lookalikes(pairs) == {0: 1}
    assert lookalikes(np.zeros((0, 2), np.int64)) == {}
