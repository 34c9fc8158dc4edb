"""Every seeded draw of the method: +-1 directions, the order of batches, random numbers. None is ever stored.

Directions, scheme ``philox4x64-10/1``: Philox4x64 with ten rounds (Salmon et al., SC 2011, doi
10.1145/2063384.2063405), key = (seed, SCHEME_KEY), counter = (0, query, step, 0) as little-endian words; entry i of a
direction is bit i mod 64 of output word i div 64, lowest bit first: 1 is +1, 0 is -1.

Only the raw words of numpy's bit generator are used: Philox's definition fixes them, and known answers in the tests
hold them. The distributions of its ``Generator`` may change between numpy versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from edge_zofc.errors import InputError

SCHEME = "philox4x64-10/1"
BALANCED = "philox4x64-10/balanced"
"""The same signs, each times its piece's share (``balanced_scales``)."""
SHIFTS = "philox4x64-10/shifts"
"""The same with pieces that rest: of a film its scales (``balanced_scales``)."""
GRADIENT = "gradient/1"
"""No directions at all: each step's record holds the gradient itself."""
Directions = Literal["whole", "balanced", "shifts"]
SCHEMES: dict[Directions, str] = {"whole": SCHEME, "balanced": BALANCED, "shifts": SHIFTS}
SCHEME_KEY = 0x5A4F4643  # "ZOFC": keeps directions apart from other Philox streams of the same seed

_BATCHES_KEY = int.from_bytes(b"batches\0", "big")
_EPISODES_KEY = int.from_bytes(b"episodes", "big")
_MASK = 2**64 - 1


def direction(seed: int, step: int, query: int, size: int) -> np.ndarray:
    """The direction of one query: float32 [size] of -1.0 and +1.0, the same on every machine."""
    words = _words((seed, SCHEME_KEY), (query, step), (size + 63) // 64)
    bits = np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), count=size, bitorder="little")
    signs = bits.astype(np.float32)
    signs *= np.float32(2.0)
    signs -= np.float32(1.0)
    return signs


def balanced_scales(sizes: Sequence[int], moves: Sequence[bool] | None = None) -> np.ndarray:
    """What each entry of a direction is multiplied by, float32 [P], for pieces of ``sizes`` entries.

    Every piece (the scales of a block, its shifts) gets the same share of a direction's length, whose L2 norm stays
    sqrt(P). Without it most of a direction falls on the wide late blocks, and most of the gradient on the early ones.
    Pieces that ``moves`` does not name (None: it names all) get 0. Fewer entries are found with fewer queries, and a
    film's shifts hold three quarters of the energy of its gradient.
    """
    moving = [True] * len(sizes) if moves is None else moves
    total, pieces = sum(sizes), sum(moving)
    shares = [
        np.full(size, math.sqrt(total / (pieces * size)) if one else 0.0, np.float32)
        for size, one in zip(sizes, moving, strict=True)
    ]
    return np.concatenate(shares)


def episode(labels: np.ndarray, batch_size: int, seed: int, task_index: int, step: int) -> np.ndarray:
    """The pictures of a task's batch number ``step``, int64 [batch_size]: positions in ``labels`` int64 [n].

    Classes take turns, in another order each round. So do the pictures of a class, whatever its number of pictures.
    """
    classes = np.unique(labels)
    drawn = np.arange(step * batch_size, (step + 1) * batch_size)
    found = np.empty(batch_size, np.int64)
    key, places = (seed, _EPISODES_KEY), [np.flatnonzero(labels == one) for one in classes]
    for index, number in enumerate(drawn.tolist()):
        turn, place = divmod(number, len(classes))
        which = int(_shuffled(key, (task_index, turn), len(classes))[place])
        of_class = places[which]
        again, place = divmod(turn, len(of_class))
        found[index] = of_class[_shuffled(key, (task_index, again, 1 + which), len(of_class))[place]]
    return found


def _shuffled(key: tuple[int, int], place: Sequence[int], count: int) -> np.ndarray:
    """A permutation of 0 .. count - 1. Two equal words are next to impossible; a stable sort has one answer then."""
    return np.argsort(_words(key, place, count), kind="stable")


def batches(count: int, batch_size: int, seed: int, task_index: int, epoch: int) -> list[np.ndarray]:
    """The order of an epoch: int64 index arrays that together are a permutation of 0 .. count - 1, all of
    ``batch_size`` entries but the last, which may be smaller.

    The order sorts ``count`` words of Philox4x64-10 with key (seed, "batches") and counter (0, task_index, epoch, 0).
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}; it must be at least 1.")
    order = _shuffled((seed, _BATCHES_KEY), (task_index, epoch), count)
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def uniform_rows(seed: int, first: int, end: int, size: int) -> np.ndarray:
    """Head rows of the class ids first..end-1, float32 [end - first, size]: U(-1/sqrt D, 1/sqrt D), as the paper draws
    them, each class's from (seed, class id).
    """
    rows = np.empty((end - first, size), np.float32)
    for class_id in range(first, end):
        rows[class_id - first] = (uniform((seed, 1 << 32 | class_id), (), size) * 2 - 1) / math.sqrt(size)
    return rows


def uniform(key: tuple[int, int], place: Sequence[int], count: int) -> np.ndarray:
    """float64 [count] in [0, 1), of 53 random bits each: Philox4x64-10 with ``key`` and counter (0, *place)."""
    return np.asarray((_words(key, place, count) >> np.uint64(11)) * 2.0**-53)


def _words(key: tuple[int, int], place: Sequence[int], count: int) -> np.ndarray:
    """uint64 [count]. Whole numbers of ``key`` and ``place`` (at most three) are taken modulo 2^64."""
    # Philox increments the counter before its first block, for which the lowest word is set aside.
    counter = [0, *(word & _MASK for word in place), 0, 0, 0][:4]
    generator = np.random.Philox(
        key=np.array([word & _MASK for word in key], np.uint64), counter=np.array(counter, np.uint64)
    )
    return np.asarray(generator.random_raw(count))
