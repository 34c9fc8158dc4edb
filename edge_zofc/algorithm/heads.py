"""The classifier: a cosine head that grows with new classes and trains by gradient, or a linear one that is solved.

Cosine: ``logit = sigma * cos(feature, row)``, no bias. sigma is one learnable scalar that starts at 1 and is carried
over tasks (ZO-FC, arXiv 2510.21019). The training loss is the cross-entropy over the current task's classes only. A
test prediction is the argmax over every class seen. One SGD step exists twice, by torch's autograd and written out:
importing torch costs 240 to 540 MiB of resident memory, more than some devices' whole budget. A test holds the two
together to 1e-6.

Linear: ``logit = feature . row + bias``, solved in closed form with nothing to tune. It is linear discriminant analysis
on running sums: class means and one shared within-class covariance (streaming LDA: Hayes and Kanan 2020, arXiv
1909.01520), the covariance shrunk towards a multiple of the identity by the OAS rule (Chen et al. 2010, arXiv
0907.4698, eq. 23). Classes count as equally likely. scikit-learn's needs all pictures at once; here only sums are kept,
half of D x D + C x D numbers however many pictures are seen. The sums of a class are those of the adapter that it was
learnt with; after the adapter moves they are slightly out of date.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_zofc.algorithm.statistics import Statistics

HeadBackend = Literal["torch", "numpy"]
Gradient = tuple[float, np.ndarray, np.ndarray]
"""A batch's mean loss, and its gradient by the rows and by sigma."""

_TINY = np.float32(1e-12)  # the same floor as torch.nn.functional.normalize
MIN_LEARNING_RATE = 1e-5


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each vector along the last axis divided by its L2 norm (norms below 1e-12 count as 1e-12)."""
    norms = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return np.asarray(vectors / np.maximum(norms, _TINY))


@dataclass
class Head:
    """Rows float32 [C, D] of the classes seen so far, by class id, and sigma float32 [1].

    ``biases`` float32 [C] makes it a linear head, None a cosine head.
    """

    rows: np.ndarray
    sigma: np.ndarray
    biases: np.ndarray | None = None

    @classmethod
    def empty(cls, feature_size: int) -> Head:
        """A cosine head that knows no class yet; ``feature_size`` is D."""
        return cls(np.zeros((0, feature_size), np.float32), np.ones(1, np.float32))

    def grow(self, new_rows: np.ndarray) -> None:
        """Append rows float32 [n, D] for the next n class ids; the old rows keep their values."""
        self.rows = np.concatenate([self.rows, new_rows.astype(np.float32, copy=False)])
        if self.biases is not None:
            self.biases = np.concatenate([self.biases, np.zeros(len(new_rows), np.float32)])

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits float32 [..., C] over every class seen, for features float32 [..., D]."""
        if self.biases is not None:
            return np.asarray(features @ self.rows.T + self.biases)
        return np.asarray(self.sigma[0] * (unit(features) @ unit(self.rows).T))

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Softmax of ``logits``, float64 [..., C]."""
        return softmax(self.logits(features).astype(np.float64))

    def losses(self, features: np.ndarray, labels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        """Mean cross-entropy over ``class_ids`` alone, float64 [K], for features float32 [K, B, D].

        ``labels`` int64 [B] are positions in ``class_ids``. Computed in float64: the two sides of a query differ by
        about 1e-4, of which float32 would leave three digits. One of the K at a time: float64 copies of all would be
        most of a step's memory where there are many queries.
        """
        biases = None if self.biases is None else self.biases[class_ids]
        part = Head(self.rows[class_ids].astype(np.float64), self.sigma.astype(np.float64), biases)
        return np.array([cross_entropy(part.logits(found.astype(np.float64)), labels) for found in features])

    def gradients(self, features: np.ndarray, labels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        """Gradient of the mean cross-entropy by features float32 [B, D]: float32 [B, D]; the rest as in ``losses``."""
        inputs, rows = features.astype(np.float64), self.rows[class_ids].astype(np.float64)
        biases = None if self.biases is None else self.biases[class_ids]
        part = Head(rows, self.sigma.astype(np.float64), biases)
        pull = softmax(part.logits(inputs))
        pull[np.arange(len(labels)), labels] -= 1.0
        pull /= len(labels)
        if biases is not None:
            return np.asarray(pull @ rows, np.float32)
        along, lengths = unit(inputs), np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), _TINY)
        towards = part.sigma[0] * (pull @ unit(rows))
        # Of a cosine: the part along the feature itself changes nothing.
        towards -= along * np.sum(along * towards, axis=1, keepdims=True)
        return np.asarray(towards / lengths, np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of logits [..., C], along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over a batch, of logits [B, C]."""
    top = logits.max(axis=-1)
    log_sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    return float((log_sums - logits[np.arange(len(labels)), labels]).mean())


class HeadOptimiser:
    """SGD with momentum on sigma and on one task's rows; built anew for each task, as the paper does.

    Rows outside ``class_ids`` have a zero gradient under the local loss and are not touched.
    """

    def __init__(self, head: Head, class_ids: np.ndarray, momentum: float, backend: HeadBackend) -> None:
        self.head = head
        self.class_ids = np.asarray(class_ids, dtype=np.int64)
        self.momentum = np.float32(momentum)
        self.backend = backend
        self.row_velocity = np.zeros((len(self.class_ids), head.rows.shape[1]), np.float32)
        self.sigma_velocity = np.zeros(1, np.float32)

    def step(self, features: np.ndarray, labels: np.ndarray, learning_rate: float) -> float:
        """One SGD step on features float32 [B, D], labels int64 [B] (positions in ``class_ids``).

        Changes ``head.rows``, ``head.sigma`` and the velocities; returns the loss before the step.
        """
        rows = self.head.rows[self.class_ids]
        gradient = _torch_gradient if self.backend == "torch" else _numpy_gradient
        loss, row_gradient, sigma_gradient = gradient(rows, self.head.sigma, features, labels)
        self.row_velocity *= self.momentum
        self.row_velocity += row_gradient
        self.sigma_velocity *= self.momentum
        self.sigma_velocity += sigma_gradient
        rate = np.float32(learning_rate)
        self.head.rows[self.class_ids] = rows - rate * self.row_velocity
        self.head.sigma -= rate * self.sigma_velocity
        return loss


