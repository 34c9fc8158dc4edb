"""The loss of nearest class means: by hand, against torch, and what its whitening and its moving means must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.algorithm.episodes import HELD_OUT, SHARPNESS, Prototypes, held_out, part_of
from edge_zofc.algorithm.heads import solve, within
from edge_zofc.algorithm.statistics import Statistics


def features_of(classes: int, each: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.RandomState(seed)
    centres = 3 * draw.randn(classes, width)
    labels = np.repeat(np.arange(classes), each)
    return (centres[labels] + draw.randn(classes * each, width)).astype(np.float32), labels


def statistics_of(features: np.ndarray, labels: np.ndarray, classes: int) -> Statistics:
    found = Statistics.empty(classes, features.shape[1])
    found.add(features, labels)
    return found


def plain(sums: list[list[float]], counts: list[int], sharpness: float) -> Prototypes:
    whitening = np.eye(len(sums[0]), dtype=np.float32)
    return Prototypes(whitening, np.array(sums, float), np.array(counts), sharpness)


def test_a_picture_is_compared_with_its_class_mean_without_itself() -> None:
    # Class 0 has pictures at 0 and 2: without the one at 0 its mean is 2. Class 1 has its mean at 4.
    prototypes = plain([[2.0], [8.0]], [2, 2], sharpness=1.0)
    loss = prototypes.losses(np.array([[[0.0]]], np.float32), np.array([0]))
    # Squared distances 4 to its own and 16 to the other.
    assert loss == pytest.approx([np.log(1 + np.exp(4 - 16))])


def test_a_query_is_compared_with_what_the_base_adds_to_its_mean() -> None:
    prototypes = plain([[2.0], [8.0]], [2, 2], sharpness=1.0)
    base, query = prototypes.losses(np.array([[[0.0]], [[1.0]]], np.float32), np.array([0]))
    assert query == pytest.approx(np.log(1 + np.exp(1 - 9)))
    assert query > base


def test_a_class_of_one_picture_has_that_picture_as_its_mean() -> None:
    prototypes = plain([[1.0], [8.0]], [1, 2], sharpness=1.0)
    assert prototypes.losses(np.array([[[0.0]]], np.float32), np.array([0])) == pytest.approx(
        [np.log(1 + np.exp(1 - 16))]
    )


def test_a_class_without_pictures_is_no_candidate() -> None:
    with_gap = plain([[2.0], [0.0], [8.0]], [2, 0, 2], sharpness=1.0)
    without = plain([[2.0], [8.0]], [2, 2], sharpness=1.0)
    features = np.array([[[0.5], [3.0]]], np.float32)
    assert np.array_equal(with_gap.losses(features, np.array([0, 2])), without.losses(features, np.array([0, 1])))


def test_the_whitening_is_that_of_the_solved_head() -> None:
    features, labels = features_of(5, 12, 8)
    statistics = statistics_of(features, labels, 5)
    whitened = features.astype(float) @ Prototypes.of(statistics).whitening
    means = statistics.sums @ Prototypes.of(statistics).whitening / 12
    by_distance = ((whitened[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    rows, biases = solve(statistics)
    assert np.array_equal(by_distance, (features @ rows.T + biases).argmax(axis=1))


def test_the_whitening_has_the_bits_of_an_inverse_at_once() -> None:
    """It is solved for 128 columns at a time: here by three parts."""
    features, labels = features_of(5, 20, 300)
    statistics = statistics_of(features, labels, 5)
    at_once = np.linalg.inv(np.linalg.cholesky(within(statistics))).T
    assert np.array_equal(Prototypes.of(statistics).whitening, at_once.astype(np.float32))


def test_sharpness_comes_from_the_mean_squared_distance_of_all_pictures_to_all_means() -> None:
    features, labels = features_of(4, 9, 6)
    prototypes = Prototypes.of(statistics_of(features, labels, 5))  # the fifth class has no picture
    whitened = features.astype(float) @ prototypes.whitening
    means = prototypes.sums[:4] / 9
    mean = ((whitened[:, None] - means) ** 2).sum(axis=2).mean()
    assert prototypes.sharpness == pytest.approx(SHARPNESS / mean, rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_losses_are_torchs(seed: int) -> None:
    features, labels = features_of(6, 7, 10, seed)
    prototypes = Prototypes.of(statistics_of(features, labels, 6))
    picked = np.array([0, 8, 9, 20, 41])
    moved = features[picked] + 0.1 * np.random.RandomState(9).randn(3, 5, 10).astype(np.float32)
    moved[0] = features[picked]
    found = prototypes.losses(moved, labels[picked])
    g = torch.tensor(moved).double() @ torch.tensor(prototypes.whitening).double()
    means, own = torch.tensor(prototypes.sums / 7), torch.tensor(labels[picked])
    without = (torch.tensor(prototypes.sums)[own] - g[0]) / 6
    for k in range(3):
        distances = torch.cdist(g[k], means) ** 2
        distances[torch.arange(5), own] = ((g[k] - without) ** 2).sum(dim=1)
        expected = torch.nn.functional.cross_entropy(-prototypes.sharpness * distances, own)
        assert found[k] == pytest.approx(float(expected), rel=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_absorbing_the_pictures_that_made_the_means_many_times_keeps_them(seed: int, classes: int) -> None:
    features, labels = features_of(classes, 4, 5, seed)
    prototypes = Prototypes.of(statistics_of(features, labels, classes))
    before = prototypes.sums.copy()
    for _ in range(30):
        prototypes.absorb(features, labels)
    scale = np.abs(before).max()
    # Each picture takes the place of an average one, so that the mean stays among its pictures.
    whitened = features.astype(float) @ prototypes.whitening
    for label in range(classes):
        of_class = whitened[labels == label]
        mean = prototypes.sums[label] / 4
        assert np.all(mean >= of_class.min(axis=0) - 1e-6 * scale)
        assert np.all(mean <= of_class.max(axis=0) + 1e-6 * scale)


def test_copies_of_one_picture_a_class_have_a_finite_loss() -> None:
    features = np.repeat(np.eye(3, 5, dtype=np.float32) / 3, 4, axis=0)
    prototypes = Prototypes.of(statistics_of(features, np.repeat(np.arange(3), 4), 3))
    losses = prototypes.losses(features[None, ::4], np.arange(3))
    assert np.isfinite(prototypes.whitening).all()
    assert 0 < losses[0] < np.log(3)


def test_means_follow_the_pictures() -> None:
    prototypes = plain([[2.0], [8.0]], [2, 2], sharpness=1.0)
    for _ in range(50):
        prototypes.absorb(np.array([[5.0]], np.float32), np.array([0]))
    assert prototypes.sums[0] / 2 == pytest.approx(5.0)
    assert prototypes.sums[1] == pytest.approx(8.0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_the_last_fifth_of_each_class_is_held_out(labels: list[int]) -> None:
    ids = np.array(labels)
    found = held_out(ids)
    for one in set(labels):
        of_class = found[ids == one]
        assert of_class.sum() == len(of_class) // 5
        assert np.array_equal(of_class, np.sort(of_class))


@given(st.lists(st.integers(0, 4), max_size=60))
def test_the_parts_of_a_class_are_neighbours_and_differ_by_a_picture_at_most(labels: list[int]) -> None:
    found, given_labels = part_of(np.array(labels, np.int64)), np.array(labels, np.int64)
    assert len(found) == len(labels)
    for one in set(labels):
        mine = found[given_labels == one]
        assert (np.diff(mine) >= 0).all()
        sizes = np.bincount(mine, minlength=HELD_OUT)
        assert len(sizes) == HELD_OUT
        assert sizes.max() - sizes.min() <= 1
