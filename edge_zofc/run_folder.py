"""What lies where in a run folder, and the two small files that are not the journal or a snapshot.

    settings.json   options and bundle of the run, written once by the first ``learn``
    journal.bin     one record a step (``journal.py``)
    state/          snapshots (``snapshot.py``)
    frozen/         frozen features of test pictures, a cache (``evaluate.py``)
    events.jsonl    what happened, one JSON object a line
    result.json     the numbers, rewritten after each task
    lock            held by the process that learns (``durable.py``)

What may surprise: events are flushed but not fsynced. They tell a story; nothing is recovered from them.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_zofc.bundle import Bundle
from edge_zofc.durable import explained, read_bounded, rotate, write_atomic
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.presets import Options, options_from_json

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

    micro_batch: int
    parallel_queries: int
    threads: int
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
    """Whether the folder holds a run."""
    return (folder / SETTINGS).is_file()


def read_settings(folder: Path) -> Settings:
    """Read ``settings.json``. Raises InputError if there is no run, DamagedFileError if it is not valid."""
    path = folder / SETTINGS
    if not is_run(folder):
        raise InputError(
            f"There is no run in {folder} ({SETTINGS} is missing); start one with 'edge-zofc learn'."
        )
    try:
        return Settings.model_validate_json(read_bounded(path, _SETTINGS_LIMIT_BYTES))
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
        rotate(self._path, EVENTS_LIMIT_BYTES)
        with explained(self._path, "opened for appending"):
            self._file = self._path.open("a", encoding="utf-8")
            self._end_torn_line()

    def write(self, event: str, **values: Any) -> None:
        """Append one event with the present time. Raises as ``durable.explained`` if the disk refuses."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values}, default=str)
        with explained(self._path, "appended to", len(line)):
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()

    def _end_torn_line(self) -> None:
        # After a power cut the last line may lack its end; the next one must not be glued to it.
        size_bytes = self._path.stat().st_size
        if size_bytes:
            with self._path.open("rb") as file:
                file.seek(size_bytes - 1)
                if file.read(1) != b"\n":
                    self._file.write("\n")
