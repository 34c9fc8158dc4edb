"""What this machine has, what it lacks and how to get it; with a bundle, whether it computes what was exported.

Versions come from the installed packages' metadata, so that nothing heavy is imported. A provider that onnxruntime
lists may not work (a Jetson with the ordinary wheel, a driver that does not match), so each one runs a real node. A
failed one is no fault as long as the CPU works.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edge_zofc.device.profiles import CPU, CUDA, format_bytes, matching_profile
from edge_zofc.device.system import Board, board
from edge_zofc.errors import EdgeZofcError
from edge_zofc.report import text
from edge_zofc.storage.bundle import Bundle, Probe
from edge_zofc.storage.manifest import MIN_FIDELITY, Precision
from edge_zofc.storage.settings import Placement

LITTLE_MEMORY_BYTES = 200 << 20
"""Below this not even a w8 ViT-B with the numpy head is planned to fit."""

# Relative error ||here - workstation|| / ||workstation|| of the probe's features that is still the same network.
# float32 sums in another order differ by about 1e-6 a layer; fp16 keeps 11 bits; int8 rounds activations to 8
# bits, and one rounding that falls the other way is a step of 1/127.
PROBE_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "w8": 1e-4, "w4": 1e-4, "fp16": 2e-2, "int8": 5e-2}

_RUNTIME = ("jinja2", "numpy", "pillow", "psutil", "pydantic", "safetensors", "tabulate", "tqdm")
# Distributions of the one package onnxruntime. Two at a time overwrite each other's files.
_ONNXRUNTIME = ("onnxruntime", *(f"onnxruntime-{flavour}" for flavour in (
    "gpu", "directml", "openvino", "rocm", "migraphx", "cann", "webgpu", "training",
)))  # fmt: skip
_OPTIONAL = {  # package -> what is missing without it, and the extra that brings it
    "torch": ("the cosine head runs on numpy instead", "torch"),
    "matplotlib": ("reports have no charts", "report"),
    "timm": ("no export on this machine", "export"),
    "onnx": ("no export on this machine", "export"),
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
    remedy: str = ""


def inspect(
    bundle: Bundle | None = None,
    *,
    here: Board | None = None,
    providers: ProviderProbe | None = None,
    features: FeatureFunction | None = None,
    root: Path = Path("/"),
) -> list[Finding]:
    """Everything worth knowing about this machine, and about ``bundle`` on it. Never raises for what it finds.

    The keyword arguments are for tests: another board, other providers, another way to compute features.
    """
    here = board(root) if here is None else here
    on_jetson = "Jetson" in here.model
    flavours = {name: version for name in _ONNXRUNTIME if (version := _version(name))}
    found = [*_machine(here), *_packages(flavours, on_jetson)]
    found += _providers((providers or _probed)(), next(iter(flavours), "onnxruntime"))
    if on_jetson:
        found.append(_jetson(root))
    if bundle is not None:
        found += _bundle(bundle, features or probe_features)
    return found


def table(findings: Iterable[Finding], width: int = 80) -> str:
    """The findings as lines of at most ``width`` columns, a remedy below its finding; words stay whole."""
    rows = []
    for finding in findings:
        rows.append(({True: "ok", False: "BAD", None: ""}[finding.ok], finding.name, finding.detail or "-"))
        if finding.remedy:
            rows.append(("", "", f"-> {finding.remedy}"))
    return text.table(rows, "lll", width)


def _machine(here: Board) -> list[Finding]:
    profile, limit = matching_profile(here), here.cgroup_limit_bytes
    name = here.model or f"{here.machine}, no device tree"
    known = f"; its profile is {profile.name}, not verified on hardware" if profile else ""
    memory = f"{format_bytes(here.mem_available_bytes)} available of {format_bytes(here.mem_total_bytes)}"
    enough = here.usable_bytes >= LITTLE_MEMORY_BYTES
    remedy = "" if enough else "end other programs, or learn a smaller backbone with --precision w8"
    cgroup = "none below the machine's memory" if limit is None else format_bytes(limit)
    cpus = f"{here.cpu_count} CPUs for this process"
    if here.cgroup_cpus is not None:
        cpus += f", of which its cgroup may use {here.cgroup_cpus:.3g}"
    return [
        Finding("board", None, f"{name}, {cpus}{known}"),
        Finding("memory", enough, memory, remedy),
        Finding("cgroup limit", None, cgroup),
    ]


def _packages(flavours: dict[str, str], on_jetson: bool) -> list[Finding]:
    return [
        Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_package(name, False, "missing", f"pip install {name}") for name in _RUNTIME),
        _onnxruntime(flavours, on_jetson),
        *(
            _package(name, None, f"missing: {without}", f"pip install 'edge-zofc[{extra}]'")
            for name, (without, extra) in _OPTIONAL.items()
        ),
    ]


def _package(name: str, ok_without: bool | None, detail: str, remedy: str) -> Finding:
    version = _version(name)
    return Finding(name, True, version) if version else Finding(name, ok_without, detail, remedy)


def _onnxruntime(flavours: dict[str, str], on_jetson: bool) -> Finding:
    """``flavours``: distribution -> version of what is installed; exactly one is right."""
    told = " and ".join(f"{name} {version}" for name, version in flavours.items())
    if len(flavours) == 1:
        return Finding("onnxruntime", True, told.removeprefix("onnxruntime "))
    if not flavours:
        return Finding("onnxruntime", False, "missing", _JETSON_GPU if on_jetson else "pip install onnxruntime")
    keep = next(name for name in flavours if name != "onnxruntime")
    again = "install the wheel for this JetPack again" if on_jetson else f"pip install {keep}"
    remedy = f"pip uninstall -y {' '.join(flavours)} && {again}"
    return Finding("onnxruntime", False, f"{told} overwrite each other's files", remedy)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _probed() -> Sequence[tuple[str, bool, str]]:
    try:
        from edge_zofc.inference.providers import probe_providers
    except ImportError:  # onnxruntime is missing or broken, and this command is there to say so
        return []
    return probe_providers()


def _providers(probed: Sequence[tuple[str, bool, str]], flavour: str) -> list[Finding]:
    if all(name != CPU for name, _, _ in probed):
        probed = [*probed, (CPU, False, "missing")]
    again = f"pip install --force-reinstall {flavour}"
    instead = "CUDA" if any(name == CUDA and works for name, works, _ in probed) else "the CPU"
    findings = []
    for name, works, detail in probed:
        ok, remedy = (False, again) if name == CPU else (None, f"{instead} is used instead")
        findings.append(Finding(name, True, detail) if works else Finding(name, ok, detail, remedy))
    return findings


def _jetson(root: Path) -> Finding:
    """What the L4T release means for onnxruntime; /etc/nv_tegra_release begins "# R36 (release), REVISION: ..."."""
    try:
        first = (root / "etc/nv_tegra_release").read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        first = ""
    release = next((word for word in first.split() if word in _JETPACK), None)
    known = f"L4T {release}: {_JETPACK[release]} (not verified on hardware)" if release else None
    return Finding("JetPack", None, known or "not recognised in /etc/nv_tegra_release", _JETSON_GPU)


def _bundle(bundle: Bundle, features: FeatureFunction) -> list[Finding]:
    manifest, fidelity = bundle.manifest, bundle.manifest.fidelity
    what = f"{manifest.backbone.name}, {manifest.image.size} px, {manifest.precision}, files as exported"
    both = f"{fidelity.one_sided:.3f} one-sided, {fidelity.two_sided:.3f} two-sided; {MIN_FIDELITY} is needed to learn"
    can_learn = fidelity.one_sided >= MIN_FIDELITY
    remedy = "" if can_learn else "export with --precision w8 or fp32 to learn; this one can only predict"
    findings = [Finding("bundle", True, what), Finding("bundle fidelity", can_learn or None, both, remedy)]
    try:
        for start in bundle.starts():
            start.initial_adapter()
        probe = bundle.probe()
        found = _compared(features(bundle, probe), probe.features, manifest.precision)
    except ImportError as error:
        found = Finding("bundle probe", False, f"not computed: {error}", "install onnxruntime")
    except (EdgeZofcError, MemoryError) as error:
        found = Finding("bundle probe", False, str(error) or "out of memory", "export or copy it again")
    return [*findings, found]


def _compared(computed: np.ndarray, expected: np.ndarray, precision: Precision) -> Finding:
    tolerance = PROBE_TOLERANCE[precision]
    size = float(np.linalg.norm(expected.astype(np.float64)))
    error = float(np.linalg.norm(computed.astype(np.float64) - expected)) / max(size, 1e-30)
    same = error <= tolerance  # False for NaN
    detail = f"relative error {error:.1e}, allowed for {precision} {tolerance:.0e}"
    remedy = "" if same else "use another onnxruntime version, or export the bundle again and compare there"
    return Finding("bundle probe", same, detail, remedy)


def probe_features(bundle: Bundle, probe: Probe) -> np.ndarray:
    """The probe's features float32 [k, n, D] as this machine's CPU computes them, one picture at a time."""
    from edge_zofc.inference.backbone import Backbone

    backbone = Backbone(bundle, Placement.simple(fast=False))
    result = np.empty_like(probe.features)
    for index, image in enumerate(probe.images):
        backbone.image_buffer[0] = image
        for row, adapter in enumerate(probe.adapters):
            result[row, index] = backbone.features(1, adapter[None])[0, 0]
    return result
