"""SPSA fills the gradient, gives the parameters back, and the head goes first where the orders differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmark_problem import tiny_problem, write_stream
from torch import nn

from edge_zofc.benchmarks.methods.heads import ClassMeans, TorchHead
from edge_zofc.benchmarks.methods.problem import validation_task
from edge_zofc.benchmarks.methods.training import Trainee, Training, _Directions, fit, rate, spsa

HOW = Training(2, 6, lr=0.1, queries=1, clip_norm=1e9)


def test_learning_rates_fall_over_half_or_a_quarter_of_a_cosine() -> None:
    assert [rate(2.0, "constant", epoch, 3) for epoch in range(3)] == [2.0, 2.0, 2.0]
    half = [rate(2.0, "cosine", epoch, 4) for epoch in range(5)]
    assert half == pytest.approx([2.0, 1.7071, 1.0, 0.2929, 0.0], abs=1e-4)
    # cos(99 pi e / (200 (E - 1))): the first epoch at 1, the last at cos(89.1 degrees).
    quarter = [rate(2.0, "quarter-cosine", epoch, 3) for epoch in range(3)]
    assert quarter == pytest.approx([2.0, 2 * 0.7126, 2 * 0.0157], abs=1e-3)
    assert rate(2.0, "quarter-cosine", 0, 1) == 2.0


def test_one_query_on_a_line_is_exact() -> None:
    """L(x) = 3 x has slope 3, whichever way the direction points."""
    x = nn.Parameter(torch.tensor([2.0]))
    loss = spsa([x], lambda: 3 * x.sum(), HOW, _Directions(1, 0, 0))
    assert x.grad is not None
    assert float(x.grad) == pytest.approx(3.0, rel=1e-3)
    assert loss == pytest.approx(6.0)
    assert x.tolist() == [2.0]


@pytest.mark.parametrize("two_sided", [True, False])
def test_the_mean_over_many_directions_is_the_gradient(two_sided: bool) -> None:
    x = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    how = replace(HOW, queries=4000, two_sided=two_sided, eps=1e-4)
    spsa([x], lambda: (x**2).sum(), how, _Directions(1, 0, 0))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * x.detach(), rtol=0, atol=0.3)


def test_the_estimate_is_clipped_by_its_norm() -> None:
    x = nn.Parameter(torch.tensor([3.0, 4.0]))
    spsa([x], lambda: 100 * x[0], replace(HOW, clip_norm=1.0), _Directions(1, 0, 0))
    assert x.grad is not None
    assert float(x.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_the_same_seed_step_and_query_give_the_same_direction_and_others_do_not() -> None:
    x = [nn.Parameter(torch.zeros(64))]
    first = _Directions(5, 1, 2)(3, x)[0]
    assert set(first.tolist()) == {-1.0, 1.0}
    assert torch.equal(first, _Directions(5, 1, 2)(3, x)[0])
    for key, query in (((6, 1, 2), 3), ((5, 0, 2), 3), ((5, 1, 1), 3), ((5, 1, 2), 0)):
        assert not torch.equal(first, _Directions(*key)(query, x)[0])


def test_old_rows_stay_as_they_are_unless_a_method_asks_for_them() -> None:
    head = TorchHead(4, "cosine")
    head.begin((0, 1), 2)
    head.end()
    old = head.rows.clone()
    head.begin((2, 3), 4)
    assert head.trained()[0].shape == (2, 4)
    head.end()
    assert torch.equal(head.rows[:2], old)
    head.begin((2, 3), 4, also=(0, 1))
    assert head.trained()[0].shape == (4, 4)
    # The loss is local all the same: three of four rows could be anything but the two of this task.
    features, labels = torch.randn(5, 4), torch.tensor([2, 3, 2, 2, 3])
    head.loss(features, labels).backward()
    gradient = head.trained()[0].grad
    assert gradient is not None
    assert torch.count_nonzero(gradient[:2]) == 0


def test_class_means_are_means_and_grow() -> None:
    means = ClassMeans(2)
    means.add(torch.tensor([[2.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 0]), 1)
    means.add(torch.tensor([[0.0, 5.0]]), torch.tensor([1]), 2)
    assert means.sums.tolist() == [[6.0, 0.0], [0.0, 5.0]]
    assert means.rows().tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_every_fourth_picture_of_a_class_is_for_validation(tmp_path: Path) -> None:
    task = tiny_problem(write_stream(tmp_path)).tasks[0]
    held = validation_task(task)
    assert len(held.train) == 18
    assert len(held.test) == 6
    assert {s.path for s in held.train} | {s.path for s in held.test} == {s.path for s in task.train}


def test_passes_are_counted_by_pictures(tmp_path: Path) -> None:
    """24 pictures, 2 epochs: first order 48 forward and 48 backward; a split of orders as many forwards more."""
    write_stream(tmp_path)
    for part, head, forwards, backwards in (
        ("first", "first", 48, 48),
        ("zeroth", "zeroth", 48 * 8, 0),
        ("zeroth", "first", 48 * (1 + 8), 0),
        ("first", "zeroth", 48 * (1 + 1), 48),
    ):
        problem = tiny_problem(tmp_path)
        task = problem.tasks[0]
        scale = nn.Parameter(torch.ones(()))
        rows = TorchHead(problem.width, "linear")
        rows.begin(task.class_ids, task.classes_seen)
        trainee = Trainee(lambda x, p=problem, s=scale: (s * p.features(x), 0.0), rows.loss, [scale], rows.trained())
        how = replace(HOW, queries=4, part_order=part, head_order=head)
        assert len(fit(problem, task, trainee, how)) == 2
        assert (problem.passes.forwards, problem.passes.backwards) == (forwards, backwards)
