"""The runtime's episodic loss in torch: its value, and its gradient."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from edge_zofc.algorithm.episodes import Prototypes
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.export.episodic import backward, episodic_loss


def some_prototypes(seed: int = 1) -> tuple[Prototypes, np.ndarray, np.ndarray]:
    """Of five classes, of which one has no picture and one a single one; and a batch of 20 others."""
    drawn = np.random.default_rng(seed)
    labels = np.array([0] * 9 + [1] * 7 + [3] + [4] * 8)
    statistics = Statistics.empty(5, 6)
    statistics.add((drawn.normal(size=(25, 6)) + labels[:, None]).astype(np.float32), labels)
    batch = drawn.choice([0, 1, 3, 4], 20)
    return Prototypes.of(statistics), (drawn.normal(size=(20, 6)) + batch[:, None]).astype(np.float32), batch


def test_the_loss_is_the_runtimes_before_and_after_pictures_joined_the_means() -> None:
    prototypes, features, labels = some_prototypes()
    for _ in range(2):
        found = float(episodic_loss(prototypes, torch.from_numpy(features), torch.from_numpy(labels)))
        expected = float(prototypes.losses(features[None], labels)[0])
        assert expected > 0.1
        assert found == pytest.approx(expected, abs=1e-4)
        prototypes.absorb(features, labels)


def test_its_gradient_is_the_slope_of_the_runtimes_loss_with_the_means_at_rest() -> None:
    prototypes, features, labels = some_prototypes()
    x = torch.from_numpy(features).requires_grad_()
    episodic_loss(prototypes, x, torch.from_numpy(labels)).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    along = np.random.default_rng(2).normal(size=features.shape).astype(np.float32)
    eps = np.float32(1e-2)
    # The first is the base: what pictures add to their own means is their feature there, as for the runtime's queries.
    _, plus, minus = prototypes.losses(np.stack([features, features + eps * along, features - eps * along]), labels)
    assert float((x.grad * torch.from_numpy(along)).sum()) == pytest.approx((plus - minus) / 2e-2, rel=1e-2)


def test_a_batch_in_parts_has_the_gradient_of_the_whole_and_joins_the_means() -> None:
    found, sums = [], []
    for at_once in (20, 6):
        prototypes, features, labels = some_prototypes()
        weights = torch.eye(6, requires_grad=True)
        inputs = torch.from_numpy(features), torch.from_numpy(labels)
        found.append(backward(prototypes, partial(torch.matmul, other=weights), *inputs, at_once))
        assert weights.grad is not None
        sums.append((weights.grad, prototypes.sums))
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert float(sums[0][0].norm()) > 0.1
    torch.testing.assert_close(sums[0][0], sums[1][0], rtol=1e-4, atol=1e-6)
    expected, features, labels = some_prototypes()
    expected.absorb(features, labels)
    np.testing.assert_allclose(sums[1][1], expected.sums, rtol=1e-6)
