"""``settings.json``: the options of a run and how its session runs. Both stay while the run lives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.algorithm.options import Options, options_from_json
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
    """The content of ``settings.json``. The bundle's folder says where to look for it; its identity decides."""

    format_version: Literal[1] = 1
    bundle_identity: str
    bundle_folder: str
    options: Annotated[Options, BeforeValidator(options_from_json)]
    execution: Placement

    @classmethod
    def of(cls, bundle: Bundle, options: Options, placement: Placement) -> Settings:
        """The settings of a new run."""
        where = str(bundle.folder.resolve())
        return cls(bundle_identity=bundle.identity, bundle_folder=where, options=options, execution=placement)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write ``settings.json`` durably; a folder with something of that name is a run."""
    write_atomic(folder / SETTINGS, (settings.model_dump_json(indent=2) + "\n").encode())


def read_settings(folder: Path) -> Settings:
    """Read ``settings.json``. Raises InputError if there is no run, DamagedFileError if it is not valid."""
    path = folder / SETTINGS
    if not is_there(path):
        raise InputError(f"There is no run in {folder} ({SETTINGS} is missing); start one with 'edge-zofc learn'.")
    try:
        return load_model(Settings, read_bounded(path, _LIMIT_BYTES), f"{path} is not a run's settings:")
    except InputError as error:
        raise DamagedFileError(f"{path} is not a run's settings: {error}") from error
