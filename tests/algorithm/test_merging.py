"""Statistics of many devices as one: the same bits in any order, and without a device that was taken out again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shares import NAMES, seen

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.merging import Merging, capped
from edge_zofc.algorithm.statistics import GRID, Statistics

SIZE = 5
Result = tuple[tuple[str, ...], Statistics]


def pictures(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.RandomState(seed)
    return draw.randn(count, SIZE).astype(np.float32), draw.randint(0, len(NAMES), count)


def merged(parts: list[Result]) -> Result:
    merging = Merging(SIZE)
    for part in parts:
        merging.add(*part)
    return merging.result()


def same(one: Result, other: Result) -> bool:
    return one[0] == other[0] and all(
        getattr(one[1], field).tobytes() == getattr(other[1], field).tobytes() for field in ("sums", "counts", "moment")
    )


def one_collector(features: np.ndarray, labels: np.ndarray) -> Result:
    """One process that saw all pictures, whose ids go by the classes' names."""
    names = tuple(sorted({NAMES[label] for label in labels.tolist()}))
    statistics = Statistics.empty(len(names), SIZE)
    statistics.add(features, np.array([names.index(NAMES[label]) for label in labels.tolist()], np.int64))
    return names, statistics


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 12), min_size=1, max_size=6), st.randoms())
def test_any_order_of_any_devices_is_one_process_that_saw_all_pictures(
    seed: int, sizes: list[int], order: object
) -> None:
    features, labels = pictures(seed, sum(sizes))
    cuts = np.cumsum(sizes)[:-1]
    parts = [seen(f, n) for f, n in zip(np.split(features, cuts), np.split(labels, cuts), strict=True)]
    order.shuffle(parts)  # type: ignore[attr-defined]
    assert same(merged(parts), one_collector(features, labels))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_merging_is_associative(seed: int, sizes: tuple[int, int, int]) -> None:
    """A gateway may merge some shares and pass one on."""
    a, b, c = (seen(*pictures(seed + i, size)) for i, size in enumerate(sizes))
    assert same(merged([merged([a, b]), c]), merged([a, merged([b, c])]))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 20))
def test_a_device_that_is_taken_out_leaves_no_bit_behind(seed: int, kept: int, gone: int) -> None:
    stays, leaves = seen(*pictures(seed, kept)), seen(*pictures(seed + 1, gone))
    merging = Merging(SIZE)
    merging.add(*leaves)
    merging.add(*stays)
    merging.add(*leaves, times=-1)
    assert same(merging.result(), merged([stays]))


def test_classes_of_one_name_are_one_whatever_ids_devices_give_them() -> None:
    one = Statistics(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1, 2]), symmetric.pack(np.eye(2)))
    other = Statistics(np.array([[0.0, 3.0]]), np.array([3]), symmetric.pack(np.eye(2)))
    merging = Merging(2)
    merging.add(("pot", "cup"), one)
    merging.add(("cup",), other)
    names, found = merging.result()
    assert names == ("cup", "pot")
    assert found.sums.tolist() == [[0.0, 5.0], [1.0, 0.0]]
    assert found.counts.tolist() == [5, 1]
    assert symmetric.unpack(found.moment, 2).tolist() == [[2.0, 0.0], [0.0, 2.0]]


def test_a_device_below_the_cap_stays_as_it_is() -> None:
    _, statistics = seen(*pictures(0, 40))
    assert capped(statistics, 40.0) is statistics


def test_a_device_above_the_cap_counts_as_one_with_fewer_pictures() -> None:
    features, labels = pictures(0, 4000)
    _, whole = seen(features, labels)
    found = capped(whole, 400.0)
    assert abs(int(found.counts.sum()) - 400) <= len(NAMES)
    assert found.sums / found.counts[:, None] == pytest.approx(whole.sums / whole.counts[:, None], abs=GRID)
    assert found.scatter == pytest.approx(whole.scatter / 10, abs=0.1)
    for values, step in ((found.sums, GRID), (found.moment, GRID**2)):
        assert np.array_equal(np.rint(values / step) * step, values), "such sums do not add up without error"


def test_a_capped_device_keeps_a_picture_of_each_class() -> None:
    features = np.ones((1001, SIZE), np.float32)
    _, whole = seen(features, np.array([0] * 1000 + [1]))
    assert capped(whole, 10.0).counts.tolist() == [10, 1]
