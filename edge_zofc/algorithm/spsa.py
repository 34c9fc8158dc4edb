"""One zeroth-order step: which adapters to evaluate, and what their losses say about the gradient.

SPSA (Spall 1992, doi 10.1109/9.119632) with Rademacher directions, as ZO-FC uses it (arXiv 2510.21019). ``two-sided``
takes 2Q evaluations, ``one-sided`` Q: it shares the base loss with the head's own forward pass (as FZOO does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.errors import InputError

QueryForm = Literal["one-sided", "two-sided"]


@dataclass(frozen=True)
class Query:
    """One adapter to evaluate: theta + sign * eps * direction(index). ``sign`` 0 is theta itself."""

    index: int
    sign: int


BASE = Query(0, 0)


def queries(form: QueryForm, count: int) -> tuple[Query, ...]:
    """The perturbed adapters of a step: Q one-sided, or 2Q two-sided, plus before minus. The base is not among them."""
    if count < 1:
        raise InputError(f"queries is {count}, it must be at least 1.")
    signs = (1,) if form == "one-sided" else (1, -1)
    return tuple(Query(index, sign) for index in range(count) for sign in signs)


def coefficients(form: QueryForm, losses: np.ndarray, base_loss: float | None, eps: float) -> np.ndarray:
    """Projected gradients divided by Q, float64 [Q]; their sum over directions is the gradient estimate.

    ``losses`` float64, in the order of ``queries``; ``base_loss`` is needed by ``one-sided`` alone.
    two-sided: (L+ - L-) / (2 eps Q); one-sided: (L+ - L0) / (eps Q).
    """
    values = np.asarray(losses, dtype=np.float64)
    if form == "two-sided":
        plus, minus = values[0::2], values[1::2]
        return (plus - minus) / (2.0 * eps * len(plus))
    if base_loss is None:
        raise ValueError("one-sided queries need the base loss")
    return (values - base_loss) / (eps * len(values))


def clip(adapter: Adapter, step: int, raw_coefficients: np.ndarray, max_norm: float | None) -> tuple[np.ndarray, float]:
    """Scale the coefficients so that the gradient's L2 norm is at most ``max_norm`` (None: leave it).

    Returns float32 [Q], as they are applied and journalled, and the norm before clipping. The rule is PyTorch's:
    factor = min(1, max_norm / (norm + 1e-6)). Replay does not clip.
    """
    rounded = raw_coefficients.astype(np.float32)
    estimate = adapter.gradient(step, rounded).astype(np.float64)
    norm = float(np.sqrt(np.dot(estimate, estimate)))
    if max_norm is None:
        return rounded, norm
    return (raw_coefficients * clip_factor(norm, max_norm)).astype(np.float32), norm


def clip_factor(norm: float, max_norm: float | None) -> float:
    """What a gradient of L2 norm ``norm`` is multiplied by so that it is at most ``max_norm`` (None: 1)."""
    return 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))
