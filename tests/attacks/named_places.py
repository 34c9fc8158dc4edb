"""Something else in the place of each file of a run and a bundle, and links where names are expected."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from named import NAMED, Named, Spoil, named


def _in_place_of(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    outside = next(folder for folder in path.parents if folder.name == "world") / "outside"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(outside / "secret.txt")
    elif kind == "folder link":
        path.symlink_to(outside)
    elif kind == "device link":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "socket":
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket has at most 107 bytes
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)


KINDS = ("pipe", "folder", "link", "folder link", "device link", "loop", "socket", "sparse")
PLACES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    # Where, what reads it, and how that may end. Events and result are written anew, the cache is computed anew.
    ("bundle/bundle.json", "new", (5,)),
    ("bundle/backbone.onnx", "new", (5,)),
    ("bundle/backbone.onnx.data", "new", (5,)),
    ("bundle/adapter.safetensors", "new", (5,)),
    ("bundle/probe.safetensors", "new", (5,)),
    ("board.toml", "plan", (2,)),
    ("run/settings.json", "learn", (5,)),
    ("run/journal.bin", "learn", (5,)),
    ("run/journal.bin", "replay", (5,)),
    ("run/state", "learn", (5,)),
    ("run/state/task-000.safetensors", "rollback", (5,)),
    ("run/features", "learn", (0, 2, 5)),
    ("run/lock", "learn", (0, 2, 5)),
    ("run/events.jsonl", "learn", (0, 5)),
    ("run/result.json", "report", (2, 5)),
    ("run/result.json", "learn", (0, 2)),
    ("run/report.html", "report", (0, 2)),
    ("fleet/about.json", "fleet-predict", (5,)),
    ("fleet/about.json", "fleet-merge", (5,)),
    ("fleet/shares", "fleet-merge", (0, 5)),
    ("fleet/shares/d7.share", "fleet-predict", (5,)),
    ("fleet/shares/d7.share", "fleet-merge", (5,)),
    ("fleet/shares/d7.share", "fleet-revoke", (0, 2)),
    ("fleet/lock", "fleet-merge", (0, 2, 5)),
    ("fleet/report.html", "fleet-report", (0, 2)),
    ("fleet/devices.json", "fleet-status", (5,)),
    ("d7.share", "fleet-merge", (5,)),
    ("run/lesson", "predict", (0, 5)),
    ("run/lesson/log.jsonl", "predict", (5,)),
    ("run/lesson/features", "predict", (0, 5)),
    ("run/lesson/pictures/000001.png", "predict", (0,)),
    ("run/classes", "learn", (0, 2, 5)),
    ("stream/001_task/train/class02/000.png", "learn", (0, 2)),
    ("stream/001_task/test/class02/000.png", "learn", (0, 2)),
    ("stream/000_task/test/class00/000.png", "predict", (2,)),
    ("stream/000_task/train/class00/000.png", "report", (0,)),
    ("stream/000_task/test/class00/000.png", "report", (0,)),
)


def _place(where: str, kind: str) -> Spoil:
    return lambda world: _in_place_of(world / where, kind)


for _where, _typed, _codes in PLACES:
    for _kind in KINDS:
        _name = f"{_where}-is-{_kind}".replace(" ", "-")
        _spoil = _place(_where, _kind)
        NAMED.append(Named(_name, _spoil, _typed, frozenset(_codes), _kind not in ("pipe", "link", "folder")))


@named("learn history predict", 5, 2)
def all_snapshots_are_pipes(world: Path) -> None:
    for path in (world / "run/state").glob("snapshot-*"):
        _in_place_of(path, "pipe")


@named("learn", 0)
def the_newest_snapshot_is_a_link_outside(world: Path) -> None:
    newest = max((world / "run/state").glob("snapshot-*"))
    _in_place_of(newest, "link")


@named("learn", 5)
def a_snapshot_whose_number_leaves_no_next(world: Path) -> None:
    (world / f"run/state/snapshot-{10**18 - 1}.safetensors").write_bytes(b"")


@named("learn", 0)
def a_snapshot_whose_number_is_too_long_to_be_one(world: Path) -> None:
    (world / f"run/state/snapshot-{10**18}.safetensors").write_bytes(b"")


@named("learn", 0)
def leftovers_are_links_outside(world: Path) -> None:
    for place in ("run", "run/state", "run/features"):
        (world / place / ".tmp-1-result.json").symlink_to(world / "outside/secret.txt")
        (world / place / ".tmp-2-x").symlink_to(world / "outside")
