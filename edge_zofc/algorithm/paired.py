"""Two learners on the same pictures: how much better one is, and how sure that is."""

from __future__ import annotations

import math

_Z = 1.96  # of a normal distribution: 95 % lie within


def gain(only_first: int, only_second: int, pictures: int) -> tuple[float, float, float]:
    """Accuracy of the second minus that of the first, and its 95 % interval, as fractions.

    ``only_first`` pictures of all are named rightly by the first alone. Pictures count as independent, which many of
    one camera are not: the true interval is wider. (Agresti 2013, Categorical Data Analysis, eq. 11.2.)
    """
    if not pictures:
        return 0.0, 0.0, 0.0
    difference = (only_second - only_first) / pictures
    spread = math.sqrt(max(only_first + only_second - (only_second - only_first) ** 2 / pictures, 0.0)) / pictures
    return difference, difference - _Z * spread, difference + _Z * spread


def is_worse(only_first: int, only_second: int) -> bool:
    """Whether the second is worse than the first by more than one standard error (McNemar 1947)."""
    return only_first - only_second > math.sqrt(only_first + only_second)


def chance(only_first: int, only_second: int) -> float:
    """How often a second that is as good as the first loses by this much or more: the exact sign test, one-sided.

    For few pictures too, where ``is_worse`` asks for little. (McNemar 1947; Agresti 2013, section 11.1.)
    """
    differing = only_first + only_second
    ways = sum(math.comb(differing, count) for count in range(only_first, differing + 1))
    return ways / (1 << differing)
