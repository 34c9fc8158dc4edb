"""The contract between workstation and device: what ``export`` writes and ``learn`` reads.

A bundle is a folder of five files, format version 2:

    bundle.json            the manifest below as UTF-8 JSON; an unknown key is an error
    backbone.onnx          graph without weights; inputs ``images`` float32 [B, 3, S, S] and
                           ``adapters`` float32 [K, P], output ``features`` float32 [K, B, D]
    backbone.onnx.data     the weights as ONNX external data, so that a reader can map them
    adapter.safetensors    one tensor ``adapter`` float32 [P]: the initial values, on the lattice
                           (multiples of 2^-22, magnitude below 4)
    probe.safetensors      ``images`` float32 [n, 3, S, S], ``adapters`` float32 [k, P] and the
                           ``features`` float32 [k, n, D] that the workstation computed from them

``bundle.json`` names the backbone and the SHA-256 of its weights, how a picture becomes an input,
where each adapter piece lies in the flat vector (row-major, pieces back to back in the order given),
the precision, its fidelity (how well projected gradients survive the precision), the measured
activation bytes, and size and SHA-256 of the other four files. ``tests/storage/test_bundle.py`` compares a
written manifest with literal values.

A bundle's identity says whether a run was learnt with it. It is the SHA-256 of what decides the features: the files
other than the probe, how a picture becomes an input, the adapter's layout, precision and D (``identity_of``). What was
measured, the probe's features included, and who wrote it may differ between two exports of the same weights. In format
version 1, whose manifests have the same keys, the identity is the SHA-256 of ``bundle.json``.

``read_bundle`` hashes every file before anything else opens it, so that a damaged or foreign graph never reaches
onnxruntime. On a 343 MB bundle that costs about a second.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load

from edge_zofc.algorithm.adapter import LATTICE_LIMIT, LATTICE_STEP
from edge_zofc.errors import DamagedFileError, InputError, explained
from edge_zofc.storage.reading import is_there, load_model, open_plain, read_bounded

FORMAT_VERSION = 2
MANIFEST = "bundle.json"
GRAPH = "backbone.onnx"
WEIGHTS = "backbone.onnx.data"
ADAPTER = "adapter.safetensors"
PROBE = "probe.safetensors"
FILES = (GRAPH, WEIGHTS, ADAPTER, PROBE)

MAX_MANIFEST_BYTES = 1 << 20
MAX_TENSOR_FILE_BYTES = 1 << 28
"""Of adapter and probe, which are read whole: 16 probe pictures of 2048 pixels take 200 MB."""
MIN_FIDELITY = 0.9

Precision = Literal["fp32", "w8", "w4", "fp16", "int8"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos"]
Count = Annotated[int, Field(ge=1, le=2**40)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackboneInfo(_Strict):
    """Which network is frozen in the graph, and where its weights came from."""

    name: str
    source: Literal["package", "timm", "checkpoint", "random"]
    weights_sha256: Sha256
    depth: Count
    pooling: Literal["token", "avg"]


class ImageSpec(_Strict):
    """How a picture becomes an input: short side to ``round-down(size / crop_fraction)``, centre crop of
    ``size``, divide by 255, subtract ``mean``, divide by ``std`` (RGB order).
    """

    size: Annotated[int, Field(ge=8, le=2048)]
    mean: tuple[float, float, float]
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    interpolation: Interpolation
    crop_fraction: Annotated[float, Field(gt=0.1, le=1.0)]


class AdapterPiece(_Strict):
    """One named tensor inside the flat adapter vector."""

    name: str
    shape: tuple[Count, ...]
    offset: Annotated[int, Field(ge=0)]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


class AdapterLayout(_Strict):
    """Where the adapter sits (block numbers from 0) and how its flat vector [P] is cut up."""

    blocks: tuple[Annotated[int, Field(ge=0, le=1000)], ...]
    rank: Count
    scale: float
    pieces: Annotated[tuple[AdapterPiece, ...], Field(min_length=1)]

    @property
    def size(self) -> int:
        """P, the number of adapter parameters."""
        return self.pieces[-1].offset + self.pieces[-1].size

    @model_validator(mode="after")
    def _pieces_touch(self) -> AdapterLayout:
        end = 0
        for piece in self.pieces:
            if piece.offset != end:
                raise ValueError(f"adapter piece {piece.name} starts at {piece.offset}, not {end}")
            end += piece.size
        return self


class Fidelity(_Strict):
    """Correlation of the graph's projected gradients with the true directional derivatives (torch
    autograd through the same, dequantised weights), over ``directions`` random directions.
    """

    eps: Annotated[float, Field(gt=0)]
    directions: Count
    one_sided: Annotated[float, Field(ge=-1, le=1)]
    two_sided: Annotated[float, Field(ge=-1, le=1)]


class ActivationBytes(_Strict):
    """Measured anonymous memory of a run: fixed + images * (per_image + adapters * per_image_and_adapter)."""

    fixed: Annotated[int, Field(ge=0)]
    per_image: Annotated[int, Field(ge=0)]
    per_image_and_adapter: Annotated[int, Field(ge=0)]

    def predict(self, images: int, adapters: int) -> int:
        """Bytes for ``images`` pictures and ``adapters`` adapters in one run of the graph."""
        return self.fixed + images * (self.per_image + adapters * self.per_image_and_adapter)


class FileEntry(_Strict):
    """Size in bytes and SHA-256 of one file of the bundle."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Manifest(_Strict):
    """``bundle.json`` as a model; see the module's docstring for the format."""

    format_version: Literal[1, 2]
    written_by: dict[str, str]
    backbone: BackboneInfo
    image: ImageSpec
    adapter: AdapterLayout
    feature_size: Count
    precision: Precision
    fidelity: Fidelity
    activation_bytes: ActivationBytes
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _known_files(self) -> Manifest:
        if set(self.files) != set(FILES):
            raise ValueError(f"files must be exactly {', '.join(FILES)}")
        return self


