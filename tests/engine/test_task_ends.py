"""task_ends.py: an end holds what its task changed, and is the whole state again when it is read."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import BY_HEAD, FAST, go, plain_state
from small import write_small_stream

from edge_zofc.algorithm.symmetric import unpack
from edge_zofc.data import stream as streams
from edge_zofc.engine import evaluation, loop, run, trainer
from edge_zofc.engine.feature_store import FeatureStore
from edge_zofc.engine.history import roll_back
from edge_zofc.engine.task_ends import is_readable, load_end
from edge_zofc.errors import InputError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.checkpoint import Snapshot


def wholes(monkeypatch: pytest.MonkeyPatch) -> dict[int, Snapshot]:
    """The whole state at each task's end, as it was when it was saved."""
    real, seen = trainer.save_end, dict[int, Snapshot]()

    def save(folder: Path, task: int, found: Snapshot) -> None:
        moments = {name: unpack(each.values, each.size) for name, each in found.packed.items()}
        arrays = {name: array.copy() for name, array in found.arrays.items()} | moments
        seen[task] = Snapshot(arrays, json.loads(json.dumps(found.metadata)))
        real(folder, task, found)

    monkeypatch.setattr(trainer, "save_end", save)
    return seen


@pytest.mark.parametrize("evaluate", ["all", "last"])
@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_an_end_is_read_as_the_whole_state_that_it_was(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, evaluate: str
) -> None:
    """Two tasks of two classes, one of a single class, and one in which a class of the first comes back."""
    stream, seen = write_small_stream(tmp_path / "stream", tasks=4, alike=True), wholes(monkeypatch)
    for part in ("train", "test"):
        shutil.rmtree(stream / f"002_task/{part}/class04")
        (stream / f"003_task/{part}/class06").rename(stream / f"003_task/{part}/class01")
    go(small_bundle, stream, tmp_path / "run", changes={**FAST, "head": head}, evaluate=evaluate)
    assert sorted(seen) == [0, 1, 2, 3]
    for task, whole in seen.items():
        assert plain_state(load_end(tmp_path / "run/state", task)) == plain_state(whole)


def test_where_older_ends_were_deleted_the_newest_is_written_as_a_whole(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that diverges is undone to the newest end, whichever the user deleted."""
    stream, seen = write_small_stream(tmp_path / "stream", tasks=3, alike=True), wholes(monkeypatch)
    state = tmp_path / "run/state"
    go(small_bundle, stream, tmp_path / "run")
    assert is_readable(state, 2)
    (state / "task-000.safetensors").unlink()
    assert not is_readable(state, 2)
    go(small_bundle, stream, tmp_path / "run")
    assert plain_state(load_end(state, 2)) == plain_state(checkpoint.load_task(state, 2)) == plain_state(seen[2])
    with pytest.raises(
        InputError, match=r"The end of task 1 .* needs that of task 0, which is gone; choose another task"
    ):
        roll_back(tmp_path / "run", 1)


@pytest.mark.parametrize("spoilt", ["gone", "format 1", "garbage"])
def test_an_end_can_be_read_whatever_became_of_the_one_before(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    stream, seen = write_small_stream(tmp_path / "stream", tasks=3, alike=True), wholes(monkeypatch)
    later, state = (stream / "002_task").rename(tmp_path / "later"), tmp_path / "run/state"
    go(small_bundle, stream, tmp_path / "run")
    before = state / "task-001.safetensors"
    if spoilt == "gone":
        before.unlink()
    elif spoilt == "format 1":
        before.write_bytes(before.read_bytes().replace(b"edge-zofc task end 1", b"edge-zofc snapshot 1"))
    else:
        before.write_bytes(b"\0" * 200)
    later.rename(stream / "002_task")
    go(small_bundle, stream, tmp_path / "run")
    # One that is gone was written anew, as a whole, when the run was opened.
    assert checkpoint.is_part(state, 2) is (spoilt == "gone")
    assert plain_state(load_end(state, 2)) == plain_state(seen[2])


def test_an_end_of_an_undone_history_that_lost_its_predecessor_is_a_sentence(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    """Task 1 is undone and learnt anew from other pictures: the old end of task 2 does not fit its new end."""
    stream, run_folder = write_small_stream(tmp_path / "stream", tasks=3, alike=True), tmp_path / "run"
    go(small_bundle, stream, run_folder)
    roll_back(run_folder, 0)
    for path in (stream / "001_task/train").rglob("*.png"):
        path.write_bytes((stream / f"000_task/train/class00/{path.name}").read_bytes())
    (stream / "002_task").rename(tmp_path / "away")
    go(small_bundle, stream, run_folder)
    with pytest.raises(InputError, match="needs that of task 1, which is another one by now; choose another task"):
        roll_back(run_folder, 2)
    assert roll_back(run_folder, 1)["to_task"] == 1


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Counter[str]]]:
    """By task: fingerprints, rows of features read and predictions made; bytes are added by the test."""
    found: dict[int, Counter[str]] = {}
    task = [0]

    def count(what: str, number: int) -> None:
        found.setdefault(task[0], Counter())[what] += number

    def around(place: Any, name: str, what: str) -> None:
        real = getattr(place, name)

        def call(*given: Any) -> Any:
            result = real(*given)
            count(what, len(given[1]) if what == "predictions" else 1)
            return result

        monkeypatch.setattr(place, name, call)

    real_rows, real_finish = FeatureStore.rows, loop._finish

    def rows(self: FeatureStore, *given: Any) -> Any:
        for part in real_rows(self, *given):
            count("rows", len(part[0]))
            yield part

    def finish(trainer: Any, *given: Any) -> None:
        real_finish(trainer, *given)
        task[0] += 1

    monkeypatch.setattr(FeatureStore, "rows", rows)
    monkeypatch.setattr(loop, "_finish", finish)
    around(evaluation, "named", "predictions")
    for place in (loop, run):
        around(place, "fingerprint", "fingerprints")
    around(streams, "_picture_names", "listings")
    around(checkpoint, "read_at", "heads of ends")
    yield found


def test_a_tasks_end_costs_the_same_after_forty_tasks_as_after_five(
    small_bundle: Bundle, tmp_path: Path, counted: dict[int, Counter[str]]
) -> None:
    """FAULTS D5: counts, no clock. With ``--evaluate new`` nothing of an earlier task is looked at.

    The file of an end grows by the numbers of classes that a stage's accuracy by class is made of, and of the accuracy
    matrix' row: under a hundredth of a class's rows.
    """
    stream = write_small_stream(tmp_path / "stream", tasks=40, classes=2, train=2, test=1)
    go(small_bundle, stream, tmp_path / "run", changes={**BY_HEAD, "batch_size": 4, "queries": 1}, evaluate="new")
    assert sorted(counted) == list(range(40))
    assert counted[39] == counted[19] == counted[4] == counted[1]
    what = ("rows", "predictions", "fingerprints", "listings", "heads of ends")
    assert min(counted[39][name] for name in what) > 0
    sizes = [path.stat().st_size for path in sorted((tmp_path / "run/state").glob("task-*"))]
    # A class has 20 bytes a feature in a whole state: a float32 and two float64. Two a task, 32 features.
    assert sizes[39] - sizes[4] < 0.05 * 35 * 2 * 20 * 32
    assert sum(sizes[20:]) < 1.1 * sum(sizes[:20])  # of whole states about twice
