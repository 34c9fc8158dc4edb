"""How close together classes stand: whether moving an adapter has something to part, said before its first step.

    crowding    the cosine between a class and the class that is most like it, mean over classes

What an adapter wins, it wins by parting classes that the frozen backbone sees as much alike, those that come later
included. Errors among the classes that are there do not tell: nine kinds of groceries at rest have none in their
training pictures, as ten kinds of objects, and yet more than three points are won on the one stream and two lost on the
other (benchmarks/results/RESULTS.md). First Session Adaptation (arXiv 2303.13199) also foretells from distances between
features whether to adapt.
"""

from __future__ import annotations

import numpy as np

from edge_zofc.algorithm.statistics import Statistics

LIMIT = 0.7
"""Below it the adapter stays at its start."""
_ROWS = 256
"""Classes that are compared with all others at once."""
_DIGITS = 4
"""Of the result: more depend on how a processor rounds."""


def crowding(sums: np.ndarray, counts: np.ndarray, squares: np.ndarray | None = None) -> float:
    """From the sums float64 [C, D] of features by class, and how many there are, int64 [C].

    ``squares`` float64 [C] are the sums of their squared lengths; None: all have length 1.
    The length of a class's mean is estimated without the part that is each picture's own, which would make classes of
    few pictures look unlike. Classes of one picture are left out. Where fewer than two are left it is 1.0, as close as
    can be.
    """
    some = counts > 1
    if np.count_nonzero(some) < 2:
        return 1.0
    squares = (counts if squares is None else squares)[some]
    sums, counts = sums[some], counts[some]
    squared = (np.sum(sums * sums, axis=1) - squares) / (counts * (counts - 1))
    means = sums / (counts * np.sqrt(np.maximum(squared, 1e-12)))[:, None]
    found = np.empty(len(means))
    for start in range(0, len(means), _ROWS):
        cosines = means[start : start + _ROWS] @ means.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -1.0
        found[start : start + _ROWS] = cosines.max(axis=1)
    return round(float(np.clip(found, -1.0, 1.0).mean()), _DIGITS)


def crowding_of(found: Statistics) -> float:
    """The same from what a closed-form head is solved from, which knows no single picture.

    Features have the length that they have, and every class the spread that all share, as in the head. With 8 pictures
    a class or more it lies within 0.02 of the other (benchmarks/results/LOG.md).
    """
    counts = np.maximum(found.counts, 1)
    between = np.sum(found.sums * found.sums, axis=1) / counts
    spread = (found.moment_trace - between.sum()) / max(found.counts.sum() - np.count_nonzero(found.counts), 1)
    return crowding(found.sums, found.counts, between + (counts - 1) * spread)
