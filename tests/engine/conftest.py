"""Shared by the tests of runs: the stream on which an adapter is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import write_small_stream


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks of four classes, 8 + 4 pictures each; read it, do not change it."""
    return write_small_stream(tmp_path_factory.mktemp("engine") / "stream", tasks=3, classes=4, alike=True)
