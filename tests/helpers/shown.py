"""A camera that shows pictures of a folder."""

from __future__ import annotations

from pathlib import Path

from jpegs import with_thumbnail

from edge_zofc.live.camera import Camera


def camera_of_three(place: Path, seconds: float) -> Camera:
    """Shows three pictures again and again, each for so many seconds; they are made in the folder ``place``."""
    folder = place / "shown"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(with_thumbnail(number))
    return Camera(f"folder://{folder}", folder_seconds=seconds)
