"""Every seeded draw of the method: +-1 directions, the order of batches, random head rows. None is ever stored.

Directions, scheme ``philox4x64-10/1``: Philox4x64 with ten rounds (Salmon et al., SC 2011, doi
10.1145/2063384.2063405), key = (seed, SCHEME_KEY), counter = (0, query, step, 0) as little-endian words; entry i of a
direction is bit i mod 64 of output word i div 64, lowest bit first: 1 is +1, 0 is -1.

numpy's ``Generator`` is not used, only the raw words of its bit generator. Distributions may change between numpy
versions; the raw words of Philox are fixed by its definition, and known answers in the tests hold them.
"""

from __future__ import annotations

import math

import numpy as np

from edge_zofc.errors import InputError

SCHEME = "philox4x64-10/1"
SCHEME_KEY = 0x5A4F4643  # "ZOFC": keeps directions apart from other Philox streams of the same seed

_BATCHES_KEY = int.from_bytes(b"batches\0", "big")
_MASK = 2**64 - 1


def direction(seed: int, step: int, query: int, size: int) -> np.ndarray:
    """The direction of one query: float32 [size] of -1.0 and +1.0, the same on every machine.

    ``seed``, ``step`` and ``query`` are whole numbers from 0 to 2^64 - 1.
    """
    # Philox increments the counter before its first block, for which the lowest word is set aside.
    key = np.array([seed, SCHEME_KEY], dtype=np.uint64)
    counter = np.array([0, query, step, 0], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw((size + 63) // 64)
    bits = np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), count=size, bitorder="little")
    signs = bits.astype(np.float32)
    signs *= np.float32(2.0)
    signs -= np.float32(1.0)
    return signs


def batches(count: int, batch_size: int, seed: int, task_index: int, epoch: int) -> list[np.ndarray]:
    """The order of an epoch: int64 index arrays that together are a permutation of 0 .. count - 1, all of
    ``batch_size`` entries but the last, which may be smaller.

    The order sorts ``count`` raw 64-bit words of Philox4x64-10 with key (seed, "batches") and counter
    (0, task_index, epoch, 0), integers taken modulo 2^64: the same with every version of numpy.
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}; it must be at least 1.")
    generator = np.random.Philox(
        key=np.array([seed & _MASK, _BATCHES_KEY], np.uint64),
        counter=np.array([0, task_index & _MASK, epoch & _MASK, 0], np.uint64),
    )
    # Two equal words are next to impossible; a stable sort has one answer even then.
    order = np.argsort(generator.random_raw(count), kind="stable")
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def uniform_rows(seed: int, first: int, end: int, size: int) -> np.ndarray:
    """Head rows of the class ids first..end-1, float32 [end - first, size]: U(-1/sqrt D, 1/sqrt D), as the paper draws
    them, each class's from (seed, class id).
    """
    rows = np.empty((end - first, size), np.float32)
    for class_id in range(first, end):
        words = np.random.Philox(key=[seed, 1 << 32 | class_id]).random_raw(size)
        rows[class_id - first] = ((words >> np.uint64(11)) * 2.0**-53 * 2 - 1) / math.sqrt(size)
    return rows
