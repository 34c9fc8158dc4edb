"""Shared by the tests of a fleet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from devices import three_devices

from edge_zofc.storage.bundle import Bundle


@pytest.fixture(scope="session")
def home(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs that have learnt two classes each; read them, do not change them."""
    home = tmp_path_factory.mktemp("members")
    three_devices(small_bundle, home)
    return home


@pytest.fixture
def runs(home: Path, tmp_path: Path) -> list[Path]:
    """Copies of these runs, beside their streams."""
    for number in range(3):
        (tmp_path / f"stream{number}").symlink_to(home / f"stream{number}")
        shutil.copytree(home / f"run{number}", tmp_path / f"run{number}")
    return [tmp_path / f"run{number}" for number in range(3)]
