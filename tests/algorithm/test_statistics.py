"""Running sums: the same bits in any order and portions, in half the bytes of the matrix that they stand for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from clouds import clouds, collected
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.heads import solve
from edge_zofc.algorithm.statistics import GRID, Statistics


@given(st.integers(1, 150))
def test_adding_in_parts_is_adding_at_once(cut: int) -> None:
    features, labels = clouds()
    parts = Statistics.empty(4, 6)
    for part in (slice(0, cut), slice(cut, None)):
        parts.add(features[part], labels[part])
    whole = collected(features, labels, 4)
    assert np.allclose(whole.sums, parts.sums)
    assert np.allclose(whole.scatter, parts.scatter)
    assert whole.counts.tolist() == parts.counts.tolist() == [40] * 4


def bits(found: Statistics) -> tuple[bytes, ...]:
    return found.sums.tobytes(), found.counts.tobytes(), found.moment.tobytes()


@given(st.permutations(range(40)), st.lists(st.integers(1, 39), max_size=5, unique=True))
def test_any_order_and_any_portions_give_the_same_bits(order: list[int], cuts: list[int]) -> None:
    """FAULTS A6: pictures added singly, classes that come back, devices that are merged."""
    features, labels = clouds(each=10, size=16)
    whole, merged = collected(features, labels, 4), Statistics.empty(0, 16)
    for part in np.split(np.array(order), sorted(cuts)):
        merged = merged.plus(collected(features[part], labels[part], 4))
    assert bits(merged) == bits(whole)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 60), min_size=3, max_size=3))
def test_adding_is_associative_and_commutative_and_subtracting_undoes_it(seed: int, sizes: list[int]) -> None:
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.uniform(-3, 2)
    a, b, c = (collected(scale * generator.normal(size=(size, 8)), generator.integers(0, 5, size), 5) for size in sizes)
    assert bits(a.plus(b).plus(c)) == bits(a.plus(b.plus(c)))
    assert bits(a.plus(b)) == bits(b.plus(a))
    assert bits(a.plus(b).minus(b)) == bits(a)


def test_what_an_earlier_version_kept_is_taken_over() -> None:
    """Format 1 kept the scatter, added up task by task, and sums that were not rounded."""
    features, labels = clouds()
    sums, counts = np.zeros((4, 6)), np.bincount(labels)
    np.add.at(sums, labels, features.astype(np.float64))
    means = sums / counts[:, None]
    centred = features - means[labels]
    old, new = Statistics.from_scatter(sums, counts, centred.T @ centred), collected(features, labels, 4)
    assert np.array_equal(np.rint(old.sums / GRID), old.sums / GRID)
    assert np.allclose(solve(old)[0], solve(new)[0], rtol=1e-2, atol=1e-3)
    assert bits(old.plus(new).minus(new)) == bits(old)


def test_the_scatter_is_the_moment_without_what_lies_between_classes() -> None:
    features, labels = clouds(size=130)  # three slabs
    found = collected(features, labels, 4)
    rounded = np.rint(features.astype(np.float64) / GRID) * GRID
    means = np.stack([rounded[labels == one].mean(axis=0) for one in range(4)])
    centred = rounded - means[labels]
    assert np.allclose(found.scatter, centred.T @ centred, atol=1e-8)
    assert found.moment_trace == (rounded * rounded).sum()


def test_adding_pictures_takes_less_memory_than_a_matrix() -> None:
    found = Statistics.empty(2, 1000)
    features, labels = np.ones((4, 1000), np.float32), np.array([0, 1, 1, 0])
    tracemalloc.start()
    try:
        found.add(features, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1000**2 / 8


def test_without_memory_nothing_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate takes out what was counted in, and no more."""
    features, labels = clouds(size=130)
    found, before = collected(features, labels, 4), collected(features, labels, 4)

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(symmetric.np, "empty", no_memory)
    with pytest.raises(MemoryError):
        found.add(features, labels)
    assert bits(found) == bits(before)
