"""One way to open an exported graph in onnxruntime and to run it: for checking, measuring and deploying."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge_zofc.inference.graph import save_memory


def open_session(graph: Path | bytes, threads: int = 0) -> ort.InferenceSession:
    """Open ``graph``, a file or its bytes, on the CPU; ``threads`` 0 leaves the number to onnxruntime.

    Raises onnxruntime's own errors if the graph cannot be read.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    save_memory(options)  # as the runtime does, which is measured here
    # Threads that spin while they wait take the processor from torch, which runs in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = graph if isinstance(graph, bytes) else str(graph)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def compute_features(session: ort.InferenceSession, images: np.ndarray, adapters: np.ndarray) -> np.ndarray:
    """Features float32 [K, B, D] of ``images`` float32 [B, 3, S, S] under ``adapters`` float32 [K, P]."""
    return np.asarray(session.run(["features"], {"images": images, "adapters": adapters})[0])
