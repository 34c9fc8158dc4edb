"""The adapter in the edge preset before its first step: it moves where enough classes stand close together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kill_points import KillPoints, killed_and_resumed
from PIL import Image
from runs import MOVING, end_state, go, quiet, snapshot

from edge_zofc.algorithm.crowding import LIMIT
from edge_zofc.engine.history import read_history
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.engine.trainer import Trainer
from edge_zofc.engine.work import forwards_left
from edge_zofc.storage.bundle import Bundle


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of four classes, each of one colour: 8 + 4 pictures, which the small bundle finds 0.3 alike."""
    folder = tmp_path_factory.mktemp("before") / "unlike"
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 250)]
    colours += [(5, 5, 5), (250, 250, 5), (5, 250, 250), (250, 5, 250)]
    for number, colour in enumerate(colours):
        for part, count in (("train", 8), ("test", 4)):
            place = folder / f"{number // 4:03d}_task" / part / f"class{number}"
            place.mkdir(parents=True)
            for index in range(count):
                noise = np.random.default_rng(100 * number + index).normal(0, 10, (40, 40, 3))
                Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(place / f"{index}.png")
    return folder


def test_a_first_task_of_few_classes_leaves_the_adapter_where_it_is_and_says_so(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    result = go(small_bundle, small_stream, tmp_path / "run", changes=MOVING)
    assert result["steps"] == 0
    assert result["adapter"]["state"] == "start"
    notes = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any("first task has 2 classes, it needs 4" in event.get("text", "") for event in notes)


def test_classes_that_stand_far_apart_cost_the_passes_of_a_run_whose_adapter_is_off(
    small_bundle: Bundle, unlike: Path, tmp_path: Path
) -> None:
    """With steps ten kinds of objects cost 6 times as many, and lost 2.4 points."""
    result = go(small_bundle, unlike, tmp_path / "run", changes=MOVING)
    off = go(small_bundle, unlike, tmp_path / "off", changes={**MOVING, "adapter": "off"})
    assert result["steps"] == 0
    assert result["last_learn"]["image_forwards"] == off["last_learn"]["image_forwards"] == 96
    assert result["accuracy_matrix"] == off["accuracy_matrix"]
    adapter = result["adapter"]
    assert adapter["state"] == "start"
    assert adapter["crowding"] < LIMIT
    mine, theirs = (snapshot(tmp_path / name).arrays for name in ("run", "off"))
    assert {name: array.tobytes() for name, array in mine.items()} == {n: a.tobytes() for n, a in theirs.items()}
    assert not list((tmp_path / "run" / "features").glob("*-held-*"))
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    told = [event["text"] for event in events if "--adapter on" in event.get("text", "")]
    assert len(told) == 1
    assert f"are {adapter['crowding']:.2f} alike" in told[0]
    history = read_history(tmp_path / "run", None)["tasks"]
    assert [(task["adapter_stays"], task["crowding"]) for task in history] == [
        (True, adapter["crowding"]),
        (False, None),
    ]


def test_classes_that_stand_close_together_move_the_adapter(small_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    result = go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    assert result["steps"] == 6
    assert result["adapter"]["crowding"] >= LIMIT
    assert not any(task["adapter_stays"] for task in read_history(tmp_path / "run", None)["tasks"])


def test_an_adapter_that_is_on_moves_however_far_apart_the_classes_stand(
    small_bundle: Bundle, unlike: Path, tmp_path: Path
) -> None:
    result = go(small_bundle, unlike, tmp_path / "run", changes={**MOVING, "adapter": "on"})
    assert result["steps"] == 6
    assert result["adapter"] is None


def test_once_the_adapter_stays_no_steps_are_left_in_the_forecast(
    small_bundle: Bundle, unlike: Path, tmp_path: Path
) -> None:
    left = []

    def look(trainer: Trainer, count: int) -> None:
        if trainer.state.progress.phase != "idle":
            left.append(forwards_left(trainer))

    learn_run(
        LearnRequest(small_bundle.folder, unlike, tmp_path / "run", changes=MOVING, profile="cpu-2gib"),
        quiet,
        on_forwards=look,
    )
    assert left[0] == 16 + 32 + 16  # the test pictures of the task, and all of the next one


@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_that_is_killed_while_it_decides_goes_on_to_the_same_bits(
    small_bundle: Bundle, unlike: Path, tmp_path: Path, deleted: bool
) -> None:
    """``deleted``: the kept features are gone too, so that the decision is made again from new ones."""

    def learn(run: Path) -> None:
        if deleted and (run / "state").is_dir():
            for path in (run / "features").iterdir():
                path.unlink()
        go(small_bundle, unlike, run, changes=MOVING)

    with pytest.MonkeyPatch.context() as patch:
        points = KillPoints(patch)
        learn(tmp_path / "whole")
    first = points.names.index("graph")
    for at, run in killed_and_resumed(learn, tmp_path, range(first, points.count, max(1, points.count // 12))):
        assert end_state(run)["state"] == end_state(tmp_path / "whole")["state"], f"killed at touch {at}"
        assert (run / "journal.bin").read_bytes() == (tmp_path / "whole/journal.bin").read_bytes()
