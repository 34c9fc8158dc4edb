"""Trees of files for the tests of what reads folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_zofc.data.stream import Sample


def grow(root: Path, *names: str) -> Path:
    """Make files (or, with a slash at the end, folders) below ``root``; no test here opens a picture."""
    for name in names:
        if name.endswith("/"):
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"picture")
    return root


def names_of(samples: Sequence[Sample]) -> list[str]:
    return [sample.path.name for sample in samples]
