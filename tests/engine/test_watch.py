"""``learn --watch``: which folders are complete, what is learnt when, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import FAST, final_bits, go, quiet, without_times
from small import picture, write_small_stream

from edge_zofc.engine.setup import LearnRequest
from edge_zofc.engine.trainer import Trainer
from edge_zofc.engine.watch import POLL_SECONDS, QUIET_SECONDS, READY, Clock, Watcher, watch_run
from edge_zofc.errors import InputError
from edge_zofc.report.summary import summary
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.result import read_result


class Hands:
    """A clock that stands still but for ``sleep``, at which something is done; SIGTERM after the last deed."""

    def __init__(self, *deeds: Callable[[], None]) -> None:
        self.deeds, self.seconds = list(deeds), 0.0

    def now(self) -> float:
        """Seconds slept so far."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Do the next deed."""
        self.seconds += seconds
        if not self.deeds:
            signal.raise_signal(signal.SIGTERM)
        self.deeds.pop(0)()

    def wait(self) -> None:
        """A deed: let a minute pass."""
        self.seconds += QUIET_SECONDS


def watch(
    bundle: Bundle, stream: Path, run: Path, hands: Hands, on_step: Callable[[Trainer, float], None] = quiet
) -> dict[str, Any]:
    request = LearnRequest(bundle.folder, stream, run, "cpu-2gib", changes=FAST, micro_batch=4, parallel_queries=2)
    result, stopped = watch_run(request, on_step, Clock(hands.now, hands.sleep))
    return {**(result.model_dump(mode="json") if result else {}), "stopped": stopped}


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """An empty stream and the folder with the three tasks that will come."""
    (tmp_path / "stream").mkdir()
    return tmp_path / "stream", write_small_stream(tmp_path / "parts")


def bring(parts: tuple[Path, Path], name: str, ready: bool = True) -> Callable[[], None]:
    stream, source = parts

    def deed() -> None:
        shutil.copytree(source / name, stream / name)
        if ready:
            (stream / name / READY).touch()

    return deed


def test_a_folder_is_complete_with_ready_or_after_a_minute_without_change(tmp_path: Path) -> None:
    hands = Hands()
    watcher = Watcher(tmp_path, Clock(hands.now, hands.sleep))
    for name in ("000_a", "001_b", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "000_a" / READY).touch()
    assert set(watcher.complete(frozenset())) == {"000_a"}
    hands.seconds = QUIET_SECONDS - 1
    (tmp_path / "001_b" / "x.png").write_bytes(b"1")
    assert set(watcher.complete(frozenset())) == {"000_a"}
    hands.seconds += QUIET_SECONDS - 1
    assert set(watcher.complete(frozenset())) == {"000_a"}
    hands.seconds += 1
    assert set(watcher.complete(frozenset())) == {"000_a", "001_b"}
    assert set(watcher.complete(frozenset({"000_a"}))) == {"001_b"}
    (tmp_path / "001_b" / "x.png").write_bytes(b"22")
    assert set(watcher.complete(frozenset({"000_a"}))) == set()


