"""The head: both gradients agree with each other and with torch, growth keeps old rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.algorithm.heads import Head, HeadOptimiser, cosine_rate, unit

torch = pytest.importorskip("torch")


def random_problem(seed: int, classes: int = 7, batch: int = 9, size: int = 16) -> tuple[Head, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(classes, size)).astype(np.float32)
    head = Head(rows, np.array([generator.uniform(0.5, 20)], np.float32))
    features = (3 * generator.normal(size=(batch, size))).astype(np.float32)
    return head, features, generator.integers(0, classes, batch)


def test_two_classes_by_hand() -> None:
    head = Head(np.eye(2, dtype=np.float32), np.array([2.0], np.float32))
    logits = head.logits(np.array([[3.0, 4.0]], np.float32))
    assert np.allclose(logits, [[1.2, 1.6]])
    loss = head.losses(np.array([[[1.0, 0.0]]], np.float32), np.array([0]), np.array([0, 1]))
    assert loss[0] == pytest.approx(np.log(1 + np.exp(-2)))
    assert head.probabilities(np.array([1.0, 1.0], np.float32)).tolist() == [0.5, 0.5]


def test_a_vector_of_zeros_has_no_direction_and_no_nan() -> None:
    assert unit(np.zeros((2, 3), np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_the_learning_rate_falls_along_torchs_cosine() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10, eta_min=1e-5)
    for epoch in range(10):
        assert cosine_rate(0.01, epoch, 10) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6)
        optimiser.step()
        schedule.step()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_written_out_gradient_is_torchs(seed: int) -> None:
    twins = []
    for backend in ("torch", "numpy"):
        head, features, labels = random_problem(seed)
        optimiser = HeadOptimiser(head, np.arange(7), 0.9, backend)  # type: ignore[arg-type]
        losses = [optimiser.step(features, labels, 0.05) for _ in range(5)]
        twins.append((head.rows, head.sigma, np.array(losses)))
    for left, right in zip(*twins, strict=True):
        assert np.abs(left - right).max() < 1e-5 * max(1.0, np.abs(left).max())


def test_one_gradient_agrees_to_a_millionth() -> None:
    from edge_zofc.algorithm.heads import _numpy_gradient, _torch_gradient

    head, features, labels = random_problem(0)
    left = _torch_gradient(head.rows, head.sigma, features, labels)
    right = _numpy_gradient(head.rows, head.sigma, features, labels)
    assert left[0] == pytest.approx(right[0], abs=1e-6)
    assert np.abs(left[1] - right[1]).max() < 1e-6
    assert np.abs(left[2] - right[2]).max() < 1e-6


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_only_the_tasks_rows_move_and_the_loss_is_theirs_alone(backend: str) -> None:
    """The reference masks the other classes' logits with -inf, as the authors' release does."""
    head, features, _ = random_problem(3)
    before, ids = head.rows.copy(), np.array([2, 5, 6])
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    rows = torch.tensor(before, requires_grad=True)
    logits = float(head.sigma[0]) * (torch.nn.functional.normalize(torch.from_numpy(features)) @
                                     torch.nn.functional.normalize(rows).T)  # fmt: skip
    mask = torch.full((7,), float("-inf"))
    mask[ids] = 0.0
    expected = torch.nn.functional.cross_entropy(logits + mask, torch.from_numpy(ids[labels]))
    expected.backward()
    loss = HeadOptimiser(head, ids, 0.9, backend).step(features, labels, 0.1)  # type: ignore[arg-type]
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    assert np.abs(head.rows - (before - 0.1 * rows.grad.numpy())).max() < 1e-5
    others = [0, 1, 3, 4]
    assert np.array_equal(head.rows[others], before[others])


def test_losses_agree_with_torch_for_each_query() -> None:
    head, _, labels = random_problem(4)
    features = np.random.default_rng(1).normal(size=(3, 9, 16)).astype(np.float32)
    found = head.losses(features, labels, np.arange(7))
    for query in range(3):
        logits = torch.from_numpy(head.logits(features[query]).astype(np.float64))
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        assert found[query] == pytest.approx(float(expected), abs=1e-5)


def test_growing_keeps_the_old_rows() -> None:
    head = Head.empty(4)
    head.grow(np.ones((2, 4)))
    old = head.rows.copy()
    head.grow(np.full((3, 4), 2.0))
    assert head.rows.shape == (5, 4)
    assert head.rows.dtype == np.float32
    assert np.array_equal(head.rows[:2], old)
