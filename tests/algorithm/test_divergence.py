"""A task that diverges is undone: code 4, the state of before it, the reason in the log, nothing deleted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kill_points import Killed, KillPoints
from runs import FAST, final_bits, go, without_times
from safetensors.numpy import load_file
from small import write_small_stream

from edge_zofc.algorithm.divergence import FACTOR, SLACK, WINDOW, out_of_band
from edge_zofc.algorithm.heads import Head
from edge_zofc.engine.history import read_history
from edge_zofc.engine.progress import progress_of
from edge_zofc.engine.replay import replay_run
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DivergedError, InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage import checkpoint, journal
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import read_settings

LONG = {**FAST, "epochs": 30, "queries": 1}


def test_the_band_ends_at_three_times_the_first_median_and_one() -> None:
    first = [2.0] * WINDOW
    assert FACTOR * 2.0 + SLACK == 7.0
    assert out_of_band(first, [7.0] * WINDOW, 8) is None
    assert out_of_band(first, [7.01] * WINDOW, 8) == (
        "the median loss of the last 20 batches is 7.01, more than 3 times that of the first 20 (2) + 1"
    )


def test_a_few_bad_batches_and_a_short_task_are_no_divergence() -> None:
    assert out_of_band([0.1] * WINDOW, [0.1] * 11 + [1e9] * 9, 48) is None
    assert out_of_band([0.1] * WINDOW, [1e9] * (WINDOW - 1), 48) is None
    assert out_of_band([], [], 48, at_end=True) is None


def test_a_task_that_is_spoilt_from_its_second_batch_on_is_held_to_its_first() -> None:
    """3 x 0.25 + 1 x (1 + 8/8) = 2.75; of a single picture 3 x 0.25 + 9 = 9.75."""
    spoilt = [0.25, *[8.0] * (WINDOW - 1)]
    assert out_of_band(spoilt, [2.75] * WINDOW, 8) is None
    assert out_of_band(spoilt, [2.76] * WINDOW, 8) == (
        "the median loss of the last 20 batches is 2.76, more than 3 times that of the first (0.25) + 2"
    )
    assert out_of_band(spoilt, [9.7] * WINDOW, 1) is None


def test_a_short_task_is_judged_at_its_end_by_its_last_half() -> None:
    assert out_of_band([0.25, 9, 9, 9], [], 8, at_end=True) is None
    assert out_of_band([0.25, 9, 9, 9, 9], [], 8) is None
    assert out_of_band([0.25, 9, 9, 9, 1], [], 8, at_end=True) == (
        "the median loss of the last 3 batches is 9, more than 3 times that of the first (0.25) + 2"
    )
    assert out_of_band([0.25, 9, 9, 1, 1], [], 8, at_end=True) is None
    assert "the last 15 batches" in str(out_of_band([0.25] * WINDOW, [9] * 10, 8, at_end=True)).replace("0.25", "")


class Worse:
    """Adds ``more`` to every loss from step ``at`` of the run on."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, more: float) -> None:
        self.at, self.step = at, 0
        real = Head.losses

        def losses(head: Head, *arguments: np.ndarray) -> np.ndarray:
            found = real(head, *arguments)
            return found + np.float32(more) if self.step >= at else found

        patch.setattr(Head, "losses", losses)

    def follow(self, session: Trainer, loss: float) -> None:
        """Called after each step."""
        self.step = session.state.progress.step