def cosine_rate(base: float, epoch: int, epochs: int) -> float:
    """Learning rate of an epoch (from 0): ``base`` falling to 1e-5 along a half cosine over ``epochs`` (Loshchilov and
    Hutter 2017, arXiv 1608.03983, without restarts).
    """
    return MIN_LEARNING_RATE + (base - MIN_LEARNING_RATE) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def set_torch_threads(threads: int) -> None:
    """Import torch and give it ``threads`` threads; its import is the only large cost of this module."""
    import torch

    torch.set_num_threads(threads)


def _torch_gradient(rows: np.ndarray, sigma: np.ndarray, features: np.ndarray, labels: np.ndarray) -> Gradient:
    import torch
    from torch.nn import functional

    row_tensor = torch.from_numpy(rows).requires_grad_()
    sigma_tensor = torch.from_numpy(sigma.copy()).requires_grad_()
    cosines = functional.normalize(torch.from_numpy(features), dim=-1) @ functional.normalize(row_tensor).T
    loss = functional.cross_entropy(sigma_tensor * cosines, torch.from_numpy(labels))
    row_gradient, sigma_gradient = torch.autograd.grad(loss, (row_tensor, sigma_tensor))
    return float(loss.detach()), row_gradient.numpy(), sigma_gradient.numpy()


def _numpy_gradient(rows: np.ndarray, sigma: np.ndarray, features: np.ndarray, labels: np.ndarray) -> Gradient:
    """The same gradient written out: with u = f/|f|, v = w/|w| and G = dL/dcos = sigma (softmax - onehot) / B,
    dL/dw = (G^T u - v (v . G^T u)) / |w| and dL/dsigma = sum(G cos) / sigma.
    """
    norms = np.maximum(np.sqrt(np.sum(rows * rows, axis=1, keepdims=True)), _TINY)
    directions, inputs = rows / norms, unit(features)
    cosines = inputs @ directions.T
    logits = sigma[0] * cosines
    logit_gradient = softmax(logits)
    logit_gradient[np.arange(len(labels)), labels] -= 1
    logit_gradient /= np.float32(len(labels))
    sigma_gradient = np.array([np.sum(logit_gradient * cosines)], np.float32)
    pulled = (sigma[0] * logit_gradient).T @ inputs
    along = np.sum(directions * pulled, axis=1, keepdims=True)
    row_gradient = np.asarray((pulled - directions * along) / norms, np.float32)
    return cross_entropy(logits, labels), row_gradient, sigma_gradient


SOLVING = 2
"""float64 [D, D] alive at once while a head is solved: the covariance, and the solver's copy of it."""
NEVER = -1e30
"""The bias of a class that is never the argmax; everything stays finite."""
_NO_SCATTER = 1e-10
"""Of the second moment's trace: less than this within the classes is rounding."""
_RELATIVE_FLOOR = 1e-6
"""Of the mean variance: keeps the covariance invertible where a direction never varied (two pictures, say)."""


def solve(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Rows float32 [C, D] and biases float32 [C]: row = covariance^-1 mean, bias = - mean . row / 2.

    A class without pictures gets the bias NEVER.
    """
    seen = statistics.counts > 0
    means = statistics.sums / np.maximum(statistics.counts, 1)[:, None]
    covariance = within(statistics)
    rows = np.linalg.solve(covariance, means.T).T
    biases = -0.5 * np.sum(means * rows, axis=1)
    biases[~seen] = NEVER
    return rows.astype(np.float32), biases.astype(np.float32)


def within(statistics: Statistics) -> np.ndarray:
    """The shrunk covariance within classes, float64 [D, D]; a new matrix."""
    free = max(int(statistics.counts.sum()) - int((statistics.counts > 0).sum()), 1)
    total = statistics.moment_trace
    scatter = statistics.scatter
    if np.trace(scatter) <= _NO_SCATTER * total:
        # Copies of one picture a class: what is left is rounding, and the nearest mean decides.
        scatter = np.eye(len(scatter)) * max(total, 1e-30) / len(scatter)
    scatter /= free
    return shrunk(scatter, free)


def shrunk(covariance: np.ndarray, samples: int) -> np.ndarray:
    """Change ``covariance`` S float64 [D, D] in place to (1 - rho) S + rho tr(S)/D I, OAS's rho of ``samples``."""
    size = len(covariance)
    trace, squares = float(np.trace(covariance)), float(np.sum(covariance * covariance))
    spread = squares - trace * trace / size
    top = (1.0 - 2.0 / size) * squares + trace * trace
    rho = 1.0 if spread <= 0.0 else min(1.0, top / ((samples + 1.0 - 2.0 / size) * spread))
    mean_variance = max(trace / size, 1e-30)
    covariance *= 1.0 - rho
    covariance.flat[:: size + 1] += (rho + _RELATIVE_FLOOR) * mean_variance
    return covariance
