"""The graph that goes both ways, written, compared with torch's autograd and with the features' graph, and measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edge_zofc.export.adapted import Adapted
from edge_zofc.export.fidelity import moved_adapter
from edge_zofc.export.gradient_graph import INPUTS, OUTPUT, vjp, write_gradient_graph
from edge_zofc.export.gradient_memory import measure_gradient_memory
from edge_zofc.export.gradient_rules import NoGradientError
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.storage.gradient_info import GradientInfo
from edge_zofc.storage.manifest import GRADIENT_GRAPH, GRAPH, Precision

TOLERANCE, KINK_TOLERANCE = 1e-4, 1e-1
"""Largest relative error of the best and of the worst picture. A ReLU's slope jumps where its input is 0. Which side
rounding takes differs between two libraries, as it does between torch's float32 and float64. A rule that is wrong is
wrong on every picture. Of EfficientNet-Lite0 with random weights at 64 px 29 of 32 pictures were below 3e-6, the others
at 1e-3 to 2.3e-2."""
_SEED = 20261126


def write_checked_gradient(
    folder: Path,
    model: Adapted,
    precision: Precision,
    images: np.ndarray,
    tell: Callable[[str], None],
    start: np.ndarray | None = None,
) -> GradientInfo:
    """Write the graph to ``folder``, which has the first one, check and measure it.

    ``model`` as ``write_gradient_graph`` takes it, ``images`` float32 [n, 3, S, S], ``start`` as ``moved_adapter``
    takes it. Raises NoGradientError if it cannot be written or is not what autograd gives.
    """
    write_gradient_graph(model, folder, precision)
    _check_features(folder, images, moved_adapter(model, start)[None])
    errors = gradient_errors(folder / GRADIENT_GRAPH, model, images, start)
    if not (errors.min() < TOLERANCE and errors.max() < KINK_TOLERANCE):
        raise NoGradientError(
            f"the exported gradient differs from torch's by {errors.min():.1e} to {errors.max():.1e} (relative), above "
            f"the {TOLERANCE:.0e} to {KINK_TOLERANCE:.0e} allowed"
        )
    memory = measure_gradient_memory(folder)
    taken = sorted((one.anonymous + one.file + (one.run or 0)) / 2**20 for one in memory)
    tell(
        f"exact gradients: relative error {errors.min():.1e} against torch's autograd (at kinks up to "
        f"{errors.max():.1e}), {taken[0]:.0f} to {taken[-1]:.0f} MiB more while learning"
    )
    return GradientInfo(error=float(errors.min()), memory=memory)


def _check_features(folder: Path, images: np.ndarray, adapter: np.ndarray) -> None:
    """Raises NoGradientError if the forward half does not give the features of the graph that it is taken from."""
    wanted = compute_features(open_session(folder / GRAPH, threads=1), images, adapter)
    none = {"gradient_images": images[:0], "feature_gradients": wanted[0, :0]}
    feed = {"images": images, "adapters": adapter, **none}
    (found,) = open_session(folder / GRADIENT_GRAPH, threads=1).run(["features"], feed)
    if not np.array_equal(found, wanted):
        raise NoGradientError("beside it the forward graph gives other features")


def gradient_errors(graph: Path, model: Adapted, images: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Of each picture ||graph - torch|| / ||torch||, float64 [n], for random gradients of its features."""
    session, adapter = open_session(graph, threads=1), moved_adapter(model, start)[None]
    random = np.random.Generator(np.random.Philox(key=np.array([_SEED, 1], dtype=np.uint64)))
    found = []
    for image in images:
        asked = random.standard_normal((1, model.feature_size)).astype(np.float32)
        feed = image[None], adapter, asked
        wanted = vjp(model, *map(torch.from_numpy, feed)).double().numpy()
        got = np.asarray(
            session.run([OUTPUT], {"images": images[:0], **dict(zip(INPUTS, feed, strict=True))})[0], float
        )
        found.append(float(np.linalg.norm(got - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12))
    return np.array(found)
