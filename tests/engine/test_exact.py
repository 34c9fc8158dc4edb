"""Exact gradients: a run that moves its adapter by them, is cut, replayed and resumed as one by forward passes is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_points import KillPoints, killed_and_resumed
from runs import end_state, final_bits, go, without_times
from safetensors.numpy import load_file
from small import small_model
from torch.nn import functional

from edge_zofc.algorithm.directions import GRADIENT
from edge_zofc.engine import training
from edge_zofc.engine.history import roll_back
from edge_zofc.engine.replay import replay_run
from edge_zofc.engine.step import take_step
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Kind, Record, read

EXACT: dict[str, Any] = {"estimator": "exact", "batch_size": 8, "steps": 6, "adapter_lr": 0.05}


def steps_of(run: Path) -> list[Record]:
    return [record for record in read(run / "journal.bin")[1] if record.kind is Kind.STEP]


def test_the_adapter_moves_and_its_journal_rebuilds_it(exact_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    result = go(exact_bundle, stream, tmp_path / "run", changes=EXACT)
    assert [task["steps"] for task in result["tasks"]] == [6, 0, 0]
    assert result["gradient_passes"] == 6 * 8
    assert read(tmp_path / "run" / "journal.bin")[0].directions == GRADIENT
    replayed = replay_run(exact_bundle.folder, tmp_path / "run" / "journal.bin", tmp_path / "theta", None, None)
    theta = load_file(tmp_path / "theta")["adapter"]
    assert replayed.steps == 6
    assert not np.array_equal(theta, exact_bundle.initial_adapter())
    assert theta.tobytes() == final_bits(tmp_path / "run")[0]


def test_replay_needs_no_gradient_graph(
    exact_bundle: Bundle, small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    """The bundle without it is the same bundle: its features are."""
    assert small_bundle.identity == exact_bundle.identity
    go(exact_bundle, stream, tmp_path / "run", changes=EXACT)
    replay_run(small_bundle.folder, tmp_path / "run" / "journal.bin", tmp_path / "theta", None, None)
    assert load_file(tmp_path / "theta")["adapter"].tobytes() == final_bits(tmp_path / "run")[0]


@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_a_step_is_torchs_gradient_of_the_same_loss(
    exact_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    """By the head's loss, with the head as it is after the head's own step."""
    model, wanted = small_model(), list[np.ndarray]()

    def watched(trainer: Trainer, picked: Any) -> None:
        theta = torch.from_numpy(trainer.state.adapter.theta.copy()).requires_grad_()
        side, load = trainer.bundle.manifest.image.size, trainer.pictures.loader(picked)
        images = np.zeros((len(picked), 3, side, side), np.float32)
        for index in range(len(picked)):
            load(index, images[index])
        optimiser = trainer.state.optimiser
        ids = np.arange(len(trainer.state.head.rows)) if optimiser is None else optimiser.class_ids
        take_step(trainer, picked)
        now, features = trainer.state.head, model(torch.from_numpy(images), theta[None])[0]
        labels = torch.from_numpy(np.searchsorted(ids, [sample.class_id for _, sample in picked]))
        rows = torch.from_numpy(now.rows[ids])
        if now.biases is None:
            logits = float(now.sigma[0]) * functional.normalize(features, dim=-1) @ functional.normalize(rows).T
        else:
            logits = features @ rows.T + torch.from_numpy(now.biases[ids])
        wanted.append(torch.autograd.grad(functional.cross_entropy(logits, labels), theta)[0].numpy())

    monkeypatch.setattr(training, "take_step", watched)
    changes = {"estimator": "exact", "loss": "head", "head": head, "epochs": 1, "batch_size": 8, "clip_norm": 0.0}
    go(exact_bundle, stream, tmp_path / "run", changes=changes, tasks=frozenset({"000_task"}))
    found = [record.gradient for record in steps_of(tmp_path / "run")]
    assert len(found) == len(wanted) == 4
    for one, other in zip(found, wanted, strict=True):
        assert one is not None
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other)


def test_a_gradient_is_clipped_as_a_whole(exact_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    go(exact_bundle, stream, tmp_path / "run", changes={**EXACT, "clip_norm": 1e-3})
    for record in steps_of(tmp_path / "run"):
        assert record.gradient is not None
        assert np.linalg.norm(record.gradient) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_stopped_run_goes_on_to_the_same_bits(exact_bundle: Bundle, stream: Path, tmp_path: Path, steps: int) -> None:
    whole = go(exact_bundle, stream, tmp_path / "whole", changes=EXACT)
    part = go(exact_bundle, stream, tmp_path / "run", changes=EXACT, max_steps=steps)
    assert part["completed"] is False
    resumed = go(exact_bundle, stream, tmp_path / "run", changes={}, resume=True)
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")
    assert without_times(resumed) == without_times(whole)


def test_a_run_killed_at_an_instant_goes_on_to_the_same_bits(
    exact_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    def learn(run: Path) -> None:
        go(exact_bundle, stream, run, changes=EXACT)

    with pytest.MonkeyPatch.context() as patch:
        points = KillPoints(patch)
        learn(tmp_path / "whole")
    assert points.names.count("gradient") == 6 * 8
    for at, run in killed_and_resumed(learn, tmp_path, range(20, points.count, points.count // 10)):
        assert end_state(run)["state"] == end_state(tmp_path / "whole")["state"], f"killed at touch {at}"
        assert (run / "journal.bin").read_bytes() == (tmp_path / "whole/journal.bin").read_bytes()


def test_a_run_goes_back_to_the_first_task_and_learns_the_others_again(
    exact_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    go(exact_bundle, stream, tmp_path / "run", changes=EXACT)
    before = final_bits(tmp_path / "run")
    roll_back(tmp_path / "run", 0)
    go(exact_bundle, stream, tmp_path / "run", changes=EXACT)
    assert final_bits(tmp_path / "run") == before


@pytest.mark.parametrize("call", [1, 11])
def test_memory_that_runs_out_halves_the_micro_batch_and_goes_on(
    exact_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Features are then those of smaller runs of the graph, which round differently: the steps are the same in kind."""
    calls, gradient = iter(range(1, 10_000)), Backbone.gradient

    def failing(graph: Backbone, theta: np.ndarray, towards: np.ndarray) -> np.ndarray:
        if next(calls) == call:
            raise MemoryError
        return gradient(graph, theta, towards)

    monkeypatch.setattr(Backbone, "gradient", failing)
    result = go(exact_bundle, stream, tmp_path / "run", changes=EXACT)
    assert (result["completed"], result["steps"], result["micro_batch"]) == (True, 6, 2)
    assert result["gradient_passes"] == 6 * 8


