"""First-session adaptation by gradients: the runtime's loss, its pictures, its first task, and torch's gradient."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_problem import tiny_problem, write_stream

from edge_zofc.algorithm.directions import balanced_scales
from edge_zofc.benchmarks.accuracy.torch_cell import learn_all
from edge_zofc.benchmarks.methods import registry
from edge_zofc.benchmarks.methods.fo_episodic import EpisodicAdapter
from edge_zofc.benchmarks.methods.problem import TaskData
from edge_zofc.benchmarks.methods.training import Training
from edge_zofc.export.episodic import episodic_loss
from edge_zofc.inference.transforms import CROP_SCALE, MILD_CROP_SCALE, load_train

HOW = Training(1, 24, lr=0.01, steps=3)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"))


def mixed(task: TaskData) -> TaskData:
    """The task with its two classes dealt out anew: plain colours leave no loss."""
    train = [replace(sample, class_id=task.class_ids[i // 3 % 2]) for i, sample in enumerate(task.train)]
    return replace(task, train=train)


@pytest.mark.parametrize("balanced", [False, True])
def test_a_batch_in_parts_leaves_torchs_gradient_of_the_whole_and_joins_the_means(balanced: bool, stream: Path) -> None:
    problem = tiny_problem(stream)
    task, method = mixed(problem.tasks[0]), EpisodicAdapter(problem, HOW, balanced)
    with torch.no_grad():
        method.moved += 0.05 * torch.randn(len(method.moved))  # at rest the identity hides half of the adapter
    images, labels = problem.some_pictures(task, np.arange(24), 0)
    prototypes = method._prototypes(task, np.arange(24))
    joined = deepcopy(prototypes)
    theta = method.adapter().detach().requires_grad_()
    whole = episodic_loss(prototypes, problem.adapted_features(images, theta), labels)
    (gradient,) = torch.autograd.grad(whole, theta)
    joined.absorb(problem.adapted_features(images, theta).detach().numpy(), labels.numpy())
    value = method._backward(prototypes, images, labels)
    assert value == pytest.approx(float(whole.detach()), rel=1e-5)
    assert method.moved.grad is not None
    scales = balanced_scales([piece.size for piece in problem.model.layout.pieces]) if balanced else 1.0
    expected = gradient * torch.as_tensor(scales)
    assert float(expected.norm()) > 1e-4
    torch.testing.assert_close(method.moved.grad, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(prototypes.sums, joined.sums, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["fo-episodic", "fo-episodic-balanced"])
def test_it_moves_in_the_first_task_alone_and_counts_its_passes(name: str, stream: Path) -> None:
    problem = tiny_problem(stream)
    method: Any = registry.build(name, problem, registry.MethodSettings())
    assert (method.how.steps, method.how.batch_size, method.how.lr) == (50, 64, 0.01)
    method.how = HOW
    first, second = problem.tasks
    assert len(method.learn(first)) == HOW.steps
    # 20 pictures that are not held out at the start, three steps of 24, then all 24 for the head.
    assert (problem.passes.forwards, problem.passes.backwards) == (20 + 72 + 24, 72)
    moved = method.adapter().detach().clone()
    assert not torch.equal(moved, method.start)
    assert method.learn(second) == []
    assert torch.equal(method.adapter(), moved)
    assert (problem.passes.forwards, problem.passes.backwards) == (20 + 72 + 24 + 24, 72)
    assert [method.parameters_of(task) for task in problem.tasks] == [problem.model.layout.size, 0]


def test_the_two_differ_by_the_coordinates_alone(stream: Path) -> None:
    """Adam's first step is the rate times the gradient's sign, in each one's own coordinates."""
    moves, scales = [], torch.ones(0)
    for balanced in (False, True):
        method = EpisodicAdapter(tiny_problem(stream), Training(1, 24, lr=0.01, steps=1), balanced)
        method.learn(mixed(method.problem.tasks[0]))
        moves.append((method.adapter() - method.start).detach())
        scales = method.scales
    clear = moves[0].abs() > 0.0099  # where the gradient is not next to zero
    assert int(clear.sum()) > 50
    torch.testing.assert_close(moves[1][clear], (scales * moves[0])[clear], rtol=1e-2, atol=1e-6)


def test_the_pictures_that_the_gate_holds_out_take_no_part(stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, seen = tiny_problem(stream), set[int]()
    whole = problem.some_pictures

    def noted(task: Any, picked: np.ndarray, visit: int) -> Any:
        seen.update(picked.tolist())
        return whole(task, picked, visit)

    monkeypatch.setattr(problem, "some_pictures", noted)
    EpisodicAdapter(problem, HOW, False).learn(problem.tasks[0])
    assert seen == set(range(24)) - {10, 11, 22, 23}  # the last two of each class's twelve


def test_steps_give_way_to_epochs_of_the_whole_task(stream: Path) -> None:
    problem = tiny_problem(stream)
    method: Any = registry.build("fo-episodic", problem, registry.MethodSettings(epochs=3, batch_size=10))
    assert len(method.learn(problem.tasks[0])) == 3 * 3


def test_at_rate_zero_it_is_the_frozen_discriminant(stream: Path) -> None:
    problem = tiny_problem(stream)
    rested = EpisodicAdapter(problem, Training(1, 24, lr=0.0, steps=2), True)
    counted, _, _ = learn_all(problem, rested)
    frozen: Any = registry.build("fo-fc-lda", tiny_problem(stream), registry.MethodSettings(lr_factor=0.0))
    learn_all(frozen.problem, frozen)
    torch.testing.assert_close(rested.head.weights, frozen.head.weights, rtol=1e-4, atol=1e-4)
    assert sum(counted.correct[-1]) >= 14


@pytest.mark.parametrize(("augment", "scale"), [("crop", CROP_SCALE), ("mild", MILD_CROP_SCALE)])
def test_training_pictures_are_cropped_as_the_preset_says(augment: Any, scale: Any, stream: Path) -> None:
    """The edge preset's crops have two fifths of a picture or more; the benchmark cut those of the paper's preset."""
    problem = tiny_problem(stream)
    problem.augment = augment
    task = problem.tasks[0]
    images, labels = problem.some_pictures(task, np.array([5, 20]), 7)
    assert labels.tolist() == [task.train[5].class_id, task.train[20].class_id]
    for image, index in zip(images.numpy(), (5, 20), strict=True):
        key = (problem.seed, task.index, 7, index)
        expected = load_train(task.train[index].path, problem.spec, key, normalise=problem.normalise, scale=scale)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("name", "follows"), [("fo-episodic-move", False), ("fo-episodic-drift", True)])
def test_it_can_move_in_every_task_and_earlier_classes_follow_it(name: str, follows: bool, stream: Path) -> None:
    problem = tiny_problem(stream)
    method: Any = registry.build(name, problem, registry.MethodSettings())
    method.how = HOW
    first, second = (mixed(task) for task in problem.tasks)
    method.learn(first)
    moved, kept = method.adapter().detach().clone(), deepcopy(method.head.seen)
    assert len(method.learn(second)) == HOW.steps
    assert not torch.equal(method.adapter(), moved)
    old = range(len(kept.counts))
    assert method.head.seen.counts[old].tolist() == kept.counts.tolist()
    assert np.array_equal(method.head.seen.sums[old], kept.sums) != follows
    assert [method.parameters_of(task) for task in (first, second)] == [problem.model.layout.size] * 2
