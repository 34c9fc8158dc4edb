"""The adapter's flat vector on its lattice: perturbed and restored in place, updated so that it replays.

Every entry is a multiple of 2^-22 with magnitude below 4, and so is eps. Such numbers have 24 significant bits, which
is what float32 holds. So theta + eps z and back are exact, and no second copy of theta is needed. In plain floating
point they are not: after 2,000 steps of +eps, -2 eps, +eps 99 % of the entries have changed.

Every operation of the replayed path is one elementwise numpy call on float32 whose result IEEE 754 fixes: add,
multiply, divide, square root. Fused multiply-adds and sums over entries round differently on another processor and are
not used. (On 32-bit ARM numpy's vector divide and square root are approximations; onnxruntime has no wheel for it.)

The four optimizers (ZO-bench, arXiv 2402.11592; ZeroFlow, arXiv 2501.01045) differ in what ``apply`` makes of the
estimate g, the sum of coefficient times direction:

    sgd       v = m v + g, theta -= lr v: PyTorch's SGD with momentum
    sign      v = m v + sign(g), theta -= lr v: ZO-signSGD (Liu et al., ICLR 2019), the sign taken of each entry
    conserve  theta -= lr g, no momentum: the loop has compared theta, theta - lr g and theta + lr g on the batch
              and journals the coefficients times 0, 1 or -1. Momentum would make each of the three another point
    adam      v = m v + (1 - m) g, u = b v + (1 - b) g g with b = 0.999, both divided by 1 - their factor^t,
              theta -= lr v / (sqrt(u) + 1e-8): Kingma and Ba (arXiv 1412.6980), m the momentum

With scaled directions ("balanced", "shifts") theta is theta0 + s c, s fixed for each piece (``directions.py``). Queries
and optimizer work on c: an entry is perturbed by eps s, rounded to the lattice, and moves by s times the optimizer's
step. Where s is 0 it rests.

An exact gradient takes the estimate's place in ``apply_gradient``: the same sgd, sign and adam, by theta itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edge_zofc.algorithm.directions import direction
from edge_zofc.errors import InputError

LATTICE_STEP = 2.0**-22
"""Adapter entries are multiples of this with magnitude below LATTICE_LIMIT: exact in float32."""
LATTICE_LIMIT = 4.0
Optimizer = Literal["sgd", "sign", "conserve", "adam"]

_SCALE = np.float32(1.0 / LATTICE_STEP)
_STEP = np.float32(LATTICE_STEP)
_MAX_EPS = 0.25
_BETA2 = np.float32(0.999)
_ADAM_EPS = np.float32(1e-8)
_ONE = np.float32(1.0)
# Added last to theta: it turns -0.0 into +0.0, the one value that perturbing and restoring would not give back.
_ZERO = np.float32(0.0)


def lattice_eps(eps: float) -> float:
    """The multiple of 2^-22 next to ``eps``. Raises InputError outside (0, 0.25]."""
    if not 0.0 < eps <= _MAX_EPS:
        raise InputError(f"eps is {eps}, it must lie between {LATTICE_STEP:.2g} and {_MAX_EPS}.")
    return max(round(eps / LATTICE_STEP), 1) * LATTICE_STEP


def check_takes_gradient(optimizer: str) -> None:
    """Raise InputError for "conserve", which is made for estimates: it looks for the best point along one."""
    if optimizer == "conserve":
        raise InputError(
            "The optimizer 'conserve' tries points along an estimate, not an exact gradient; give sgd, sign or adam."
        )


class Adapter:
    """theta and its momentum, both float32 [P], and with "adam" the second moment, float32 [P]; P is ``size``.

    An inference session reads ``theta`` where it lies: it is changed in place and never replaced. Entries stay below
    4 - eps, so that a perturbed entry is exact. ``beta_powers`` float64 [2]: Adam's two factors to the power of the
    steps since ``reset_velocity``. ``scales`` float32 [P], not negative: s of scaled directions; None for "whole".
    """

    def __init__(
        self,
        initial: np.ndarray,
        seed: int,
        eps: float,
        momentum: float,
        optimizer: Optimizer = "sgd",
        scales: np.ndarray | None = None,
    ) -> None:
        self.theta = np.array(initial, dtype=np.float32, order="C")
        self.size = int(self.theta.size)
        self.velocity = np.zeros_like(self.theta)
        self.seed = seed
        self.eps = lattice_eps(eps)
        self.momentum = float(np.float32(momentum))
        self.optimizer: Optimizer = optimizer
        self.second_moment = np.zeros(self.size if optimizer == "adam" else 0, np.float32)
        self.beta_powers = np.ones(2, np.float64)
        self._scales = scales
        self._radii = None if scales is None else _lattice_radii(self.eps, scales)
        radius = self.eps if self._radii is None else float(self._radii.max())
        self._largest = np.float32(LATTICE_LIMIT - radius - LATTICE_STEP)
        np.clip(self.theta, -self._largest, self._largest, out=self.theta)
        self.theta += _ZERO

    def perturb(self, step: int, query: int, sign: int) -> None:
        """Add ``sign`` times eps times the query's direction to theta, in place. The opposite sign gives the same bits
        back; ``sign`` is +-1, or +-2 from one side to the other.
        """
        self.perturbed_into(self.theta, step, query, sign)

    def perturbed_into(self, out: np.ndarray, step: int, query: int, sign: int) -> None:
        """Write theta plus ``sign`` times eps times the query's direction into ``out``, float32 [P]."""
        z = direction(self.seed, step, query, self.size)
        if self._radii is None:
            z *= np.float32(sign * self.eps)
        else:
            z *= self._radii
            z *= np.float32(sign)
        np.add(self.theta, z, out=out)

    def gradient(self, step: int, coefficients: np.ndarray) -> np.ndarray:
        """Sum of coefficient times direction in the order of the queries, float32 [P]; ``coefficients`` float32 [Q].

        By c where directions are scaled.
        """
        total = np.zeros_like(self.theta)
        for query, coefficient in enumerate(np.asarray(coefficients, dtype=np.float32)):
            z = direction(self.seed, step, query, self.size)
            z *= coefficient
            total += z
        return total

    def apply(self, step: int, coefficients: np.ndarray, learning_rate: float) -> None:
        """One step of the optimizer, in place, with the journal's ``coefficients`` float32 [Q] (after clipping)."""
        self._step_along(self.gradient(step, coefficients), learning_rate)

    def apply_gradient(self, gradient: np.ndarray, learning_rate: float) -> None:
        """One step of the optimizer, in place, along the journal's ``gradient`` float32 [P] (after clipping).

        ``gradient`` is not changed. Raises InputError with "conserve", ValueError for another shape or with ``scales``.
        """
        check_takes_gradient(self.optimizer)
        if self._scales is not None or gradient.shape != self.theta.shape:
            raise ValueError(f"a gradient of shape {gradient.shape} does not fit {self.size} entries without scales")
        self._step_along(np.array(gradient, np.float32), learning_rate)

    def _step_along(self, update: np.ndarray, learning_rate: float) -> None:
        """Turn a gradient, ``update`` float32 [P], in place into the optimizer's direction, and move theta by it."""
        if self.optimizer == "sign":
            np.sign(update, out=update)
        if self.optimizer == "adam":
            self._adam_direction(update)
        elif self.optimizer != "conserve":
            self.velocity *= np.float32(self.momentum)
            self.velocity += update
            update[:] = self.velocity
        self._move(self.theta, update, learning_rate)

    def candidate(self, step: int, coefficients: np.ndarray, learning_rate: float) -> np.ndarray:
        """Where "conserve" would go with these ``coefficients``: float32 [P], the bits that ``apply`` would leave."""
        moved = self.theta.copy()
        self._move(moved, self.gradient(step, coefficients), learning_rate)
        return moved

    def _adam_direction(self, gradient: np.ndarray) -> None:
        """Update both moments and turn ``gradient``, in place, into the direction that Adam steps along."""
        beta1 = np.float32(self.momentum)
        self.velocity *= beta1
        self.velocity += gradient * (_ONE - beta1)
        gradient *= gradient
        gradient *= _ONE - _BETA2
        self.second_moment *= _BETA2
        self.second_moment += gradient
        # Repeated multiplication of doubles is the same everywhere; a power is a library's own approximation.
        self.beta_powers *= np.array([beta1, _BETA2], np.float64)
        corrections = (1.0 - self.beta_powers).astype(np.float32)
        np.divide(self.second_moment, corrections[1], out=gradient)
        np.sqrt(gradient, out=gradient)
        gradient += _ADAM_EPS
        np.divide(self.velocity / corrections[0], gradient, out=gradient)

    def _move(self, theta: np.ndarray, update: np.ndarray, learning_rate: float) -> None:
        """Subtract the rate times ``update`` from theta, in place, back on the lattice and inside its limits."""
        update *= np.float32(learning_rate)
        if self._scales is not None:
            update *= self._scales
        theta -= update
        theta *= _SCALE
        np.rint(theta, out=theta)
        theta *= _STEP
        np.clip(theta, -self._largest, self._largest, out=theta)
        theta += _ZERO

    def moments(self) -> dict[str, np.ndarray]:
        """What the next step needs besides theta, by name: the arrays themselves, to be saved or overwritten."""
        found: dict[str, np.ndarray] = {"velocity": self.velocity}
        if self.optimizer == "adam":
            found |= {"second_moment": self.second_moment, "beta_powers": self.beta_powers}
        return found

    def rest(self, initial: np.ndarray) -> None:
        """Go back, in place, to ``initial`` float32 [P], without momentum."""
        self.theta[:] = initial
        self.theta += _ZERO
        self.reset_velocity()

    def reset_velocity(self) -> None:
        """Forget the momentum (and Adam's second moment), as each task's new optimiser does."""
        self.velocity[:] = 0.0
        self.second_moment[:] = 0.0
        self.beta_powers[:] = 1.0


def _lattice_radii(eps: float, scales: np.ndarray) -> np.ndarray:
    """How far each entry is perturbed, float32 [P]: multiples of 2^-22, at least one where it moves, below _MAX_EPS."""
    steps = np.maximum(np.rint(scales.astype(np.float64) * (eps / LATTICE_STEP)), scales > 0)
    radii = steps * LATTICE_STEP
    if radii.max() > _MAX_EPS:
        raise InputError(
            f"eps is {eps}, which on the smallest piece of this adapter is {radii.max():.3g}, above {_MAX_EPS}; "
            "give a smaller --eps."
        )
    return radii.astype(np.float32)
