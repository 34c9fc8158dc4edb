"""Directions of a film's shifts alone, in a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from runs import final_bits, go
from safetensors.numpy import load_file
from small import write_small_stream

from edge_zofc.algorithm.directions import BALANCED, SHIFTS
from edge_zofc.engine.replay import replay_run
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import read


def test_the_edge_preset_moves_along_them_and_replays(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=4, alike=True)
    moving = {"estimator": "spsa", "adapter": "on", "batch_size": 8, "queries": 2, "steps": 6}
    go(small_bundle, stream, tmp_path / "run", changes=moving)
    assert read(tmp_path / "run" / "journal.bin")[0].directions == SHIFTS
    replay_run(small_bundle.folder, tmp_path / "run" / "journal.bin", tmp_path / "theta", None, None)
    theta = load_file(tmp_path / "theta")["adapter"]
    assert theta.tobytes() == final_bits(tmp_path / "run")[0]
    assert not np.array_equal(theta, small_bundle.initial_adapter())


def test_an_adapter_without_shifts_moves_in_all_its_pieces(small_bundle: Bundle) -> None:
    """The small bundle has a bottleneck."""
    shifts, balanced = small_bundle.scales(SHIFTS), small_bundle.scales(BALANCED)
    assert shifts is not None and balanced is not None
    assert shifts.tobytes() == balanced.tobytes()
