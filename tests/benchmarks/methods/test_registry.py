"""Each method learns, is as large as its paper says, and does the one thing that defines it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_problem import tiny_problem, tiny_vit, write_stream

from edge_zofc.algorithm import heads, statistics
from edge_zofc.benchmarks.accuracy.torch_cell import learn_all
from edge_zofc.benchmarks.methods import coda, dualprompt, inflora, l2p, lae, registry
from edge_zofc.benchmarks.methods.names import METHODS, TRAINING_FREE
from edge_zofc.benchmarks.methods.training import Trainee, Training
from edge_zofc.benchmarks.methods.vit_parts import Adapters

TRAINED = [name for name in METHODS if name not in TRAINING_FREE and name != "zo-fc"]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"))


def small(name: str, problem: Any, **changes: Any) -> Any:
    """The method with its own structure and values that suit 24 pictures and a ViT of width 32."""
    settings = registry.MethodSettings(preset="edge")
    how = registry.training(name, settings)
    how = replace(how, epochs=6, head_epochs=None, batch_size=12, head_lr=None, **changes)
    how = replace(how, lr=0.01 if how.optimiser == "adam" else 0.1)
    if name in registry.BUILD:
        kind = registry.BUILD[name]
        extra: dict[str, Any] = {
            "coda": {"blocks": (0, 1), "size": 8},
            "dual": {"expert_blocks": (2,)},
            "lae": {"blocks": (0, 1, 2), "rest_epochs": 1},
        }.get(name.split("-")[0].replace("dualprompt", "dual"), {})
        return kind(problem, how, **extra)  # type: ignore[call-arg]
    built = registry.build(name, problem, settings)
    built.how = how  # type: ignore[attr-defined]
    return built


# On colours the discriminant leaves no loss to fall: it has a test of its own below.
@pytest.mark.parametrize("name", [name for name in TRAINED if name != "fo-fc-lda"])
def test_its_loss_falls_and_it_tells_colours_apart(name: str, stream: Path) -> None:
    problem = tiny_problem(stream)
    zeroth = name.endswith("-zo") or name in ("zo-all", "fo-adapter+zo-head")
    method = small(name, problem, **({"queries": 8, "clip_norm": 5.0} if zeroth else {}))
    counted, details, _ = learn_all(problem, method)
    first = details["losses"][0]
    assert min(first[1:]) < first[0]
    assert all(np.isfinite(first))
    # Two colours a task: guessing gives one half of the first task's eight test pictures.
    assert counted.correct[0][0] >= (4 if zeroth else 6)
    assert counted.total == [8, 8]
    assert problem.passes.evaluation_forwards > 0
    assert (problem.passes.backwards == 0) == (name == "head" or (zeroth and name != "fo-adapter+zo-head"))


@pytest.mark.parametrize("name", sorted(TRAINING_FREE))
def test_without_training_the_colours_are_told_apart_from_one_pass(name: str, stream: Path) -> None:
    problem = tiny_problem(stream)
    counted, details, _ = learn_all(problem, registry.build(name, problem, registry.MethodSettings()))
    assert sum(counted.correct[-1]) >= 14
    assert details["losses"] == [[], []]
    assert details["trainable_parameters"] == [0, 0]
    assert (problem.passes.forwards, problem.passes.evaluation_forwards) == (48, 16)


def test_the_same_seed_gives_the_same_losses(stream: Path) -> None:
    runs = []
    for _ in range(2):
        problem = tiny_problem(stream)
        runs.append(learn_all(problem, small("zo-all", problem))[1]["losses"])
    assert runs[0] == runs[1]


def wide_problem() -> Any:
    """What the constructors ask of a ViT-B problem of ten tasks, without a ViT-B."""
    return SimpleNamespace(width=768, depth=12, task_count=10)


HOW = Training(1, 8, lr=0.01)


def test_parameters_of_a_vit_b_are_the_papers() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(Adapters(768, (0, 1, 2, 3, 4), 5, "gelu", 0.1)) == 42_265  # ZO-FC
    assert count(Adapters(768, tuple(range(12)), 64, "relu", 0.1)) == 1_189_632  # APER once, EASE a task
    assert lae.Lae(wide_problem(), HOW).parameters_of(None) == 42_270  # type: ignore[arg-type]
    assert count(l2p.PromptPool(768, 10, 5, 5)) == 46_080
    assert count(dualprompt.Expert(768, 3, 5)) == 23_040 + 768
    assert dualprompt.DualPrompt(wide_problem(), HOW).general.numel() == 15_360
    assert 12 * inflora.Branch(torch.zeros(10, 768)).up.numel() == 184_320
    components = coda.Components(768, 100, 8, 10)
    components.begin()
    assert 5 * components.new.numel() == 384_000  # a tenth of 3,840,000


@pytest.mark.parametrize(
    ("name", "grows"), [("ease", True), ("inflora", True), ("aper-adapter", False), ("l2p", False)]
)
def test_what_grows_with_the_tasks_grows_by_the_same_each_time(name: str, grows: bool, stream: Path) -> None:
    problem = tiny_problem(stream)
    method = small(name, problem)
    method.how = replace(method.how, epochs=1)
    parameters = learn_all(problem, method)[1]["trainable_parameters"]
    assert parameters[0] > 0
    assert parameters[1] == (0 if name == "aper-adapter" else parameters[0])
    if name == "ease":
        assert len(method.sets) == 2
        # D = 32, rank 64: (2 * 32 * 64 + 64 + 32) * 3 blocks.
        assert parameters[0] == (2 * 32 * 64 + 64 + 32) * 3
    assert grows == (hasattr(method, "sets") or hasattr(method, "branches"))


def test_aper_does_not_move_after_the_first_task(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = small("aper-adapter", problem)
    method.learn(problem.tasks[0])
    before = [p.detach().clone() for p in method.adapters.parameters()]
    assert any(torch.count_nonzero(p) for p in before[2::4])  # the up-projections left zero
    assert method.learn(problem.tasks[1]) == []
    assert all(torch.equal(a, b) for a, b in zip(before, method.adapters.parameters(), strict=True))


def test_l2p_chooses_by_key_and_learns_the_keys_it_chose() -> None:
    pool = l2p.PromptPool(4, 4, 2, 2)
    with torch.no_grad():
        pool.keys.copy_(torch.eye(4))
    prompts, near = pool.choose(torch.tensor([[3.0, 0.0, 1.0, 0.0]]))
    assert torch.equal(prompts[0], torch.cat([pool.prompts[0], pool.prompts[2]]))
    assert float(near.detach()) == pytest.approx((3 + 1) / 10**0.5)
    near.backward()
    assert pool.keys.grad is not None
    assert [bool(row.any()) for row in pool.keys.grad] == [True, False, True, False]


def test_dualprompt_takes_the_expert_of_the_nearest_key(stream: Path) -> None:
    method = dualprompt.DualPrompt(tiny_problem(stream), HOW, expert_blocks=(2,))
    method.experts = [dualprompt.Expert(32, 1, 5) for _ in range(3)]
    queries = torch.stack([method.experts[i].key.detach() * 2 for i in (2, 0, 1)])
    assert method.choose(queries).tolist() == [2, 0, 1]


def test_coda_components_start_orthogonal_to_the_old_and_the_penalty_says_so() -> None:
    components = coda.Components(16, 4, 2, 2)
    components.begin()
    components.begin()
    assert components.old.shape == components.new.shape == (2, 4 * 16)
    assert float(components.penalty().detach()) == pytest.approx(0.0, abs=1e-8)
    with torch.no_grad():
        components.new[:, :32] *= 2  # (4 - 1)^2 on 2 of 4 x 4 entries
    assert float(components.penalty().detach()) == pytest.approx(2 * 9 / 16, rel=1e-5)
    components.penalty().backward()
    assert components.new.grad is not None
    assert not components.old.requires_grad


def test_coda_adds_up_components_by_attention() -> None:
    components = coda.Components(2, 2, 2, 2)
    components.new = torch.nn.Parameter(torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 1.0, 1.0]]))
    keys, values = components.prefix(torch.tensor([[0.0, 5.0], [5.0, 0.0]]))
    # Key (0, 1), attention (1, 1): cosine 1 for the first query, 0 for the second.
    assert keys.tolist() == [[[1.0, 2.0]], [[0.0, 0.0]]]
    assert values.tolist() == [[[3.0, 4.0]], [[0.0, 0.0]]]


def test_laes_average_starts_from_the_first_task_and_follows_by_the_decay(
    stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, asked = small("lae", tiny_problem(stream)), []
    method.decay = 0.9

    def two_steps(problem: Any, task: Any, trainee: Trainee, how: Training) -> list[float]:
        asked.append(how.part_from_epoch)
        for _ in range(2):
            with torch.no_grad():
                for parameter in method.online.parameters():
                    parameter += 1
            trainee.after_step()
        return []

    monkeypatch.setattr(lae, "fit", two_steps)
    bias = method.online.adapters[0].up.bias  # zero at start
    for task, expected in zip(method.problem.tasks, (2.0, 0.9 * (0.9 * 2 + 0.1 * 3) + 0.1 * 4), strict=True):
        method.learn(task)
        average = method.average.adapters[0].up.bias
        torch.testing.assert_close(average, torch.full_like(average, expected))
    assert float(bias[0].detach()) == 4.0
    assert asked == [0, 1]  # the adapter rests from the second task on


def test_lae_answers_with_the_larger_softmax_and_its_average_lags(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = small("lae", problem)
    for task in problem.tasks:
        method.learn(task)
    pair = list(zip(method.online.parameters(), method.average.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pair)
    images = torch.rand(2, 3, 16, 16)
    scores = method.logits(images)
    assert float(scores.sum(dim=-1).min()) >= 1.0
    assert float(scores.max()) <= 1.0


def test_a_first_order_adapter_lowers_the_loss_that_a_discriminant_leaves(stream: Path) -> None:
    problem = tiny_problem(stream)
    task = problem.tasks[0]
    mixed = [replace(sample, class_id=task.class_ids[i % 2]) for i, sample in enumerate(task.train)]
    problem.augment = "none"  # each epoch sees the same pictures
    losses = small("fo-fc-lda", problem).learn(replace(task, train=mixed))
    assert losses[0] > 0.05
    assert min(losses[1:]) < losses[0]


def test_a_first_order_adapter_that_rests_leaves_the_runtimes_discriminant(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = small("fo-fc-lda", problem)
    method.how = replace(method.how, lr=0.0)
    counted, _, _ = learn_all(problem, method)
    sums = statistics.Statistics.empty(0, 32)
    for task in problem.tasks:
        features, labels = problem.frozen_features(task.train)
        found = statistics.Statistics.empty(task.classes_seen, 32)
        found.add(features.numpy(), labels.numpy())
        sums = sums.plus(found)
    rows, biases = heads.solve(sums)
    np.testing.assert_allclose(method.head.weights.T, rows, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(method.head.bias, biases, rtol=1e-3, atol=1e-2)
    assert sum(counted.correct[-1]) >= 14


def test_the_backbone_stays_frozen(stream: Path) -> None:
    problem = tiny_problem(stream)
    method = small("fo-fc", problem)
    method.learn(problem.tasks[0])
    fresh = tiny_vit().state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in problem.vit.state_dict().items())
