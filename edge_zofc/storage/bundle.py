"""The contract between workstation and device: what ``export`` writes and ``learn`` reads.

A bundle is a folder of five files and up to three more:

    bundle.json            the manifest below as UTF-8 JSON; an unknown key is an error
    backbone.onnx          graph without weights; inputs ``images`` float32 [B, 3, S, S] and
                           ``adapters`` float32 [K, P], output ``features`` float32 [K, B, D]
    backbone.onnx.data     the weights as ONNX external data, so that a reader can map them
    adapter.safetensors    ``adapter`` float32 [P]: the initial values, multiples of 2^-22, magnitude below 4
    probe.safetensors      ``images`` float32 [n, 3, S, S], ``adapters`` float32 [k, P] and the
                           ``features`` float32 [k, n, D] that the workstation computed from them
    gradient.onnx          where the manifest has ``gradient``, the graph that goes both ways: backbone.onnx with K 1,
                           and inputs ``gradient_images`` float32 [n, 3, S, S] and ``feature_gradients`` float32 [n, D]
                           with the output ``adapter_gradient`` float32 [P]: the gradient by the adapter of the sum of
                           features x feature_gradients. B or n is 0. Until version 5 without backbone.onnx
    gradient.onnx.data     beside it: those of its weights that are not in backbone.onnx.data, which it reads too
    untuned.safetensors    where the manifest has ``tuning``, since version 7: ``adapter`` as it was before that

``read_bundle`` hashes every file before anything else opens it, so that a damaged or foreign graph never reaches
onnxruntime. On a 343 MB bundle that costs about a second.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load

from edge_zofc.algorithm.adapter import LATTICE_LIMIT, LATTICE_STEP
from edge_zofc.algorithm.directions import BALANCED, SHIFTS, balanced_scales
from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError, explained
from edge_zofc.storage.manifest import (
    ADAPTER,
    GRADIENT_GRAPH,
    GRAPH,
    MANIFEST,
    PROBE,
    UNTUNED,
    FileEntry,
    Manifest,
    identity_of,
    parse_manifest,
)
from edge_zofc.storage.reading import is_there, open_plain, read_bounded

BUNDLE_FOLDER = "bundle"
"""Where commands look for a bundle when no other place is named."""
MAX_MANIFEST_BYTES = 1 << 20
MAX_TENSOR_FILE_BYTES = 1 << 28
"""Of adapter and probe, which are read whole: 16 probe pictures of 2048 pixels take 200 MB."""


@dataclass(frozen=True)
class Probe:
    """Inputs and the features the workstation computed from them, all float32."""

    images: np.ndarray  # [n, 3, S, S]
    adapters: np.ndarray  # [k, P]
    features: np.ndarray  # [k, n, D]


Look = tuple[int, int, int]
"""Size in bytes, time of change in nanoseconds and inode of a file."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder. Two bundles of one ``identity`` (64 hex digits) compute the same features.

    ``looks``: how each file looked when its hash was found right. ``start``: the file that the adapter starts from.
    """

    folder: Path
    manifest: Manifest
    identity: str
    looks: dict[str, Look] = field(default_factory=dict, compare=False)
    start: str = ADAPTER

    def verify_changed(self) -> None:
        """Hash each file that looks otherwise than when its hash was found right.

        A session maps the weights, so that a file that is overwritten in place changes what it computes. Raises
        DamagedFileError for a file that is missing or no longer the one of the manifest.
        """
        for name, entry in self.manifest.files.items():
            path = self.folder / name
            if self.looks.get(name) != _look_at(path):
                self.looks[name] = _verify_file(path, entry)

    @property
    def graph_path(self) -> Path:
        """The ONNX graph that onnxruntime opens; its weights lie beside it."""
        return self.folder / GRAPH

    @property
    def gradient_path(self) -> Path:
        """The ONNX graph for exact gradients; it is there where ``manifest.gradient`` is not None."""
        return self.folder / GRADIENT_GRAPH

    def scales(self, scheme: str) -> np.ndarray | None:
        """What entries of a direction are multiplied by under a journal's ``scheme``: float32 [P], None for no scales.

        An adapter without shifts moves in all its pieces.
        """
        if scheme not in (BALANCED, SHIFTS):
            return None
        pieces = self.manifest.adapter.pieces
        moves = [scheme == SHIFTS and piece.name.endswith(".shift") for piece in pieces]
        return balanced_scales([piece.size for piece in pieces], moves if any(moves) else None)

    def starts(self) -> tuple[Bundle, ...]:
        """The bundle from its tuned start and from the one before the tuning; itself alone where it does not have both.

        Untuned it has the identity of the bundle that was never tuned.
        """
        if not self.manifest.keeps_untuned:
            return (self,)
        names = ADAPTER, UNTUNED
        return tuple(replace(self, start=n, identity=identity_of(self.manifest, b"", n)) for n in names)

    def with_identity(self, identity: str) -> Bundle:
        """From the start that has this identity; as it is where none has."""
        return next((found for found in self.starts() if found.identity == identity), self)

    def initial_adapter(self) -> np.ndarray:
        """Float32 [P]. Raises DamagedFileError if the tensor has another shape or type or leaves the lattice."""
        path = self.folder / self.start
        values = _load_tensors(path, "adapter")["adapter"]
        _require(values, (self.manifest.adapter.size,), path)
        # NaN and infinity fail the first comparison.
        if not np.all(np.abs(values) < LATTICE_LIMIT) or np.fmod(values, LATTICE_STEP).any():
            raise DamagedFileError(
                f"{path} holds adapter values that are not multiples of 2^-22 below 4; export the bundle again."
            )
        return values

    def probe(self) -> Probe:
        """The workstation's known answers. Raises DamagedFileError if shapes do not match the manifest."""
        path, manifest, side = self.folder / PROBE, self.manifest, self.manifest.image.size
        found = _load_tensors(path, "images", "adapters", "features")
        # A tensor may have no axis at all, and then it has no length.
        count, adapters = found["images"].shape[:1], found["adapters"].shape[:1]
        _require(found["images"], (*count, 3, side, side), path)
        _require(found["adapters"], (*adapters, manifest.adapter.size), path)
        _require(found["features"], (*adapters, *count, manifest.feature_size), path)
        return Probe(**found)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes as lower-case hex, read a mebibyte at a time."""
    with path.open("rb") as file:
        return _sha256(file)


def read_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle folder.

    Raises InputError if there is none or its format is newer, DamagedFileError if its files are not as exported.
    """
    path = folder / MANIFEST
    if not is_there(path):
        raise InputError(
            f"There is no bundle in {folder} ({MANIFEST} is missing); write one with 'edge-zofc export {folder}'."
        )
    raw = read_bounded(path, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(raw, path)
    looks = {name: _verify_file(folder / name, entry) for name, entry in manifest.files.items()}
    return Bundle(folder, manifest, identity_of(manifest, raw), looks)


def has_identity(folder: Path, identity: str) -> bool:
    """Whether a bundle of this identity seems to be in the folder; its files are not looked at, nothing is raised."""
    path = folder / MANIFEST
    try:
        raw = read_bounded(path, MAX_MANIFEST_BYTES) if is_there(path) else b""
        manifest = parse_manifest(raw, path)
        found = Bundle(folder, manifest, identity_of(manifest, raw))
        return found.with_identity(identity).identity == identity
    except EdgeZofcError:
        return False


def _look_at(path: Path) -> Look | None:
    try:
        return _look(path.lstat())
    except OSError:
        return None


def _look(found: os.stat_result) -> Look:
    return found.st_size, found.st_mtime_ns, found.st_ino


def _verify_file(path: Path, entry: FileEntry) -> Look:
    """How the file looked just before it was hashed."""
    # The names come from the manifest's due_files alone, so no path can leave the folder; a link could, and is refused.
    if not is_there(path):
        raise DamagedFileError(f"{path} is missing; copy the bundle again.")
    with open_plain(path) as file, explained(path, "read"):
        look = _look(os.fstat(file.fileno()))
        if look[0] != entry.bytes:
            raise DamagedFileError(
                f"{path} has {look[0]} bytes, the manifest says {entry.bytes}; copy the bundle again."
            )
        if _sha256(file) != entry.sha256:
            raise DamagedFileError(f"{path} does not have the SHA-256 of the manifest; copy the bundle again.")
    return look


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _load_tensors(path: Path, *names: str) -> dict[str, np.ndarray]:
    try:
        found = safetensors_load(read_bounded(path, MAX_TENSOR_FILE_BYTES))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedFileError(f"{path} is not a safetensors file ({error}).") from error
    if set(found) != set(names):
        raise DamagedFileError(f"{path} holds {sorted(found)}, not {sorted(names)}.")
    return found


def _require(values: np.ndarray, shape: tuple[int, ...], path: Path) -> None:
    if values.dtype != np.float32 or values.shape != shape:
        raise DamagedFileError(f"{path} holds {values.dtype} {values.shape}, not float32 {shape}.")
