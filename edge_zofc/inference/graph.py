"""An open graph in onnxruntime: how sessions are set up, and what their errors mean."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from edge_zofc.errors import ArenaFullError, DamagedFileError, Stopped
from edge_zofc.signals import bus_errors_told
from edge_zofc.storage.settings import Placement

Providers = tuple[tuple[str, dict[str, str]], ...]
CPU: Providers = (("CPUExecutionProvider", {}),)
FATAL = 4
"""The level of onnxruntime's log that says next to nothing."""

# What onnxruntime raises; its types share no base class but Exception.
RUNTIME_ERRORS = (
    errors.EPFail, errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
    errors.NoModel, errors.NoSuchFile, errors.NotImplemented, errors.RuntimeException,
    MemoryError, RuntimeError, ValueError,
)  # fmt: skip

# What the message of an allocation that failed holds: malloc's, the arena's (the second where gpu_mem_limit is
# reached), a thread's stack, CUDA's, cuBLAS's and cuDNN's.
_ARENA_FULL = "is smaller than requested bytes"
_OUT_OF_MEMORY = (
    "bad_alloc", "failed to allocate", _ARENA_FULL, "pthread_create failed", "out of memory", "status_alloc_failed",
)  # fmt: skip


def session_options(options: Placement) -> Any:
    """A placement as onnxruntime's ``SessionOptions``."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    save_memory(settings)
    settings.log_severity_level = FATAL  # errors are raised, and told once; warnings would mix with our own output
    # Within a run idle threads spin: an operator of a small network is over before a sleeping one has woken (1.3 times
    # as fast on a ViT-Ti/16 at 96 px, one picture, 2 threads). Between runs they sleep: the head's step and the
    # decoder need the cores too.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if not options.prepacking:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    return settings


def save_memory(settings: Any) -> None:
    """Have runs of a session with these ``SessionOptions`` hold no more than they must, at the same speed."""
    # A pattern lays a run's values out a second time, beside what the arena took for the first run: of one picture's
    # way back through an EfficientNet-Lite0 at 128 px 17 MiB in place of 10, of a ViT-B/16 at 224 px 235 in place of
    # 120, and no faster.
    settings.enable_mem_pattern = False
    # In the file's order as far as it can be. Else a value may be made long before it is used, and waits in memory: 3
    # of 13 MiB on an EfficientNet-Lite0's way back, 8 of 31 in a ViT-Ti with 8 pictures and 9 adapters.
    settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED


class Graph:
    """A session on one graph file of a verified bundle. ``path`` is the file."""

    def __init__(self, path: Path, placement: Placement, providers: Providers) -> None:
        """Open it. Raises DamagedFileError if onnxruntime cannot, MemoryError if it runs out."""
        self.path, self.providers = path, providers
        try:
            # onnxruntime's own fallback would drop the provider's limits, and tell of it on stdout.
            self._session = ort.InferenceSession(
                str(path), session_options(placement), providers=list(providers), enable_fallback=0
            )
        except RUNTIME_ERRORS as error:
            raise self._failure(error, "open", "; export the bundle again.") from error
        _give_freed_memory_back()
        self._run = ort.RunOptions()
        self._run.log_severity_level = FATAL  # what fails is raised; to be asked to stop is nothing to print

    def interrupt(self) -> None:
        """End the present run, after the node that it is at, and every later one; from any thread."""
        self._run.terminate = True

    def close(self) -> None:
        """Give the session's memory back; nothing can be run afterwards."""
        del self._session
        _give_freed_memory_back()

    def run(self, output: str, feed: Mapping[str, np.ndarray], due: tuple[int, ...]) -> np.ndarray:
        """The one ``output``, float32 of the shape ``due``.

        Raises MemoryError if an allocation fails, DamagedFileError if the graph gives anything else, Stopped after
        ``interrupt``.
        """
        try:
            with bus_errors_told():  # a bundle on a disk that fails, or cut short by a copy over it
                (result,) = self._session.run([output], dict(feed), self._run)
        except RUNTIME_ERRORS as error:
            if self._run.terminate:
                raise Stopped("a run of the graph was interrupted") from error
            raise self._failure(error, "run", " (see 'edge-zofc doctor --bundle').") from error
        found = np.asarray(result)
        if found.dtype != np.float32 or found.shape != due:
            raise DamagedFileError(
                f"{self.path} gives {found.dtype} {found.shape}, not float32 {due}; export the bundle again."
            )
        return found

    def _failure(self, error: Exception, doing: str, way_out: str) -> Exception:
        """A MemoryError for an allocation that failed, which onnxruntime's text alone tells, else DamagedFileError."""
        for name, options in self.providers:
            if _ARENA_FULL in str(error) and "gpu_mem_limit" in options:
                limit_mib = int(options["gpu_mem_limit"]) >> 20
                return ArenaFullError(f"the arena of {name} is full at its limit of {limit_mib} MiB")
        text = first_line(error)
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
            return MemoryError(text)
        return DamagedFileError(f"onnxruntime {ort.__version__} cannot {doing} {self.path}: {text}{way_out}")


def _give_freed_memory_back() -> None:
    """Opening and closing a session leave freed blocks in the heap of glibc: 8 to 16 MiB of an EfficientNet-Lite0."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def first_line(error: Exception) -> str:
    """What an error of onnxruntime says, without the rest of its text."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
