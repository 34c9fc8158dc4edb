"""What a killed export leaves beside OUT, and who removes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edge_zofc.errors import InputError
from edge_zofc.export.partial import partial_folder
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import GRADIENT_FILES, GRAPH, MANIFEST

COMMAND = [
    "--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", "32", "--depth", "2", "--no-gradient",
]  # fmt: skip


def after(out: Path) -> tuple[list[str], list[str]]:
    """What an export tells before it begins, and what lies beside ``out`` then."""
    told: list[str] = []
    with partial_folder(out, told.append) as folder:
        names = sorted(path.name for path in out.parent.iterdir() if path != folder)
    assert not folder.exists()
    return told, names


def test_the_next_export_removes_what_a_killed_one_left_and_not_what_a_living_one_uses(tmp_path: Path) -> None:
    """FAULTS C9: SIGKILL leaves a hidden folder of the bundle's size."""
    command = [sys.executable, "-m", "edge_zofc", "export", str(tmp_path / "b"), *COMMAND]
    process = psutil.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".b.*.partial/*")):
        time.sleep(0.01)
    process.suspend()
    (partial,) = tmp_path.glob(".b.*.partial")
    assert after(tmp_path / "c") == ([], [partial.name])
    for child in process.children(recursive=True):
        child.kill()
    process.kill()
    process.wait()
    assert after(tmp_path / "c") == ([f"removed {partial}, which a killed export had left"], [])


@pytest.mark.parametrize("foreign", ["holiday.jpg", GRAPH])
def test_a_folder_with_anything_else_in_it_stays(tmp_path: Path, foreign: str) -> None:
    """FAULTS C9: only what is certainly ours is removed."""
    place = tmp_path / ".b.123.partial"
    place.mkdir()
    (place / MANIFEST).write_text("")
    if foreign == GRAPH:
        (place / foreign).mkdir()
    else:
        (place / foreign).write_text("")
    assert after(tmp_path / "b") == ([], [".b.123.partial"])


def test_a_link_of_the_name_is_not_followed(tmp_path: Path) -> None:
    """FAULTS C9."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / MANIFEST).write_text("")
    (tmp_path / ".b.123.partial").symlink_to(tmp_path / "mine")
    assert after(tmp_path / "b") == ([], [".b.123.partial", "mine"])


def test_the_bundle_of_before_is_never_removed_while_it_has_no_successor(tmp_path: Path, small_bundle: Bundle) -> None:
    """FAULTS C9: killed between the two renames of a replacement, and killed just behind them."""
    old, new = tmp_path / ".b.123.partial.old", tmp_path / ".b.123.partial"
    shutil.copytree(small_bundle.folder, old)
    shutil.copytree(small_bundle.folder, new)
    for name in GRADIENT_FILES:
        (new / name).write_bytes(b"x")
    told, names = after(tmp_path / "b")
    assert names == [old.name]
    assert told == [
        f"removed {new}, which a killed export had left",
        f"{old} is the bundle that was in {tmp_path / 'b'} when an export was killed: rename it.",
    ]
    shutil.copytree(small_bundle.folder, tmp_path / "b")
    assert after(tmp_path / "b") == ([f"removed {old}, which a killed export had left"], ["b"])


def test_a_place_that_cannot_be_listed_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be written at .*file/b"), partial_folder(tmp_path / "file/b", print):
        pass
