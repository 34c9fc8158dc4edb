"""replay.py: what it refuses to write over or to read; the known answers stand in tests/golden/."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import go

from edge_zofc.engine.replay import replay_run
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.bundle import Bundle


def test_a_replay_does_not_overwrite_its_journal(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    go(small_bundle, small_stream, tmp_path / "run", max_steps=1)
    journal_path, link = tmp_path / "run/journal.bin", tmp_path / "link"
    link.symlink_to(tmp_path / "run")
    before = journal_path.read_bytes()
    for out in (journal_path, link / "journal.bin"):
        with pytest.raises(InputError, match="is the journal itself"):
            replay_run(small_bundle.folder, journal_path, out, None, None)
    assert journal_path.read_bytes() == before


def test_a_journal_that_is_a_link_to_itself_is_a_sentence(small_bundle: Bundle, tmp_path: Path) -> None:
    journal_path = tmp_path / "journal.bin"
    journal_path.symlink_to("journal.bin")
    with pytest.raises(DamagedFileError):
        replay_run(small_bundle.folder, journal_path, tmp_path / "adapter.safetensors", None, None)
