"""Heads in closed form: shrinkage, Fisher's direction, and the choice of lambda."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edge_zofc.benchmarks.methods import training_free


def test_oas_keeps_the_trace_and_shrinks_less_with_more_pictures() -> None:
    matrix = torch.diag(torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64))
    few, many = training_free.oas(matrix, 4), training_free.oas(matrix, 4000)
    assert float(few.trace()) == pytest.approx(6.0)
    assert 2.0 < float(few[0, 0]) < float(many[0, 0]) < 4.0


def test_lda_on_two_gaussians_is_fishers_direction() -> None:
    """Covariance diag(100, 1) and means apart along both: only the narrow direction should decide."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(4000, 3, generator=generator) * torch.tensor([1.0, 0.1, 0.0])
    labels = torch.arange(4000) % 2
    inputs = noise + labels[:, None] * torch.tensor([0.2, 0.2, 0.0]) + torch.tensor([0.0, 0.0, 50.0])
    problem: Any = SimpleNamespace(width=3, frozen_features=lambda samples: (inputs, labels))
    method = training_free.Lda(problem)
    method.learn(SimpleNamespace(train=[], classes_seen=2))  # type: ignore[arg-type]
    direction = method.weights[:, 1] - method.weights[:, 0]
    assert 0.5 < float(direction[1] / direction[0]) / 100 < 2.0
    assert float((method.logits(inputs).argmax(dim=-1) == labels).double().mean()) > 0.83


def test_ridge_takes_the_lambda_of_least_squared_error() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    targets = inputs @ torch.randn(5, 2, generator=generator, dtype=torch.float64)
    held = torch.arange(200) % 4 == 3
    assert training_free.choose_ridge(inputs, targets, held) == 1e-3
    noise = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    assert training_free.choose_ridge(inputs, 0.05 * targets + noise, held) > 1.0
