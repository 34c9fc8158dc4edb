"""The frozen ONNX session: pictures x adapters -> features. The only device module that knows onnxruntime.

onnxruntime plans its memory per input shape, so shapes are static while a run lasts: a short last micro-batch is padded
with zeros and the padding's features are dropped. The adapters are read where they lie: on the CPU a run sees the
caller's array itself, and perturbing theta in place needs no copy.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from edge_zofc.errors import ArenaFullError, DamagedFileError, Stopped
from edge_zofc.signals import bus_errors_told
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement

log = logging.getLogger("edge_zofc")

Providers = tuple[tuple[str, dict[str, str]], ...]
CPU: Providers = (("CPUExecutionProvider", {}),)

# What onnxruntime raises; its types share no base class but Exception.
_RUNTIME_ERRORS = (
    errors.EPFail, errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
    errors.NoModel, errors.NoSuchFile, errors.NotImplemented, errors.RuntimeException,
    MemoryError, RuntimeError, ValueError,
)  # fmt: skip

_NO_START = "built in, but it does not start on this machine"

# What the message of an allocation that failed holds: malloc's, the arena's (the second where gpu_mem_limit is
# reached), a thread's stack, CUDA's, cuBLAS's and cuDNN's.
_ARENA_FULL = "is smaller than requested bytes"
_OUT_OF_MEMORY = (
    "bad_alloc", "failed to allocate", _ARENA_FULL, "pthread_create failed", "out of memory", "status_alloc_failed",
)  # fmt: skip

# How the loader names a library that it does not find.
_NOT_FOUND = re.compile(r"(\S+): cannot open shared object file")
# Levels of onnxruntime's log, whose default cannot be asked for.
_DEFAULT_SEVERITY, _FATAL = 2, 4

# ONNX model (IR 8, opset 13) of one node, y = x + x on float32 [1]: what ``probe_providers`` runs.
_PROBE_MODEL = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201705a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)


def session_options(options: Placement) -> Any:
    """A placement as onnxruntime's ``SessionOptions``."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    settings.enable_mem_pattern = options.arena
    settings.log_severity_level = _FATAL  # errors are raised, and told once; warnings would mix with our own output
    # Within a run idle threads spin: an operator of a small network is over before a sleeping one has woken (1.3 times
    # as fast on a ViT-Ti/16 at 96 px, one picture, 2 threads). Between runs they sleep: the head's step and the
    # decoder need the cores too.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if not options.prepacking:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    return settings


class Backbone:
    """An open session on a verified bundle.

    ``image_buffer`` is float32 [micro_batch, 3, S, S]: fill the first n entries, then call ``features(n, ...)``.
    """

    def __init__(self, bundle: Bundle, placement: Placement, providers: Providers = CPU) -> None:
        """Open the graph. Raises DamagedFileError if onnxruntime cannot, MemoryError if it runs out."""
        self.bundle, self.placement, self.providers = bundle, placement, providers
        self.feature_size = bundle.manifest.feature_size
        settings = session_options(placement)
        try:
            # onnxruntime's own fallback would drop the provider's limits, and tell of it on stdout.
            self._session = ort.InferenceSession(
                str(bundle.graph_path), settings, providers=list(providers), enable_fallback=0
            )
        except _RUNTIME_ERRORS as error:
            raise self._failure(error, "open", "; export the bundle again.") from error
        _give_freed_memory_back()
        self._run = ort.RunOptions()
        self._run.log_severity_level = _FATAL  # what fails is raised; to be asked to stop is nothing to print
        side = bundle.manifest.image.size
        self.image_buffer = np.zeros((placement.micro_batch, 3, side, side), np.float32)

    def interrupt(self) -> None:
        """End the present run of the graph, after the node that it is at, and every later one; from any thread."""
        self._run.terminate = True

    def close(self) -> None:
        """Give the session's memory back; nothing can be run afterwards."""
        del self._session

    def features(self, count: int, adapters: np.ndarray) -> np.ndarray:
        """Features float32 [K, count, D] of the first ``count`` pictures in ``image_buffer``.

        ``adapters`` is float32 [K, P] with K at most ``parallel_queries``. Raises MemoryError if an allocation fails,
        DamagedFileError if the graph is not what the manifest says, Stopped after ``interrupt``.
        """
        self.image_buffer[count:] = 0.0
        feed = {"images": self.image_buffer, "adapters": adapters}
        try:
            with bus_errors_told():  # a bundle on a disk that fails, or cut short by a copy over it
                (result,) = self._session.run(["features"], feed, self._run)
        except _RUNTIME_ERRORS as error:
            if self._run.terminate:
                raise Stopped("a run of the graph was interrupted") from error
            raise self._failure(error, "run", " (see 'edge-zofc doctor --bundle').") from error
        found, due = np.asarray(result), (len(adapters), len(self.image_buffer), self.feature_size)
        if found.dtype != np.float32 or found.shape != due:
            raise DamagedFileError(
                f"{self.bundle.graph_path} gives {found.dtype} {found.shape}, not float32 {due}; "
                "export the bundle again."
            )
        return found[:, :count]

    def _failure(self, error: Exception, doing: str, way_out: str) -> Exception:
        """A MemoryError for an allocation that failed, which onnxruntime's text alone tells, else DamagedFileError."""
        for name, options in self.providers:
            if _ARENA_FULL in str(error) and "gpu_mem_limit" in options:
                limit_mib = int(options["gpu_mem_limit"]) >> 20
                return ArenaFullError(f"the arena of {name} is full at its limit of {limit_mib} MiB")
        text = _first_line(error)
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
            return MemoryError(text)
        return DamagedFileError(
            f"onnxruntime {ort.__version__} cannot {doing} {self.bundle.graph_path}: {text}{way_out}"
        )


def _give_freed_memory_back() -> None:
    """Opening a session leaves freed blocks in glibc's heap: 8 to 16 MiB of an EfficientNet-Lite0, by chance."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


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
    except _RUNTIME_ERRORS as error:
        return False, _no_start(provider, error)
    return bool(result[0] == 2.0), "ran a node"


def _why_not(provider: str, options: dict[str, str]) -> str:
    """Why a session on ``provider`` with ``options`` does not start here; "" if it does.

    The graph's node may run on the CPU: many a provider has only some operators.
    """
    try:
        started = _open_probe(_probe_settings(fallback=True), provider, options).get_providers()
    except _RUNTIME_ERRORS as error:
        return _no_start(provider, error)
    return "" if started[0] == provider else _no_start(provider)


def _open_probe(settings: Any, provider: str, options: dict[str, str]) -> Any:
    if provider == "CUDAExecutionProvider":
        _load_cuda_libraries()
    # Loading a provider logs to no session's logger. What fails is told by ``_no_start``.
    ort.set_default_logger_severity(_FATAL)
    try:
        return ort.InferenceSession(_PROBE_MODEL, settings, providers=[(provider, options)], enable_fallback=0)
    finally:
        ort.set_default_logger_severity(_DEFAULT_SEVERITY)


def _no_start(provider: str, error: Exception | None = None) -> str:
    """Why a provider does not start: the library that is missing, else what was raised."""
    library = _missing_library(provider)
    if library:
        return f"built in, but the library {library} is missing"
    return _NO_START if error is None else _first_line(error)


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
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(*_RUNTIME_ERRORS, OSError):
        ort.preload_dlls()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
