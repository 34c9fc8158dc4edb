"""Folders without permission, limits on files: one sentence, the right exit code, and a state that holds together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import final_bits, go

from edge_zofc.cli.main import main
from edge_zofc.data.split import split_image_folder
from edge_zofc.engine import history
from edge_zofc.engine.history import read_history, roll_back
from edge_zofc.engine.replay import replay_run
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.settings import SETTINGS

_NO_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]


def command(*words: object, wrap: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """An edge-zofc process, for root without the right to read everything."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root reads everything")
        wrap = (*_NO_PRIVILEGE, *wrap)
    line = [*wrap, sys.executable, "-m", "edge_zofc", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder whose members may lose their permissions."""
    yield tmp_path
    for path in (tmp_path, *tmp_path.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_rollback_that_cannot_be_saved_did_not_happen(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS C3: history and replay followed the journal's record of it."""
    run, kept = tmp_path / "run", history.checkpoint.save
    go(small_bundle, small_stream, run)
    before, journal, shown = final_bits(run), (run / "journal.bin").read_bytes(), read_history(run)

    def refused(*_: object) -> None:
        raise InputError("permission denied")

    monkeypatch.setattr(history.checkpoint, "save", refused)
    with pytest.raises(InputError, match="permission denied"):
        roll_back(run, 0)
    assert (run / "journal.bin").read_bytes() == journal
    assert replay_run(small_bundle.folder, run / "journal.bin", tmp_path / "adapter", None, None).steps == 12

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(history.checkpoint, "save", killed)
    monkeypatch.setattr(history.journal.Journal, "open_for_append", _second_open_fails(history.journal.Journal))
    with pytest.raises(SystemExit):
        roll_back(run, 0)
    assert (run / "journal.bin").read_bytes() != journal
    assert read_history(run)["rollbacks_to"] == shown["rollbacks_to"] == []
    monkeypatch.undo()
    assert kept is history.checkpoint.save
    assert final_bits(run) == before


def _second_open_fails(kind: type[history.journal.Journal]) -> object:
    real, calls = kind.open_for_append, list[int]()

    def open_once(*words: object, **more: object) -> object:
        calls.append(1)
        if len(calls) > 1:
            raise SystemExit  # the process is gone before it can put anything in order
        return real(*words, **more)  # type: ignore[arg-type]

    return open_once


def test_settings_that_may_not_be_read_are_not_damaged(small_bundle: Bundle, small_stream: Path, closed: Path) -> None:
    """FAULTS C3: exit code 5 sends a person to look for damage."""
    go(small_bundle, small_stream, closed / "run", max_steps=1)
    (closed / "run" / SETTINGS).chmod(0)
    done = command("history", closed / "run")
    assert done.returncode == 2
    assert done.stderr == (
        f"edge-zofc: {closed / 'run' / SETTINGS} could not be read (permission denied); give this user the "
        "permission or choose another folder, then try again.\n"
    )


def test_a_picture_that_may_not_be_copied_is_the_one_that_is_named(small_stream: Path, closed: Path) -> None:
    """FAULTS C3: the sentence blamed the stream's folder."""
    photos = shutil.copytree(small_stream / "000_task" / "train", closed / "photos")
    (photos / "class00" / "003.png").chmod(0)
    done = command("split", photos, closed / "tasks", "--classes-per-task", 1, "--copy")
    assert done.returncode == 2
    assert done.stderr.startswith(f"edge-zofc: {photos}/class00/003.png cannot be read (permission denied)")
    assert not (closed / "tasks").exists()


def test_a_limit_on_the_size_of_files_is_not_called_a_full_disk(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    """FAULTS C3: "the disk is full ... 70 GiB are free"."""
    go(small_bundle, small_stream, tmp_path / "run", max_steps=1)
    done = command("learn", "--stream", small_stream, "--run", tmp_path / "run", wrap=("prlimit", "--fsize=3000"))
    assert done.returncode == 3
    assert "no file may grow larger here; raise the limit ('ulimit -f'" in done.stderr
    assert "disk is full" not in done.stderr
    assert main(["learn", "--stream", str(small_stream), "--run", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("report", "run", "--out", "bundle/bundle.json"),
        ("report", "run", "--out", "run/journal.bin"),
        ("deploy", "run", "bundle/backbone.onnx"),
        ("replay", "bundle", "run/journal.bin", "-o", "bundle/adapter.safetensors"),
        ("replay", "bundle", "run/journal.bin", "-o", "run/state/snapshot-00000001.safetensors"),
    ],
)
def test_no_output_replaces_a_file_of_a_run_or_a_bundle(
    small_bundle: Bundle,
    small_stream: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    """FAULTS C3: a slip of the hand, and the bundle is gone."""
    shutil.copytree(small_bundle.folder, tmp_path / "bundle")
    go(read_bundle(tmp_path / "bundle"), small_stream, tmp_path / "run", max_steps=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == 2
    assert "choose another place" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_unreadable_picture_is_named_once(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAULTS A10: its path stood twice in the line."""
    go(small_bundle, small_stream, tmp_path / "run", max_steps=1)
    capsys.readouterr()
    picture = tmp_path / "gone.jpg"
    assert main(["predict", str(tmp_path / "run"), str(picture)]) == 2
    assert capsys.readouterr().out == f"{picture}: cannot be read (No such file or directory).\n"


def test_a_stream_that_is_split_again_is_told_as_one(small_stream: Path, tmp_path: Path) -> None:
    """FAULTS A9: the sentence spoke of folders in class folders."""
    with pytest.raises(InputError, match="is a stream already; give it to 'edge-zofc learn --stream"):
        split_image_folder(small_stream, tmp_path / "tasks", 1)
