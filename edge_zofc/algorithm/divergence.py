"""When a task has diverged: its loss is not a number, or has left the band that its first batches define.

What may surprise: a single bad batch is never enough, medians are compared. But a rate that is far too high spoils the
second batch already, and then the first batches are no measure: so the first one alone, the only one under the adapter
that the task began with, defines a band of its own, the wider the fewer pictures it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

WINDOW = 20
"""Batches a median is over. A stream's losses scatter by a factor of two between batches; medians of 20 do not."""
FACTOR = 3.0
SLACK = 1.0
"""The band ends at FACTOR x the start + SLACK, in nats. A learner that gets worse threefold is not learning; the slack
keeps a task that starts near zero loss, as with class means on easy pictures, from being judged by noise: one nat is
what guessing among three classes costs."""
SURE_BATCH = 8
"""Pictures whose mean loss is as sure as the slack is wide: the first batch's slack is SLACK x (1 + SURE_BATCH / B)."""
LEAST = 5
"""Batches of a task that can be judged at all; its last half then has a median of three."""


def out_of_band(first: Sequence[float], recent: Sequence[float], batch_size: int, at_end: bool = False) -> str | None:
    """Why the losses ``recent`` (the last WINDOW batches) are far above ``first`` (the first WINDOW); None if not.

    Nothing is said before both windows are full and apart; of a task that ends before, its last half is judged then.
    """
    if len(first) == len(recent) == WINDOW:
        now, what = median(recent), f"the median loss of the last {WINDOW} batches"
        if now > FACTOR * median(first) + SLACK:
            start = f"that of the first {WINDOW} ({median(first):.4g}) + {SLACK:g}"
            return f"{what} is {now:.4g}, more than {FACTOR:g} times {start}"
    elif at_end and len(first) + len(recent) >= LEAST:
        losses = [*first, *recent]
        half = losses[len(losses) // 2 :]
        now, what = median(half), f"the median loss of the last {len(half)} batches"
    else:
        return None
    slack = SLACK * (1 + SURE_BATCH / batch_size)
    if now <= FACTOR * first[0] + slack:
        return None
    return f"{what} is {now:.4g}, more than {FACTOR:g} times that of the first ({first[0]:.4g}) + {slack:.3g}"