def test_tasks_are_learnt_as_they_come_to_the_bits_of_a_run_that_had_them_all(
    small_bundle: Bundle, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    hands = Hands(bring(parts, "000_task"), bring(parts, "001_task", ready=False))
    hands.deeds += [hands.wait, bring(parts, "002_task")]
    result = watch(small_bundle, parts[0], tmp_path / "run", hands)
    assert result["stopped"] == "SIGTERM"
    whole = go(small_bundle, parts[1], tmp_path / "whole")
    stages = json.loads((tmp_path / "run/result.json").read_text())
    assert without_times(stages) == {**without_times(whole), "stream": "stream"}
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_a_folder_half_copied_is_not_learnt(small_bundle: Bundle, parts: tuple[Path, Path], tmp_path: Path) -> None:
    hands = Hands(bring(parts, "000_task", ready=False), lambda: None)
    assert watch(small_bundle, parts[0], tmp_path / "run", hands) == {"stopped": "SIGTERM"}
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["lock"]


def test_a_signal_while_learning_and_a_restart_lose_nothing(
    small_bundle: Bundle, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    def send(session: Trainer, loss: float) -> None:
        if session.state.progress.step == 6:
            signal.raise_signal(signal.SIGTERM)

    hands = Hands(bring(parts, "001_task"), bring(parts, "002_task"))
    first = watch(small_bundle, parts[0], tmp_path / "run", hands, send)
    assert (first["stopped"], first["steps"]) == ("SIGTERM", 6)
    # 000 comes before the half learnt 002 in the stream, but after it in this run's life.
    bring(parts, "000_task")()
    second = watch(small_bundle, parts[0], tmp_path / "run", Hands())
    assert [task["name"] for task in second["tasks"]] == ["001_task", "002_task", "000_task"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_folder_that_is_no_task_is_told_once_and_learnt_when_it_is_one(
    small_bundle: Bundle, parts: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = parts[0]

    def empty() -> None:
        (stream / "000_task").mkdir()
        (stream / "000_task" / READY).touch()

    def fill() -> None:
        shutil.copytree(parts[1] / "000_task", stream / "000_task", dirs_exist_ok=True)

    hands = Hands(empty, lambda: None, lambda: None, fill)
    result = watch(small_bundle, stream, tmp_path / "run", hands)
    assert [task["name"] for task in result["tasks"]] == ["000_task"]
    assert sum("has no picture" in record.getMessage() for record in caplog.records) == 1


def test_train_pictures_of_a_learnt_task_may_be_deleted_while_watching(
    small_bundle: Bundle, parts: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS A8: its test pictures are still measured, and nothing is complained of."""

    def forget() -> None:
        shutil.rmtree(parts[0] / "000_task" / "train")

    hands = Hands(bring(parts, "000_task"), forget, bring(parts, "001_task"))
    result = watch(small_bundle, parts[0], tmp_path / "run", hands)
    assert [task["name"] for task in result["tasks"]] == ["000_task", "001_task"]
    assert result["accuracy_matrix"][1][0] is not None
    assert not any("has no picture" in record.getMessage() for record in caplog.records)


def test_a_folder_of_damaged_pictures_does_not_keep_the_next_from_being_learnt(
    small_bundle: Bundle, parts: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = parts[0]

    def damage() -> None:
        bring(parts, "000_task")()
        for path in (stream / "000_task/train").rglob("*.png"):
            path.write_bytes(b"")
        bring(parts, "001_task")()

    def repair() -> None:
        shutil.copytree(parts[1] / "000_task", stream / "000_task", dirs_exist_ok=True)

    hands = Hands(damage, lambda: None, lambda: None, repair)
    result = watch(small_bundle, stream, tmp_path / "run", hands)
    assert [task["name"] for task in result["tasks"]] == ["001_task", "000_task"]
    assert sum("of task 000_task cannot be read" in record.getMessage() for record in caplog.records) == 1


def test_a_half_learnt_task_that_changed_is_begun_again(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream")
    go(small_bundle, stream, tmp_path / "run", max_steps=6)
    (stream / "001_task/train/class99").mkdir()
    for index in range(8):
        picture(9, index).save(stream / f"001_task/train/class99/{index}.png")
    again = go(small_bundle, stream, tmp_path / "run")
    assert "changed while it was being learnt" in (tmp_path / "run/events.jsonl").read_text()
    assert without_times(again) == without_times(go(small_bundle, stream, tmp_path / "whole"))
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_a_half_learnt_task_that_is_gone_is_told(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream")
    go(small_bundle, stream, tmp_path / "run", max_steps=6)
    shutil.rmtree(stream / "001_task")
    with pytest.raises(InputError, match=r"in the middle of task 001_task.*--to-task 0"):
        go(small_bundle, stream, tmp_path / "run")
    with pytest.raises(InputError, match="in the middle of task 001_task"):
        watch(small_bundle, stream, tmp_path / "run", Hands(lambda: None))


def test_sigterm_ends_a_waiting_process_within_two_seconds(
    small_bundle: Bundle, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    bring(parts, "000_task")()
    words = ["learn", "--watch", "--bundle", small_bundle.folder, "--stream", parts[0], "--run", tmp_path / "run",
             "--epochs", "1", "--device-profile", "cpu-2gib"]  # fmt: skip
    script = "import sys; from edge_zofc.cli.main import main; sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    limit = time.monotonic() + 120
    while not (tmp_path / "run/result.json").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(POLL_SECONDS / 4)
    asked = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    _, shown = child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - asked < 2
    assert b"Traceback" not in shown


@pytest.mark.parametrize("tested", [True, False])
def test_a_stopped_watch_counts_the_class_just_learnt(small_bundle: Bundle, tmp_path: Path, tested: bool) -> None:
    """FAULTS B7: in the result that is shown and in the one that is kept, with test pictures or without."""
    (tmp_path / "stream").mkdir()
    source = write_small_stream(tmp_path / "parts", tasks=2, classes=1)
    if not tested:
        shutil.rmtree(source / "001_task/test")
    parts = tmp_path / "stream", source
    hands = Hands(bring(parts, "000_task"), bring(parts, "001_task"))
    result = watch(small_bundle, tmp_path / "stream", tmp_path / "run", hands)
    assert result["stopped"] == "SIGTERM"
    for found in (result, read_result(tmp_path / "run").model_dump()):
        assert found["class_names"] == ["class00", "class01"]
        assert summary(found).startswith("After 2 tasks and 2 classes the learner names")
