"""The providers of onnxruntime: which start on this machine, and why another one does not."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_zofc.inference.graph import CPU, FATAL, RUNTIME_ERRORS, Providers, first_line

log = logging.getLogger("edge_zofc")

_NO_START = "built in, but it does not start on this machine"
# How the loader names a library that it does not find.
_NOT_FOUND = re.compile(r"(\S+): cannot open shared object file")
_DEFAULT_SEVERITY = 2  # of onnxruntime's log; it cannot be asked for

# ONNX model (IR 8, opset 13) of one node, y = x + x on float32 [1]: what ``probe_providers`` runs.
_PROBE_MODEL = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201705a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)


def choose_providers(wanted: Sequence[tuple[str, dict[str, str]]]) -> Providers:
    """Those of a profile's providers, in its order, that start on this machine; the CPU is always last.

    One that this onnxruntime was not built with is left out. One that was, and does not start, is left out with a
    warning: onnxruntime itself would go on with the next one.
    """
    built = set(ort.get_available_providers())
    chosen = []
    for name, options in wanted:
        if name not in built:
            continue
        why_not = "" if name == CPU[0][0] else _why_not(name, options)
        if why_not:
            log.warning("%s is not used: %s (see 'edge-zofc doctor').", name, why_not)
        else:
            chosen.append((name, dict(options)))
    return tuple(chosen) if "CPUExecutionProvider" in dict(chosen) else (*chosen, *CPU)


def probe_providers() -> list[tuple[str, bool, str]]:
    """Run one real node on each provider: (name, whether it computed 1 + 1 there, what it said)."""
    # Azure's forwards to a web service and runs nothing here.
    names = [name for name in ort.get_available_providers() if name != "AzureExecutionProvider"]
    return [(name, *_probe(name)) for name in names]


def _probe(provider: str) -> tuple[bool, str]:
    # Without a fallback the node would not quietly run on the CPU and prove nothing.
    settings = _probe_settings(fallback=provider == "CPUExecutionProvider")
    try:
        session = _open_probe(settings, provider, {})
        # onnxruntime falls back to the CPU without raising when a provider cannot start.
        if session.get_providers()[0] != provider:
            return False, _no_start(provider)
        (result,) = session.run(None, {"x": np.ones(1, np.float32)})
    except RUNTIME_ERRORS as error:
        return False, _no_start(provider, error)
    return bool(result[0] == 2.0), "ran a node"


def _why_not(provider: str, options: dict[str, str]) -> str:
    """Why a session on ``provider`` with ``options`` does not start here; "" if it does.

    The graph's node may run on the CPU: many a provider has only some operators.
    """
    try:
        started = _open_probe(_probe_settings(fallback=True), provider, options).get_providers()
    except RUNTIME_ERRORS as error:
        return _no_start(provider, error)
    return "" if started[0] == provider else _no_start(provider)


def _open_probe(settings: Any, provider: str, options: dict[str, str]) -> Any:
    if provider == "CUDAExecutionProvider":
        _load_cuda_libraries()
    # Loading a provider logs to no session's logger. What fails is told by ``_no_start``.
    ort.set_default_logger_severity(FATAL)
    try:
        return ort.InferenceSession(_PROBE_MODEL, settings, providers=[(provider, options)], enable_fallback=0)
    finally:
        ort.set_default_logger_severity(_DEFAULT_SEVERITY)


def _no_start(provider: str, error: Exception | None = None) -> str:
    """Why a provider does not start: the library that is missing, else what was raised."""
    library = _missing_library(provider)
    if library:
        return f"built in, but the library {library} is missing"
    return _NO_START if error is None else first_line(error)


def _missing_library(provider: str) -> str:
    """The first library that a provider's own one needs and the system's loader does not find; "" if there is none."""
    name = f"libonnxruntime_providers_{provider.removesuffix('ExecutionProvider').lower()}.so"
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / name))
    except OSError as error:
        found = _NOT_FOUND.match(str(error))
        # The provider's own is no file of its own where it is linked in.
        return found[1] if found and not found[1].endswith(name) else ""
    return ""


def _probe_settings(fallback: bool) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    if not fallback:
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return settings


def _load_cuda_libraries() -> None:
    """Load the CUDA libraries of pip's nvidia packages, where the system's loader does not look.

    What is missing is no error here: the provider then does not start. onnxruntime tells of it on stdout, which holds
    a command's answer alone.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(*RUNTIME_ERRORS, OSError):
        ort.preload_dlls()
