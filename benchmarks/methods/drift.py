"""Old classes' statistics, moved after an adapter that moved: an affine map fitted on the pictures of the present task.

Features of one and the same picture before and after a task, x and y, are at hand for that task's pictures alone. Ridge
regression of y - x on x gives a map for all features; class sums and second moment of earlier tasks follow it. Without
exemplars of old classes this is what can be known (arXiv 2004.00440, 2407.08536).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.statistics import Statistics

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge strengths to choose among, in mean squares of the features' principal coordinates."""


@dataclass(frozen=True)
class Drift:
    """y = x ``turn`` + ``shift`` for features x [n, D]: float64 [D, D] and [D]."""

    turn: np.ndarray
    shift: np.ndarray

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray) -> Drift:
        """Fitted to features [n, D] of the same pictures; the strength has the least error on pictures left out."""
        x, y = before.astype(np.float64), after.astype(np.float64)
        middle, moved = x.mean(axis=0), y.mean(axis=0)
        change = y - x - (moved - middle)
        left, values, right = np.linalg.svd(x - middle, full_matrices=False)
        inner = left.T @ change
        errors = [_left_out_error(left, values, inner, change, strength) for strength in STRENGTHS]
        shrunk = _shrinkage(values, STRENGTHS[int(np.argmin(errors))]) / np.maximum(values, 1e-12)
        turn = np.eye(x.shape[1]) + right.T @ (shrunk[:, None] * inner)
        return cls(turn, moved - middle @ turn)

    def moved(self, statistics: Statistics) -> Statistics:
        """What ``statistics`` would be if all their features had gone through the map."""
        sums, counts = statistics.sums, statistics.counts
        total, pictures = sums.sum(axis=0) @ self.turn, int(counts.sum())
        moment = self.turn.T @ symmetric.unpack(statistics.moment, len(self.turn)) @ self.turn
        cross = np.outer(total, self.shift)
        moment += cross + cross.T + pictures * np.outer(self.shift, self.shift)
        return Statistics.of_whole(sums @ self.turn + counts[:, None] * self.shift, counts.copy(), moment)


def _shrinkage(values: np.ndarray, strength: float) -> np.ndarray:
    """What ridge regression leaves of each principal coordinate, between 0 and 1."""
    squares = values * values
    return np.asarray(squares / (squares + strength * squares.mean() + 1e-12))


def _left_out_error(
    left: np.ndarray, values: np.ndarray, inner: np.ndarray, change: np.ndarray, strength: float
) -> float:
    """Mean squared error on each picture by the map of the others: ridge regression has it in closed form."""
    kept = _shrinkage(values, strength)
    residual = change - left @ (kept[:, None] * inner)
    leverage = (left * left) @ kept + 1.0 / len(left)
    return float(np.mean(np.square(residual / np.maximum(1.0 - leverage, 1e-6)[:, None])))
