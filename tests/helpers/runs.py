"""Whole runs on the small bundle, and what of two runs must be equal however often one of them was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.engine.task_ends import load_end
from edge_zofc.engine.trainer import Trainer
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle

BY_HEAD = {"loss": "head"}
"""The adapter moves in every task, however small: what most tests of a whole run want."""
FAST = {**BY_HEAD, "epochs": 2, "batch_size": 8, "queries": 2}
MOVING: dict[str, Any] = {"batch_size": 8, "queries": 2, "steps": 6, "adapter_lr": 0.05}
"""The edge preset with a few large steps: the adapter of the small bundle moves in the first task alone."""
_MEASURED = {"seconds", "seconds_per_step", "peak_rss_mib", "peak_anonymous_mib", "peak_file_mib"}
_VARYING = {*_MEASURED, "stopped", "stream_folder", "last_learn"}


def quiet(session: Trainer, loss: float) -> None:
    """Follows the steps and says nothing."""


def go(
    bundle: Bundle, stream: Path, run: Path, on_step: Callable[[Trainer, float], None] = quiet, **more: Any
) -> dict[str, Any]:
    """Learn with small settings: micro-batch 4, two adapters at once unless told otherwise."""
    options: dict[str, Any] = {"changes": FAST, "micro_batch": 4, "parallel_queries": 2, "profile": "cpu-2gib"}
    result = learn_run(LearnRequest(bundle.folder, stream, run, **{**options, **more}), on_step)
    return result.model_dump(mode="json", exclude={"stopped"} if result.stopped is None else None)


def snapshot(run: Path) -> checkpoint.Snapshot:
    """The newest of the run."""
    found = checkpoint.load_latest(run / "state")
    assert found is not None
    return found.snapshot


def final_bits(run: Path) -> tuple[bytes, ...]:
    """Adapter, momentum, head and sigma of the newest snapshot."""
    arrays = snapshot(run).arrays
    return tuple(arrays[name].tobytes() for name in ("theta", "velocity", "rows", "sigma"))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """What must be the same in a resumed run."""
    kept = {key: value for key, value in result.items() if key not in _VARYING and "predicted" not in key}
    kept["tasks"] = [{k: v for k, v in task.items() if k != "seconds"} for task in result["tasks"]]
    return kept


_TIMES = {"seconds", "peak_rss_bytes", "peak_anonymous_bytes", "peak_file_bytes"}


def plain_state(found: checkpoint.Snapshot) -> Any:
    """A snapshot without times and memory: arrays as bytes, metadata as text."""
    metadata = {key: value for key, value in found.metadata.items() if key not in _TIMES}
    metadata["tasks"] = [{k: v for k, v in task.items() if k != "seconds"} for task in metadata["tasks"]]
    arrays = {name: array.tobytes() for name, array in found.arrays.items()}
    return arrays, json.dumps(metadata, sort_keys=True)


def end_state(run: Path) -> dict[str, Any]:
    """All that an uninterrupted and an interrupted run must have in common, bit for bit."""
    newest = checkpoint.load_latest(run / "state")
    assert newest is not None
    assert not newest.notes
    tasks = checkpoint.tasks(run / "state")
    return {
        "state": plain_state(newest.snapshot),
        "ends": {task: plain_state(load_end(run / "state", task)) for task in tasks},
        "journal": hashlib.sha256((run / "journal.bin").read_bytes()).hexdigest(),
        "result": without_times(json.loads((run / "result.json").read_text())),
        "leftovers": sorted(str(p.relative_to(run)) for p in run.rglob(".tmp-*")),
    }
