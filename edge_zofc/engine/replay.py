"""The adapter rebuilt from bundle and journal alone: onnxruntime, torch and psutil need not be there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save

from edge_zofc.errors import InputError
from edge_zofc.storage import journal
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.fleet_journal import adapter_digest, fresh_adapter
from edge_zofc.storage.run_folder import refuse_own
from edge_zofc.storage.writing import write_atomic


@dataclass(frozen=True)
class Replayed:
    """How many steps were applied, and the SHA-256 of the adapter's values as little-endian float32."""

    steps: int
    sha256: str


def replay_run(
    bundle_folder: Path, journal_path: Path, out: Path, until_step: int | None, until_task: int | None
) -> Replayed:
    """Write the adapter that the journal ends in (or passed through) to ``out`` as safetensors, atomically.

    Raises InputError if the journal belongs to another bundle, ends earlier or would be overwritten by ``out``;
    DamagedFileError if one is damaged.
    """
    # realpath, as Path.resolve raises on a link that leads to itself.
    if os.path.realpath(out) == os.path.realpath(journal_path):
        raise InputError(f"{out} is the journal itself, which nothing could replace; give -o another name.")
    refuse_own(out)
    adapter = fresh_adapter(read_bundle(bundle_folder), journal.read(journal_path)[0], str(journal_path))
    steps = journal.replay(journal_path, adapter, until_step, until_task)
    write_atomic(out, save({"adapter": adapter.theta}))
    return Replayed(steps, adapter_digest(adapter.theta))
