"""What the adapter won in some runs: ``python -m edge_zofc.benchmarks.accuracy.gains RUN...``.

A run of the edge preset measures the closed-form head under the moved adapter and under its start on the same test
pictures. This prints both, a row a run, and the mean over the runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from tabulate import tabulate

from edge_zofc.errors import EdgeZofcError, InputError
from edge_zofc.storage.result import RunResult, read_result


@dataclass(frozen=True)
class Gain:
    """One run in percent: Average and Last with the adapter at rest, what it won of both, and what it took."""

    name: str
    state: str
    rest: tuple[float, float]
    won: tuple[float, float]
    interval: tuple[float, float] | None
    seconds: float
    image_forwards: int
    peak_mib: float


def gain_of(name: str, result: RunResult) -> Gain:
    """The numbers of a run. Raises InputError where it did not measure them."""
    frozen, cost = result.frozen_head, result.last_learn
    numbers = [result.average_accuracy, result.last_accuracy]
    before = [] if frozen is None else [frozen.average_accuracy, frozen.last_accuracy]
    if result.adapter is None or cost is None or result.peak_rss_mib is None or None in numbers or not before:
        raise InputError(f"{name} did not measure what its adapter won; learn with the edge preset and test pictures.")
    average, last, rest_average, rest_last = (100 * (value or 0.0) for value in (*numbers, *before))
    tested = result.adapter.tested
    return Gain(
        name=name,
        state=result.adapter.state,
        rest=(rest_average, rest_last),
        won=(average - rest_average, last - rest_last),
        interval=None if tested is None else (100 * tested.low, 100 * tested.high),
        seconds=cost.seconds,
        image_forwards=cost.image_forwards,
        peak_mib=result.peak_rss_mib,
    )


def table(gains: Sequence[Gain]) -> str:
    """Markdown: a row a run, and the mean with its standard deviation over the runs."""
    rows = [
        [
            found.name,
            found.state,
            " / ".join(f"{value:.1f}" for value in found.rest),
            " / ".join(f"{value:+.1f}" for value in found.won),
            "" if found.interval is None else "{:+.1f} to {:+.1f}".format(*found.interval),
            f"{found.image_forwards:,}",
            f"{found.seconds:.0f}",
            f"{found.peak_mib:.0f}",
        ]
        for found in gains
    ]
    rest, won = ([[getattr(found, what)[i] for found in gains] for i in (0, 1)] for what in ("rest", "won"))
    spread = [f"{mean(values):+.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "") for values in won]
    rows.append(["mean", "", " / ".join(f"{mean(values):.1f}" for values in rest), " / ".join(spread), "", "", "", ""])
    head = ["run", "adapter", "at rest, Average / Last", "won", "Last won, 95 %", "image-forwards", "s", "peak MiB"]
    sides = ["left", "left", *["right"] * 6]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True, colalign=sides)


def main(words: Sequence[str]) -> int:
    """Print the table. The exit code is that of the error, if there is one."""
    try:
        print(table([gain_of(Path(word).name, read_result(Path(word))) for word in words]))  # noqa: T201
    except EdgeZofcError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
