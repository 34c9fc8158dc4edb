"""``settings.json``: the options of a run and how its session runs. Both stay while the run lives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.algorithm.options import Options, options_from_json, options_to_json
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.reading import Strict, is_there, load_model, read_bounded
from edge_zofc.storage.writing import write_atomic

SETTINGS = "settings.json"
_LIMIT_BYTES = 1 << 20

Count = Annotated[int, Field(ge=1, le=1 << 16)]


class Placement(Strict):
    """How a session runs on a machine; kept with the run, as features round differently in another shape.

    ``micro_batch`` pictures and at most ``parallel_queries`` adapters go into one run of the graph. ``prepacking`` off
    leaves the weights memory-mapped. ``arena`` off gives memory back after each run. ``head_backend`` trains the cosine
    head.
    """

    micro_batch: Count
    parallel_queries: Count
    threads: Count
    prepacking: bool
    arena: bool
    head_backend: HeadBackend

    @classmethod
    def simple(cls, micro_batch: int = 1, parallel_queries: int = 1, *, fast: bool = True) -> Placement:
        """One without a plan, of one thread; ``fast`` prepacks the weights and keeps the arena."""
        return cls(
            micro_batch=micro_batch,
            parallel_queries=parallel_queries,
            threads=1,
            prepacking=fast,
            arena=fast,
            head_backend="numpy",
        )

    def smaller(self) -> Placement | None:
        """Half the micro-batch; once that is 1, one adapter at a time; then without the arena; None after that."""
        if self.micro_batch > 1:
            return self.model_copy(update={"micro_batch": self.micro_batch // 2})
        if self.parallel_queries > 1:
            return self.model_copy(update={"parallel_queries": 1})
        return self.model_copy(update={"arena": False}) if self.arena else None

    def __str__(self) -> str:
        prepacking, arena = ("on" if is_on else "off" for is_on in (self.prepacking, self.arena))
        shape = f"micro-batch {self.micro_batch}, {self.parallel_queries} adapter(s) a run"
        return f"{shape}, prepacking {prepacking}, arena {arena}, {self.head_backend} head"


class Settings(Strict):
    """The content of ``settings.json``. The bundle's folder says where to look for it; its identity decides.

    ``bundle_folder`` is relative to the run folder where one parent holds both, so that they can move together.
    ``device_profile`` (a name or a file) and ``memory_budget_bytes`` are those that the newest ``learn`` named; None:
    ``auto``, and the profile's own budget. Neither is in the file where it is None.
    """

    format_version: Literal[1] = 1
    bundle_identity: str
    bundle_folder: str
    options: Annotated[Options, BeforeValidator(options_from_json)]
    execution: Placement
    device_profile: Annotated[str, Field(max_length=4096)] | None = None
    memory_budget_bytes: Annotated[int, Field(ge=1, le=1 << 60)] | None = None

    @classmethod
    def of(cls, bundle: Bundle, options: Options, placement: Placement, run: Path) -> Settings:
        """The settings of a new run in the folder ``run``."""
        where = folder_place(run, bundle.folder)
        return cls(bundle_identity=bundle.identity, bundle_folder=where, options=options, execution=placement)

    def bundle_places(self, run: Path) -> tuple[Path, Path]:
        """Where the bundle of the run in the folder ``run`` may lie: beside it, and where it was."""
        here = os.path.realpath(run)
        kept = Path(os.path.normpath(os.path.join(here, self.bundle_folder)))  # noqa: PTH118 - need not be there
        return Path(here).parent / kept.name, kept

    def to_json(self) -> bytes:
        """The bytes of ``settings.json``."""
        named = self.model_dump(mode="json", exclude_none=True)
        named["options"] = options_to_json(self.options)
        return (json.dumps(named, indent=2, ensure_ascii=False) + "\n").encode()


def folder_place(run: Path, folder: Path) -> str:
    """A folder as a run keeps it: relative if the parent of one of them holds both, else absolute."""
    one, other = (Path(os.path.realpath(place)) for place in (run, folder))
    parents = (one.parent, other.parent)
    # The root holds everything, which says nothing about what moves together.
    if any(p != p.parent and one.is_relative_to(p) and other.is_relative_to(p) for p in parents):
        return os.path.relpath(other, one)
    return str(other)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write ``settings.json`` durably; it is the file whose presence makes a folder a run."""
    write_atomic(folder / SETTINGS, settings.to_json())


def read_settings(folder: Path) -> Settings:
    """Read ``settings.json``. Raises InputError if there is no run, DamagedFileError if it is not valid."""
    path = folder / SETTINGS
    if not is_there(path):
        raise InputError(f"There is no run in {folder} ({SETTINGS} is missing); start one with 'edge-zofc learn'.")
    try:
        return load_model(Settings, read_bounded(path, _LIMIT_BYTES), f"{path} is not a run's settings:")
    except InputError as error:
        if isinstance(error.__cause__, OSError):  # it could not be read at all
            raise
        raise DamagedFileError(f"{path} is not a run's settings: {error}") from error
