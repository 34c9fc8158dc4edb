"""Old classes' statistics follow an adapter by an affine map."""

from __future__ import annotations

import numpy as np

from edge_zofc.algorithm.statistics import GRID, Statistics
from edge_zofc.benchmarks.methods.drift import Drift

WIDTH, CLASSES = 6, 3
RANDOM = np.random.default_rng(0)
TURN = np.eye(WIDTH) + 0.2 * RANDOM.standard_normal((WIDTH, WIDTH))
SHIFT = RANDOM.standard_normal(WIDTH)


def statistics(features: np.ndarray, labels: np.ndarray) -> Statistics:
    found = Statistics.empty(CLASSES, WIDTH)
    found.add(features.astype(np.float32), labels)
    return found


def test_an_affine_drift_is_found_and_statistics_follow_it() -> None:
    new = RANDOM.standard_normal((400, WIDTH))
    drift = Drift.between(new, new @ TURN + SHIFT)
    np.testing.assert_allclose(drift.turn, TURN, atol=2e-3)
    np.testing.assert_allclose(drift.shift, SHIFT, atol=2e-3)
    old, labels = RANDOM.standard_normal((90, WIDTH)), RANDOM.integers(0, CLASSES, 90)
    moved, true = drift.moved(statistics(old, labels)), statistics(old @ TURN + SHIFT, labels)
    assert moved.counts.tolist() == true.counts.tolist()
    np.testing.assert_allclose(moved.sums, true.sums, atol=0.3)
    np.testing.assert_allclose(moved.moment, true.moment, rtol=0.02, atol=90 * 0.02)


def test_features_that_did_not_move_leave_everything_where_it_is() -> None:
    new, old, labels = RANDOM.standard_normal((30, WIDTH)), RANDOM.standard_normal((9, WIDTH)), np.arange(9) % CLASSES
    kept = statistics(old, labels)
    moved = Drift.between(new, new).moved(kept)
    np.testing.assert_allclose(moved.sums, kept.sums, atol=1e-9)
    np.testing.assert_allclose(moved.moment, kept.moment, atol=9 * GRID**2)


def test_noise_is_not_taken_for_a_drift() -> None:
    """Fewer pictures than features, and changes that no feature explains: the map shrinks to a mere shift."""
    new = RANDOM.standard_normal((20, 40))
    drift = Drift.between(new, new + 0.1 * RANDOM.standard_normal(new.shape))
    assert np.abs(drift.turn - np.eye(40)).max() < 0.05
