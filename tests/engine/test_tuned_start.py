"""A tuned start: it is judged before the first task; a run that is better without it is one of the untuned bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_points import KillPoints, killed_and_resumed
from manifests import tuned_bundle
from runs import end_state, final_bits, go, quiet, without_times
from safetensors.numpy import load_file
from small import write_small_stream

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.engine import gate
from edge_zofc.engine.history import read_history
from edge_zofc.engine.predict import open_run
from edge_zofc.engine.replay import replay_run
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.learner import Learner
from edge_zofc.report.text import adapter_sentence
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Kind, read
from edge_zofc.storage.result import check_result

MOVING: dict[str, Any] = {"batch_size": 8, "queries": 2, "steps": 4, "adapter_lr": 0.05}


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of four classes, 8 + 4 pictures each."""
    return write_small_stream(tmp_path_factory.mktemp("start") / "stream", tasks=2, classes=4)


@pytest.fixture(scope="module")
def harmful(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Tuned, it would seem, on noise: 6 of 32 pictures are wrong from there, and none untuned."""
    draw = np.random.default_rng(0).choice([-3.9, 3.9], small_bundle.manifest.adapter.size)
    start = (np.rint(draw / LATTICE_STEP) * LATTICE_STEP).astype(np.float32)
    return tuned_bundle(small_bundle, tmp_path_factory.mktemp("harmful") / "bundle", start)


@pytest.fixture(scope="module")
def harmless(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A start next to the untuned one."""
    start = small_bundle.initial_adapter() + np.float32(2.0**-20)
    return tuned_bundle(small_bundle, tmp_path_factory.mktemp("harmless") / "bundle", start)


def alike(result: dict[str, Any]) -> dict[str, Any]:
    """What the runs of a tuned and of an untuned bundle must have in common."""
    found = {k: v for k, v in without_times(result).items() if not k.endswith("forward_passes")}
    found["adapter"] = {k: v for k, v in result["adapter"].items() if k not in ("start", "from_tuned")}
    return found


def test_a_start_that_is_worse_leaves_the_run_of_the_bundle_that_was_never_tuned(
    harmful: Bundle, small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    result = go(harmful, stream, tmp_path / "run", changes=MOVING)
    never = go(small_bundle, stream, tmp_path / "never", changes=MOVING)
    found = result["adapter"]["from_tuned"]
    assert result["adapter"]["start"] == "untuned"
    assert found["pictures"] == 32
    assert found["right_moved"] < found["right_frozen"]
    assert never["adapter"]["start"] is None
    assert alike(result) == alike(never)
    assert (tmp_path / "run/journal.bin").read_bytes() == (tmp_path / "never/journal.bin").read_bytes()
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "never")
    # One more pass over the first task's pictures, and no more than was told.
    cost = result["last_learn"]
    assert cost["image_forwards"] == never["last_learn"]["image_forwards"] + 32
    assert cost["predicted_image_forwards"] == never["last_learn"]["predicted_image_forwards"] + 32
    assert cost["image_forwards"] <= cost["predicted_image_forwards"]


def test_a_start_that_is_not_worse_stays(harmless: Bundle, stream: Path, tmp_path: Path) -> None:
    result = go(harmless, stream, tmp_path / "run", changes=MOVING)
    assert result["adapter"]["start"] == "tuned"
    assert result["adapter"]["from_tuned"]["gain"] == 0
    assert result["bundle_identity"] == harmless.identity


@pytest.mark.parametrize("adapter", ["off", "on"])
def test_without_the_gate_nobody_asks_and_the_tuned_start_is_taken(
    harmful: Bundle, stream: Path, tmp_path: Path, adapter: str
) -> None:
    result = go(harmful, stream, tmp_path / "run", changes={**MOVING, "adapter": adapter})
    assert (result["adapter"] or {}).get("start") is None
    assert result["bundle_identity"] == harmful.identity
    same = final_bits(tmp_path / "run")[0] == harmful.initial_adapter().tobytes()
    assert same is (adapter == "off")


def test_a_start_is_told_in_the_log_the_history_and_the_report(
    harmful: Bundle, stream: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "edge_zofc"):
        result = go(harmful, stream, tmp_path / "run", changes=MOVING)
    found = result["adapter"]["from_tuned"]
    counts = f"of the first task's 32 pictures {found['right_moved']} are named rightly from the tuned start"
    assert f"The adapter starts untuned: {counts}, {found['right_frozen']} from the untuned one." in caplog.text
    assert read_history(tmp_path / "run")["start"]["keeps"] is False
    said = adapter_sentence(check_result(json.dumps(result).encode()))
    assert said.startswith(f"It started untuned: of 32 pictures {found['right_moved']} were named rightly")


def test_an_untuned_run_is_gone_on_with_replayed_used_and_moved(
    harmful: Bundle, small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    first = frozenset({"000_task"})
    go(harmful, stream, tmp_path / "run", changes=MOVING, tasks=first)
    theta = final_bits(tmp_path / "run")[0]
    for bundle in (harmful, small_bundle):  # which has the same identity
        replayed = tmp_path / "theta"
        replay_run(bundle.folder, tmp_path / "run" / "journal.bin", replayed, None, None)
        assert load_file(replayed)["adapter"].tobytes() == theta
    assert open_run(tmp_path / "run").adapter.tobytes() == theta
    go(harmful, stream, tmp_path / "run", changes={})
    result = learn_run(LearnRequest(None, stream, tmp_path / "run"), quiet)
    assert result.completed
    assert result.adapter is not None
    assert result.adapter.start == "untuned"


def test_a_run_that_was_shown_things_keeps_the_start_that_it_saw_them_under(
    harmful: Bundle, stream: Path, tmp_path: Path
) -> None:
    with Learner.create(harmful.folder, tmp_path / "run") as learner:
        learner.teach([next((stream / "000_task/train/class00").iterdir())], "a thing")
    result = go(harmful, stream, tmp_path / "run", changes={})
    assert result["adapter"]["start"] is None
    assert result["bundle_identity"] == harmful.identity


def test_pictures_that_cannot_be_read_do_not_count(harmful: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=4, train=10, alike=True)
    (stream / "000_task/train/class01/003.png").write_bytes(b"no picture")
    result = go(harmful, stream, tmp_path / "run", changes=MOVING)
    assert result["adapter"]["from_tuned"]["pictures"] == 39


def test_a_first_task_that_is_begun_again_keeps_its_start_and_its_journal(harmful: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=4, alike=True)
    run, changes = tmp_path / "run", {**MOVING, "directions": "balanced"}
    go(harmful, stream, run, changes=changes, max_steps=2)
    chosen = read_history(run)["start"]
    (stream / "000_task/train/class00/000.png").unlink()
    result = go(harmful, stream, run, changes={})
    assert read_history(run)["start"] == chosen
    assert result["adapter"]["from_tuned"]["pictures"] == 32
    kinds = [record.kind for record in read(run / "journal.bin")[1]]
    assert kinds.count(Kind.ROLLBACK) == 1
    assert kinds.count(Kind.STEP) == 2 + 4


def test_a_single_class_is_named_rightly_from_any_start(harmful: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=1)
    assert go(harmful, stream, tmp_path / "run", changes=MOVING)["adapter"]["start"] == "tuned"


def test_a_run_that_is_killed_while_it_chooses_ends_with_the_same_bits(
    harmful: Bundle, stream: Path, tmp_path: Path
) -> None:
    def learn(run: Path) -> object:
        return go(harmful, stream, run, changes={**MOVING, "steps": 1})

    with pytest.MonkeyPatch.context() as patch:
        points = KillPoints(patch)
        learn(tmp_path / "whole")
    # From the first pass under both starts to the first record of the new journal.
    first = points.names.index("graph")
    begun = points.names.index("unlink", first)
    places = [*range(first, begun, 5), *range(begun, begun + 25)]
    for at, run in killed_and_resumed(learn, tmp_path, places):
        assert end_state(run)["state"] == end_state(tmp_path / "whole")["state"], f"killed at touch {at}"
        assert (run / "journal.bin").read_bytes() == (tmp_path / "whole/journal.bin").read_bytes()


def test_the_gates_rule_decides(harmful: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "is_worse", lambda _first, _second: False)
    assert go(harmful, stream, tmp_path / "run", changes=MOVING)["adapter"]["start"] == "tuned"
