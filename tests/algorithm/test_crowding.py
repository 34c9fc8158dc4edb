"""crowding.py: how close together classes stand, whatever their order and however few pictures they have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.algorithm import crowding as module
from edge_zofc.algorithm.crowding import crowding, crowding_of
from edge_zofc.algorithm.heads import unit
from edge_zofc.algorithm.statistics import Statistics


def of(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """From features float64 [n, D], whatever their length, and class ids int64 [n]."""
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, unit(features))
    return crowding(sums, np.bincount(labels, minlength=classes))


def test_two_classes_at_60_degrees_are_half_alike() -> None:
    ray = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
    assert of(np.repeat(ray, 3, axis=0), np.repeat([0, 1], 3), 2) == 0.5


def test_a_class_counts_by_the_one_most_like_it() -> None:
    """Two that are the same, and one apart from both: 1, 1 and 0."""
    rays = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert of(np.repeat(rays, 2, axis=0), np.repeat([0, 1, 2], 2), 3) == pytest.approx(2 / 3, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 6))
def test_neither_order_nor_length_nor_rotation_of_features_counts(seed: int, classes: int, each: int) -> None:
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    features = draw.normal(size=(classes, 5))[labels] + draw.normal(size=(len(labels), 5))
    found = of(features, labels, classes)
    assert -1.0 <= found <= 1.0
    order = draw.permutation(len(labels))
    turned = np.linalg.qr(draw.normal(size=(5, 5)))[0]
    longer = features * draw.uniform(0.1, 10, (len(labels), 1))
    renamed = draw.permutation(classes)
    for other in (of(features[order], labels[order], classes), of(features @ turned, labels, classes)):
        assert other == pytest.approx(found, abs=2e-4)
    assert of(longer, renamed[labels], classes) == pytest.approx(found, abs=2e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_classes_of_few_pictures_do_not_look_unlike(seed: int) -> None:
    """The plain cosine of the means of 5 such pictures is 0.65, that of 200 is 0.81."""
    draw = np.random.default_rng(seed)
    kinds = unit(draw.normal(size=(1, 400)) + 0.5 * draw.normal(size=(12, 400)))
    found = []
    for each in (5, 200):
        labels = np.repeat(np.arange(12), each)
        found.append(of(kinds[labels] + 0.06 * draw.normal(size=(len(labels), 400)), labels, 12))
    assert found[0] == pytest.approx(found[1], abs=0.1)


def test_classes_of_one_picture_are_left_out_and_one_class_is_as_close_as_can_be() -> None:
    rays = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert of(rays, np.array([0, 0, 1, 1, 2]), 4) == 0.0
    assert of(rays[:3], np.array([0, 0, 1]), 2) == 1.0
    assert crowding(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0


def test_classes_whose_pictures_have_nothing_in_common_are_as_close_as_can_be() -> None:
    """Their means say nothing, so the steps decide."""
    assert of(np.array([[1.0, 0.1], [-1.0, 0.1], [1.0, 0.1], [-1.0, 0.1]]), np.array([0, 0, 1, 1]), 2) == 1.0


def test_many_classes_are_compared_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    labels = np.repeat(np.arange(23), 3)
    features = draw.normal(size=(69, 4))
    whole = of(features, labels, 23)
    monkeypatch.setattr(module, "_ROWS", 4)
    assert of(features, labels, 23) == whole


def statistics_of(features: np.ndarray, labels: np.ndarray, classes: int) -> Statistics:
    found = Statistics.empty(classes, features.shape[1])
    found.add(features.astype(np.float32), labels)
    return found


def test_a_heads_statistics_say_the_same_of_two_classes_at_60_degrees_whose_lengths_differ() -> None:
    """No spread at all, and lengths of 1 and 4."""
    ray = np.array([[1.0, 0.0], [2.0, 2 * np.sqrt(3.0)]])
    assert crowding_of(statistics_of(np.repeat(ray, 3, axis=0), np.repeat([0, 1], 3), 2)) == pytest.approx(
        0.5, abs=1e-3
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_a_heads_statistics_say_nearly_what_single_features_say(seed: int) -> None:
    """12 classes of 8 pictures whose lengths vary by a seventh, as those of an EfficientNet do."""
    draw = np.random.default_rng(seed)
    kinds = unit(draw.normal(size=(1, 400)) + draw.uniform(0.3, 2) * draw.normal(size=(12, 400)))
    labels = np.repeat(np.arange(12), 8)
    features = unit(kinds[labels] + 0.04 * draw.normal(size=(len(labels), 400)))
    longer = 20 * features * draw.normal(1, 1 / 7, (len(labels), 1))
    assert crowding_of(statistics_of(longer, labels, 12)) == pytest.approx(of(features, labels, 12), abs=0.03)


def test_a_heads_statistics_without_two_classes_of_two_pictures_are_as_close_as_can_be() -> None:
    ray = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert crowding_of(statistics_of(ray, np.array([0, 1, 1]), 3)) == 1.0
    assert crowding_of(statistics_of(ray[:2], np.array([0, 1]), 2)) == 1.0
    assert crowding_of(Statistics.empty(0, 2)) == 1.0
