"""history.py: the way back to a task's end, and when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import FAST, final_bits, go, without_times
from safetensors.numpy import load_file
from small import write_small_stream

from edge_zofc.cli.main import main
from edge_zofc.engine.history import read_history, roll_back
from edge_zofc.engine.replay import replay_run
from edge_zofc.errors import InputError
from edge_zofc.storage import checkpoint, journal
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Header, Journal, Kind, Record


def cut_while_a_task_ends(bundle: Bundle, stream: Path, run: Path) -> None:
    """Learn until the last task's ``state/task-NNN`` is written and the snapshot that knows of it is not."""
    real = checkpoint.save_task

    def save_and_die(folder: Path, task: int, found: checkpoint.Snapshot) -> Path:
        real(folder, task, found)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_task", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            go(bundle, stream, run)


@pytest.mark.parametrize("is_second_time", [False, True])
def test_an_end_that_the_journal_does_not_have_is_no_way_back(
    small_bundle: Bundle, tmp_path: Path, is_second_time: bool
) -> None:
    """The second time there is an older end of the task in the journal, with as many steps: only its bits differ."""
    stream, run = write_small_stream(tmp_path / "stream", tasks=2, alike=True), tmp_path / "run"
    later = (stream / "001_task").rename(tmp_path / "later")
    go(small_bundle, stream, run)
    later.rename(stream / "001_task")
    if is_second_time:
        go(small_bundle, stream, run)
        roll_back(run, 0)
        for path in (stream / "001_task/train").rglob("*.png"):  # other pictures, as many
            path.write_bytes((stream / f"000_task/train/class00/{path.name}").read_bytes())
    cut_while_a_task_ends(small_bundle, stream, run)
    before = final_bits(run)
    with pytest.raises(InputError, match="cut off while task 1 ended, so it cannot go back there yet; go on with"):
        roll_back(run, 1)
    assert final_bits(run) == before
    assert [task["can_roll_back"] for task in read_history(run)["tasks"]] == [True, False]
    go(small_bundle, stream, run)
    ended = final_bits(run)
    assert roll_back(run, 0)["steps"] < roll_back(run, 1)["steps"]
    assert final_bits(run) == ended
    replay_run(small_bundle.folder, run / "journal.bin", tmp_path / "a", None, None)
    assert load_file(tmp_path / "a")["adapter"].tobytes() == ended[0]


def test_the_journal_knows_how_long_it_was_at_a_tasks_latest_end(tmp_path: Path) -> None:
    header = Header(1, "0" * 64, 3, 0.25, 0.5, 1)
    with Journal.create(tmp_path / "j", header) as log:
        assert log.records_at_end(0) is None
        for record in (Record(Kind.TASK_START, 0, 0), Record(Kind.TASK_END, 0, 0)):
            log.append(record)
        assert log.records_at_end(0) == 2
        for record in (
            Record(Kind.ROLLBACK, journal.INITIAL, 0),
            Record(Kind.TASK_START, 0, 0),
            Record(Kind.TASK_END, 0, 0),
        ):
            log.append(record)
        assert log.records_at_end(0) == 5
    with Journal.open_for_append(tmp_path / "j", keep_records=4) as log:
        assert log.records_at_end(0) == 2


def test_going_back_and_forth_loses_nothing(small_bundle: Bundle, tmp_path: Path) -> None:
    stream, run = write_small_stream(tmp_path / "stream", tasks=3, alike=True), tmp_path / "run"
    go(small_bundle, stream, run, changes=FAST)
    ends = []
    for task in (0, 1, 2):
        roll_back(run, task)
        ends.append(final_bits(run))
        replay_run(small_bundle.folder, run / "journal.bin", tmp_path / "a", None, None)
        assert load_file(tmp_path / "a")["adapter"].tobytes() == ends[-1][0]
    assert len(set(ends)) == 3
    roll_back(run, 0)
    again = go(small_bundle, stream, run, changes=FAST)  # learns the second and the third anew
    assert final_bits(run) == ends[2]
    assert without_times(again) == without_times(go(small_bundle, stream, tmp_path / "whole", changes=FAST))


def test_a_rollback_that_cannot_be_ends_in_a_sentence_on_the_command_line(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, run = write_small_stream(tmp_path / "stream", tasks=1, alike=True), tmp_path / "run"
    cut_while_a_task_ends(small_bundle, stream, run)
    assert main(["rollback", str(run), "--to-task", "0"]) == 2
    assert capsys.readouterr().err.strip().endswith("go on with 'edge-zofc learn --resume' first.")
