"""A bundle whose files change under a running learner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import FAST, final_bits, go
from small import write_small_bundle

from edge_zofc.engine.history import read_history
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DamagedFileError
from edge_zofc.storage import bundle as bundle_file
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import WEIGHTS


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle to be changed."""
    shutil.copytree(small_bundle.folder, tmp_path / "bundle")
    return read_bundle(tmp_path / "bundle")


def overwritten(path: Path) -> None:
    """Other weights in the same file, of the same size."""
    with path.open("r+b") as file:
        data = bytearray(file.read())
        data[len(data) // 2] ^= 1
        file.seek(0)
        file.write(data)


def replaced(path: Path) -> None:
    """Other weights under the name, as a copy that is renamed does it; size and time are the same."""
    found = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    other = path.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(path)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [overwritten, replaced, removed])
@pytest.mark.parametrize("step", [2, 6])  # of 4 a task: within the first task, within the second
def test_a_task_during_which_the_bundle_changed_does_not_count(
    copy: Bundle, small_bundle: Bundle, small_stream: Path, tmp_path: Path, change: Callable[[Path], None], step: int
) -> None:
    """FAULTS B6: told, undone, and with the bundle put back the run comes to the same bits."""
    run, weights = tmp_path / "run", copy.folder / WEIGHTS

    def meddle(trainer: Trainer, loss: float) -> None:
        if trainer.state.progress.step == step:
            change(weights)

    with pytest.raises(DamagedFileError, match=r"changed while task 00[01]_task was being learnt, so the run is as it"):
        go(copy, small_stream, run, meddle)
    shutil.copyfile(small_bundle.folder / WEIGHTS, weights)
    assert len(read_history(run)["tasks"]) == step // 4
    go(read_bundle(copy.folder), small_stream, run)
    go(small_bundle, small_stream, tmp_path / "whole")
    assert final_bits(run) == final_bits(tmp_path / "whole")


def test_files_that_were_only_touched_are_hashed_once(
    copy: Bundle, small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS B6: the same bytes written again are no reason to stop; where nothing changed nothing is read."""
    hashed: list[int] = []
    real = bundle_file._sha256
    monkeypatch.setattr(bundle_file, "_sha256", lambda file: hashed.append(1) or real(file))

    def touch(trainer: Trainer, loss: float) -> None:
        if trainer.state.progress.step == 2:
            hashed.clear()
            os.utime(copy.folder / WEIGHTS)

    go(copy, small_stream, tmp_path / "run", touch)
    assert len(hashed) == 1
    assert final_bits(tmp_path / "run")


def test_another_bundle_at_the_place_is_noticed_before_the_next_task(
    copy: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    """FAULTS B6: an export over the bundle of a running learner, at a task's very end."""

    def meddle(trainer: Trainer) -> None:
        shutil.rmtree(copy.folder)
        write_small_bundle(copy.folder, "w8")

    with pytest.MonkeyPatch.context() as patch:
        real = Trainer.save

        def save(self: Trainer, task_end: int | None = None) -> None:
            real(self, task_end)
            if task_end == 0:
                meddle(self)

        patch.setattr(Trainer, "save", save)
        with pytest.raises(DamagedFileError):
            go(copy, small_stream, tmp_path / "run")


_LEARN_AND_CUT = """
import json, os, sys
from pathlib import Path
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
bundle, stream, run, keep = *map(Path, sys.argv[1:4]), int(sys.argv[4])
def cut(trainer, loss):
    if trainer.state.progress.step == 2:
        os.truncate(bundle / "backbone.onnx.data", keep)
changes = json.loads(sys.argv[5])
placement = {"micro_batch": 4, "parallel_queries": 2, "profile": "cpu-2gib"}
learn_run(LearnRequest(bundle, stream, run, changes=changes, **placement), cut)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="SIGBUS of a mapped file")
def test_a_mapped_bundle_cut_short_ends_in_a_sentence_and_goes_on_with_the_same_bits(
    small_stream: Path, tmp_path: Path
) -> None:
    """FAULTS B6: SIGBUS ended the process without a word."""
    whole = write_small_bundle(tmp_path / "whole", "w8")
    shutil.copytree(whole.folder, tmp_path / "bundle")
    run, weights = tmp_path / "run", tmp_path / "bundle" / WEIGHTS
    words = [tmp_path / "bundle", small_stream, run, 0, json.dumps(FAST)]
    done = subprocess.run(
        [sys.executable, "-c", _LEARN_AND_CUT, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == DamagedFileError.exit_code, done.stderr
    assert "backbone.onnx.data has 0 bytes, the manifest says" in done.stderr
    assert "go on with 'edge-zofc learn --resume'" in done.stderr
    assert "Traceback" not in done.stderr
    shutil.copyfile(whole.folder / WEIGHTS, weights)
    go(read_bundle(tmp_path / "bundle"), small_stream, run)
    go(whole, small_stream, tmp_path / "uncut")
    assert final_bits(run) == final_bits(tmp_path / "uncut")
