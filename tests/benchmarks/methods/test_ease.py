"""EASE: prototypes in every subspace, by hand."""

from __future__ import annotations

import numpy as np
import torch

from edge_zofc.benchmarks.methods import ease


def test_ease_completes_old_prototypes_by_similarity_to_the_new_classes() -> None:
    """An old class that looks in its own subspace like the first new class gets mostly that one's prototype."""
    old = torch.tensor([[[1.0, 0.0]]])  # class 0 in subspace 0
    found = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[2.0, 0.0], [10.0, 0.0]], [[-3.0, 0.0], [0.0, 20.0]]])
    completed, tasks = ease.grow_prototypes(old, torch.zeros(1, dtype=torch.int64), found)
    assert completed.shape == (3, 2, 2)
    assert tasks.tolist() == [0, 1, 1]
    weight = np.exp(1.0) / (np.exp(1.0) + np.exp(-1.0))  # cosines +1 and -1
    np.testing.assert_allclose(completed[0, 1], [10 * weight, 20 * (1 - weight)], rtol=1e-5)
    assert torch.equal(completed[0, 0], old[0, 0])
    assert torch.equal(completed[1:], found[1:])


def test_ease_weighs_a_classs_own_subspace_ten_times_the_sum_of_the_others() -> None:
    prototypes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    logits = ease.reweighted(features, prototypes, torch.tensor([0, 1]), 0.1)
    # Class 0 (task 0): 1 * 1 + 0.05 * 0; class 1 (task 1): 0.05 * 0 + 1 * 1.
    assert logits.tolist() == [[1.0, 1.0]]
    swapped = ease.reweighted(features, prototypes, torch.tensor([1, 0]), 0.1)
    np.testing.assert_allclose(swapped, [[0.05, 0.05]], rtol=1e-6)
