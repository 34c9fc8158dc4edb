"""A stream whose names change their Unicode form under a run, as a copy through another file system does it."""

from __future__ import annotations

import logging
import shutil
import unicodedata
from pathlib import Path

import pytest
from runs import final_bits, go

from edge_zofc.engine.progress import progress_of, tasks_of
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import RunFolder


def accented(stream: Path, folder: Path, form: str) -> Path:
    """A copy of a stream with names that have two Unicode forms."""
    shutil.copytree(stream, folder)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rename(path.with_name(path.name.replace("ta", "t\u00e4").replace("cl", "\u00e7l")))
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rename(path.with_name(unicodedata.normalize(form, path.name)))
    return folder


@pytest.mark.parametrize(("first", "second"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_run_goes_on_after_a_copy_that_changed_the_form_of_every_name(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str, second: str
) -> None:
    """FAULTS A3: in the middle of the second task; same bits, nothing is told as changed or new."""
    before, after = (accented(small_stream, tmp_path / form, form) for form in (first, second))
    go(small_bundle, before, tmp_path / "whole")
    go(small_bundle, before, tmp_path / "run", max_steps=6)
    with caplog.at_level(logging.WARNING):
        go(small_bundle, after, tmp_path / "run")
    assert "changed" not in caplog.text
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")
    assert tasks_of(RunFolder(tmp_path / "run"))[0] == {f"00{number}_t\u00e4sk" for number in range(3)}


def test_task_names_that_an_earlier_version_kept_in_another_form_are_those_of_the_stream(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    """FAULTS A3."""
    go(small_bundle, small_stream, tmp_path / "run", max_steps=6)
    found = checkpoint.load_latest(tmp_path / "run" / "state")
    assert found is not None
    for names, read in ((["a\u0308", "b"], ["\u00e4", "b"]), (["a\u0308", "\u00e4"], ["a\u0308", "\u00e4"])):
        for task, name in zip(found.snapshot.metadata["tasks"], names, strict=True):
            task["name"] = name
        assert [task.name for task in progress_of(found.snapshot).tasks] == read
