"""Symmetric matrices float64 [D, D] in half the bytes, for as long as nobody computes with them.

A packed matrix is one array float64 [n]: slabs of SLAB rows, each from its first row's diagonal entry on, row-major and
back to back. A sum of outer products is then one small matrix product a slab.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SLAB = 64
"""Of each slab the SLAB x SLAB entries at the diagonal are kept in full."""


def zeros(size: int) -> np.ndarray:
    """A packed matrix of zeros, D = ``size``."""
    return np.zeros(packed_length(size))


def packed_length(size: int) -> int:
    """How many entries a packed matrix has: about D (D + SLAB) / 2."""
    slabs, rest = divmod(size, SLAB)
    return SLAB * (slabs * size - SLAB * slabs * (slabs - 1) // 2) + rest * rest


def slabs(packed: np.ndarray, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of each slab, and the slab float64 [rows, D - first row], a view."""
    offset = 0
    for start in range(0, size, SLAB):
        height, width = min(SLAB, size - start), size - start
        yield slice(start, start + height), packed[offset : offset + height * width].reshape(height, width)
        offset += height * width


def pack(matrix: np.ndarray) -> np.ndarray:
    """A packed copy of what stands on and above the diagonal of ``matrix`` float64 [D, D]."""
    packed = zeros(len(matrix))
    for rows, slab in slabs(packed, len(matrix)):
        slab[:] = matrix[rows, rows.start :]
    return packed


def unpack(packed: np.ndarray, size: int) -> np.ndarray:
    """The whole matrix, float64 [D, D]; a new one."""
    matrix = np.empty((size, size))
    for rows, slab in slabs(packed, size):
        matrix[rows, rows.start :] = slab
        matrix[rows.stop :, rows] = slab[:, len(slab) :].T
    return matrix


def subtract_from(packed: np.ndarray, matrix: np.ndarray) -> None:
    """Replace ``matrix`` float64 [D, D] in place by the packed one minus it; the lower half is its own."""
    for rows, slab in slabs(packed, len(matrix)):
        right, below = matrix[rows, rows.start :], matrix[rows.stop :, rows]
        np.subtract(slab, right, out=right)
        np.subtract(slab[:, len(slab) :].T, below, out=below)


def add_products(packed: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Add left^T right, a symmetric matrix, in place; both are float64 [n, D].

    What may fail for want of memory fails before anything is changed.
    """
    size = left.shape[1]
    scratch = np.empty(SLAB * size)
    for rows, slab in slabs(packed, size):
        product = scratch[: slab.size].reshape(slab.shape)
        np.matmul(left[:, rows].T, right[:, rows.start :], out=product)
        slab += product


def diagonal(packed: np.ndarray, size: int) -> np.ndarray:
    """Float64 [D]; a new array."""
    return np.concatenate([np.zeros(0), *(np.diagonal(slab) for _, slab in slabs(packed, size))])


def trace(packed: np.ndarray, size: int) -> float:
    """The sum of the diagonal."""
    return float(diagonal(packed, size).sum())


def triangle(packed: np.ndarray, size: int) -> np.ndarray:
    """What stands on and above the diagonal, row-major, float64 [D (D + 1) / 2]: each entry once. A new array."""
    parts = [slab[np.triu_indices(len(slab), 0, slab.shape[1])] for _, slab in slabs(packed, size)]
    return np.concatenate([np.zeros(0), *parts])


def from_triangle(values: np.ndarray, size: int) -> np.ndarray:
    """A packed matrix from what ``triangle`` gives."""
    packed, start = zeros(size), 0
    for _, slab in slabs(packed, size):
        above, below = np.triu_indices(len(slab), 0, slab.shape[1]), np.tril_indices(len(slab), -1)
        slab[above] = values[start : start + len(above[0])]
        slab[below] = slab[below[::-1]]
        start += len(above[0])
    return packed


@dataclass(frozen=True)
class Packed:
    """A packed matrix that stands for the whole one, float64 [D, D], which is made slab by slab where it is written."""

    values: np.ndarray
    size: int

    @property
    def shape(self) -> tuple[int, int]:
        """D x D."""
        return self.size, self.size

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """Of an entry."""
        return np.dtype(np.float64)

    @property
    def nbytes(self) -> int:
        """What the whole matrix takes."""
        return self.dtype.itemsize * self.size**2

    def rows(self) -> Iterator[np.ndarray]:
        """The whole matrix in order, float64 [at most SLAB, D] at a time; new arrays."""
        above = list(slabs(self.values, self.size))
        for number, (rows, slab) in enumerate(above):
            whole = np.empty((len(slab), self.size))
            whole[:, rows.start :] = slab
            for earlier, found in above[:number]:
                whole[:, earlier] = found[:, rows.start - earlier.start : rows.stop - earlier.start].T
            yield whole
