"""edge-zofc: keep learning new classes on a small computer with the memory of inference.

Importing this package switches off onnxruntime's telemetry. Its wheels from 1.32 on otherwise open a data base of some
megabytes in ~/.cache when they are imported and run a thread that sends it to Microsoft.

It also gives numpy's OpenBLAS one thread, where numpy is not imported yet. The products here are small. A second thread
would wait for the next one in a loop and take its core from onnxruntime: 15.0 processor seconds in place of 6.1 for 60
tiny tasks on 2 cores. And a solved head would have other bits on another number of cores.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_zofc.learner import Learner as Learner

# Before anything can import onnxruntime. Whoever wants the telemetry sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``edge_zofc.Learner``, loaded when it is asked for: it brings numpy and onnxruntime."""
    if name == "Learner":
        from edge_zofc.learner import Learner

        return Learner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