def test_auto_takes_them_where_the_bundle_has_them_and_says_why(
    exact_bundle: Bundle, small_bundle: Bundle, stream: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = {"batch_size": 8, "steps": 2}
    for bundle, kind, why in (
        (exact_bundle, "exact", "by exact gradients."),
        (
            small_bundle,
            "spsa",
            "by forward passes alone: the bundle has no graph for exact gradients that this version reads.",
        ),
    ):
        caplog.clear()
        with caplog.at_level("INFO"):
            result = go(bundle, stream, tmp_path / kind, changes=few)
        assert result["options"]["estimator"] == kind
        assert why in caplog.text


def test_a_bundle_without_the_graph_refuses_exact_gradients(small_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export it with --gradient, or use --estimator spsa"):
        go(small_bundle, stream, tmp_path / "run", changes=EXACT)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_run_whose_bundle_lost_the_graph_says_so_in_mid_task_and_goes_on_with_it(
    exact_bundle: Bundle, small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    go(exact_bundle, stream, tmp_path / "whole", changes=EXACT)
    go(exact_bundle, stream, tmp_path / "run", changes=EXACT, max_steps=2)
    with pytest.raises(InputError, match="no graph for exact gradients"):
        go(small_bundle, stream, tmp_path / "run", changes={}, resume=True)
    go(exact_bundle, stream, tmp_path / "run", changes={}, resume=True)
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_the_event_log_tells_of_each_step(exact_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    go(exact_bundle, stream, tmp_path / "run", changes=EXACT)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    norms = [event["gradient_norm"] for event in events if event["event"] == "step"]
    found = [
        float(np.linalg.norm(record.gradient)) for record in steps_of(tmp_path / "run") if record.gradient is not None
    ]
    assert norms == pytest.approx(found, rel=1e-5)
