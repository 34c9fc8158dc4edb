"""Features in Gaussian clouds, one a class, and their statistics."""

from __future__ import annotations

import numpy as np

from edge_zofc.algorithm.statistics import Statistics


def collected(features: np.ndarray, labels: np.ndarray, classes: int) -> Statistics:
    found = Statistics.empty(classes, features.shape[1])
    found.add(features.astype(np.float32), labels)
    return found


def clouds(seed: int = 0, classes: int = 4, each: int = 40, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds with one correlated covariance."""
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(size, size))
    means = 2 * generator.normal(size=(classes, size))
    labels = np.repeat(np.arange(classes), each)
    return (means[labels] + generator.normal(size=(len(labels), size)) @ mix).astype(np.float32), labels
