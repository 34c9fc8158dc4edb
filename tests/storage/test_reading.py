"""reading.py: what is read, and what is not even opened."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage import reading


def test_reading_a_small_file_reserves_its_size_and_not_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    tracemalloc.start()
    try:
        reading.read_bounded(tmp_path / "a", 1 << 28)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    assert reading.read_bounded(tmp_path / "a", 4) == b"1234"
    with pytest.raises(DamagedFileError, match="has 4 bytes where at most 3"):
        reading.read_bounded(tmp_path / "a", 3)


def test_links_pipes_folders_and_devices_are_refused_at_once(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(DamagedFileError, match="not a plain file"):
            reading.read_bounded(path, 10)


def test_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="check that its folder exists"):
        reading.open_plain(tmp_path / "a")
