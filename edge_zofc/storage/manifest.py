"""``bundle.json``: a bundle's files, how a picture becomes an input, where the adapter lies, and what was measured.

A bundle's identity says whether a run was learnt with it. It is the SHA-256 of what decides the features: the files
other than the probe, how a picture becomes an input, the adapter's layout, precision and D (``identity_of``). What was
measured, the probe's features included, and who wrote it may differ between two exports of the same weights.

Format version 3 added the adapter's kind, which is written where it is not "bottleneck". Version 4 added ``gradient``,
which is written where the bundle has a graph for exact gradients. That graph is no part of the identity. Version 5
added ``tuning``, which is written where the adapter's start was trained; since version 7 such a bundle has the start
before that too, which is another identity (``Bundle.untuned``). In format version 1, whose manifests have the keys of
2, the identity is the SHA-256 of ``bundle.json``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.gradient_info import GradientInfo, GradientMemory
from edge_zofc.storage.reading import Strict, load_model
from edge_zofc.storage.tuning import TuningInfo

FORMAT_VERSION = 7
MANIFEST = "bundle.json"
GRAPH = "backbone.onnx"
WEIGHTS = "backbone.onnx.data"
ADAPTER = "adapter.safetensors"
PROBE = "probe.safetensors"
FILES = (GRAPH, WEIGHTS, ADAPTER, PROBE)
GRADIENT_GRAPH = "gradient.onnx"
GRADIENT_WEIGHTS = "gradient.onnx.data"
GRADIENT_FILES = (GRADIENT_GRAPH, GRADIENT_WEIGHTS)
"""There where the bundle has a graph for exact gradients."""
GRADIENT_VERSION, BOTH_WAYS_VERSION = 4, 6
"""The first format version that may have it, and the first where it has the forward graph too. What is older is not
read."""
UNTUNED = "untuned.safetensors"
"""There where the adapter's start was trained: the start before that."""
TUNING_VERSION, UNTUNED_VERSION = 5, 7
"""The first format version whose adapter may have been trained before it starts, and the first with UNTUNED."""

MIN_FIDELITY = 0.9

