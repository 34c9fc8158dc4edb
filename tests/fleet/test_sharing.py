"""What a run shares: statistics under the adapter's start, of finished tasks, without classes of few pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import BY_HEAD, MOVING, go
from small import picture, write_small_stream

from edge_zofc.engine import gate
from edge_zofc.engine.history import roll_back
from edge_zofc.errors import InputError
from edge_zofc.fleet.sharing import Sharing, share_of
from edge_zofc.learner import Learner
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.share import encode

OFF: dict[str, Any] = {"adapter": "off"}


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of four classes, 8 pictures each."""
    return write_small_stream(tmp_path_factory.mktemp("sharing") / "stream", tasks=2, classes=4, alike=True)


def bits(found: Sharing) -> tuple[bytes, ...]:
    statistics = found.share.statistics
    return statistics.sums.tobytes(), statistics.counts.tobytes(), statistics.moment.tobytes()


def test_an_adapter_that_moved_shares_the_statistics_of_its_start(
    small_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "is_worse", lambda one, other: False)
    go(small_bundle, stream, tmp_path / "moved", changes=MOVING)
    go(small_bundle, stream, tmp_path / "off", changes=OFF)
    found = checkpoint.load_latest(tmp_path / "moved/state")
    assert found is not None and not np.array_equal(found.snapshot.arrays["theta"], small_bundle.initial_adapter())
    moved, off = (share_of(tmp_path / name, "d7") for name in ("moved", "off"))
    assert bits(moved) == bits(off)
    assert moved.share.adapter_sha256 == off.share.adapter_sha256
    assert moved.share.class_names == off.share.class_names == tuple(f"class{n:02d}" for n in range(8))


def test_the_same_state_gives_the_same_bytes_and_a_later_one_a_larger_number(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    shutil.copytree(stream / "000_task", first / "000_task")
    go(small_bundle, first, run, changes=OFF)
    one = share_of(run, "d7")
    assert encode(one.share) == encode(share_of(run, "d7").share)
    go(small_bundle, stream, run, changes={})
    two = share_of(run, "d7")
    roll_back(run, 0)
    three = share_of(run, "d7")
    assert one.share.number < two.share.number < three.share.number, "an earlier state again is the newest one"
    assert bits(one) == bits(three) != bits(two)


def test_in_the_middle_of_a_task_the_finished_ones_are_shared(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    changes = {**BY_HEAD, "adapter": "auto", "epochs": 1, "batch_size": 8, "queries": 2}
    go(small_bundle, stream, tmp_path / "run", changes=changes, max_steps=5)
    found = checkpoint.load_latest(tmp_path / "run/state")
    assert found is not None and found.snapshot.metadata["phase"] == "training"
    assert share_of(tmp_path / "run", "d7").share.class_names == tuple(f"class{n:02d}" for n in range(4))
    go(small_bundle, stream, tmp_path / "begun", changes=changes, max_steps=1)
    with pytest.raises(InputError, match="has finished no task yet, so there is nothing to share"):
        share_of(tmp_path / "begun", "d7")


@pytest.mark.parametrize("few", [1, 3])
def test_a_class_with_few_pictures_leaves_no_trace_in_the_share(few: int, small_bundle: Bundle, tmp_path: Path) -> None:
    """The sum of a class with one picture is that picture's feature."""
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=2)
    go(small_bundle, stream, tmp_path / "without", changes=OFF)
    place = stream / "000_task/train/class02"
    place.mkdir()
    for index in range(few):
        picture(2, index).save(place / f"{index:03d}.png")
    go(small_bundle, stream, tmp_path / "with", changes=OFF)
    found, wanted = share_of(tmp_path / "with", "d7"), share_of(tmp_path / "without", "d7")
    assert found.left_out == {"class02": few}
    assert found.share.class_names == ("class00", "class01")
    assert bits(found) == bits(wanted)
    assert share_of(tmp_path / "with", "d7", min_pictures=1).share.class_names == ("class00", "class01", "class02")
    with pytest.raises(InputError, match="has 9 pictures or more, so there is nothing to share"):
        share_of(tmp_path / "with", "d7", min_pictures=9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({**BY_HEAD, "epochs": 1, "batch_size": 8, "queries": 1}, "moved in every task"),
        ({"head": "cosine", "epochs": 1, "batch_size": 8, "queries": 1}, "has a cosine head, which keeps no sums"),
    ],
)
def test_a_run_without_statistics_of_the_start_says_so(
    changes: dict[str, Any], reason: str, small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    one = tmp_path / "stream"
    shutil.copytree(stream / "000_task", one / "000_task")
    go(small_bundle, one, tmp_path / "run", changes=changes)
    with pytest.raises(InputError, match=reason):
        share_of(tmp_path / "run", "d7")


def test_what_was_forgotten_is_not_shared_and_a_new_name_is(small_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    go(small_bundle, stream, tmp_path / "run", changes=OFF)
    before = share_of(tmp_path / "run", "d7").share
    with Learner.open(tmp_path / "run") as learner:
        learner.forget("class03")
        learner.rename("class05", "washer")
        after = share_of(tmp_path / "run", "d7")
        learner.undo()
        learner.undo()
    names = ["class00", "class01", "class02", "class04", "washer", "class06", "class07"]
    assert list(after.share.class_names) == names
    assert after.share.pictures == before.pictures - 8
    again = share_of(tmp_path / "run", "d7").share
    assert before.number < after.share.number < again.number
    assert encode(replace(again, number=before.number)) == encode(before)


def test_pictures_that_were_shown_are_counted_until_they_are_learnt(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    go(small_bundle, stream, run, changes=OFF)
    with Learner.open(run) as learner:
        learner.teach([picture(9, index) for index in range(8)], "washer")
        shown = share_of(run, "d7")
        learner.close_lesson()
        closed = share_of(run, "d7")
    assert (shown.shown, closed.shown) == (8, 8)
    assert "washer" not in shown.share.class_names
    go(small_bundle, run / "lesson/tasks", run, changes={})
    learnt = share_of(run, "d7")
    assert learnt.shown == 0 and learnt.share.class_names[-1] == "washer"
    assert shown.share.number <= closed.share.number < learnt.share.number
