"""Where the time of a run of the graph goes, by onnxruntime's own profiler: ``edge-zofc bench speed --profile``.

The numbers contain the profiler's own cost, some microseconds an operator. The shares are more reliable than the times.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_zofc.benchmarks.costs.setup import SEED, Setup
from edge_zofc.inference.graph import session_options
from edge_zofc.storage.settings import Placement

RUNS = 6
PRODUCTS = ("Gemm", "MatMulNBits")
SHAPES = ((1, 1), (8, 5))
"""(pictures, adapters) of the profiled runs: in place, and fast."""


def profile(setup: Setup, cases: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row for each (precision, blocks), shape and kind of operator, most time first; ``share`` is of all kernels."""
    rows: list[dict[str, Any]] = []
    for precision, blocks in cases:
        for images, adapters in SHAPES:
            graph = setup.bundle(precision, blocks) / "backbone.onnx"
            found = _kernel_microseconds(graph, images, adapters, setup.threads)
            whole = sum(found.values())
            rows += [
                {
                    "bundle": f"{precision}, {blocks} blocks",
                    "micro_batch": images,
                    "parallel_queries": adapters,
                    "operator": operator,
                    "milliseconds": used / 1000,
                    "share": used / whole,
                }
                for operator, used in found.most_common()
            ]
    return rows


def _kernel_microseconds(graph: Path, images: int, adapters: int, threads: int) -> Counter[str]:
    """Mean microseconds a run by kind of operator, the first run left out."""
    placement = Placement.simple(images, adapters, fast=adapters > 1)
    options = session_options(placement.model_copy(update={"threads": threads}))
    options.enable_profiling = True
    options.profile_file_prefix = str(graph.parent / "profile")
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    shapes = {value.name: value.shape[1:] for value in session.get_inputs()}
    random = np.random.default_rng(SEED)
    feeds = {
        "images": random.standard_normal((images, *shapes["images"]), dtype=np.float32),
        "adapters": 0.01 * random.standard_normal((adapters, *shapes["adapters"]), dtype=np.float32),
    }
    for _ in range(RUNS + 1):
        session.run(["features"], feeds)
    written = Path(session.end_profiling())
    kernels = [event for event in json.loads(written.read_text()) if is_kernel(event)]
    written.unlink()
    per_run = len(kernels) // (RUNS + 1)
    found: Counter[str] = Counter()
    for event in kernels[per_run:]:
        found[kind(event)] += event["dur"] / RUNS
    return found


def is_kernel(event: dict[str, Any]) -> bool:
    """Whether an event of the profile is the run of one operator."""
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time")


def kind(event: dict[str, Any]) -> str:
    """The operator's type; matrix products by their place in a block; what belongs to the adapters together."""
    operator, name = str(event["args"]["op_name"]), str(event["name"]).removesuffix("_kernel_time")
    if ".adapter" in name:
        return "adapters, all operators"
    return f"{operator} {name.rsplit('.', 1)[-1]}" if operator in PRODUCTS else operator
