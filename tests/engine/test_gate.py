"""The adapter in the edge preset: it moves in the first task, is judged at each end, and rests without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_points import KillPoints, killed_and_resumed
from runs import MOVING, end_state, final_bits, go, snapshot, without_times
from safetensors.numpy import load_file

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine import gate
from edge_zofc.engine.history import read_history, roll_back
from edge_zofc.engine.replay import replay_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.engine.trainer import Trainer
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Kind, read
from edge_zofc.storage.run_folder import RunFolder


def always_worse(only_first: int, only_second: int) -> bool:
    return True


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_pictures_are_taken_out_of_statistics_to_the_same_bits(seed: int, count: int) -> None:
    draw = np.random.RandomState(seed)
    features, labels = draw.randn(count + 20, 6).astype(np.float32), draw.randint(0, 4, count + 20)
    kept, all_of_them = Statistics.empty(4, 6), Statistics.empty(4, 6)
    kept.add(features[count:], labels[count:])
    all_of_them.add(features, labels)
    all_of_them.add(features[:count], labels[:count], times=-1)
    for name in ("sums", "counts", "moment"):
        assert np.array_equal(getattr(kept, name), getattr(all_of_them, name))


def test_steps_by_the_heads_loss_know_the_new_classes_of_every_task(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    """Classes without rows cost 1e30 whatever the adapter does: no step of a later task moved it."""
    changes = {"loss": "head", "adapter": "auto", "epochs": 1, "batch_size": 8, "queries": 2}
    go(small_bundle, stream, tmp_path / "run", changes=changes)
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    losses = [event["loss"] for event in map(json.loads, lines) if event["event"] == "step" and event["task"] > 0]
    assert losses
    assert max(losses) < 1e3


def test_a_resumed_run_lets_the_snapshot_go_that_it_began_with(
    small_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took its memory for as long as the run: 26 MiB of 1,280 features."""
    go(small_bundle, stream, tmp_path / "run", changes=MOVING, max_steps=2)
    opened, latest = [], RunFolder.latest

    def remember(run: RunFolder) -> checkpoint.Loaded | None:
        opened.append(latest(run))
        return opened[-1]

    monkeypatch.setattr(RunFolder, "latest", remember)
    left: list[int] = []

    def look(trainer: Trainer, loss: float) -> None:
        left.append(len(opened[0].snapshot.arrays))

    go(small_bundle, stream, tmp_path / "run", look, changes={}, resume=True)
    assert left
    assert set(left) == {0}


