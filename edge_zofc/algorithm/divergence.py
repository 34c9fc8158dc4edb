"""When a task has diverged: its loss is not a number, or has left the band that its first batches define.

A single bad batch is never enough: medians are compared. A rate that is far too high spoils the second batch already,
and then the first batches are no measure. So the first batch, the only one under the adapter that the task began with,
defines a band of its own, the wider the fewer pictures it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

WINDOW = 20
"""Batches a median is over. A stream's losses scatter by a factor of two between batches; medians of 20 do not."""
FACTOR = 3.0
SLACK = 1.0
"""The band ends at FACTOR x the start + SLACK, in nats. A learner that gets worse threefold is not learning. The slack
keeps noise from judging a task that starts near zero loss: one nat is what guessing among three classes costs."""
SURE_BATCH = 8
"""Pictures whose mean loss is as sure as the slack is wide: the first batch's slack is SLACK x (1 + SURE_BATCH / B)."""
LEAST = 5
"""Batches of a task that can be judged at all; its last half then has a median of three."""


def out_of_band(first: Sequence[float], recent: Sequence[float], batch_size: int, at_end: bool = False) -> str | None:
    """Why the losses ``recent`` (the last WINDOW batches) are far above ``first`` (the first WINDOW); None if not.

    Nothing is said before both windows are full and apart; of a task that ends before, its last half is judged then.
    """
    losses = [*first, *recent]
    are_full = len(first) == len(recent) == WINDOW
    if not are_full and (not at_end or len(losses) < LEAST):
        return None
    last = recent if are_full else losses[len(losses) // 2 :]
    now, slack = median(last), SLACK * (1 + SURE_BATCH / batch_size)
    what = f"the median loss of the last {len(last)} batches is {now:.4g}, more than {FACTOR:g} times that of the first"
    if are_full and now > FACTOR * median(first) + SLACK:
        return f"{what} {WINDOW} ({median(first):.4g}) + {SLACK:g}"
    return None if now <= FACTOR * first[0] + slack else f"{what} ({first[0]:.4g}) + {slack:.3g}"
