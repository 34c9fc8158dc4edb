"""Fidelity: how well the gradients that learning estimates through a graph follow the true ones.

The graph's projected gradients ``(L(theta + eps z) - L(theta)) / eps`` (one-sided) and
``(L(theta + eps z) - L(theta - eps z)) / (2 eps)`` (two-sided), over random directions z of +-1, are correlated
with the true directional derivatives ``z . grad L(theta)``, which torch's autograd computes through the same,
dequantised weights. L is the cross-entropy of a fixed cosine head.

It is measured beside the initial adapter, whose up-projections are zero, so that half of the gradient is exactly
zero there. Every value is moved uniformly within +-0.02, on the lattice, first.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch
from torch.nn import functional

from edge_zofc.algorithm.adapter import lattice_eps
from edge_zofc.algorithm.directions import direction
from edge_zofc.export.adapted import Adapted
from edge_zofc.export.adapters import initial_adapter, on_lattice
from edge_zofc.export.session import compute_features
from edge_zofc.storage.manifest import Fidelity

EPS = lattice_eps(1e-3)
"""1e-3, the paper's eps, on the lattice."""
DIRECTIONS = 64
CLASSES = 4
_SEED = 20251021  # of the directions, the head and the move: fixed, so that a fidelity can be measured again
_MOVE = 0.02
_ADAPTERS_AT_ONCE = 4


def measure_fidelity(
    session: ort.InferenceSession,
    reference: Adapted,
    images: np.ndarray,
    eps: float = EPS,
    directions: int = DIRECTIONS,
    start: np.ndarray | None = None,
) -> Fidelity:
    """Fidelity of the open graph against ``reference``, the torch model with the dequantised weights.

    ``images`` float32 [n, 3, S, S] are labelled 0, 1, 2, 3, 0, ... in turn; ``start`` as ``moved_adapter`` takes it.
    """
    labels = np.arange(len(images)) % CLASSES
    random = np.random.Generator(np.random.Philox(key=np.array([_SEED, 1], dtype=np.uint64)))
    rows = random.standard_normal((CLASSES, _width(session)))
    theta = moved_adapter(reference, start)
    size = theta.size
    base = _losses(session, images, theta[None], rows, labels)[0]
    gradient = _gradient(reference, images, theta, rows, labels)
    true = np.empty(directions)
    sides = np.empty((2, directions))
    for first in range(0, directions, _ADAPTERS_AT_ONCE):
        chosen = range(first, min(first + _ADAPTERS_AT_ONCE, directions))
        signs = np.stack([direction(_SEED, 0, query, size) for query in chosen])
        true[first : chosen.stop] = signs.astype(np.float64) @ gradient
        for side, sign in enumerate((1, -1)):
            adapters = theta + np.float32(sign * eps) * signs
            sides[side, first : chosen.stop] = _losses(session, images, adapters, rows, labels)
    return Fidelity(
        eps=eps,
        directions=directions,
        one_sided=correlation(sides[0] - base, true),
        two_sided=correlation(sides[0] - sides[1], true),
    )


def moved_adapter(reference: Adapted, start: np.ndarray | None = None) -> np.ndarray:
    """``start`` float32 [P] (None: an identity) with every entry moved uniformly within +-0.02, on the lattice."""
    random = np.random.Generator(np.random.Philox(key=np.array([_SEED, 2], dtype=np.uint64)))
    start = initial_adapter(reference.layout, _SEED) if start is None else start
    return on_lattice(start + random.uniform(-_MOVE, _MOVE, start.size))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation, 0 where one of the two does not vary or is not finite."""
    first, second = first - first.mean(), second - second.mean()
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not np.isfinite(lengths) or lengths == 0.0:
        return 0.0
    return float(np.clip(first @ second / lengths, -1.0, 1.0))


def _width(session: ort.InferenceSession) -> int:
    return int(session.get_outputs()[0].shape[2])


def _losses(
    session: ort.InferenceSession, images: np.ndarray, adapters: np.ndarray, rows: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Mean cross-entropy [K] in float64."""
    features = torch.from_numpy(compute_features(session, images, adapters)).double()
    return np.array([_loss(of_one, rows, labels).item() for of_one in features])


def _loss(features: torch.Tensor, rows: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    head = functional.normalize(torch.from_numpy(rows), dim=-1)
    logits = functional.normalize(features.double(), dim=-1) @ head.T
    return functional.cross_entropy(logits, torch.from_numpy(labels))


def _gradient(
    reference: Adapted, images: np.ndarray, theta: np.ndarray, rows: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """dL/dtheta float64 [P] by autograd, one picture at a time to keep its memory small."""
    total = np.zeros(theta.size)
    for index in range(len(images)):
        adapter = torch.from_numpy(theta.copy()).requires_grad_()
        features = reference(torch.from_numpy(images[index : index + 1]), adapter[None])[0]
        loss = _loss(features, rows, labels[index : index + 1])
        total += torch.autograd.grad(loss, adapter)[0].double().numpy()
    return total / len(images)
