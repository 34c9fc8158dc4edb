"""The adapter's rate over a task's steps, and directions of its shifts alone, in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import final_bits, go
from safetensors.numpy import load_file
from small import write_small_stream

from edge_zofc.algorithm.directions import BALANCED, SHIFTS
from edge_zofc.engine.replay import replay_run
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Kind, read

MOVING: dict[str, Any] = {"estimator": "spsa", "adapter": "on", "batch_size": 8, "queries": 2, "steps": 6}


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_stream(tmp_path_factory.mktemp("schedule") / "stream", tasks=1, classes=4, alike=True)


def rates(run: Path) -> list[float]:
    return [record.learning_rate for record in read(run / "journal.bin")[1] if record.kind is Kind.STEP]


def test_the_edge_presets_rate_falls_to_nothing_and_replays(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    go(small_bundle, stream, tmp_path / "run", changes={**MOVING, "adapter_lr": 0.06})
    assert rates(tmp_path / "run") == [float(np.float32(0.06 * (6 - step) / 6)) for step in range(6)]
    assert read(tmp_path / "run" / "journal.bin")[0].directions == SHIFTS
    replay_run(small_bundle.folder, tmp_path / "run" / "journal.bin", tmp_path / "theta", None, None)
    assert load_file(tmp_path / "theta")["adapter"].tobytes() == final_bits(tmp_path / "run")[0]


def test_a_constant_rate_can_be_had(small_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    go(small_bundle, stream, tmp_path / "run", changes={**MOVING, "adapter_lr": 0.06, "schedule": "constant"})
    assert rates(tmp_path / "run") == [float(np.float32(0.06))] * 6


def test_a_run_that_was_stopped_goes_on_with_the_rates_that_it_would_have_had(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    changes = {**MOVING, "adapter_lr": 0.06}
    go(small_bundle, stream, tmp_path / "whole", changes=changes)
    go(small_bundle, stream, tmp_path / "run", changes=changes, max_steps=3)
    go(small_bundle, stream, tmp_path / "run", changes=changes)
    assert rates(tmp_path / "run") == rates(tmp_path / "whole")
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_a_rate_that_falls_needs_a_number_of_steps(small_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"schedule is linear.*--steps"):
        go(small_bundle, stream, tmp_path / "run", changes={"loss": "head", "schedule": "linear"})


def test_an_adapter_without_shifts_moves_in_all_its_pieces(small_bundle: Bundle) -> None:
    """The small bundle has a bottleneck."""
    shifts, balanced = small_bundle.scales(SHIFTS), small_bundle.scales(BALANCED)
    assert shifts is not None and balanced is not None
    assert shifts.tobytes() == balanced.tobytes()
