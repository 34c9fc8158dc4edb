"""Two learners on the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edge_zofc.algorithm.paired import chance, gain, is_worse


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


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [(0, 0, 1.0), (1, 0, 1 / 2), (3, 0, 1 / 8), (5, 0, 1 / 32), (2, 1, 1 / 2), (4, 1, 6 / 32), (0, 3, 1.0)],
)
def test_the_chance_of_a_loss_is_that_of_as_many_heads_or_more(
    only_first: int, only_second: int, expected: float
) -> None:
    """Of three pictures: all three lost one time in eight."""
    assert chance(only_first, only_second) == expected


def test_the_chance_of_thousands_of_pictures_is_a_number() -> None:
    assert 0 < chance(2100, 1900) < 0.001 < chance(2020, 1980) < 0.5
