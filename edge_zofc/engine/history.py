"""What a run has learnt and when, and the way back to an earlier task's end.

Going back deletes nothing. A rollback is one more record in the journal and one more checkpoint. Tasks that it undid
count as not learnt, so the next ``learn`` learns them again unless they leave the stream.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.metrics import summarise
from edge_zofc.engine.predict import run_bundle
from edge_zofc.engine.progress import progress_of
from edge_zofc.engine.state import RunState
from edge_zofc.engine.task_ends import load_end
from edge_zofc.errors import InputError
from edge_zofc.storage import checkpoint, journal
from edge_zofc.storage.lesson_log import LESSON
from edge_zofc.storage.lock import RunLock
from edge_zofc.storage.reading import check_folder
from edge_zofc.storage.result import RESULT
from edge_zofc.storage.run_folder import CLASSES, FEATURES, STATE, RunFolder


def read_history(folder: Path, bundle_folder: Path | None = None) -> dict[str, Any]:
    """Tasks, steps, accuracies and sizes of a run, JSON-able; ``bundle_folder``: where its bundle is now.

    Raises InputError if there is no run, else as ``run_bundle``.
    """
    run = RunFolder(folder)
    settings = run.settings()
    bundle, found = run_bundle(run, settings, bundle_folder), run.latest()
    state = RunState.of(bundle, settings.options, None if found is None else found.snapshot)
    header, records = journal.read(run.journal)
    known = islice(records, state.progress.journal_records)  # a rollback that was cut off is none
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    sizes |= {name: _folder_bytes(folder / name) for name in (STATE, FEATURES, CLASSES, LESSON)}
    return {
        "run": str(folder),
        "bundle": str(bundle.folder),
        "seed": header.seed,
        "optimizer": header.optimizer,
        "steps": state.progress.step,
        "start": None if state.progress.start is None else state.progress.start.model_dump(),
        "tasks": _tasks(state, set(checkpoint.tasks(run.state))),
        "rollbacks_to": [record.task for record in known if record.kind is journal.Kind.ROLLBACK],
        "bytes": sizes,
    }


def _tasks(state: RunState, ends: set[int]) -> list[dict[str, Any]]:
    """One row a task; ``ends`` are the tasks that have a checkpoint of their end."""
    found = summarise(state.progress.learner.correct, state.progress.total)
    stages, matrix = found.stage_accuracy, found.accuracy_matrix
    finished = len(state.finished_tasks)
    return [
        {
            "task": index,
            "name": task.name,
            "classes": len(task.class_ids),
            "train_images": task.train_images,
            "steps": task.steps,
            "seconds": round(task.seconds, 1),
            "own_accuracy": matrix[index][index] if index < len(matrix) else None,
            "stage_accuracy": stages[index] if index < len(stages) else None,
            "adapter": None if task.gate is None else task.gate.model_dump(),
            "crowding": task.crowding,
            "adapter_stays": task.is_roomy,
            "finished": index < finished,
            "can_roll_back": index in ends and index < finished,
        }
        for index, task in enumerate(state.progress.tasks)
    ]


def roll_back(folder: Path, to_task: int, bundle_folder: Path | None = None) -> dict[str, Any]:
    """Return head, adapter and progress to the end of task ``to_task``; one journal record, nothing deleted.

    Raises InputError if the task was not finished, RunLockedError while another process learns, else as ``run_bundle``.

    A crash while a task ends may leave its ``state/task-NNN`` without the checkpoint that knows of it, or newer than
    the end that the journal has. Journal and state would part for good if that file were believed.
    """
    run = RunFolder(folder)
    settings = run.settings()
    check_folder(run.state)
    with RunLock(folder):
        found = run.latest()
        if found is None:
            raise InputError(f"The run in {folder} has finished no task yet, so there is nothing to go back to.")
        kept = progress_of(found.snapshot).journal_records
        end = load_end(run.state, to_task)
        state = RunState.of(run_bundle(run, settings, bundle_folder), settings.options, end)
        with journal.Journal.open_for_append(run.journal, keep_records=kept) as log:
            if log.records_at_end(to_task) != state.progress.journal_records:
                raise InputError(
                    f"The run in {folder} was cut off while task {to_task} ended, so it cannot go back there yet; "
                    "go on with 'edge-zofc learn --resume' first."
                )
            log.append(journal.Record(journal.Kind.ROLLBACK, to_task, state.progress.step))
            state.progress.journal_records = log.records
        try:
            checkpoint.save(run.state, state.to_snapshot())
        except BaseException:
            journal.Journal.open_for_append(run.journal, keep_records=kept).close()  # or replay would follow it
            raise
        events = run.events()
        events.write("rolled_back", to_task=to_task, step=state.progress.step)
        events.close()
    # result.json speaks of the state before; ``learn`` writes a new one.
    (folder / RESULT).unlink(missing_ok=True)
    return {"run": str(folder), "to_task": to_task, "steps": state.progress.step}


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; another process may be learning, so that some may just have gone."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
