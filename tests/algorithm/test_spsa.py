"""The estimator: its arithmetic, its mean, its variance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.directions import direction
from edge_zofc.algorithm.spsa import Query, QueryForm, clip, coefficients, queries
from edge_zofc.errors import InputError

SIZE = 12


def adapter_at(values: np.ndarray, eps: float = 1e-3) -> Adapter:
    return Adapter(values.astype(np.float32), seed=5, eps=eps, momentum=0.9)


def test_queries_are_listed_plus_before_minus() -> None:
    assert queries("one-sided", 2) == (Query(0, 1), Query(1, 1))
    assert queries("two-sided", 2) == (Query(0, 1), Query(0, -1), Query(1, 1), Query(1, -1))
    with pytest.raises(InputError, match="queries is 0"):
        queries("one-sided", 0)


def test_coefficients_by_hand() -> None:
    assert coefficients("one-sided", np.array([3.0, 1.0]), 2.0, 0.5).tolist() == [1.0, -1.0]
    assert coefficients("two-sided", np.array([3.0, 1.0]), None, 0.5).tolist() == [2.0]


def test_clip_bounds_the_norm_and_leaves_small_ones_alone() -> None:
    adapter = adapter_at(np.zeros(SIZE))
    raw = np.array([3.0])
    applied, norm = clip(adapter, 0, raw, 1.0)
    assert norm == pytest.approx(3 * np.sqrt(SIZE))
    assert np.linalg.norm(adapter.gradient(0, applied)) == pytest.approx(1.0, abs=1e-6)
    assert clip(adapter, 0, raw, None)[0].tolist() == [3.0]
    assert clip(adapter, 0, raw, 1e6)[0].tolist() == [3.0]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=5), st.floats(0.01, 10))
def test_clip_is_torchs_clip_grad_norm(values: list[float], bound: float) -> None:
    torch = pytest.importorskip("torch")
    adapter = adapter_at(np.zeros(SIZE))
    applied, _ = clip(adapter, 3, np.array(values), bound)
    parameter = torch.zeros(SIZE, dtype=torch.float64, requires_grad=True)
    parameter.grad = torch.from_numpy(sum(v * direction(5, 3, q, SIZE) for q, v in enumerate(values)) + np.zeros(SIZE))
    torch.nn.utils.clip_grad_norm_([parameter], bound)
    ours = adapter.gradient(3, applied)
    assert np.abs(ours - parameter.grad.numpy()).max() < 1e-5 * max(1, bound)


def quadratic(theta: np.ndarray) -> float:
    curvature = np.arange(1, SIZE + 1)
    return float(0.5 * np.sum(curvature * (theta.astype(np.float64) - 0.25) ** 2))


def estimates(form: QueryForm, count: int, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradient estimates [trials, SIZE] of the convex toy problem at a fixed point, and its true gradient."""
    start = np.linspace(-1, 1, SIZE)
    adapter = adapter_at(np.rint(start * 2**10) / 2**10)
    truth = np.arange(1, SIZE + 1) * (adapter.theta.astype(np.float64) - 0.25)
    base, found = quadratic(adapter.theta), []
    for step in range(trials):
        losses = []
        for query in queries(form, count):
            adapter.perturb(step, query.index, query.sign)
            losses.append(quadratic(adapter.theta))
            adapter.perturb(step, query.index, -query.sign)
        raw = coefficients(form, np.array(losses), base, adapter.eps)
        found.append(sum(c * direction(5, step, q, SIZE) for q, c in enumerate(raw)))
    return np.array(found), truth


@pytest.mark.parametrize("form", ["one-sided", "two-sided"])
def test_the_mean_of_many_estimates_is_the_gradient(form: QueryForm) -> None:
    found, truth = estimates(form, 1, 1500)
    standard_error = found.std(axis=0) / np.sqrt(len(found))
    # One-sided adds a bias of eps/2 times the trace of the Hessian (78) along z, whose mean is zero.
    assert np.all(np.abs(found.mean(axis=0) - truth) < 4.5 * standard_error)


def test_the_variance_falls_as_one_over_q() -> None:
    variances = [estimates("two-sided", count, 600)[0].var(axis=0).mean() for count in (1, 4, 16)]
    assert variances[0] / variances[1] == pytest.approx(4, rel=0.25)
    assert variances[1] / variances[2] == pytest.approx(4, rel=0.25)


def test_descent_reaches_the_minimum_of_the_convex_problem() -> None:
    adapter = adapter_at(np.zeros(SIZE))
    for step in range(800):
        losses = []
        for query in queries("two-sided", 4):
            adapter.perturb(step, query.index, query.sign)
            losses.append(quadratic(adapter.theta))
            adapter.perturb(step, query.index, -query.sign)
        raw = coefficients("two-sided", np.array(losses), None, adapter.eps)
        adapter.apply(step, clip(adapter, step, raw, None)[0], 0.004)
    assert quadratic(adapter.theta) < 1e-6 * quadratic(np.zeros(SIZE))
