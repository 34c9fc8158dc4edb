"""What this machine has, what it lacks and how to get it; with a bundle, whether it computes what was exported.

Versions come from the installed packages' metadata: nothing heavy is imported to learn that it is there.

What may surprise: a provider that onnxruntime lists may not work (a Jetson with the ordinary wheel, a driver
that does not match), so each one runs a real node; and a failed one is no fault as long as the CPU works.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edge_zofc.device.profiles import format_bytes, matching_profile
from edge_zofc.device.system import Board, board
from edge_zofc.errors import EdgeZofcError
from edge_zofc.inference.backbone import Backbone, probe_providers
from edge_zofc.storage.bundle import MIN_FIDELITY, Bundle, Precision, Probe
from edge_zofc.storage.settings import Placement

LITTLE_MEMORY_BYTES = 200 << 20
"""Below this not even a w8 ViT-B with the numpy head is planned to fit."""

# Relative error ||here - workstation|| / ||workstation|| of the probe's features that is still the same network.
# float32 sums in another order differ by about 1e-6 a layer; fp16 keeps 11 bits; int8 rounds activations to 8
# bits, and one rounding that falls the other way is a step of 1/127.
PROBE_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "w8": 1e-4, "w4": 1e-4, "fp16": 2e-2, "int8": 5e-2}

_RUNTIME = ("numpy", "onnxruntime", "pillow", "psutil", "pydantic", "safetensors", "tqdm")
_OPTIONAL = {
    "torch": ("the head runs on numpy instead", "pip install torch"),
    "matplotlib": ("reports have no pictures", "pip install matplotlib"),
    "timm": ("no export on this machine", "pip install 'edge-zofc[export]'"),
    "onnx": ("no export on this machine", "pip install 'edge-zofc[export]'"),
}
# Public sources, none of them tried on the hardware.
_JETPACK = {
    "R35": "JetPack 5 brings Python 3.8: use a container with Python 3.10 (jetson-containers)",
    "R36": "JetPack 6 (CUDA 12.6, Python 3.10): onnxruntime 1.23.2 is the last CPU wheel for this Python",
    "R38": "JetPack 7 (CUDA 13, Python 3.12)",
}
_JETSON_GPU = (
    "the GPU needs an onnxruntime built for this JetPack (NVIDIA's or jetson-containers' wheels); "
    "onnxruntime-gpu from PyPI does not run on a Jetson (not verified on hardware)"
)

ProviderProbe = Callable[[], Sequence[tuple[str, bool, str]]]
FeatureFunction = Callable[[Bundle, Probe], np.ndarray]


@dataclass(frozen=True)
class Finding:
    """One line: ``ok`` True (works), False (must be put right) or None (worth knowing). ``remedy`` may be ""."""

    name: str
    ok: bool | None
    detail: str
    remedy: str


def inspect(
    bundle: Bundle | None = None,
    *,
    here: Board | None = None,
    providers: ProviderProbe = probe_providers,
    features: FeatureFunction | None = None,
    root: Path = Path("/"),
) -> list[Finding]:
    """Everything worth knowing about this machine, and about ``bundle`` on it. Never raises for what it finds.

    The keyword arguments are for tests: another board, other providers, another way to compute features.
    """
    here = board(root) if here is None else here
    found = [*_machine(here), *_packages(), *_providers(providers())]
    if "Jetson" in here.model:
        found += _jetson(root)
    if bundle is not None:
        found += _bundle(bundle, probe_features if features is None else features)
    return found


def _machine(here: Board) -> list[Finding]:
    profile = matching_profile(here)
    name = here.model or f"{here.machine}, no device tree"
    known = f"; its profile is {profile.name}, not verified on hardware" if profile else ""
    findings = [Finding("board", None, f"{name}, {here.cpu_count} CPUs for this process{known}", "")]
    memory = f"{format_bytes(here.mem_available_bytes)} available of {format_bytes(here.mem_total_bytes)}"
    enough = here.usable_bytes >= LITTLE_MEMORY_BYTES
    remedy = "" if enough else "end other programs, or learn a smaller backbone with --precision w8"
    findings.append(Finding("memory", enough, memory, remedy))
    limit = here.cgroup_limit_bytes
    detail = "none below the machine's memory" if limit is None else format_bytes(limit)
    return [*findings, Finding("cgroup limit", None, detail, "")]


def _packages() -> list[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    findings = [Finding("python", True, f"{python} on {platform.system()} {platform.machine()}", "")]
    for name in _RUNTIME:
        version = _version(name)
        if name == "onnxruntime" and version is None:
            # The GPU flavours install the same module under another name.
            version = _version("onnxruntime-gpu")
        remedy = "" if version else f"pip install {name}"
        findings.append(Finding(name, version is not None, version or "missing", remedy))
    for name, (without, command) in _OPTIONAL.items():
        version = _version(name)
        detail = version or f"missing: {without}"
        findings.append(Finding(name, True if version else None, detail, "" if version else command))
    return findings


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _providers(probed: Sequence[tuple[str, bool, str]]) -> list[Finding]:
    findings = []
    for name, works, detail in probed:
        cpu = name == "CPUExecutionProvider"
        ok = works if works or cpu else None
        remedy = (
            "" if works else "pip install --force-reinstall onnxruntime" if cpu else "the CPU is used instead"
        )
        findings.append(Finding(name, ok, detail, remedy))
    if not any(name == "CPUExecutionProvider" for name, _, _ in probed):
        findings.append(
            Finding("CPUExecutionProvider", False, "missing", "pip install --force-reinstall onnxruntime")
        )
    return findings


def _jetson(root: Path) -> list[Finding]:
    """What the L4T release means for onnxruntime; /etc/nv_tegra_release begins "# R36 (release), REVISION: ..."."""
    try:
        first = (root / "etc/nv_tegra_release").read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        first = ""
    release = next((word for word in first.split() if word in _JETPACK), None)
    if release is None:
        return [Finding("JetPack", None, "not recognised in /etc/nv_tegra_release", _JETSON_GPU)]
    return [
        Finding(
            "JetPack", None, f"L4T {release}: {_JETPACK[release]} (not verified on hardware)", _JETSON_GPU
        )
    ]


def _bundle(bundle: Bundle, features: FeatureFunction) -> list[Finding]:
    manifest = bundle.manifest
    what = f"{manifest.backbone.name}, {manifest.image.size} px, {manifest.precision}, files as exported"
    fidelity = manifest.fidelity.one_sided
    trainable = fidelity >= MIN_FIDELITY
    findings = [
        Finding("bundle", True, what, ""),
        Finding(
            "bundle fidelity",
            True if trainable else None,
            f"{fidelity:.3f} one-sided, {manifest.fidelity.two_sided:.3f} two-sided; {MIN_FIDELITY} is needed to learn",
            "" if trainable else "export with --precision w8 or fp32 to learn; this one can only predict",
        ),
    ]
    try:
        bundle.initial_adapter()
        probe = bundle.probe()
        computed = features(bundle, probe)
    except (EdgeZofcError, MemoryError) as error:
        return [
            *findings,
            Finding("bundle probe", False, str(error) or "out of memory", "export or copy it again"),
        ]
    return [*findings, _compared(computed, probe.features, manifest.precision)]


def _compared(computed: np.ndarray, expected: np.ndarray, precision: Precision) -> Finding:
    tolerance = PROBE_TOLERANCE[precision]
    size = float(np.linalg.norm(expected.astype(np.float64)))
    error = float(np.linalg.norm(computed.astype(np.float64) - expected)) / max(size, 1e-30)
    # A NaN is not below the tolerance, and is told as it is.
    same = error <= tolerance
    detail = f"relative error {error:.1e}, allowed for {precision} {tolerance:.0e}"
    remedy = "" if same else "use another onnxruntime version, or export the bundle again and compare there"
    return Finding("bundle probe", same, detail, remedy)


def probe_features(bundle: Bundle, probe: Probe) -> np.ndarray:
    """The probe's features float32 [k, n, D] as this machine's CPU computes them, one picture at a time."""
    backbone = Backbone(bundle, Placement.simple(fast=False))
    result = np.empty_like(probe.features)
    for index, image in enumerate(probe.images):
        backbone.image_buffer[0] = image
        for row, adapter in enumerate(probe.adapters):
            result[row, index] = backbone.features(1, adapter[None])[0, 0]
    return result
