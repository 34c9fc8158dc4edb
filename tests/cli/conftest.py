"""Shared by the tests of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from typed import FAST, run

from edge_zofc.storage.bundle import Bundle


@pytest.fixture(scope="session")
def learned(small_bundle: Bundle, small_stream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the small stream; read it, do not change it."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run("learn", "--bundle", small_bundle.folder, "--stream", small_stream, "--run", folder, *FAST) == 0
    return folder
