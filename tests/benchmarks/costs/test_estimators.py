"""``bench estimators``: its arms say what they are, torch takes the runtime's steps, and a search finds its limit."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import small_model, write_small_stream

from edge_zofc.algorithm.options import make_options
from edge_zofc.benchmarks import run
from edge_zofc.benchmarks.costs import estimators
from edge_zofc.benchmarks.costs.cgroup import lowest
from edge_zofc.benchmarks.costs.estimator_arms import (
    ARMS,
    Command,
    Task,
    beside_inference,
    command_of,
    ending,
    step_seconds,
    typical,
)
from edge_zofc.benchmarks.costs.estimator_torch import FirstOrder, TorchRequest, cnn_features
from edge_zofc.benchmarks.costs.vit_in_torch import vit_features
from edge_zofc.benchmarks.process import Ended, edge_zofc
from edge_zofc.errors import InputError
from edge_zofc.export.adapters import film_layout
from edge_zofc.export.cnn import AdapterCnn, blocks_of, channel_spreads
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import EVENTS

BY_NAME = {arm.name: arm for arm in ARMS}


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of four classes, 8 + 4 pictures each."""
    return write_small_stream(tmp_path_factory.mktemp("estimators") / "stream", tasks=1, classes=4, alike=True)


def request(bundle: Bundle, stream: Path, micro_batch: int) -> TorchRequest:
    return TorchRequest(str(bundle.folder), str(stream), micro_batch, False, batch_size=8, steps=3, threads=1)


def first_order(bundle: Bundle, stream: Path, micro_batch: int, checkpoint: bool = False) -> FirstOrder:
    model = small_model()
    asked = request(bundle, stream, micro_batch)
    return FirstOrder(asked, bundle, lambda images, adapter: vit_features(model, images, adapter, checkpoint))


@pytest.mark.parametrize(
    ("arm", "count"),
    [
        ("inference-thrifty", 16),
        ("spsa-balanced-fast", 16 * 9),
        ("spsa-shifts-thrifty", 16 * 9),
        ("exact-thrifty", 16 * 4),
        ("torch-micro", 16 * 3),
        ("torch-batch-checkpoint", 64),
    ],
)
def test_image_forwards_of_a_step_are_what_they_are_said_to_be(arm: str, count: int) -> None:
    """SPSA: Q + 1 = 9. exact: one for the loss, three for the gradient. torch: three, and one more that is repeated."""
    assert BY_NAME[arm].image_forwards(16) == count


@pytest.mark.parametrize(("micro_batch", "checkpoint"), [(0, False), (1, False), (3, True)])
def test_torch_takes_the_steps_of_exact_gradients_in_the_runtime(
    exact_bundle: Bundle, stream: Path, tmp_path: Path, micro_batch: int, checkpoint: bool
) -> None:
    """Same batches, crops, loss and optimizer: the losses agree, in any micro-batch."""
    learner = first_order(exact_bundle, stream, micro_batch, checkpoint)
    found = [learner.step(number) for number in range(3)]
    learner.finish()
    words = ["--estimator", "exact", "--batch-size", 8, "--steps", 3, "--adapter", "on"]
    edge_zofc("learn", "--bundle", exact_bundle.folder, "--stream", stream, "--run", tmp_path / "run", *words)
    events = map(json.loads, (tmp_path / "run" / EVENTS).read_text().splitlines())
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert found == pytest.approx(losses, rel=1e-3)
    assert losses[0] != pytest.approx(losses[2], rel=1e-2)
    assert len(step_seconds(tmp_path / "run" / EVENTS)) == 3


