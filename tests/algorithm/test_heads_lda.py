"""The closed-form head: small cases, scikit-learn as the reference, and no sum over more than is kept."""

import numpy as np
import pytest
from clouds import clouds, collected

from edge_zofc.algorithm.heads import shrunk, solve
from edge_zofc.algorithm.statistics import Statistics


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


def test_pictures_added_singly_have_the_scatter_of_those_added_at_once() -> None:
    features, labels = clouds()
    single = Statistics.empty(4, 6)
    for row, label in zip(features, labels, strict=True):
        single = single.plus(collected(row[None], np.array([label]), 4))
    whole = collected(features, labels, 4)
    assert np.trace(whole.scatter) > 100
    assert np.array_equal(solve(single)[0], solve(whole)[0])


@pytest.mark.parametrize("size", [192, 768])
@pytest.mark.parametrize("copies", [1, 2, 3, 5, 20])
def test_copies_of_one_picture_a_class_are_named_right(size: int, copies: int) -> None:
    """FAULTS A5: the scatter is rounding noise alone."""
    pictures = np.random.default_rng(copies).normal(size=(10, size)).astype(np.float32)
    labels = np.repeat(np.arange(10), copies)
    rows, biases = solve(collected(pictures[labels], labels, 10))
    logits = pictures @ rows.T + biases
    assert (logits.argmax(axis=1) == np.arange(10)).all()
    assert np.abs(logits).max() < 1e6
