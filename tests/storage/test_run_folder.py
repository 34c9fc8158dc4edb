"""run_folder.py: the log of a run that never ends, and files that no output replaces."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge_zofc.errors import InputError
from edge_zofc.storage import run_folder
from edge_zofc.storage.manifest import FILES, GRADIENT_FILES, MANIFEST, UNTUNED
from edge_zofc.storage.run_folder import EVENTS, EventLog, refuse_own


def test_a_log_that_is_written_for_months_by_one_process_stays_within_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "EVENTS_LIMIT_BYTES", 1000)
    log, handles = EventLog(tmp_path), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    for number in range(500):
        log.write("step", number=number)
        sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        assert set(sizes) <= {EVENTS, EVENTS + ".1"}
        assert max(sizes.values()) <= 1000 + 60
    assert len(os.listdir("/proc/self/fd")) == handles  # noqa: PTH208 - names alone
    log.close()
    files = [tmp_path / (EVENTS + ".1"), tmp_path / EVENTS]
    events = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    numbers = [event["number"] for event in events]
    assert len(numbers) > 15
    assert numbers == list(range(500 - len(numbers), 500))


def test_a_log_that_was_there_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "EVENTS_LIMIT_BYTES", 1000)
    for number in range(40):
        log = EventLog(tmp_path)
        log.write("step", number=number)
        log.close()
    assert (tmp_path / EVENTS).stat().st_size <= 1060
    assert (tmp_path / (EVENTS + ".1")).exists()


@pytest.mark.parametrize("name", [MANIFEST, *FILES, *GRADIENT_FILES, UNTUNED])
def test_no_output_takes_the_place_of_any_file_of_a_bundle(tmp_path: Path, name: str) -> None:
    refuse_own(tmp_path / name)
    (tmp_path / MANIFEST).write_bytes(b"{}")
    with pytest.raises(InputError, match="is part of the bundle"):
        refuse_own(tmp_path / name)