def test_a_cnns_blocks_computed_again_give_the_same_gradient() -> None:
    import timm

    def model() -> AdapterCnn:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            network: Any = timm.create_model("resnet10t", pretrained=False, num_classes=0).eval()
        spreads = channel_spreads(network, np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
        widths = {index: len(spreads[index]) for index in range(len(blocks_of(network)))}
        return AdapterCnn(network, film_layout(widths), spreads, 32, 512)

    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    gradients, features = [], []
    for checkpoint in (False, True):
        built = model()
        adapter = torch.zeros(built.layout.size, requires_grad=True)
        features.append(cnn_features(built, checkpoint)(images, adapter))
        features[-1].square().sum().backward()
        assert adapter.grad is not None
        gradients.append(adapter.grad)
        plain = model()(images, torch.zeros(1, built.layout.size))[0]
        assert torch.allclose(features[-1], plain, atol=1e-5)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    assert float(gradients[0].abs().max()) > 0


def test_the_processes_that_are_not_onnxruntimes_do_not_import_it() -> None:
    """Else first order pays for it, and a cgroup is not charged for what the starting process has mapped."""
    for module in ("estimator_torch", "estimators"):
        imported = f"import sys, edge_zofc.benchmarks.costs.{module}"
        code = f"{imported}; sys.exit(bool({{'onnxruntime', 'torch'}} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, module


@pytest.mark.parametrize("limit", [33, 100, 517, 999, 1000])
def test_the_lowest_limit_holds_and_is_at_most_a_grain_above_one_that_does_not(limit: int) -> None:
    tried: list[int] = []

    def holds(value: int) -> bool:
        tried.append(value)
        return value >= limit

    found = lowest(32, 1000, 16, holds)
    assert limit <= found <= limit + 16
    assert len(tried) <= 6 and not {32, 1000} & set(tried)


def test_a_first_step_is_not_typical_and_an_ending_is_told() -> None:
    assert typical([9.0, 1.0, 3.0, 2.0]) == 2.0
    assert typical([9.0]) == 9.0
    assert ending(Ended(0, 1.0, '{"steps": 5}', ""), 5) == ""
    assert ending(Ended(0, 1.0, '{"steps": 0}', ""), 5) == "it did 0 of 5 steps"
    assert ending(Ended(-9, 1.0, "", ""), 5) == "killed or out of time"
    assert ending(Ended(3, 1.0, "", "no\nno room"), 5) == "exit 3: no room"


def test_the_costs_of_both_estimators_stand_in_one_table(
    exact_bundle: Bundle, stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--costs", str(exact_bundle.folder), "--stream", str(stream), "--batch-sizes", "8", "--steps", "2"]
    arms = ["--arms", "inference-thrifty,spsa-whole-thrifty,exact-thrifty", "--out", str(tmp_path), "--json"]
    assert run("estimators", [*words, *arms]) == 0
    data = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "estimators-costs.json").read_text()) == data
    inference, spsa, exact = data["rows"]
    assert (inference["arm"], spsa["arm"], exact["arm"]) == ("inference-thrifty", "spsa-whole-thrifty", "exact-thrifty")
    for row in (inference, spsa, exact):
        assert row["over_inference"] == row["peak_rss_mib"] / inference["peak_rss_mib"]
        assert row["failed"] is None and row["parallel_queries"] == 1
        assert row["micro_batch"] <= 2  # two of these small pictures take less than budgets are rounded up by
        assert row["above_base_mib"] == row["peak_rss_mib"] - row["base_mib"] > 0
        assert len(row["step_seconds"]) == 2 and row["seconds_per_step"] > 0
    assert inference["first_loss"] is None and inference["image_forwards"] == 8
    assert spsa["first_loss"] == pytest.approx(exact["first_loss"], rel=1e-3)
    assert "| exact, onnxruntime, thrifty |" in re.sub(" +", " ", (tmp_path / "estimators-costs.md").read_text())


def test_a_peak_is_compared_with_inference_of_the_same_placement_bundle_and_batch() -> None:
    def row(arm: str, peak: float, bundle: str = "a", batch_size: int = 4, failed: str | None = None) -> dict[str, Any]:
        return {"arm": arm, "bundle": bundle, "batch_size": batch_size, "failed": failed, "peak_rss_mib": peak}

    rows = [
        row("inference-fast", 100.0), row("inference-thrifty", 50.0), row("inference-fast", 1.0, "c", failed="no"),
        row("exact-fast", 200.0), row("exact-thrifty", 150.0), row("torch-batch", 400.0), row("torch-micro", 250.0),
        row("exact-fast", 9.0, bundle="b"), row("exact-fast", 9.0, batch_size=8), row("exact-fast", 9.0, bundle="c"),
    ]  # fmt: skip
    found = [row["over_inference"] for row in beside_inference(rows)]
    assert found == [1.0, 1.0, None, 2.0, 3.0, 4.0, 5.0, None, None, None]


def test_inference_takes_the_placement_of_learning_with_one_adapter_a_run(exact_bundle: Bundle, stream: Path) -> None:
    task = Task(exact_bundle.folder, stream, 4, batch_size=8, steps=1)
    placements = [
        json.loads(command_of(BY_NAME[f"inference-{how}"], task, Path()).line[-1])["placement"]
        for how in ("fast", "thrifty")
    ]
    fast, thrifty = placements
    assert fast["parallel_queries"] == thrifty["parallel_queries"] == 1
    assert fast["micro_batch"] > thrifty["micro_batch"]


