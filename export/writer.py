"""Writes a bundle: a frozen timm network with adapters as ONNX, checked and measured before it gets its name.

Nothing is written at OUT until the end. All files are made in a hidden folder beside it, run in onnxruntime against
torch, measured, and read back as a device would. Then the folder gets its name. Whatever goes wrong before, SIGTERM
included, leaves no trace; what a SIGKILL leaves the next export beside it removes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime
import torch
from onnxruntime import InferenceSession
from safetensors.numpy import save

from edge_zofc import __version__
from edge_zofc.errors import InputError
from edge_zofc.export.adapted import Adapted, adapted
from edge_zofc.export.adapters import initial_adapter
from edge_zofc.export.backbones import LoadedBackbone, load_backbone
from edge_zofc.export.fidelity import measure_fidelity, moved_adapter
from edge_zofc.export.gradient_check import write_checked_gradient
from edge_zofc.export.gradient_graph import PRECISIONS as GRADIENT_PRECISIONS
from edge_zofc.export.gradient_rules import NoGradientError
from edge_zofc.export.measure import measure_activation_bytes
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.options import ExportOptions, adapter_request, backbone_request, check_options, tuning_request
from edge_zofc.export.partial import partial_folder
from edge_zofc.export.precision import EXPORT_TOLERANCE, check_precision, dequantised_weights
from edge_zofc.export.probe_pictures import probe_pictures
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.traced_graph import write_traced_graph
from edge_zofc.export.tuning import tune
from edge_zofc.export.vit import AdapterViT
from edge_zofc.signals import exit_on_sigterm, signals_held
from edge_zofc.storage.bundle import Bundle, read_bundle, sha256_of
from edge_zofc.storage.gradient_info import GradientInfo
from edge_zofc.storage.manifest import (
    ADAPTER,
    BOTH_WAYS_VERSION,
    FILES,
    GRADIENT_FILES,
    GRAPH,
    MIN_FIDELITY,
    PROBE,
    UNTUNED,
    UNTUNED_VERSION,
    ActivationBytes,
    Fidelity,
    FileEntry,
    ImageSpec,
    Manifest,
    Precision,
    write_manifest,
)
from edge_zofc.storage.tuning import TuningInfo
from edge_zofc.storage.writing import replace_folder

PICTURES = 4
"""Pictures of the probe and of the check against torch."""
FIDELITY_PICTURES = 2
"""Of these, the first few that fidelity is measured on: 129 forwards each, a minute for a ViT-B on one idle core."""


@dataclass(frozen=True)
class _Inputs:
    """What the graphs are checked on: pictures float32 [n, 3, S, S], and the adapter's start float32 [P]."""

    images: np.ndarray
    start: np.ndarray


@dataclass(frozen=True)
class _Measured:
    """What is only known of a graph that was run."""

    fidelity: Fidelity
    activation_bytes: ActivationBytes
    gradient: GradientInfo | None


def export_bundle(options: ExportOptions, tell: Callable[[str], None] = lambda _line: None) -> Bundle:
    """Export, check and measure; ``tell`` gets a line for each thing done. The folder is ``options.out``.

    Raises InputError for options that cannot be met or a graph that does not compute what torch does, DoesNotFitError
    if the disk or the memory is too small, SystemExit at a SIGTERM. Nothing is left behind then, and an older bundle
    is still there.
    """
    check_options(options)
    started = perf_counter()
    with exit_on_sigterm():
        loaded = load_backbone(backbone_request(options))
        images = probe_pictures(loaded.image, PICTURES, options.pictures)
        model = adapted(loaded, adapter_request(options), images)
        check_precision(model, options.precision)
        layout = model.layout
        tell(
            f"{loaded.info.name}: {loaded.info.depth} blocks, {layout.size} adapter parameters "
            f"({layout.kind} on blocks {_shown(layout.blocks)})"
        )
        for note in loaded.notes:
            tell(note)
        untuned = initial_adapter(model.layout, options.seed)
        start, tuning = _start(model, loaded.image, untuned, options, tell)
        with partial_folder(options.out, tell) as folder:
            if tuning is not None:
                _write_adapter(folder / UNTUNED, untuned)
            measured = _write_and_measure(folder, model, _Inputs(images, start), options, tell)
            write_manifest(folder, _manifest(folder, loaded, model, options.precision, measured, tuning))
            read_bundle(folder)
            with signals_held():  # between two renames there is no bundle at OUT
                replace_folder(folder, options.out)
        tell(f"wrote {options.out} in {perf_counter() - started:.0f} s")
        return read_bundle(options.out)


def _shown(blocks: tuple[int, ...]) -> str:
    """``0-4`` or ``0, 3, 5``."""
    is_range = blocks == tuple(range(blocks[0], blocks[-1] + 1))
    return f"{blocks[0]}-{blocks[-1]}" if is_range and len(blocks) > 1 else ", ".join(map(str, blocks))


def _start(
    model: Adapted, image: ImageSpec, untuned: np.ndarray, options: ExportOptions, tell: Callable[[str], None]
) -> tuple[np.ndarray, TuningInfo | None]:
    """Where the adapter starts, float32 [P], and how it was trained from ``untuned`` if it was."""
    if not options.tune:
        return untuned, None
    reference = model if options.precision == "fp32" else dequantised_weights(model, options.precision)
    return tune(reference, image, untuned, tuning_request(options), tell)


def _write_adapter(path: Path, values: np.ndarray) -> None:
    # Not save_file: it makes files that their owner alone may read, and a device's service is another user.
    path.write_bytes(save({"adapter": values}))


