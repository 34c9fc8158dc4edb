"""What many devices measured, as one."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.algorithm.aggregation import Aggregate, aggregated, bounded

HOW = get_args(Aggregate)


@pytest.mark.parametrize(("how", "wanted"), [("mean", 22.0), ("median", 3.0), ("trimmed", 3.0)])
def test_five_devices_of_which_one_is_far_off(how: Aggregate, wanted: float) -> None:
    rows = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])
    assert aggregated(rows, how).tolist() == [wanted]


def test_a_value_is_bounded_by_three_times_the_lower_median_of_all_sizes() -> None:
    rows = np.array([[1.0, -2.0], [1e30, -1e30]])
    assert bounded(rows, whole=False).tolist() == [[1.0, -2.0], [6.0, -6.0]]


def test_a_gradient_is_bounded_as_a_whole_and_keeps_its_direction() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 5.0], [3e30, 4e30]])
    found = bounded(rows, whole=True)
    assert found[:2].tolist() == rows[:2].tolist()
    assert np.allclose(found[2], [9.0, 12.0])


def test_nothing_at_all_stays_nothing() -> None:
    for whole in (True, False):
        assert not bounded(np.zeros((3, 4)), whole).any()


@given(
    st.lists(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=3, max_size=3), min_size=1, max_size=9),
    st.randoms(),
)
def test_the_order_of_devices_is_nothing_and_all_stays_finite(rows: list[list[float]], random: object) -> None:
    values = np.array(rows)
    order = np.array(sorted(range(len(rows)), key=lambda i: random.random()))  # type: ignore[attr-defined]
    for how in HOW:
        for whole in (True, False):
            found = aggregated(bounded(values, whole), how)
            assert found.dtype == np.float32 and np.isfinite(found).all()
            assert found.tobytes() == aggregated(bounded(values[order], whole), how).tobytes()


@given(st.integers(3, 20), st.data())
def test_fewer_than_half_of_the_devices_move_nothing_beyond_the_bound(devices: int, data: st.DataObject) -> None:
    """However large they send, the result is within three times an honest size."""
    hostile = data.draw(st.integers(0, (devices - 1) // 2))
    rows = np.ones((devices, 4))
    rows[:hostile] = data.draw(st.sampled_from([1e38, -1e38]))
    for how in HOW:
        assert np.abs(aggregated(bounded(rows, whole=False), how)).max() <= 3.0
    if how == "median":
        assert aggregated(bounded(rows, whole=False), how).tolist() == [1.0] * 4
