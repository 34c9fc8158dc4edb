"""The readers of a lesson: its log, and what a class gave in a task, which forgetting takes out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from victim import D, Victim
from victims_run import seal_snapshot

from edge_zofc.algorithm import symmetric
from edge_zofc.engine.class_parts import CLASSES, load_features, load_part
from edge_zofc.engine.lesson import read_view
from edge_zofc.storage import checkpoint
from edge_zofc.storage.checkpoint import Snapshot
from edge_zofc.storage.lesson_log import Base, ClosedLesson, Entry, KeptPicture, LessonFolder, LessonLog


def seal_log(raw: bytes) -> bytes:
    """A log in which the CRC of each line fits."""
    texts = [re.sub(rb"^[0-9a-f]{8} ", b"", line) for line in raw.split(b"\n")]
    return b"\n".join(b"%08x %s" % (zlib.crc32(text), text) if text else b"" for text in texts)


def lesson_victims(folder: Path) -> Iterator[Victim]:
    """A lesson with one line of each kind behind a base with all that it may have; a part of either form."""
    place = LessonFolder(folder / "taught")
    log = LessonLog(place)
    kept = KeptPicture(file="000001.jpg", folder="mug", burst=1)
    closed = ClosedLesson(task="001_lesson", pictures=(kept,))
    log.begin(Base(next_serial=2, aliases={"mug": "cup"}, forgotten=("000-aa-00001",), closed=(closed,)))
    for entry in (
        Entry(kind="teach", name="pen", files=("000002.png", "000003.png")),
        Entry(kind="move", to="cap", serials=(2,)),
        Entry(kind="remove", serials=(3,)),
        Entry(kind="undo"),
        Entry(kind="rename", name="cap", to="hat", classes=("cap",)),
        Entry(kind="forget", name="hat", parts=("000-bb-00001",)),
    ):
        log.append(entry)
    log.close()
    yield Victim("lesson", place.log, lambda: read_view(place, ()), {0, 5}, {0, 5}, seal_log)

    (folder / CLASSES).mkdir()
    few = {"features": np.ones((3, D), np.float32)}
    many = {"sums": np.ones(D), "counts": np.ones(1, np.int64), "moment": symmetric.zeros(D)}
    for name, arrays, number in (("part", few, 1), ("large part", many, 2)):
        key = f"000-{'a' * 16}-{number:05d}"
        path = folder / CLASSES / f"{key}.start.safetensors"
        checkpoint.write(path, Snapshot(arrays, {}))

        def read(key: str = key) -> object:
            return load_part(folder, key, False, D), load_features(folder, key, False)

        yield Victim(name, path, read, {5}, {0, 2, 5}, seal_snapshot)
