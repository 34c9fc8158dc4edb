"""When a task has diverged: its loss is not a number, or has left the band that its first batches define.

What may surprise: a single bad batch is never enough. The medians of twenty batches are compared, and a task of
fewer than forty steps is only held to finite numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

WINDOW = 20
"""Batches a median is over. A stream's losses scatter by a factor of two between batches; medians of 20 do not."""
FACTOR = 3.0
SLACK = 1.0
"""The band ends at FACTOR x the first median + SLACK, in nats. A learner that gets worse threefold is not learning;
the slack keeps a task that starts near zero loss, as with class means on easy pictures, from being judged by noise:
one nat is what guessing among three classes costs."""


def out_of_band(first: Sequence[float], recent: Sequence[float]) -> str | None:
    """Why the losses ``recent`` (the last WINDOW batches) are far above ``first`` (the first WINDOW); None if not.

    Nothing is said before both windows are full and apart.
    """
    if len(first) < WINDOW or len(recent) < WINDOW:
        return None
    start, now = median(first), median(recent)
    if now <= FACTOR * start + SLACK:
        return None
    return (
        f"the median loss of the last {WINDOW} batches is {now:.4g}, more than {FACTOR:g} times that of the first "
        f"{WINDOW} ({start:.4g}) + {SLACK:g}"
    )