def test_the_adapter_moves_in_the_first_task_alone_and_its_journal_rebuilds_it(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    result = go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    assert [task["steps"] for task in result["tasks"]] == [6, 0, 0]
    replayed = replay_run(small_bundle.folder, tmp_path / "run" / "journal.bin", tmp_path / "theta", None, None)
    theta = load_file(tmp_path / "theta")["adapter"]
    assert replayed.steps == 6
    assert not np.array_equal(theta, small_bundle.initial_adapter())
    assert theta.tobytes() == final_bits(tmp_path / "run")[0]


def test_what_it_won_is_told_by_picture(small_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    result = go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    adapter = result["adapter"]
    assert adapter["state"] == "moved"
    assert adapter["held_out"]["pictures"] == 12  # one of eight, of twelve classes
    tested = adapter["tested"]
    assert tested["pictures"] == 48
    assert tested["gain"] == pytest.approx((tested["right_moved"] - tested["right_frozen"]) / 48)
    assert tested["low"] <= tested["gain"] <= tested["high"]
    gates = [task["adapter"] for task in read_history(tmp_path / "run", None)["tasks"]]
    assert [found["held_out"] for found in gates] == [4, 8, 12]


def test_the_frozen_head_beside_it_is_that_of_a_run_whose_adapter_is_off(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    """FAULTS D2: with the adapter off each picture goes through the graph once."""
    moved = go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    off = go(small_bundle, stream, tmp_path / "off", changes={**MOVING, "adapter": "off"})
    assert off["steps"] == 0
    nothing = dict.fromkeys(("start", "from_tuned", "crowding", "held_out", "tested"))
    assert off["adapter"] == {**nothing, "state": "start"}
    assert moved["frozen_head"]["accuracy_matrix"] == off["accuracy_matrix"]
    assert off["forward_passes"] == 96


@pytest.mark.parametrize("first_bad_end", [0, 1, 2])
def test_an_adapter_that_rests_leaves_the_head_of_a_run_whose_adapter_is_off(
    small_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_bad_end: int
) -> None:
    ends = iter(range(3))
    monkeypatch.setattr(gate, "is_worse", lambda first, second: next(ends) == first_bad_end)
    result = go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    monkeypatch.undo()
    go(small_bundle, stream, tmp_path / "off", changes={**MOVING, "adapter": "off"})
    assert result["adapter"]["state"] == "rests"
    mine, theirs = (snapshot(tmp_path / name).arrays for name in ("run", "off"))
    for name in ("theta", "rows", "biases", "feature_moment", "feature_sums", "class_sums"):
        assert mine[name].tobytes() == theirs[name].tobytes(), name
    replay_run(small_bundle.folder, tmp_path / "run" / "journal.bin", tmp_path / "theta", None, None)
    assert np.array_equal(load_file(tmp_path / "theta")["adapter"], small_bundle.initial_adapter())
    kinds = [record.kind for record in read(tmp_path / "run" / "journal.bin")[1]]
    assert kinds.count(Kind.REST) == 1
    assert "frozen_moment" not in mine


@pytest.mark.parametrize("steps", [1, 5, 6])
@pytest.mark.parametrize("rests", [False, True])
def test_a_stopped_run_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, rests: bool
) -> None:
    if rests:
        monkeypatch.setattr(gate, "is_worse", always_worse)
    whole = go(small_bundle, stream, tmp_path / "whole", changes=MOVING)
    part = go(small_bundle, stream, tmp_path / "run", changes=MOVING, max_steps=steps)
    assert part["completed"] is (steps == 6)
    resumed = go(small_bundle, stream, tmp_path / "run", changes=MOVING, resume=True)
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")
    assert without_times(resumed) == without_times(whole)


def test_a_run_without_its_kept_features_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    go(small_bundle, stream, tmp_path / "whole", changes=MOVING)
    go(small_bundle, stream, tmp_path / "run", changes=MOVING, max_steps=3)
    for path in (tmp_path / "run" / "features").iterdir():
        path.unlink()
    go(small_bundle, stream, tmp_path / "run", changes=MOVING, resume=True)
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_held_out_features_that_were_deleted_are_told(small_bundle: Bundle, stream: Path, tmp_path: Path) -> None:
    go(small_bundle, stream, tmp_path / "run", changes=MOVING, tasks=frozenset({"000_task"}))
    for path in (tmp_path / "run" / "features").glob("000-held-*"):
        path.unlink()
    result = go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    assert result["adapter"]["held_out"]["pictures"] == 8
    assert "features of 1 earlier task(s) were deleted" in (tmp_path / "run" / "events.jsonl").read_text()


@pytest.mark.parametrize("call", [1, 2])
def test_memory_that_runs_out_while_it_is_judged_leaves_the_same_bits(
    small_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    go(small_bundle, stream, tmp_path / "whole", changes=MOVING)
    calls, solved_head = iter(range(1, 1000)), gate.solved_head

    def failing(statistics: Statistics) -> Head:
        if next(calls) == call:
            raise MemoryError
        return solved_head(statistics)

    monkeypatch.setattr(gate, "solved_head", failing)
    go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    for part in ("state", "ends"):
        assert end_state(tmp_path / "run")[part] == end_state(tmp_path / "whole")[part]


@pytest.mark.parametrize("rests", [False, True])
def test_a_run_killed_at_an_instant_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rests: bool
) -> None:
    if rests:
        monkeypatch.setattr(gate, "is_worse", always_worse)

    def learn(run: Path) -> None:
        go(small_bundle, stream, run, changes=MOVING)

    with pytest.MonkeyPatch.context() as patch:
        points = KillPoints(patch)
        learn(tmp_path / "whole")
    for at, run in killed_and_resumed(learn, tmp_path, range(20, points.count, points.count // 10)):
        assert end_state(run)["state"] == end_state(tmp_path / "whole")["state"], f"killed at touch {at}"
        assert (run / "journal.bin").read_bytes() == (tmp_path / "whole/journal.bin").read_bytes()


def test_a_run_goes_back_to_the_first_task_and_learns_the_others_again(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    before = final_bits(tmp_path / "run")
    roll_back(tmp_path / "run", 0)
    go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    assert final_bits(tmp_path / "run") == before


def test_a_run_that_is_stopped_amid_its_steps_does_not_say_that_the_adapter_did_not_move(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    part = go(small_bundle, stream, tmp_path / "run", changes=MOVING, max_steps=2)
    assert part["steps"] == 2 and part["adapter"] is None
    whole = go(small_bundle, stream, tmp_path / "run", changes=MOVING)
    assert whole["steps"] == 6 and whole["adapter"]["state"] == "moved"


def test_a_request_that_names_no_options_goes_on_with_the_runs_own(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    go(small_bundle, stream, tmp_path / "run", changes=MOVING, max_steps=2)
    assert LearnRequest(small_bundle.folder, stream, tmp_path / "run").changes == {}
    result = go(small_bundle, stream, tmp_path / "run", changes={}, resume=True)
    assert result["steps"] == 6
