"""What many devices measured at one step, as one: the same bits for the same values in any order.

A device may send any finite number. First each is bounded by LOOSE times the lower median of all their sizes, which
holds while fewer than half of the devices lie. Of this step's sizes alone: nothing has to be remembered, so that a
server that starts anew goes on with the same bits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

LOOSE = 3.0
TRIM = 0.2
"""Of the devices, on either side."""
Aggregate = Literal["trimmed", "median", "mean"]


def bounded(values: np.ndarray, whole: bool) -> np.ndarray:
    """``values`` float [N, n] of N devices within bounds, float64 [N, n]: each value, or with ``whole`` each row by its
    L2 norm, as the entries of a gradient differ in size.
    """
    found = values.astype(np.float64)
    if whole:
        lengths = np.sqrt(np.sum(found * found, axis=1))
        most = LOOSE * _lower_median(lengths)
        long = lengths > most
        found[long] *= (most / lengths[long])[:, None]
        return found
    most = LOOSE * _lower_median(np.abs(found).ravel())
    return np.clip(found, -most, most)


def aggregated(values: np.ndarray, how: Aggregate) -> np.ndarray:
    """One row of bounded ``values`` float64 [N, n], float32 [n]. Sorted first: the order of rows is nothing."""
    ordered = np.sort(values, axis=0)
    cut = {"trimmed": int(TRIM * len(ordered)), "median": (len(ordered) - 1) // 2, "mean": 0}[how]
    return np.asarray(ordered[cut : len(ordered) - cut].mean(axis=0), np.float32)


def _lower_median(values: np.ndarray) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])
