"""Two learners on the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edge_zofc.algorithm.paired import gain, is_worse


def test_the_gain_is_the_difference_of_the_accuracies() -> None:
    value, low, high = gain(only_first=10, only_second=30, pictures=400)
    assert value == 0.05
    assert low < 0.05 < high
    assert (low + high) / 2 == pytest.approx(0.05)


def test_without_pictures_nothing_is_gained() -> None:
    assert gain(0, 0, 0) == (0.0, 0.0, 0.0)


def test_the_interval_holds_the_true_gain_95_times_of_100() -> None:
    draw = np.random.RandomState(0)
    # First alone right 10 %, second alone 16 %, of 300 pictures.
    counts = draw.multinomial(300, [0.10, 0.16, 0.74], size=4000)
    inside = [low <= 0.06 <= high for _, low, high in (gain(int(a), int(b), 300) for a, b, _ in counts)]
    assert 0.93 < np.mean(inside) < 0.97


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [(0, 0, False), (1, 0, False), (2, 0, True), (10, 6, False), (11, 6, True), (6, 11, False)],
)
def test_worse_is_worse_by_more_than_a_standard_error(only_first: int, only_second: int, expected: bool) -> None:
    assert is_worse(only_first, only_second) == expected
