"""Confusion counts: right, bounded, out of the evaluation that is made anyway, and the same after a cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import FAST, go
from small import write_small_stream

from edge_zofc.algorithm.options import make_options
from edge_zofc.data.stream import Sample
from edge_zofc.engine.history import roll_back
from edge_zofc.engine.mistakes import PAIRS_WITH_PICTURES, PICTURES_OF_A_PAIR, confusion_of, pictures_of
from edge_zofc.engine.state import RunState
from edge_zofc.errors import DamagedFileError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.result import MOST_CELLS, read_result


def rows(*cells: tuple[int, int, int]) -> np.ndarray:
    return np.array(cells, np.int64).reshape(-1, 3)


def test_cells_are_counted_over_tasks_the_most_frequent_first() -> None:
    found = confusion_of([rows((0, 1, 0), (1, 2, 0), (2, 1, 0)), rows((0, 2, 0), (1, 0, 2))])
    assert found.tolist() == [[1, 0, 2], [2, 0, 2], [0, 2, 1]]
    assert confusion_of([]).shape == (0, 3) and confusion_of([]).dtype == np.int64


def test_what_is_kept_is_bounded() -> None:
    n = MOST_CELLS + 500
    wrong = np.column_stack([np.zeros(n), np.arange(n) // 300, 300 + np.arange(n) % 300]).astype(np.int64)
    found = confusion_of([wrong, wrong[-7:]])
    assert len(found) == MOST_CELLS and found[:8, 2].tolist() == [2] * 7 + [1]
    samples = [Sample(Path("/s/001_a/test/x/p.png"), 0)]
    kept = pictures_of(found, [(wrong, samples)] * 9, Path("/s"))
    assert len(kept) == PAIRS_WITH_PICTURES and max(len(one.paths) for one in kept) == PICTURES_OF_A_PAIR
    assert kept[0].paths[0] == "001_a/test/x/p.png"


def test_a_path_that_is_long_or_not_utf8_is_passed_over() -> None:
    names = ["a.png", "b" * 1001, os.fsdecode(b"\xff.png"), "c.png"]
    samples = [Sample(Path("/s", name), 0) for name in names]
    wrong = rows(*((k, 0, 1) for k in range(4)))
    assert [one.paths for one in pictures_of(rows((0, 1, 4)), [(wrong, samples)], Path("/s"))] == [["a.png", "c.png"]]


def consistent(result: dict[str, Any]) -> None:
    """The confusion counts are what the accuracies leave over."""
    wrong = [0] * len(result["class_names"])
    for class_id, named_id, count in result["confusion"]:
        assert class_id != named_id
        wrong[class_id] += count
    for one, count in zip(result["classes"], wrong, strict=True):
        assert one["test_images"] and one["accuracy"] == pytest.approx(1 - count / one["test_images"])
    total = sum(one["test_images"] for one in result["classes"])
    assert result["last_accuracy"] == pytest.approx(1 - sum(wrong) / total)


def test_a_run_counts_every_class_and_says_where_its_wrong_pictures_lie(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    result = go(small_bundle, small_stream, tmp_path / "run")
    consistent(result)
    train = sum(task["train_images"] for task in result["tasks"])
    assert sum(one["train_images"] for one in result["classes"]) == train
    assert result["wrong_pictures"], "this stream is too hard for the small bundle to be always right"
    for pair in result["wrong_pictures"]:
        for path in pair["paths"]:
            assert (small_stream / path).is_file()
            assert path.split("/")[-2] == result["class_names"][pair["class_id"]]
    assert read_result(tmp_path / "run").model_dump(mode="json", exclude={"stopped"}) == result


def test_the_counts_survive_a_cut_a_rollback_and_a_start_without_work(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    keys = ("classes", "confusion", "wrong_pictures", "next_steps")
    whole = go(small_bundle, small_stream, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    again = go(small_bundle, small_stream, tmp_path / "run")
    assert [again[key] for key in keys] == [whole[key] for key in keys]
    roll_back(tmp_path / "run", 0)
    back = go(small_bundle, small_stream, tmp_path / "run", max_steps=0)
    assert sum(one["test_images"] > 0 for one in back["classes"]) == 2
    consistent({**back, "class_names": back["class_names"][:2], "classes": back["classes"][:2]})
    assert [go(small_bundle, small_stream, tmp_path / "run")[key] for key in keys] == [whole[key] for key in keys]


def test_a_run_stopped_in_its_second_task_has_the_counts_of_the_first(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    first = go(small_bundle, small_stream, tmp_path / "one", tasks=frozenset(["000_task"]))
    steps = first["steps"] + 1
    result = go(small_bundle, small_stream, tmp_path / "run", max_steps=steps)
    assert result["confusion"] == first["confusion"] and len(result["classes"]) > len(first["classes"])
    assert [one["accuracy"] for one in result["classes"][2:]] == [None] * (len(result["classes"]) - 2)


@pytest.mark.parametrize(("evaluate", "tested"), [("new", [False, False, True]), ("last", [True, True, True])])
def test_classes_that_were_not_measured_have_no_accuracy(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, evaluate: str, tested: list[bool]
) -> None:
    result = go(small_bundle, small_stream, tmp_path / "run", evaluate=evaluate)
    found = [result["classes"][task["class_ids"][0]]["accuracy"] is not None for task in result["tasks"]]
    assert found == tested


def test_without_test_pictures_nothing_was_confused_and_nothing_is_advised(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1, train=4, test=0)
    result = go(small_bundle, stream, tmp_path / "run")
    assert (result["wrong_pictures"], result["next_steps"]) == ([], [])
    assert result["confusion"] is None and {one["accuracy"] for one in result["classes"]} == {None}


def test_a_snapshot_keeps_as_much_of_a_long_run_as_of_a_short_one(small_bundle: Bundle, tmp_path: Path) -> None:
    """Nothing grows with the square of the tasks: cells by pairs that were confused, paths by PAIRS_WITH_PICTURES."""
    stream = write_small_stream(tmp_path / "stream", tasks=8, classes=1, train=4, test=3, alike=True)
    go(small_bundle, stream, tmp_path / "run", changes=FAST)
    for task in range(8):
        found = checkpoint.load_task(tmp_path / "run/state", task)
        assert len(found.arrays["confusion"]) <= 3 * (task + 1)
        assert len(found.metadata["wrong_pictures"]) <= PAIRS_WITH_PICTURES


@pytest.mark.parametrize(
    "cells",
    [
        *(rows(cell) for cell in ((0, 99, 1), (-1, 0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 5), (0, 1, 2**62))),
        *(rows((0, 1, 3), (0, 1, 3)), np.zeros((2, 2), np.int64), np.zeros(3, np.int64), np.zeros((1, 3))),
        np.zeros((MOST_CELLS + 1, 3), np.int64),
    ],
)
def test_counts_that_are_none_are_refused(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, cells: np.ndarray
) -> None:
    result = go(small_bundle, small_stream, tmp_path / "run", tasks=frozenset(["000_task"]))
    assert [one["test_images"] for one in result["classes"]] == [4, 4]
    found = checkpoint.load_latest(tmp_path / "run/state")
    assert found is not None
    state, arrays = RunState.of(small_bundle, make_options("edge", FAST)), found.snapshot.arrays
    state.restore(found.snapshot)
    assert state.confusion is not None and state.confusion.tolist() == result["confusion"]
    with pytest.raises(DamagedFileError, match="confusion"):
        state.restore(checkpoint.Snapshot({**arrays, "confusion": cells}, found.snapshot.metadata))
    older = {name: array for name, array in arrays.items() if name != "confusion"}
    state.restore(checkpoint.Snapshot(older, found.snapshot.metadata))
    assert state.confusion is None
    beyond = {"class_id": 0, "named_id": 2, "paths": []}
    with pytest.raises(DamagedFileError, match="beyond the 2"):
        state.restore(checkpoint.Snapshot(arrays, {**found.snapshot.metadata, "wrong_pictures": [beyond]}))
