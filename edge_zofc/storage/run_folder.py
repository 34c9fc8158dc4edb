"""A run folder as one object: what lies where in it, and who may write there.

    settings.json   options and bundle of the run, written once by the first ``learn`` (``settings.py``)
    journal.bin     one record a step (``journal.py``)
    state/          checkpoints (``checkpoint.py``)
    features/       features of pictures, and pixels of large ones, a cache (``engine/feature_store.py``,
                    ``engine/pixel_store.py``)
    classes/        what each class gave to a closed-form head (``engine/class_parts.py``)
    events.jsonl    what happened, one JSON object a line
    result.json     the numbers, rewritten after each task (``result.py``)
    lock            held by the process that learns (``lock.py``)

Events are written but not fsynced; nothing is recovered from them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_zofc.errors import InputError, explained
from edge_zofc.storage import checkpoint
from edge_zofc.storage.fleet_folder import ABOUT, SHARES
from edge_zofc.storage.lock import LOCK_FILE, RunLock
from edge_zofc.storage.manifest import FILES, GRADIENT_FILES, MANIFEST, UNTUNED
from edge_zofc.storage.reading import check_folder, is_there
from edge_zofc.storage.result import RESULT, RunResult
from edge_zofc.storage.settings import SETTINGS, Settings, read_settings, write_settings
from edge_zofc.storage.writing import DISK, TEMPORARY_PREFIX, make_folder, open_log, rotate, sweep, write_atomic

JOURNAL = "journal.bin"
STATE = "state"
FEATURES = "features"
CLASSES = "classes"
EVENTS = "events.jsonl"

EVENTS_LIMIT_BYTES = 32 << 20


def refuse_own(out: Path) -> None:
    """Raise InputError if a page or a model would replace a file that a run, a bundle or a fleet is made of."""
    beside = out.absolute().parent
    in_bundle = out.name in (MANIFEST, *FILES, *GRADIENT_FILES, UNTUNED) and is_there(beside / MANIFEST)
    in_run = out.name in (SETTINGS, JOURNAL, RESULT, EVENTS, LOCK_FILE) and is_there(beside / SETTINGS)
    in_state = beside.name == STATE and is_there(beside.parent / SETTINGS)
    in_fleet = out.name in (ABOUT, LOCK_FILE, JOURNAL, EVENTS) and is_there(beside / ABOUT)
    in_shares = beside.name == SHARES and is_there(beside.parent / ABOUT)
    if in_bundle or in_run or in_state or in_fleet or in_shares:
        kind = "bundle" if in_bundle else "run" if in_run or in_state else "fleet"
        raise InputError(f"{out} is part of the {kind} in {beside}; choose another place.")


class RunFolder:
    """The run in the folder ``path``, which need not be there yet. Readers need no lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal, self.state, self.features = path / JOURNAL, path / STATE, path / FEATURES

    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return is_there(self.path / SETTINGS)

    def settings(self) -> Settings:
        """Raises as ``read_settings``."""
        return read_settings(self.path)

    def write_settings(self, settings: Settings) -> None:
        """Durable when it returns."""
        write_settings(self.path, settings)

    def latest(self) -> checkpoint.Loaded | None:
        """The newest whole checkpoint. Raises as ``load_latest``."""
        return checkpoint.load_latest(self.state)

    def events(self) -> EventLog:
        """The event log, opened for appending."""
        return EventLog(self.path)

    def write_result(self, result: RunResult) -> None:
        """Replace ``result.json``."""
        write_atomic(self.path / RESULT, (result.model_dump_json(indent=1, exclude={"stopped"}) + "\n").encode())

    def begin_again(self) -> None:
        """Remove checkpoints and journal of a run that has learnt nothing. Cut off on the way, it is one that began."""
        with explained(self.path, "cleaned up"):
            for path in self.state.iterdir():
                DISK.unlink(path)
            # A journal without a checkpoint is one that begins; a checkpoint without its journal is damaged.
            DISK.fsync_folder(self.state)
            DISK.unlink(self.journal)
            DISK.fsync_folder(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, hold its lock and remove what a crash left over.

        Raises InputError if something else lies in it, RunLockedError while another process works on it.
        """
        self._refuse_strangers()
        make_folder(self.path)
        with RunLock(self.path):
            sweep(self.path)
            for folder in (self.state, self.features, self.path / CLASSES):
                check_folder(folder)
                if folder.is_dir():
                    sweep(folder)
            shutil.rmtree(self.path / "frozen", ignore_errors=True)  # an earlier version's cache
            yield

    def _refuse_strangers(self) -> None:
        if self.is_run() or not self.path.exists():
            return
        if not self.path.is_dir():
            raise InputError(f"{self.path} is a file; give --run a folder.")
        # A start that was cut off leaves a lock, and perhaps a half-written settings.json.
        for name in (entry.name for entry in self.path.iterdir()):
            if name != LOCK_FILE and not (name.startswith(TEMPORARY_PREFIX) and name.endswith(SETTINGS)):
                raise InputError(f"{self.path} is not empty and holds no run; give --run a new folder.")


class EventLog:
    """``events.jsonl``, appended line by line and rotated at 32 MiB (one older file is kept)."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._open()

    def _open(self) -> None:
        rotate(self._path, EVENTS_LIMIT_BYTES)
        self._file = open_log(self._path)

    def write(self, event: str, **values: Any) -> None:
        """Append one event with the present time. Raises as ``explained`` if the disk refuses."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values}, default=str)
        with explained(self._path, "appended to", len(line)):
            rest = memoryview(line.encode() + b"\n")
            while rest:
                rest = rest[self._file.write(rest) :]
        # Here too, not only when a run is opened: one process may learn for months.
        if self._file.tell() > EVENTS_LIMIT_BYTES:
            full = self._file
            self._open()
            full.close()

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()