def test_a_limit_under_which_an_arm_is_too_slow_does_not_hold(
    exact_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed below 100 MiB and takes twice its time below 150."""
    task = Task(exact_bundle.folder, stream, 4, batch_size=8, steps=2)
    free = {"failed": None, "peak_rss_mib": 200.0, "seconds": 10.0}

    def limited(asked: Command, task: Task, limit_bytes: int, seconds: float) -> tuple[Ended, float]:
        mib = limit_bytes >> 20
        assert seconds == pytest.approx(15.0)
        answer = {"steps": 2, "peak_rss_mib": mib, "base_mib": 9.0, "losses": [1.0], "step_seconds": [1.0]}
        return Ended(-9 if mib < 100 else 0, 20.0 if mib < 150 else 12.0, json.dumps(answer), ""), mib - 1.0

    monkeypatch.setattr(estimators, "cost_row", lambda *_: free)
    monkeypatch.setattr(estimators, "command_of", lambda *_: Command([], None, None, None))
    monkeypatch.setattr(estimators, "_limited", limited)
    row = estimators.limit_row(BY_NAME["torch-micro"], task, tmp_path)
    assert 150 <= row["limit_mib"] <= 166
    assert row["charged_mib"] == row["limit_mib"] - 1
    assert (row["seconds"], row["seconds_without_limit"]) == (12.0, 10.0)
    assert row["peak_rss_without_limit_mib"] == 200.0


def told_without_rows(bundle: Bundle, stream: Path, arm: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of an arm that a bundle cannot run."""
    words = ["--costs", str(bundle.folder), "--stream", str(stream), "--arms", arm, "--json"]
    assert run("estimators", words) == 0
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[0])["rows"] == []
    return told.err


def test_a_bundle_without_gradients_has_no_exact_arm(
    small_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = told_without_rows(small_bundle, stream, "exact-fast", capsys)
    assert "left out, the bundle has no graph for exact gradients" in told


def test_forward_passes_have_an_arm_with_the_directions_that_learn_takes_by_default() -> None:
    default = make_options("edge", {"estimator": "spsa"}).directions
    assert {arm.name for arm in ARMS if arm.directions == default} == {"spsa-shifts-fast", "spsa-shifts-thrifty"}


def test_an_adapter_with_shifts_has_an_arm_of_them(
    film_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--costs", str(film_bundle.folder), "--stream", str(stream), "--batch-sizes", "8", "--steps", "2"]
    arms = ["spsa-shifts-fast", "spsa-shifts-thrifty"]
    assert run("estimators", [*words, "--arms", ",".join(arms), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["arm"], row["failed"], len(row["step_seconds"])) for row in rows] == [(arm, None, 2) for arm in arms]


def test_an_adapter_without_shifts_has_no_arm_of_them(
    exact_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would be its balanced directions, measured twice."""
    told = told_without_rows(exact_bundle, stream, "spsa-shifts-fast", capsys)
    assert "SPSA, shifts, fast: left out, the adapter has no shifts of its own" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Nothing was asked for"),
        (["--costs", "BUNDLE", "--arms", "nothing"], "--arms is 'nothing'"),
        (["--costs", "BUNDLE", "--batch-sizes", "8,x"], "--batch-sizes is '8,x'"),
        (["--costs", "BUNDLE", "--steps", "0"], "--steps is 0"),
        (["--costs", "BUNDLE", "--stream", "PAIRS"], "has 2 classes; 4 are needed"),
        (["--curve", "BUNDLE"], "--curve needs --stream"),
        (["--curve", "BUNDLE", "--stream", "STREAM", "--seeds", "1", "--arms", "torch-micro"], "has none for --curve"),
        (["--curve", "BUNDLE", "--stream", "STREAM", "--seeds", "0"], "--seeds is 0"),
        (["--curve", "BUNDLE", "--stream", "STREAM", "--spsa-steps", "0"], "--spsa-steps is '0'"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    words: list[str], said: str, exact_bundle: Bundle, stream: Path, small_stream: Path
) -> None:
    places = {"BUNDLE": str(exact_bundle.folder), "STREAM": str(stream), "PAIRS": str(small_stream)}
    parser = argparse.ArgumentParser()
    estimators.add_arguments(parser)
    with pytest.raises(InputError, match=said):
        estimators.main(parser.parse_args([places.get(word, word) for word in words]))