@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_a_task_whose_loss_leaves_its_band_is_undone_and_learnt_again_later(
    small_bundle: Bundle, tmp_path: Path, head: str
) -> None:
    stream, run, changes = (write_small_stream(tmp_path / "stream", tasks=2), tmp_path / "run", {**LONG, "head": head})
    later = (stream / "001_task").rename(tmp_path / "later")
    go(small_bundle, stream, run, changes=changes)
    before = final_bits(run)
    later.rename(stream / "001_task")
    with pytest.MonkeyPatch.context() as patch:
        worse = Worse(patch, at=60 + 25, more=100.0)
        with pytest.raises(DivergedError, match="Task 001_task diverged and the run is as it was") as caught:
            go(small_bundle, stream, run, changes=changes, on_step=worse.follow)
    assert caught.value.exit_code == 4
    assert "the median loss of the last 20 batches" in str(caught.value)
    assert final_bits(run) == before
    replayed = replay_run(small_bundle.folder, run / "journal.bin", tmp_path / "a", None, None)
    assert replayed.steps == 60
    assert "diverged" in (run / "events.jsonl").read_text()
    assert read_history(run)["rollbacks_to"] == [0]
    assert json.loads((run / "result.json").read_text())["steps"] == 60
    again = go(small_bundle, stream, run, changes=changes)
    whole = go(small_bundle, stream, tmp_path / "whole", changes=changes)
    assert without_times(again) == without_times(whole)
    assert final_bits(run) == final_bits(tmp_path / "whole")