Precision = Literal["fp32", "w8", "w4", "fp16", "int8"]
AdapterKind = Literal["bottleneck", "film"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos"]
Count = Annotated[int, Field(ge=1, le=2**40)]
Bytes = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BackboneInfo(Strict):
    """Which network is frozen in the graph, and where its weights came from."""

    name: str
    source: Literal["package", "timm", "checkpoint", "random"]
    weights_sha256: Sha256
    depth: Count
    pooling: Literal["token", "avg"]


class ImageSpec(Strict):
    """How a picture becomes an input: short side to ``round-down(size / crop_fraction)``, centre crop of ``size``,
    divide by 255, subtract ``mean``, divide by ``std`` (RGB order).
    """

    size: Annotated[int, Field(ge=8, le=2048)]
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    interpolation: Interpolation
    crop_fraction: Annotated[float, Field(gt=0.1, le=1.0)]


class AdapterPiece(Strict):
    """One named tensor inside the flat adapter vector."""

    name: str
    shape: tuple[Count, ...]
    offset: Annotated[int, Field(ge=0)]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


class AdapterLayout(Strict):
    """Where the adapter sits (block numbers from 0) and the pieces of its flat vector [P], row-major, back to back.

    ``rank`` and ``scale`` are a bottleneck's; a film has rank 0 and scale 1.
    """

    kind: AdapterKind = "bottleneck"
    blocks: tuple[Annotated[int, Field(ge=0, le=1000)], ...]
    rank: Annotated[int, Field(ge=0, le=2**40)]
    scale: float
    pieces: Annotated[tuple[AdapterPiece, ...], Field(min_length=1)]

    @property
    def size(self) -> int:
        """P, the number of adapter parameters."""
        return self.pieces[-1].offset + self.pieces[-1].size

    @property
    def queries_share(self) -> bool:
        """Whether several adapters share a part of a run, as some of the network comes before the first of them."""
        return self.kind != "film" or self.blocks[0] != 0

    @model_validator(mode="after")
    def _pieces_touch(self) -> AdapterLayout:
        if self.kind == "bottleneck" and self.rank < 1:
            raise ValueError(f"a bottleneck's rank is at least 1, not {self.rank}")
        end = 0
        for piece in self.pieces:
            if piece.offset != end:
                raise ValueError(f"adapter piece {piece.name} starts at {piece.offset}, not {end}")
            end += piece.size
        return self


class Fidelity(Strict):
    """Correlation of the graph's projected gradients with the true directional derivatives (torch
    autograd through the same, dequantised weights), over ``directions`` random directions.
    """

    eps: Positive
    directions: Count
    one_sided: Correlation
    two_sided: Correlation


class ActivationBytes(Strict):
    """Measured anonymous memory of a run: fixed + images * (per_image + adapters * per_image_and_adapter)."""

    fixed: Bytes
    per_image: Bytes
    per_image_and_adapter: Bytes

    def predict(self, images: int, adapters: int) -> int:
        """Bytes for ``images`` pictures and ``adapters`` adapters in one run of the graph."""
        return self.fixed + images * (self.per_image + adapters * self.per_image_and_adapter)


class FileEntry(Strict):
    """Size in bytes and SHA-256 of one file of the bundle."""

    bytes: Bytes
    sha256: Sha256


@dataclass(frozen=True)
class BundleSizes:
    """What a plan counts of a bundle, or of one that is not there yet. S is the input's side, D a feature's length,
    P the adapter's; ``activations_from`` says where ``activation_bytes`` were measured. Without linear layers no
    precision makes learning smaller. ``queries_share``: as the layout's.
    ``gradient`` is None where there is no graph for it, or ``is_exported`` is False: then nobody knows yet.
    """

    precision: Precision
    weights_bytes: int
    image_side: int
    feature_size: int
    adapter_size: int
    activation_bytes: ActivationBytes
    activations_from: str
    has_linear_layers: bool
    queries_share: bool
    gradient: tuple[GradientMemory, ...] | None = None
    is_exported: bool = True


class Manifest(Strict):
    """``bundle.json`` as a model; an unknown key is an error."""

    format_version: Literal[1, 2, 3, 4, 5, 6, 7]
    written_by: dict[str, str]
    backbone: BackboneInfo
    image: ImageSpec
    adapter: AdapterLayout
    feature_size: Count
    precision: Precision
    fidelity: Fidelity
    activation_bytes: ActivationBytes
    files: dict[str, FileEntry]
    gradient: GradientInfo | None = None
    tuning: TuningInfo | None = None

    @property
    def due_files(self) -> tuple[str, ...]:
        """The names in ``files``."""
        gradient = () if self.gradient is None else GRADIENT_FILES
        return (*FILES, *gradient, UNTUNED) if self.keeps_untuned else (*FILES, *gradient)

    @property
    def keeps_untuned(self) -> bool:
        """Whether the start before its tuning is there."""
        return self.tuning is not None and self.format_version >= UNTUNED_VERSION

    @property
    def goes_back(self) -> bool:
        """Whether there are exact gradients: a graph for them that this version reads."""
        return self.gradient is not None and self.format_version >= BOTH_WAYS_VERSION

    @property
    def sizes(self) -> BundleSizes:
        """What a plan counts of this bundle."""
        return BundleSizes(
            precision=self.precision,
            weights_bytes=self.files[WEIGHTS].bytes,
            image_side=self.image.size,
            feature_size=self.feature_size,
            adapter_size=self.adapter.size,
            activation_bytes=self.activation_bytes,
            activations_from="the export's measurement",
            gradient=self.gradient.memory if self.gradient is not None and self.goes_back else None,
            has_linear_layers=self.backbone.pooling == "token",  # of the rest a manifest does not tell
            queries_share=self.adapter.queries_share,
        )

    @model_validator(mode="after")
    def _known_files(self) -> Manifest:
        if set(self.files) != set(self.due_files):
            raise ValueError(f"files must be exactly {', '.join(self.due_files)}")
        if self.gradient is not None and self.format_version < GRADIENT_VERSION:
            raise ValueError(f"a gradient is of format version {GRADIENT_VERSION}, not {self.format_version}")
        runs = [] if self.gradient is None else [one.run is not None for one in self.gradient.memory]
        if any(is_there != self.goes_back for is_there in runs):
            raise ValueError(f"a gradient has run since format version {BOTH_WAYS_VERSION}")
        if self.tuning is not None and self.format_version < TUNING_VERSION:
            raise ValueError(f"a tuning is of format version {TUNING_VERSION}, not {self.format_version}")
        return self


def identity_of(manifest: Manifest, raw: bytes, start: str = ADAPTER) -> str:
    """The bundle's identity as lower-case hex; ``raw`` is its ``bundle.json``, the adapter's start lies in ``start``.

    Since format version 2: SHA-256 of the manifest's entries below as JSON, keys sorted, without spaces, in ASCII.
    """
    if manifest.format_version == 1:
        return hashlib.sha256(raw).hexdigest()
    dumped = _dumped(manifest)
    decisive = {name: dumped[name] for name in ("image", "adapter", "feature_size", "precision")}
    # The start's hash stands where every bundle has it: untuned, a bundle is the one that was never tuned.
    places = {name: start if name == ADAPTER else name for name in FILES if name != PROBE}
    hashes = {name: manifest.files[place].sha256 for name, place in places.items()}
    text = json.dumps({**decisive, "files": hashes}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _dumped(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON-able values, without what an older format version means where it is not there."""
    found = manifest.model_dump(mode="json")
    for name in ("gradient", "tuning"):
        if found[name] is None:
            del found[name]
    for way in found.get("gradient", {}).get("memory", ()):
        if way["run"] is None:
            del way["run"]
    if manifest.adapter.kind == "bottleneck":
        del found["adapter"]["kind"]
    return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json``, the last file of an export (a folder without it is not a bundle)."""
    text = json.dumps(_dumped(manifest), indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """The manifest in ``raw``, read from ``path``. Raises InputError for a newer format, else DamagedFileError."""
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
