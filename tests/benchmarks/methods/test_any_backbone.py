"""On a CNN the methods that take any backbone learn, with the adapters of its bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_problem import SPEC, tiny_problem, write_stream

from edge_zofc.benchmarks.accuracy.torch_cell import learn_all
from edge_zofc.benchmarks.methods import registry
from edge_zofc.benchmarks.methods.names import ANY_BACKBONE, EPISODIC, MOVE_LATER
from edge_zofc.benchmarks.methods.problem import Problem, read_tasks
from edge_zofc.data.stream import read_stream
from edge_zofc.errors import InputError
from edge_zofc.export.adapted import AdapterRequest, adapted
from edge_zofc.export.backbones import BackboneRequest, LoadedBackbone, load_backbone
from edge_zofc.inference.transforms import load_test

SIDE = 32
PICTURES = np.random.default_rng(3).standard_normal((4, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"))


def small_cnn() -> LoadedBackbone:
    return load_backbone(BackboneRequest("resnet10t", random_weights=True, img_size=SIDE))


def cnn_problem(root: Path, request: AdapterRequest | None = None) -> Problem:
    torch.manual_seed(3)
    model = adapted(small_cnn(), request or AdapterRequest(), PICTURES)
    spec = SPEC.model_copy(update={"size": SIDE})
    return Problem(model, spec, read_tasks(read_stream(root)), 3, augment="none")


@pytest.mark.parametrize("kind", ["film", "bottleneck"])
def test_without_a_method_features_are_the_networks_own(kind: Any, stream: Path) -> None:
    problem, images = cnn_problem(stream, AdapterRequest(kind)), torch.from_numpy(PICTURES)
    with torch.no_grad():
        torch.testing.assert_close(problem.features(images), small_cnn().model(images), rtol=1e-5, atol=1e-5)
    assert problem.passes.forwards == 4


@pytest.mark.parametrize("name", sorted(ANY_BACKBONE - {"zo-fc"}))
def test_a_method_tells_colours_apart_on_a_cnn(name: str, stream: Path) -> None:
    problem = cnn_problem(stream)
    settings = registry.MethodSettings(epochs=3, batch_size=12, adapter_lr=0.01, lr_factor=3.0)
    counted, details, _ = learn_all(problem, registry.build(name, problem, settings))
    # Of 16; where the adapter leaves the statistics of the first task behind, those classes are lost.
    assert sum(counted.correct[-1]) >= (8 if name == "fo-episodic-move" else 12)
    trained = 0 if name in ("simplecil", "ridge", "ranpac", "lda", "head") else problem.model.layout.size
    assert details["trainable_parameters"] == [trained, 0 if name in EPISODIC - MOVE_LATER else trained]


@pytest.mark.parametrize("kind", ["film", "bottleneck"])
def test_the_first_order_adapter_of_a_cnn_lowers_the_loss(kind: Any, stream: Path) -> None:
    problem = cnn_problem(stream, AdapterRequest(kind))
    settings = registry.MethodSettings(epochs=6, batch_size=12)
    method: Any = registry.build("fo-fc", problem, settings)
    # The head rests, so what falls is the adapter's doing. It starts at random here: at class means little is left.
    method.head_init, method.how = "random", replace(method.how, lr=0.3, head_lr=0.0)
    losses = method.learn(problem.tasks[0])
    assert losses[-1] < losses[0] - 1e-3
    assert any(torch.count_nonzero(piece) for piece in method.adapter.pieces)


def test_what_changes_a_vit_from_within_refuses_a_cnn(stream: Path) -> None:
    problem = cnn_problem(stream)
    with pytest.raises(InputError, match="work inside a ViT"):
        registry.build("inflora", problem, registry.MethodSettings())


def test_the_head_alone_sees_each_picture_once_and_learns_as_if_it_saw_it_each_time(
    stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for augment in ("none", "crop"):
        problem = tiny_problem(stream)
        problem.augment = augment  # type: ignore[assignment]
        monkeypatch.setattr(
            problem, "_picture", lambda task, epoch, i, problem=problem: load_test(task.train[i].path, problem.spec)
        )
        method = registry.build("head", problem, registry.MethodSettings(epochs=3, batch_size=12))
        _, details, _ = learn_all(problem, method)
        found.append((problem.passes.forwards, details["losses"]))
    assert found[0][0] == 48
    assert found[1][0] == 48 * 4
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)