def test_a_task_that_a_wild_rate_spoils_at_once_is_undone_and_the_knowledge_before_it_stays(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    """Six steps, as many as a task of 300 pictures has in one epoch; from the second on the loss is 100 higher."""
    stream, run, changes = (write_small_stream(tmp_path / "stream", tasks=2), tmp_path / "run", {**FAST, "epochs": 3})
    with pytest.MonkeyPatch.context() as patch:
        worse = Worse(patch, at=6 + 1, more=100.0)
        with pytest.raises(DivergedError, match=r"001_task diverged.* last 3 batches is 100"):
            go(small_bundle, stream, run, changes=changes, on_step=worse.follow)
    assert [task["name"] for task in read_history(run)["tasks"]] == ["000_task"]
    again = go(small_bundle, stream, run, changes=changes)
    assert without_times(again) == without_times(go(small_bundle, stream, tmp_path / "whole", changes=changes))


def overflow(patch: pytest.MonkeyPatch) -> None:
    real = Backbone.features

    def features(self: Backbone, images: np.ndarray, adapters: np.ndarray) -> np.ndarray:
        return real(self, images, adapters) * np.float32("inf")

    patch.setattr(Backbone, "features", features)


def test_a_loss_that_is_not_finite_undoes_the_first_task_too(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    go(small_bundle, small_stream, run, max_steps=3)
    with pytest.MonkeyPatch.context() as patch:
        overflow(patch)
        with pytest.raises(DivergedError, match="The loss of step 3 is not finite"):
            go(small_bundle, small_stream, run)
    assert final_bits(run)[0] == small_bundle.initial_adapter().tobytes()
    _, records = journal.read(run / "journal.bin")
    last = list(records)[-1]
    assert (last.kind, last.task, last.step) == (journal.Kind.ROLLBACK, journal.INITIAL, 0)
    again = go(small_bundle, small_stream, run)
    assert without_times(again) == without_times(go(small_bundle, small_stream, tmp_path / "whole"))


def test_features_that_are_not_finite_at_a_tasks_begin_undo_it(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow(monkeypatch)
    with np.errstate(invalid="ignore"), pytest.raises(DivergedError, match="000_task"):
        go(small_bundle, small_stream, tmp_path / "run")
    assert read_history(tmp_path / "run")["tasks"] == []


@pytest.mark.parametrize("at", range(1, 20, 3))
def test_a_kill_while_a_task_is_undone_is_made_up_for(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, at: int
) -> None:
    run = tmp_path / "run"
    go(small_bundle, small_stream, run, max_steps=3)
    for points in (at, 0):
        with pytest.MonkeyPatch.context() as patch:
            overflow(patch)
            KillPoints(patch, points)
            with pytest.raises((Killed, DivergedError)):
                go(small_bundle, small_stream, run)
    again = go(small_bundle, small_stream, run)
    assert without_times(again) == without_times(go(small_bundle, small_stream, tmp_path / "whole"))


# --- the way on ------------------------------------------------------------------------------------------


def diverging(bundle: Bundle, tmp_path: Path) -> tuple[Path, Path, bytes]:
    """A run whose second task diverges at its rate; (stream, run, the bits of before that task)."""
    stream, run = write_small_stream(tmp_path / "stream", tasks=2), tmp_path / "run"
    later = (stream / "001_task").rename(tmp_path / "later")
    go(bundle, stream, run, changes=LONG)
    later.rename(stream / "001_task")
    before = final_bits(run)[0]
    for _ in range(2):  # the same pictures at the same rate diverge again
        with pytest.MonkeyPatch.context() as patch:
            worse = Worse(patch, at=60 + 25, more=100.0)
            with pytest.raises(DivergedError, match="go on with a smaller --adapter-lr"):
                go(bundle, stream, run, changes=LONG, on_step=worse.follow)
    return stream, run, before


def test_after_a_divergence_a_smaller_rate_is_taken_from_the_next_task_on_and_replays(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    stream, run, before = diverging(small_bundle, tmp_path)
    go(small_bundle, stream, run, changes={"adapter_lr": 0.001}, max_steps=75)
    assert read_settings(run).options.adapter_lr == 0.001
    with pytest.raises(InputError, match=r"adapter_lr: 0.001 -> 0.002\) can change between tasks only"):
        go(small_bundle, stream, run, changes={"adapter_lr": 0.002})
    result = go(small_bundle, stream, run, changes={})
    assert result["options"]["adapter_lr"] == 0.001
    rates = [r.learning_rate for r in journal.read(run / "journal.bin")[1] if r.kind is journal.Kind.STEP]
    assert set(rates[:60]) == {np.float32(0.01)}
    assert set(rates[-60:]) == {np.float32(0.001)}
    out = tmp_path / "a.safetensors"
    assert replay_run(small_bundle.folder, run / "journal.bin", out, None, None).steps == 120
    assert load_file(out)["adapter"].tobytes() == final_bits(run)[0]
    assert replay_run(small_bundle.folder, run / "journal.bin", out, None, 0).steps == 60
    assert load_file(out)["adapter"].tobytes() == before


def test_a_rate_that_no_run_has_and_any_other_change_are_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    stream, run = write_small_stream(tmp_path / "stream", tasks=1), tmp_path / "run"
    go(small_bundle, stream, run)
    settings = (run / "settings.json").read_bytes()
    with pytest.raises(InputError, match=r"eps: .* which cannot change"):
        go(small_bundle, stream, run, changes={"eps": 0.01, "adapter_lr": 0.001})
    with pytest.raises(InputError, match="adapter-lr is -1"):
        go(small_bundle, stream, run, changes={"adapter_lr": -1})
    assert (run / "settings.json").read_bytes() == settings


@pytest.mark.parametrize("at", range(1, 30, 4))
def test_a_kill_while_a_rate_is_changed_is_made_up_for(small_bundle: Bundle, tmp_path: Path, at: int) -> None:
    stream, whole, run = (write_small_stream(tmp_path / "stream", tasks=2), tmp_path / "whole", tmp_path / "run")
    later = (stream / "001_task").rename(tmp_path / "later")
    for folder in (whole, run):
        go(small_bundle, stream, folder)
    later.rename(stream / "001_task")
    expected = go(small_bundle, stream, whole, changes={"adapter_lr": 0.001})
    with pytest.MonkeyPatch.context() as patch:
        KillPoints(patch, at)
        with pytest.raises(Killed):
            go(small_bundle, stream, run, changes={"adapter_lr": 0.001})
    between = progress_of(checkpoint.load_latest(run / "state").snapshot).phase == "idle"  # type: ignore[union-attr]
    again = go(small_bundle, stream, run, changes={"adapter_lr": 0.001} if between else {})
    assert without_times(again) == without_times(expected)
    assert final_bits(run) == final_bits(whole)
