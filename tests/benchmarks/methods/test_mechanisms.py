"""What defines each peer, seen on the learnt method itself: what moves, what stays, and how it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_problem import tiny_problem, write_stream
from torch import nn

from edge_zofc.benchmarks.methods import dualprompt, registry
from edge_zofc.benchmarks.methods.heads import cosines
from edge_zofc.benchmarks.methods.training import Trainee, Training, fit
from edge_zofc.benchmarks.methods.training_free import Ridge, SimpleCil, scaled
from edge_zofc.benchmarks.methods.vit_parts import Parts

QUICK = Training(2, 8, lr=0.05)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"))


def built(name: str, problem: Any, **extra: Any) -> Any:
    return registry.BUILD[name](problem, QUICK, **extra)  # type: ignore[call-arg]


def pictures() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(4))


def of_the_first_task(name: str, method: Any) -> list[torch.Tensor]:
    """Everything that the first task trained and a later one must leave alone."""
    if name == "ease":
        return [p.detach().clone() for p in method.sets[0].parameters()]
    if name == "inflora":
        return [branches[0].up.detach().clone() for branches in method.branches]
    if name == "dualprompt":
        return [p.detach().clone() for p in method.experts[0].parameters()]
    share = next(iter(method.components.values())).share
    return [torch.cat([c.old, c.new.detach()])[:share].clone() for c in method.components.values()]


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("ease", {}),
        ("inflora", {}),
        ("dualprompt", {"expert_blocks": (2,)}),
        ("coda-prompt", {"blocks": (0, 1), "size": 8}),
    ],
)
def test_a_second_task_trains_a_part_of_its_own_and_leaves_the_firsts(
    name: str, extra: dict[str, Any], stream: Path
) -> None:
    problem = tiny_problem(stream)
    method = built(name, problem, **extra)
    method.learn(problem.tasks[0])
    before = of_the_first_task(name, method)
    assert any(bool(torch.count_nonzero(p)) for p in before)
    method.learn(problem.tasks[1])
    assert all(torch.equal(a, b) for a, b in zip(before, of_the_first_task(name, method), strict=True))


def test_inflora_trains_b_alone_under_a_fixed_design(stream: Path) -> None:
    """Keys and values share A, whose rows are orthogonal and 1/sqrt 3 long before and after training."""
    problem = tiny_problem(stream)
    method = built("inflora", problem, rank=4)
    designed: list[torch.Tensor] = []
    for task in problem.tasks:
        method.learn(task)
        for branches in method.branches:
            down, up = branches[-1].down, branches[-1].up
            torch.testing.assert_close(down @ down.T, torch.eye(4) / 3, rtol=0, atol=1e-5)
            assert [bool(torch.count_nonzero(side)) for side in up] == [True, True]
            designed.append(down.detach().clone())
    kept = [branch.down for i in range(2) for branch in (branches[i] for branches in method.branches)]
    assert all(torch.equal(a, b) for a, b in zip(designed, kept, strict=True))
    # What the first task taught stays in the sum: without its branches the answers are others.
    with torch.no_grad():
        whole = method.logits(pictures())
        for branches in method.branches:
            branches[0].up.zero_()
        assert not torch.allclose(whole, method.logits(pictures()))


def test_inflora_designs_the_second_task_where_the_first_ones_inputs_are_not(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = built("inflora", problem, rank=4)
    for task in problem.tasks:
        method.learn(task)
        if task.index == 0:
            taken = [memory.basis.clone() for memory in method.memory]
            avoided = [memory.avoids for memory in method.memory]
    assert any(avoided)
    for basis, avoids, branches in zip(taken, avoided, method.branches, strict=True):
        if avoids:
            assert float((branches[1].down @ basis).abs().max()) < 1e-4


def test_a_part_rests_until_its_epoch(stream: Path) -> None:
    problem = tiny_problem(stream)
    task, part, row = problem.tasks[0], nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(32))
    seen: list[tuple[float, bool]] = []

    def loss(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (features @ row - labels).square().mean()

    trainee = Trainee(
        lambda x: (part * problem.features(x), 0.0), loss, [part], [row],
        lambda: seen.append((float(part.detach()), bool(torch.count_nonzero(row)))),
    )  # fmt: skip
    fit(problem, task, trainee, replace(QUICK, epochs=3, batch_size=24, lr=0.01, part_from_epoch=2))
    assert [(p == 1.0, moved) for p, moved in seen] == [(True, True), (True, True), (False, True)]


def test_lae_takes_the_larger_of_both_models_softmax_class_by_class(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = built("lae", problem, blocks=(0, 1), decay=0.5, rest_epochs=1)
    for task in problem.tasks:
        method.learn(task)
    with torch.no_grad():
        each = []
        for adapters in (method.online, method.average):
            beside = Parts(beside_attention=adapters.by_block())
            features = problem.features(pictures(), beside)
            each.append((features @ method.head.rows.T + method.head.bias).softmax(dim=-1))
        assert not torch.allclose(each[0], each[1])
        torch.testing.assert_close(method.logits(pictures()), torch.maximum(each[0], each[1]))


def test_l2p_classifies_the_mean_of_the_prompts_outputs_and_pulls_the_keys(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = built("l2p", problem, size=4, length=2, top=3)
    with torch.no_grad():
        found, extra = method._represent(pictures())
        near, chosen = cosines(problem.features(pictures()), method.pool.keys).topk(3, dim=-1)
        prompts = method.pool.prompts[chosen].flatten(1, 2)
        outputs = problem.tokens(pictures(), Parts(prompts=prompts))
    torch.testing.assert_close(found, outputs[:, :6].mean(dim=1))
    assert float(extra) == pytest.approx(-0.1 * float(near.sum(dim=1).mean()), rel=1e-5)


def test_dualprompt_draws_the_key_of_a_tasks_own_expert_to_its_pictures(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = built("dualprompt", problem, expert_blocks=(2,))
    for task in problem.tasks:
        torch.manual_seed(task.index)
        fresh = dualprompt.Expert(32, 1, 5)
        torch.manual_seed(task.index)
        method.learn(task)
        with torch.no_grad():
            features, _ = problem.frozen_features(task.train)
            keys = torch.stack([fresh.key, method.experts[-1].key])
            before, after = cosines(features, keys).mean(dim=0).tolist()
        assert after > before + 0.01
        assert not torch.equal(fresh.prefixes, method.experts[-1].prefixes)


def test_aper_classifies_by_the_means_of_frozen_and_adapted_features_side_by_side(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = built("aper-adapter", problem)
    for task in problem.tasks:
        method.learn(task)
    with torch.no_grad():
        task = problem.tasks[1]
        images, labels = (torch.cat(each) for each in zip(*problem.plain_batches(task.train), strict=True))
        plain, adapted = problem.features(images), problem.features(images, method.adapters.parts())
        assert not torch.allclose(plain, adapted)
        both = torch.cat([plain, adapted], dim=-1)
        means = torch.stack([both[labels == c].mean(dim=0) for c in task.class_ids])
        torch.testing.assert_close(
            method.logits(images)[:, list(task.class_ids)], cosines(both, means), rtol=1e-4, atol=1e-5
        )


def test_simplecil_is_the_cosine_to_the_class_means(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = SimpleCil(problem)
    for task in problem.tasks:
        method.learn(task)
    features, labels = problem.frozen_features(problem.tasks[0].train)
    means = torch.stack([features[labels == c].mean(dim=0) for c in problem.tasks[0].class_ids])
    torch.testing.assert_close(method.logits(features)[:, :2], cosines(features, means), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("random_features", [0, 50])
def test_ridge_of_two_tasks_is_the_regression_on_all_pictures_at_once(random_features: int, stream: Path) -> None:
    """(G + lambda I)^-1 sums, from scratch in numpy; with M > 0 on ReLU of a fixed random projection."""
    problem = tiny_problem(stream)
    method = Ridge(problem, random_features)
    for task in problem.tasks:
        method.learn(task)
    found = [problem.frozen_features(task.train) for task in problem.tasks]
    inputs = scaled(torch.cat([features for features, _ in found]))
    if random_features:
        inputs = torch.relu(inputs @ method.projection)
        assert method.projection.shape == (32, 50)
    x, y = inputs.double().numpy(), np.eye(4)[torch.cat([labels for _, labels in found]).numpy()]
    assert method.ridge is not None
    expected = np.linalg.solve(x.T @ x + method.ridge * np.eye(x.shape[1]), x.T @ y)
    np.testing.assert_allclose(method.weights.numpy(), expected, rtol=1e-3, atol=1e-6)


def test_naive_zo_shakes_old_rows_and_a_first_order_head_does_not(stream: Path) -> None:
    moved = {}
    for name in ("zo-all", "fo-fc", "zo-fc-torch"):
        problem = tiny_problem(stream, blocks=(0, 1))
        method: Any = registry.build(name, problem, registry.MethodSettings(adapter_lr=0.5))
        method.learn(problem.tasks[0])
        old = method.head.rows.clone()
        method.learn(problem.tasks[1])
        moved[name] = not torch.equal(old, method.head.rows[:2])
    assert moved == {"zo-all": True, "fo-fc": False, "zo-fc-torch": False}


def test_prompts_ask_the_frozen_model_once_a_batch_however_many_sides_a_step_has(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = built("l2p-zo", problem)
    method.how = replace(registry.HOW["l2p-zo"], epochs=1, batch_size=12)
    method.learn(problem.tasks[0])
    # 24 pictures, each once for the query and 2 Q = 8 times with prompts.
    assert problem.passes.forwards == 24 * (1 + 8)


def test_values_are_the_papers() -> None:
    """(epochs, batch, rate, optimiser, weight decay), and of SPSA (Q, eps, clip)."""
    first = {
        "aper-adapter": (20, 48, 0.01, "sgd", 5e-4),
        "ease": (20, 48, 0.025, "sgd", 5e-4),
        "inflora": (20, 128, 5e-4, "adam", 0.0),
        "lae": (5, 128, 2.8e-3, "adam", 0.0),
        "l2p": (5, 16, 1.875e-3, "adam", 0.0),
        "dualprompt": (5, 24, 1e-3, "adam", 0.0),
        "coda-prompt": (20, 128, 1e-3, "adam", 0.0),
    }
    for name, values in first.items():
        how = registry.training(name, registry.MethodSettings())
        assert (how.epochs, how.batch_size, how.lr, how.optimiser, how.weight_decay) == values, name
        assert (how.part_order, how.head_order) == ("first", "first")
    for name in ("aper-zo", "ease-zo", "l2p-zo", "coda-prompt-zo", "inflora-zo"):
        how = registry.training(name, registry.MethodSettings())
        assert (how.queries, how.eps, how.two_sided, how.schedule) == (4, 1e-3, True, "constant")
        assert how.clip_norm == (5.0 if name == "aper-zo" else 1.0)
        assert (how.optimiser, how.lr) == (("adam", 5e-4) if name.startswith("coda") else ("sgd", 0.01))
        assert (how.part_order, how.head_order) == ("zeroth", "first" if "inflora" in name else "zeroth")


def test_a_batch_size_and_a_rate_for_all_reach_every_trained_method() -> None:
    for name in ("head", "fo-fc", "zo-all", "ease", "coda-prompt-zo", "lae"):
        own = registry.training(name, registry.MethodSettings())
        changed = registry.training(name, registry.MethodSettings(batch_size=16, lr_factor=10.0))
        assert (changed.batch_size, changed.lr) == (16, pytest.approx(10 * own.lr))
    naive = registry.training("zo-all", registry.MethodSettings(adapter_lr=3.0, clip_norm=1e-3))
    assert (naive.lr, naive.head_lr, naive.clip_norm) == (3.0, None, 1e-3)
    assert registry.training("zo-fc-torch", registry.MethodSettings(adapter_lr=3.0)).head_lr == 0.01
