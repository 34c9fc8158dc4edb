"""The rises of a loss around a point, on losses whose rises one can compute in the head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmark_problem import tiny_problem, write_stream
from torch import nn

from edge_zofc.benchmarks.methods import registry
from edge_zofc.benchmarks.methods.zofc import AdapterAndHead
from edge_zofc.benchmarks.questions import flatness


def test_of_a_plane_the_rise_along_the_gradient_is_rho_times_its_slope() -> None:
    p = nn.Parameter(torch.tensor([1.0, 1.0]))
    found = flatness.rises(lambda: 3 * p[0] + 4 * p[1], [p], 200, torch.Generator().manual_seed(1), 0.01, 0.1)
    assert found["loss"] == pytest.approx(7.0)
    assert found["gradient_rise"] == pytest.approx(0.1 * 5, rel=1e-4)
    assert found["max_rise"] == pytest.approx(0.01 * 7, rel=1e-4)
    assert abs(found["mean_rise"]) < 0.02
    assert p.tolist() == [1.0, 1.0]


def test_of_a_bowl_every_sign_vector_rises_by_the_square_of_the_radius() -> None:
    p = nn.Parameter(torch.full((5,), 1e-9))
    found = flatness.rises(lambda: (p**2).sum(), [p], 10, torch.Generator().manual_seed(1), 0.1, 0.2)
    assert found["mean_rise"] == pytest.approx(5 * 0.1**2, rel=1e-4)
    assert found["gradient_rise"] == pytest.approx(0.2**2, rel=1e-3)


@pytest.mark.parametrize("name", flatness.METHODS)
def test_a_trained_method_is_measured_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    problem = tiny_problem(write_stream(tmp_path), blocks=(0, 1))
    settings = registry.MethodSettings(epochs=1)
    method = registry.build(name, problem, settings)
    assert isinstance(method, AdapterAndHead)
    for task in problem.tasks:
        method.learn(task)
    before = [p.detach().clone() for p in method.part]
    found = flatness.measure(method, problem, problem.tasks[:1], 4, 3)
    assert found["gradient_rise"] > 0
    assert found["max_rise"] >= found["mean_rise"]
    assert all(torch.equal(a, b) for a, b in zip(before, method.part, strict=True))
