"""What a run has learnt and when, and the way back to an earlier task's end.

What may surprise: going back deletes nothing. A rollback is one more record in the journal and one more snapshot;
tasks that it undid count as not learnt, so the next ``learn`` learns them again unless they leave the stream.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.metrics import summarise
from edge_zofc.engine.predict import run_bundle
from edge_zofc.engine.state import RunState, progress_of
from edge_zofc.errors import InputError
from edge_zofc.storage import checkpoint, journal
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.lock import RunLock
from edge_zofc.storage.reading import check_folder
from edge_zofc.storage.run_folder import FROZEN, JOURNAL, RESULT, STATE, EventLog, read_settings
from edge_zofc.storage.writing import write_atomic


def read_history(run: Path) -> dict[str, Any]:
    """Tasks, steps, accuracies and sizes of a run, JSON-able. Raises InputError if there is no run."""
    settings = read_settings(run)
    bundle = run_bundle(settings, None)
    state = _state(run, None)
    progress = state.progress
    stages = summarise(progress.learner.correct, progress.total).stage_accuracy
    ends = set(checkpoint.tasks(run / STATE))
    tasks = [
        {
            "task": index,
            "name": task.name,
            "classes": len(task.class_ids),
            "train_images": task.train_images,
            "steps": task.steps,
            "seconds": round(task.seconds, 1),
            "stage_accuracy": stages[index] if index < len(stages) else None,
            "finished": task in state.finished_tasks,
            "can_roll_back": index in ends and task in state.finished_tasks,
        }
        for index, task in enumerate(progress.tasks)
    ]
    header, records = journal.read(run / JOURNAL)
    rollbacks = [record.task for record in records if record.kind is journal.Kind.ROLLBACK]
    sizes = {path.name: path.stat().st_size for path in sorted(run.iterdir()) if path.is_file()}
    sizes |= {name: _folder_bytes(run / name) for name in (STATE, FROZEN)}
    return {
        "run": str(run),
        "bundle": str(bundle.folder),
        "seed": header.seed,
        "optimizer": header.optimizer,
        "steps": progress.step,
        "tasks": tasks,
        "rollbacks_to": rollbacks,
        "bytes": sizes,
    }


def history_table(history: dict[str, Any]) -> str:
    """The history as lines for a terminal."""
    lines = [f"{'task':>4}  {'name':28} {'classes':>7} {'pictures':>8} {'steps':>6} {'accuracy':>8}"]
    for task in history["tasks"]:
        accuracy = task["stage_accuracy"]
        shown = "–" if accuracy is None else f"{100 * accuracy:.1f}%"
        mark = "" if task["finished"] else "  (unfinished)"
        lines.append(
            f"{task['task']:>4}  {task['name'][:28]:28} {task['classes']:>7} {task['train_images']:>8} "
            f"{task['steps']:>6} {shown:>8}{mark}"
        )
    total = sum(history["bytes"].values())
    largest = sorted(history["bytes"].items(), key=lambda item: -item[1])[:4]
    parts = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in largest)
    lines.append(f"{history['steps']} steps; {total / 2**20:.1f} MiB on disk ({parts})")
    if history["rollbacks_to"]:
        lines.append("rolled back to task " + ", then ".join(map(str, history["rollbacks_to"])))
    return "\n".join(lines)


def roll_back(run: Path, to_task: int) -> dict[str, Any]:
    """Return head, adapter and progress to the end of task ``to_task``; one journal record, nothing deleted.

    Raises InputError if the task was not finished, RunLockedError while another process learns.

    A crash while a task ends may leave its ``state/task-NNN`` without the snapshot that knows of it, or newer than the
    end that the journal has. Journal and state would part for good if that file were believed.
    """
    read_settings(run)
    check_folder(run / STATE)
    with RunLock(run):
        found = checkpoint.load_latest(run / STATE)
        if found is None:
            raise InputError(f"The run in {run} has finished no task yet, so there is nothing to go back to.")
        kept = progress_of(found.snapshot).journal_records
        state = _state(run, to_task)
        with journal.Journal.open_for_append(run / JOURNAL, keep_records=kept) as log:
            if log.records_at_end(to_task) != state.progress.journal_records:
                raise InputError(
                    f"The run in {run} was cut off while task {to_task} ended, so it cannot go back there yet; "
                    "go on with 'edge-zofc learn --resume' first."
                )
            log.append(journal.Record(journal.Kind.ROLLBACK, to_task, state.progress.step))
            state.progress.journal_records = log.records
        checkpoint.save(run / STATE, state.to_snapshot())
        events = EventLog(run)
        events.write("rolled_back", to_task=to_task, step=state.progress.step)
        events.close()
    # result.json speaks of the state before; ``learn`` writes a new one.
    (run / RESULT).unlink(missing_ok=True)
    return {"run": str(run), "to_task": to_task, "steps": state.progress.step}


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; another process may be learning, so that some may just have gone."""
    total = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _state(run: Path, task: int | None) -> RunState:
    """The newest state (None) or that at the end of a task."""
    settings = read_settings(run)
    state = RunState.of(run_bundle(settings, None), settings.run_options())
    if task is not None:
        state.restore(checkpoint.load_task(run / STATE, task))
        return state
    found = checkpoint.load_latest(run / STATE)
    if found is not None:
        state.restore(found.snapshot)
    return state


@dataclass(frozen=True)
class Replayed:
    """How many steps were applied, and the SHA-256 of the adapter's values as little-endian float32."""

    steps: int
    sha256: str


def replay_run(
    bundle_folder: Path, journal_path: Path, out: Path, until_step: int | None, until_task: int | None
) -> Replayed:
    """Write the adapter that the journal ends in (or passed through) to ``out`` as safetensors, atomically.

    Raises InputError if the journal belongs to another bundle, ends earlier or would be overwritten by ``out``;
    DamagedFileError if one is damaged.
    """
    # realpath, as Path.resolve raises on a link that leads to itself.
    if os.path.realpath(out) == os.path.realpath(journal_path):
        raise InputError(f"{out} is the journal itself, which nothing could replace; give -o another name.")
    bundle = read_bundle(bundle_folder)
    header, _ = journal.read(journal_path)
    if header.bundle_identity != bundle.identity:
        raise InputError(
            f"{journal_path} belongs to another bundle than {bundle_folder} (SHA-256 of its bundle.json: "
            f"{header.bundle_identity[:12]}..., here {bundle.identity[:12]}...); give the one it was learnt with."
        )
    adapter = Adapter(bundle.initial_adapter(), header.seed, header.eps, header.momentum, header.optimizer)
    steps = journal.replay(journal_path, adapter, until_step, until_task)
    write_atomic(out, save({"adapter": adapter.theta}))
    digest = hashlib.sha256(adapter.theta.astype("<f4", copy=False).tobytes()).hexdigest()
    return Replayed(steps, digest)
