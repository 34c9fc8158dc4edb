"""The adapter rebuilt from bundle and journal alone: onnxruntime, torch and psutil need not be there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.errors import InputError
from edge_zofc.storage import journal
from edge_zofc.storage.bundle import read_bundle
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
    bundle = read_bundle(bundle_folder)
    header, _ = journal.read(journal_path)
    if header.bundle_identity != bundle.identity:
        raise InputError(
            f"{journal_path} belongs to another bundle than {bundle_folder} (its identity: "
            f"{header.bundle_identity[:12]}..., here {bundle.identity[:12]}...); give the one it was learnt with."
        )
    scales = bundle.scales(header.directions)
    adapter = Adapter(bundle.initial_adapter(), header.seed, header.eps, header.momentum, header.optimizer, scales)
    steps = journal.replay(journal_path, adapter, until_step, until_task)
    write_atomic(out, save({"adapter": adapter.theta}))
    digest = hashlib.sha256(adapter.theta.astype("<f4", copy=False).tobytes()).hexdigest()
    return Replayed(steps, digest)
