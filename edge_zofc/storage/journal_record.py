"""One record of a journal in memory. ``journal_format.py`` has its bytes, ``journal.py`` what it means."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from enum import IntEnum
from math import isfinite

import numpy as np

INITIAL = -1
"""The task number of a rollback to the state before the first task."""


class Kind(IntEnum):
    """What a record says happened."""

    STEP = 1
    TASK_START = 2
    TASK_END = 3
    ROLLBACK = 4
    REST = 5


@dataclass(frozen=True)
class Record:
    """One thing that happened. ``step`` is a step's own number, else the number the next step will have.

    ``coefficients`` holds Q values for a step and none otherwise; ``gradient``, float32 [P] and read-only, is a step's
    in a dense journal and None otherwise. They and ``learning_rate`` are rounded to float32 on construction. A gradient
    that could be written is copied. A step is applied from here, so that the replay applies the same.
    """

    kind: Kind
    task: int
    step: int
    learning_rate: float = 0.0
    coefficients: tuple[float, ...] = ()
    gradient: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", rounded(self.learning_rate))
        object.__setattr__(self, "coefficients", tuple(map(rounded, self.coefficients)))
        if self.gradient is not None:
            object.__setattr__(self, "gradient", _read_only(self.gradient))

    def __eq__(self, other: object) -> bool:
        """Whether all values are equal, the gradient's too; the hash leaves the gradient out."""
        if not isinstance(other, Record):
            return NotImplemented
        if self.gradient is None or other.gradient is None:
            alike = self.gradient is other.gradient
        else:
            alike = np.array_equal(self.gradient, other.gradient)
        return alike and self._scalars == other._scalars

    @property
    def _scalars(self) -> tuple[object, ...]:
        return self.kind, self.task, self.step, self.learning_rate, self.coefficients

    @property
    def not_finite(self) -> float | None:
        """The first of its values that is infinite or NaN; None if all are finite."""
        values = [self.learning_rate, *self.coefficients]
        if self.gradient is not None:
            values += self.gradient[~np.isfinite(self.gradient)][:1].tolist()
        return next((value for value in values if not isfinite(value)), None)


def rounded(value: float) -> float:
    """The float32 next to ``value``, as a float; what is too large becomes infinite."""
    return ctypes.c_float(value).value


def _read_only(values: np.ndarray) -> np.ndarray:
    """``values`` as float32 that nobody writes to; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(values, np.float32)
    if found.flags.writeable:
        found = found.copy()
        found.flags.writeable = False
    return found
