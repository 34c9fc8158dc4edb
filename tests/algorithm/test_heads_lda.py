"""The closed-form head: small cases, scikit-learn as the reference, and no sum over more than is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.algorithm.heads import Collector, Statistics, shrunk, solve


def collected(features: np.ndarray, labels: np.ndarray, classes: int) -> Statistics:
    collector = Collector(classes, features.shape[1])
    collector.add(features.astype(np.float32), labels)
    return collector.statistics()


def clouds(seed: int = 0, classes: int = 4, each: int = 40, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds with one correlated covariance."""
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(size, size))
    means = 2 * generator.normal(size=(classes, size))
    labels = np.repeat(np.arange(classes), each)
    return (means[labels] + generator.normal(size=(len(labels), size)) @ mix).astype(np.float32), labels


def test_two_points_a_class_by_hand() -> None:
    """Means (1, 0) and (-1, 0), scatter diag(0, 4) over 2 degrees of freedom: S = diag(0, 2), OAS rho = 1."""
    features = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    found = collected(features, np.array([0, 0, 1, 1]), 2)
    assert found.scatter.tolist() == [[0.0, 0.0], [0.0, 4.0]]
    assert np.allclose(shrunk(found.scatter / 2, 2), np.eye(2), atol=1e-5)
    rows, biases = solve(found)
    assert np.allclose(rows, [[1.0, 0.0], [-1.0, 0.0]], atol=1e-5)
    assert np.allclose(biases, [-0.5, -0.5], atol=1e-5)


def test_shrinkage_and_predictions_are_scikit_learns() -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    features, labels = clouds()
    means = np.stack([features[labels == c].mean(0) for c in range(4)])
    centred = (features - means[labels]).astype(np.float64)
    expected, _ = covariance.oas(centred, assume_centered=True)
    ours = shrunk(centred.T @ centred / len(centred), len(centred))
    # scikit-learn leaves out the two terms 2 / D of the published formula (its documentation says so).
    assert np.allclose(ours, expected, rtol=0.02, atol=0.01)
    rows, biases = solve(collected(features, labels, 4))
    guesses = (features @ rows.T + biases).argmax(1)
    inverse = np.linalg.inv(expected)
    distances = [np.einsum("nd,de,ne->n", features - mean, inverse, features - mean) for mean in means]
    assert (guesses == np.argmin(distances, axis=0)).mean() > 0.99


@given(st.integers(1, 150))
def test_adding_in_parts_is_adding_at_once(cut: int) -> None:
    features, labels = clouds()
    collector = Collector(4, 6)
    for part in (slice(0, cut), slice(cut, None)):
        collector.add(features[part], labels[part])
    whole, parts = collected(features, labels, 4), collector.statistics()
    assert np.allclose(whole.sums, parts.sums)
    assert np.allclose(whole.scatter, parts.scatter)
    assert whole.counts.tolist() == parts.counts.tolist() == [40] * 4


def test_tasks_add_up_and_new_classes_are_appended() -> None:
    features, labels = clouds()
    early, late = labels < 2, labels >= 2
    both = collected(features[early], labels[early], 2).plus(collected(features[late], labels[late], 4))
    whole = collected(features, labels, 4)
    assert np.allclose(both.scatter, whole.scatter)
    assert np.allclose(solve(both)[0], solve(whole)[0], rtol=1e-3, atol=1e-4)


def test_a_class_without_pictures_is_never_named_and_one_picture_is_enough_for_finite_rows() -> None:
    rows, biases = solve(collected(np.ones((1, 5)), np.array([1]), 3))
    assert np.isfinite(rows).all()
    assert np.isfinite(biases).all()
    assert (np.ones(5) @ rows.T + biases).argmax() == 1
