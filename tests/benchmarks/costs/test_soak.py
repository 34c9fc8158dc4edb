"""``bench soak``: what it says of a short run on the small bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_zofc.benchmarks import run
from edge_zofc.benchmarks.costs.soak import SAMPLE_STEPS, noise_stream
from edge_zofc.benchmarks.costs.soak_child import slope_within, soak
from edge_zofc.storage.bundle import Bundle


def test_a_short_soak_compares_counts_and_measures(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    found = soak(small_bundle, small_stream, tmp_path / "run", steps=600, batch_size=8, queries=1)
    assert found["steps"] == 600
    assert found["journal_bytes"] == 108 + 28 * (600 + 2 * 3)
    assert found["replays_to_the_same_bits"] and found["compared_with_replay"] == 1
    assert found["adapter_moved_by"] > 0
    assert found["handles_grew_by"] == 0
    assert found["learning_over_replay"] > 1
    assert found["steps"] // SAMPLE_STEPS == 12


def test_the_command_soaks_a_bundle_and_a_stream_of_ones_own_without_torch(
    small_bundle: Bundle, small_stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "torch" in sys.modules  # here, and not in the process that learns
    words = ["--bundle", str(small_bundle.folder), "--stream", str(small_stream), "--steps", "500", "--json"]
    assert run("soak", [*words, "--queries", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["torch_was_loaded"]
    assert found["steps"] >= 500 and found["replays_to_the_same_bits"]


def test_a_stream_that_cannot_be_learnt_ends_the_command_with_its_sentence(
    small_bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("soak", ["--bundle", str(small_bundle.folder), "--stream", str(tmp_path)]) == 2
    assert "There is no task in" in capfd.readouterr().err


def test_the_slope_within_tasks_leaves_out_what_each_task_adds() -> None:
    """Two tasks of slope 2, the second 100 higher: 2 within, far more over both."""
    task, hours = np.array([0.0, 0, 0, 1, 1, 1]), np.arange(6.0)
    assert slope_within(task, hours, 2 * hours + 100 * task) == pytest.approx(2)
    assert slope_within(task, hours, 100 * task) == 0


def test_the_default_stream_is_hard_enough_to_move_an_adapter(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = noise_stream(tmp_path / "stream", small_bundle.manifest.image.size)
    found = soak(small_bundle, stream, tmp_path / "run", steps=1100, batch_size=8, queries=1)
    assert found["adapter_moved_by"] > 0.001
    assert found["compared_with_replay"] == 2 and found["replays_to_the_same_bits"]