def _write_and_measure(
    folder: Path, model: Adapted, inputs: _Inputs, options: ExportOptions, tell: Callable[[str], None]
) -> _Measured:
    """Write all files but the manifest to ``folder``. Raises InputError if the graph differs from torch."""
    fidelity = _write_checked(folder, model, inputs, options, tell)
    tell(_describe(fidelity))
    # Here the session and the copy of the weights are gone: the measuring processes need the room.
    activation_bytes = measure_activation_bytes(folder / GRAPH, model.layout.queries_share)
    tell(f"activations: {activation_bytes.predict(1, 1) / 2**20:.1f} MiB a picture")
    return _Measured(fidelity, activation_bytes, _gradient(folder, model, inputs, options, tell))


def _gradient(
    folder: Path, model: Adapted, inputs: _Inputs, options: ExportOptions, tell: Callable[[str], None]
) -> GradientInfo | None:
    """What was measured of the gradient's files; None where there are none, which is told unless it was asked for."""
    if options.gradient is False or options.precision not in GRADIENT_PRECISIONS:
        return None
    try:
        reference = dequantised_weights(model, options.precision)
        return write_checked_gradient(folder, reference, options.precision, inputs.images, tell, inputs.start)
    except NoGradientError as error:
        if options.gradient:
            raise InputError(f"There are no exact gradients: {error}; leave out --gradient.") from error
        for name in GRADIENT_FILES:
            (folder / name).unlink(missing_ok=True)
        tell(f"no exact gradients: {error}")
        return None


def write_forward_graph(model: Adapted, precision: Precision, folder: Path) -> None:
    """Write the graph of the features, and its weights, to ``folder``."""
    if isinstance(model, AdapterViT):
        write_graph(model, precision, folder)
    else:
        write_traced_graph(model, precision, folder)


def _write_checked(
    folder: Path, model: Adapted, inputs: _Inputs, options: ExportOptions, tell: Callable[[str], None]
) -> Fidelity:
    write_forward_graph(model, options.precision, folder)
    _write_adapter(folder / ADAPTER, inputs.start)
    reference = dequantised_weights(model, options.precision)
    # One thread, so that the probe is the same whatever the number of processors.
    error = _write_probe(folder, open_session(folder / GRAPH, threads=1), reference, inputs, options)
    session = open_session(folder / GRAPH)
    tell(f"onnxruntime against torch: relative error {error:.1e}")
    pictures = inputs.images[:FIDELITY_PICTURES]
    return measure_fidelity(session, reference, pictures, directions=options.directions, start=inputs.start)


def _write_probe(
    folder: Path, session: InferenceSession, reference: Adapted, inputs: _Inputs, options: ExportOptions
) -> float:
    """Write the graph's own answers for the initial and a moved adapter; returns their error against torch."""
    images, adapters = inputs.images, np.stack([inputs.start, moved_adapter(reference, inputs.start)])
    found = compute_features(session, images, adapters)
    with torch.no_grad():
        wanted = reference(torch.from_numpy(images), torch.from_numpy(adapters)).numpy()
    error = relative_error(found, wanted)
    tolerance = EXPORT_TOLERANCE[options.precision]
    if not error < tolerance:
        raise InputError(
            f"The exported graph differs from torch by {error:.2g} (relative), above the {tolerance:.0e} allowed for "
            f"{options.precision}; choose another --precision."
        )
    # safetensors stores the bytes of a strided array in the wrong order without a word.
    probe = {"images": images, "adapters": adapters, "features": found}
    (folder / PROBE).write_bytes(save({name: np.ascontiguousarray(values) for name, values in probe.items()}))
    return error


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest ||found - wanted|| / ||wanted|| over the vectors along the last axis; nan if one is nan."""
    lengths = np.maximum(np.linalg.norm(wanted, axis=-1), np.float32(1e-12))
    return float(np.max(np.linalg.norm(found - wanted, axis=-1) / lengths))


def _describe(fidelity: Fidelity) -> str:
    sides = f"one-sided {fidelity.one_sided:.4f}, two-sided {fidelity.two_sided:.4f}"
    text = f"fidelity over {fidelity.directions} directions: {sides}"
    if max(fidelity.one_sided, fidelity.two_sided) < MIN_FIDELITY:
        text += f" (below {MIN_FIDELITY}: good for inference, not for learning)"
    return text


def _manifest(
    folder: Path,
    loaded: LoadedBackbone,
    model: Adapted,
    precision: Precision,
    measured: _Measured,
    tuning: TuningInfo | None,
) -> Manifest:
    format_version = 2 if model.layout.kind == "bottleneck" else 3
    if tuning is not None or measured.gradient is not None:
        format_version = BOTH_WAYS_VERSION if tuning is None else UNTUNED_VERSION
    gradient = GRADIENT_FILES if measured.gradient is not None else ()
    return Manifest(
        format_version=format_version,
        written_by={
            "edge-zofc": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "onnxruntime": onnxruntime.__version__,  # onnxruntime-gpu has another name on the index
            **{name: version(name) for name in ("numpy", "onnx", "timm", "torch")},
        },
        backbone=loaded.info,
        image=loaded.image,
        adapter=model.layout,
        feature_size=loaded.width,
        precision=precision,
        fidelity=measured.fidelity,
        activation_bytes=measured.activation_bytes,
        gradient=measured.gradient,
        tuning=tuning,
        files={
            name: FileEntry(bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
            for name in (*FILES, *gradient, *((UNTUNED,) if tuning is not None else ()))
        },
    )