@dataclass(frozen=True)
class Probe:
    """Inputs and the features the workstation computed from them: images [n, 3, S, S], adapters [k, P],
    features [k, n, D], all float32.
    """

    images: np.ndarray
    adapters: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder. Two bundles of one ``identity`` (64 hex digits) compute the same features."""

    folder: Path
    manifest: Manifest
    identity: str

    @property
    def graph_path(self) -> Path:
        """The ONNX graph that onnxruntime opens; its weights lie beside it."""
        return self.folder / GRAPH

    def initial_adapter(self) -> np.ndarray:
        """The adapter's initial values, float32 [P], on the lattice.

        Raises DamagedFileError if the tensor has another shape, type, or leaves the lattice.
        """
        values = _load_tensors(self.folder / ADAPTER, ("adapter",))["adapter"]
        _require(values, (self.manifest.adapter.size,), self.folder / ADAPTER)
        check_lattice(values, self.folder / ADAPTER)
        return values

    def probe(self) -> Probe:
        """The workstation's known answers. Raises DamagedFileError if shapes do not match the manifest."""
        path = self.folder / PROBE
        found = _load_tensors(path, ("images", "adapters", "features"))
        side, width = self.manifest.image.size, self.manifest.feature_size
        # A tensor may have no axis at all, and then no length.
        count, adapters = (found[name].shape[0] if found[name].ndim else 0 for name in ("images", "adapters"))
        _require(found["images"], (count, 3, side, side), path)
        _require(found["adapters"], (adapters, self.manifest.adapter.size), path)
        _require(found["features"], (adapters, count, width), path)
        return Probe(found["images"], found["adapters"], found["features"])


def check_lattice(values: np.ndarray, path: Path) -> None:
    """Raise DamagedFileError unless every entry is a multiple of LATTICE_STEP below LATTICE_LIMIT."""
    # NaN and infinity fail the first comparison, so that nothing overflows in the second.
    inside = bool(np.all(np.abs(values) < LATTICE_LIMIT))
    if not inside or bool(np.any(np.rint(scaled := values / np.float32(LATTICE_STEP)) != scaled)):
        raise DamagedFileError(
            f"{path} holds adapter values that are not multiples of 2^-22 below 4; export the bundle again."
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes as lower-case hex, read a mebibyte at a time."""
    with path.open("rb") as file:
        return _sha256(file)


def read_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle folder.

    Sizes and hashes of all files are checked before this returns; nothing is parsed by onnxruntime here.
    Raises InputError if there is no bundle, DamagedFileError if what is there is not what was exported.
    """
    manifest_path = folder / MANIFEST
    if not is_there(manifest_path):
        raise InputError(
            f"There is no bundle in {folder} ({MANIFEST} is missing); write one with 'edge-zofc export {folder}'."
        )
    raw = read_bounded(manifest_path, MAX_MANIFEST_BYTES)
    manifest = _parse_manifest(raw, manifest_path)
    for name, entry in manifest.files.items():
        _verify_file(folder / name, entry)
    return Bundle(folder, manifest, identity_of(manifest, raw))


def identity_of(manifest: Manifest, raw: bytes) -> str:
    """The bundle's identity as lower-case hex; ``raw`` is its ``bundle.json``.

    For format version 2: SHA-256 of the manifest's entries below as JSON, keys sorted, without spaces, in ASCII.
    """
    if manifest.format_version == 1:
        return hashlib.sha256(raw).hexdigest()
    decisive = manifest.model_dump(mode="json", include={"image", "adapter", "feature_size", "precision"})
    hashes = {name: manifest.files[name].sha256 for name in FILES if name != PROBE}
    text = json.dumps({**decisive, "files": hashes}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json``, the last file of an export (a folder without it is not a bundle)."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _parse_manifest(raw: bytes, path: Path) -> Manifest:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON ({error}); copy the bundle again.") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, this edge-zofc reads {FORMAT_VERSION}; update edge-zofc."
        )
    return load_model(Manifest, data, f"{path} is not a bundle's manifest:")


def _verify_file(path: Path, entry: FileEntry) -> None:
    # The names come from FILES alone, so no path can leave the folder; a link could, and is refused.
    if not is_there(path):
        raise DamagedFileError(f"{path} is missing; copy the bundle again.")
    with open_plain(path) as file, explained(path, "read"):
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise DamagedFileError(f"{path} has {size} bytes, the manifest says {entry.bytes}; copy the bundle again.")
        if _sha256(file) != entry.sha256:
            raise DamagedFileError(f"{path} does not have the SHA-256 of the manifest; copy the bundle again.")


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _load_tensors(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        found = safetensors_load(read_bounded(path, MAX_TENSOR_FILE_BYTES))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedFileError(f"{path} is not a safetensors file ({error}).") from error
    if set(found) != set(names):
        raise DamagedFileError(f"{path} holds {sorted(found)}, not {sorted(names)}.")
    return {name: np.ascontiguousarray(found[name]) for name in names}


def _require(values: np.ndarray, shape: tuple[int, ...], path: Path) -> None:
    if values.dtype != np.float32 or values.shape != shape:
        raise DamagedFileError(f"{path} holds {values.dtype} {values.shape}, not float32 {shape}.")
