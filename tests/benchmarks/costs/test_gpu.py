"""The command for a GPU, tried without one: its arms compute the same network, and no failure stops the next arm."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_zofc.benchmarks.costs import gpu, gpu_features, gpu_onnx, gpu_torch
from edge_zofc.benchmarks.costs.gpu_torch import Arm, OneModel, arms, measure, with_ratios
from edge_zofc.benchmarks.process import Ended
from edge_zofc.device.profiles import load_profile
from edge_zofc.errors import InputError
from edge_zofc.inference.graph import CPU
from edge_zofc.storage.bundle import Bundle

TINY = argparse.Namespace(device="cpu", tiny=True, only="")
FOREVER = 1e12


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> OneModel:
    made = OneModel(str(tmp_path_factory.mktemp("gpu")), depth=2, batch_size=2, queries=1)
    gpu_torch.write_pictures(made, 96)
    return made


def by_name(name: str) -> Arm:
    return next(arm for arm in arms() if arm.name == name)


def test_the_arms_of_the_papers_claim_come_first_and_every_name_is_there_once() -> None:
    names = [arm.name for arm in arms()]
    assert names[:3] == ["first-order-paper", "spsa-paper", "inference-paper"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["first-order", "inference", "spsa-one-sided"])
def test_the_papers_network_has_the_same_loss(setup: OneModel, name: str) -> None:
    """Attention written out and a last block of all tokens change what it takes and no number."""
    arm = by_name(name)
    found = [measure(Arm(arm.variant, as_the_paper=is_papers), setup, "cpu", 1)["loss"] for is_papers in (True, False)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert "peak_mib" not in measure(arm, setup, "cpu", 1)  # there is none without CUDA


def test_bfloat16_computes_another_loss_that_is_near(setup: OneModel) -> None:
    exact = measure(by_name("inference"), setup, "cpu", 1)["loss"]
    rounded = measure(by_name("inference-bf16"), setup, "cpu", 1)["loss"]
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.1)


def test_ratios_are_to_first_order_of_the_same_network_precision_and_batch() -> None:
    peaks = {"first-order": 600.0, "spsa": 100.0, "first-order-paper": 900.0, "spsa-paper": 300.0, "spsa-bf16": 1.0}
    rows: list[dict[str, Any]] = [{"arm": arm, "batch": 8, "peak_mib": peak} for arm, peak in peaks.items()]
    rows += [{"arm": "spsa", "batch": 1, "peak_mib": 1.0}, {"arm": "micro", "batch": None, "failed": "x"}]
    assert [row["ratio"] for row in with_ratios(rows)] == [1, 6, 1, 3, None, None, None]


def test_a_failed_arm_or_check_is_written_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(line: list[str], _: float) -> Ended:
        is_first = len(results.rows) == 0
        return Ended(1, 2.0, "", "boom") if is_first else Ended(0, 2.0, told + told, "")

    def fails(_: gpu_onnx.Place) -> dict[str, Any]:
        raise InputError("no such thing")

    results = gpu.Results(tmp_path)
    told = '{"arm": "a", "batch": 1, "seconds": 1.0, "peak_mib": 2.0}\n'
    monkeypatch.setattr(gpu, "run", fake)
    monkeypatch.setattr(gpu_torch, "arms", lambda: arms()[:2])
    monkeypatch.setattr(gpu_onnx, "checks", lambda: {"one": fails, "two": lambda place: {"seen": place.provider}})
    gpu.run_torch(results, TINY, tmp_path, FOREVER)
    gpu.run_onnx(results, TINY, tmp_path, FOREVER)
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row.get("failed") for row in rows] == [
        "exit code 1 after 2 s: boom", None, None, "InputError: no such thing", None,
    ]  # fmt: skip
    assert rows[-1]["found"] == {"seen": "CPUExecutionProvider"}
    text = (tmp_path / "gpu.md").read_text()
    assert "boom" in text and '- seen: "CPUExecutionProvider"' in text and "no such thing" in text


def test_without_time_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = gpu.Results(tmp_path)
    monkeypatch.delattr(gpu, "run")
    gpu.run_torch(results, TINY, tmp_path, 0.0)
    gpu.run_onnx(results, TINY, tmp_path, 0.0)
    assert {row["failed"] for row in results.rows} == {"no time left"}


def test_only_what_is_asked_for_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command, on one check that starts no process."""
    monkeypatch.setattr(gpu_onnx, "checks", lambda: {"one": lambda _: {"seen": 1}, "another": lambda _: {"seen": 2}})
    assert gpu.main(["--out", str(tmp_path), "--only", "another", "--device", "cpu", "--tiny"]) == 0
    (row,) = (json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines())
    assert row["found"] == {"seen": 2}


def test_the_profile_it_writes_is_one_of_ours(tmp_path: Path) -> None:
    place = gpu_onnx.Place(tmp_path, "CUDAExecutionProvider")
    cuda, cpu = load_profile(str(place.profile(64, tf32="0"))).session_providers()
    assert cuda[1] == {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0", "gpu_mem_limit": str(64 << 20)}
    assert load_profile(str(place.profile(provider="CPUExecutionProvider"))).session_providers() == (cpu,)
    assert place.profile(64) != place.profile(64, tf32="0") != place.profile(65, tf32="0")


def test_a_provider_that_computes_the_same_agrees_and_rounding_shows() -> None:
    draw = np.random.default_rng(3)
    exact = draw.standard_normal((9, 4, 16)).astype(np.float32)
    same = gpu_features.compared(exact, exact)
    assert (same["largest_error"], same["relative_error"]) == (0, 0)
    assert same["correlation_of_differences"] == pytest.approx(1)
    noisy = gpu_features.compared(exact + draw.normal(0, 0.5, exact.shape).astype(np.float32), exact)
    assert noisy["relative_error"] == pytest.approx(0.5, rel=0.2)
    assert noisy["correlation_of_differences"] < 0.99


def test_the_provider_is_measured_on_a_bundle(small_bundle: Bundle) -> None:
    found = gpu_features.measured(small_bundle, CPU)
    assert found.shape[0] == 1 + gpu_features.DIRECTIONS and np.abs(found[1:] - found[0]).max() > 0
    assert gpu_features.seconds(small_bundle, CPU, 8, 5) > 0


def test_the_used_memory_of_a_gpu_is_told_above_what_was_used_before(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([100.0, 700.0, 300.0])
    monkeypatch.setattr(gpu_onnx, "_gpu_used", lambda: next(readings, 100.0))
    with gpu_onnx.used_gpu_memory() as used:
        while used() != 600.0:
            pass
    assert used() == 600.0
    monkeypatch.setattr(gpu_onnx, "_gpu_used", lambda: None)
    with gpu_onnx.used_gpu_memory() as used:
        pass
    assert used() is None
