"""The adapter's flat vector on its lattice: perturbed and restored in place, updated so that it replays.

Every entry is a multiple of 2^-22 with magnitude below 4, and so is eps. Such numbers have 24 significant
bits, which is what float32 holds, so theta + eps z and back are exact: the bits of theta return without a
second copy, ever. In plain floating point they do not: after 2,000 steps of +eps, -2 eps, +eps 99 % of the
entries have changed.

What may surprise: every operation of the replayed path is one elementwise numpy call on float32, never a
fused multiply-add and never a sum over entries, because those are the ones that round differently on
another processor. IEEE 754 fixes the result of the ones that are used.
"""

from __future__ import annotations

import numpy as np

from edge_zofc.bundle import LATTICE_LIMIT, LATTICE_STEP
from edge_zofc.directions import direction
from edge_zofc.errors import InputError

_SCALE = np.float32(1.0 / LATTICE_STEP)
_STEP = np.float32(LATTICE_STEP)
_MAX_EPS = 0.25
# Added last to theta: it turns -0.0 into +0.0, the one value that perturbing and restoring would not give back.
_ZERO = np.float32(0.0)


def lattice_eps(eps: float) -> float:
    """The multiple of 2^-22 next to ``eps``. Raises InputError outside (0, 0.25]."""
    if not 0.0 < eps <= _MAX_EPS:
        raise InputError(f"eps is {eps}, it must lie between {LATTICE_STEP:.2g} and {_MAX_EPS}.")
    return max(round(eps / LATTICE_STEP), 1) * LATTICE_STEP


class Adapter:
    """theta and its momentum, both float32 [P].

    ``theta`` is the very array that a bound inference session reads: it is changed in place and never
    replaced. ``eps`` is a multiple of 2^-22; entries stay below 4 - eps so that a perturbed entry is exact.
    """

    def __init__(self, initial: np.ndarray, seed: int, eps: float, momentum: float) -> None:
        self.theta = np.array(initial, dtype=np.float32, order="C")
        self.velocity = np.zeros_like(self.theta)
        self.seed = seed
        self.eps = lattice_eps(eps)
        self.momentum = float(np.float32(momentum))
        self._largest = np.float32(LATTICE_LIMIT - self.eps - LATTICE_STEP)
        np.clip(self.theta, -self._largest, self._largest, out=self.theta)
        self.theta += _ZERO

    @property
    def size(self) -> int:
        """P, the number of adapter parameters."""
        return int(self.theta.size)

    def perturb(self, step: int, query: int, sign: int) -> None:
        """Add ``sign`` times eps times the query's direction to theta, in place.

        Calling it again with the opposite sign gives the same bits back; ``sign`` is +1, -1 or +-2 (from one
        side to the other).
        """
        z = direction(self.seed, step, query, self.size)
        z *= np.float32(sign * self.eps)
        self.theta += z

    def perturbed_into(self, out: np.ndarray, step: int, query: int, sign: int) -> None:
        """Write theta plus ``sign`` eps z into ``out``, float32 [P]; theta itself is left alone."""
        z = direction(self.seed, step, query, self.size)
        z *= np.float32(sign * self.eps)
        np.add(self.theta, z, out=out)

    def gradient(self, step: int, coefficients: np.ndarray) -> np.ndarray:
        """Sum over queries of coefficient times direction, float32 [P]; the directions are regenerated.

        ``coefficients`` is float32 [Q]. The order of the sum is the order of the queries.
        """
        total = np.zeros_like(self.theta)
        for query, coefficient in enumerate(np.asarray(coefficients, dtype=np.float32)):
            z = direction(self.seed, step, query, self.size)
            z *= coefficient
            total += z
        return total

    def apply(self, step: int, coefficients: np.ndarray, learning_rate: float) -> None:
        """One SGD step with momentum, rounded to the lattice; ``theta`` and ``velocity`` change in place.

        velocity = momentum * velocity + gradient, theta = theta - learning_rate * velocity (PyTorch's
        convention). ``coefficients`` float32 [Q] are the ones written to the journal, after clipping.
        """
        gradient = self.gradient(step, coefficients)
        self.velocity *= np.float32(self.momentum)
        self.velocity += gradient
        np.multiply(self.velocity, np.float32(learning_rate), out=gradient)
        self.theta -= gradient
        self.theta *= _SCALE
        np.rint(self.theta, out=self.theta)
        self.theta *= _STEP
        np.clip(self.theta, -self._largest, self._largest, out=self.theta)
        self.theta += _ZERO

    def reset_velocity(self) -> None:
        """Forget the momentum, as each task's new optimiser does."""
        self.velocity[:] = 0.0
