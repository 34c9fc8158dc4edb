"""What lies where in a run folder, and the two small files that are not the journal or a snapshot.

    settings.json   options and bundle of the run, written once by the first ``learn``
    journal.bin     one record a step (``journal.py``)
    state/          snapshots (``snapshot.py``)
    frozen/         frozen features of test pictures, a cache (``evaluate.py``)
    events.jsonl    what happened, one JSON object a line
    result.json     the numbers, rewritten after each task
    lock            held by the process that learns (``lock.py``)

What may surprise: events are written but not fsynced. They tell a story; nothing is recovered from them.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_zofc.algorithm.options import Options, options_from_json
from edge_zofc.errors import DamagedFileError, InputError, explained
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.reading import is_there, read_bounded
from edge_zofc.storage.writing import open_log, rotate, write_atomic

SETTINGS = "settings.json"
JOURNAL = "journal.bin"
STATE = "state"
FROZEN = "frozen"
EVENTS = "events.jsonl"
RESULT = "result.json"

EVENTS_LIMIT_BYTES = 32 << 20
_SETTINGS_LIMIT_BYTES = 1 << 20


class Execution(BaseModel):
    """How the session runs; kept because features round differently under another shape or thread count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    micro_batch: Annotated[int, Field(ge=1, le=1 << 16)]
    parallel_queries: Annotated[int, Field(ge=1, le=1 << 16)]
    threads: Annotated[int, Field(ge=1, le=1 << 16)]
    prepacking: bool
    arena: bool
    head_backend: Literal["torch", "numpy"]


class Settings(BaseModel):
    """``settings.json``: what may not change while a run lives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1]
    bundle_identity: str
    bundle_folder: str
    options: dict[str, Any]
    execution: Execution

    def run_options(self) -> Options:
        """The options as a checked dataclass. Raises InputError if this version does not know them."""
        return options_from_json(self.options)


def make_settings(bundle: Bundle, options: Options, execution: Execution) -> Settings:
    """Settings of a new run. The bundle's folder is kept so that ``predict`` finds it; its identity rules."""
    return Settings(
        format_version=1,
        bundle_identity=bundle.identity,
        bundle_folder=str(bundle.folder.resolve()),
        options=asdict(options),
        execution=execution,
    )


def write_settings(folder: Path, settings: Settings) -> None:
    """Write ``settings.json`` durably; it is the file whose presence makes a folder a run."""
    write_atomic(folder / SETTINGS, (settings.model_dump_json(indent=2) + "\n").encode())


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run: something of the name of its settings, whatever that is."""
    return is_there(folder / SETTINGS)


def read_settings(folder: Path) -> Settings:
    """Read ``settings.json``. Raises InputError if there is no run, DamagedFileError if it is not valid."""
    path = folder / SETTINGS
    if not is_run(folder):
        raise InputError(
            f"There is no run in {folder} ({SETTINGS} is missing); start one with 'edge-zofc learn'."
        )
    raw = read_bounded(path, _SETTINGS_LIMIT_BYTES)
    try:
        found = Settings.model_validate_json(raw)
        found.run_options()
        return found
    except InputError as error:
        raise DamagedFileError(f"{path} is not a run's settings: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DamagedFileError(f"{path} is not a run's settings: {where}: {first['msg']}.") from error


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Replace ``result.json``."""
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    write_atomic(folder / RESULT, text.encode())


class EventLog:
    """``events.jsonl``, appended line by line and rotated at 32 MiB (one older file is kept)."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._open()

    def _open(self) -> None:
        rotate(self._path, EVENTS_LIMIT_BYTES)
        self._file = open_log(self._path)
        self._bytes = os.fstat(self._file.fileno()).st_size

    def write(self, event: str, **values: Any) -> None:
        """Append one event with the present time. Raises as ``disk_errors.explained`` if the disk refuses."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values}, default=str)
        with explained(self._path, "appended to", len(line)):
            rest = memoryview(line.encode() + b"\n")
            self._bytes += len(rest)
            while rest:
                rest = rest[self._file.write(rest) :]
        # Here too, not only when a run is opened: one process may learn for months.
        if self._bytes > EVENTS_LIMIT_BYTES:
            full = self._file
            self._open()
            full.close()

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()
