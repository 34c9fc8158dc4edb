"""What each table of ``bench questions`` says, in a sentence made of its numbers.

A sentence says by how much something differed here. It never says that something is better: on so few pictures a
difference may be chance.
"""

from __future__ import annotations

from typing import Any

from edge_zofc.storage.manifest import MIN_FIDELITY

Row = dict[str, Any]


def memory(rows: list[Row]) -> str:
    """Question a."""
    by = {row["arm"]: row for row in rows if not row["failed"]}
    ours = by.get("zo-fc-in-place-numpy")
    if ours is None:
        return "ZO-FC's arm did not run."
    parts = [
        f"{by[name]['peak_rss_mib'] / ours['peak_rss_mib']:.1f} times ({what}; increments over the base of the process "
        f"{by[name]['increment_mib'] / max(ours['increment_mib'], 1):.1f})"
        for name, what in (("fo-batch", "whole batch"), ("fo-micro", "at its best"))
        if name in by
    ]
    return f"First order takes {' and '.join(parts)} the peak memory of ZO-FC's {ours['peak_rss_mib']:.0f} MiB."


def flatness(rows: list[Row]) -> str:
    """Question b."""
    last = {row["arm"]: row for row in rows if row.get("forgetting") is not None}
    by_rise = sorted(last, key=lambda name: float(last[name]["gradient_rise"]))
    by_forgetting = sorted(last, key=lambda name: float(last[name]["forgetting"]))
    same = "the same order" if by_rise == by_forgetting else "another order"
    rises = ", ".join(f"{name} {last[name]['gradient_rise']:.5f}" for name in by_rise)
    lost = ", ".join(f"{name} {100 * last[name]['forgetting']:.1f}" for name in by_forgetting)
    return (
        f"After the last task the rise along the gradient is, flattest first, {rises}; forgetting, least first and in "
        f"points, {lost}: {same}, of {len(last)} methods."
    )


def classifier(rows: list[Row]) -> str:
    """Question c: pairs of (at rest, trained)."""
    names = ("the cosine head from class means", "the LDA head", "the paper preset")
    found = [
        f"{_points(after['last_accuracy'] - before['last_accuracy'])} and the last epoch's loss by "
        f"{after['last_loss'] - before['last_loss']:+.4f} under {name}"
        for name, before, after in zip(names, rows[0::2], rows[1::2], strict=True)
    ]
    return "Training the adapter moved Last by " + ", by ".join(found) + "."


def queries(rows: list[Row]) -> str:
    """Question d: each half begins with the adapter at rest."""
    half = len(rows) // 2
    parts = []
    for part in (rows[:half], rows[half:]):
        rest, trained = part[0], part[1:]
        best = min(trained, key=lambda row: float(row["last_loss"]))
        worst = max(trained, key=lambda row: float(row["last_loss"]))
        what, best_q = best["arm"].split(", ")
        parts.append(
            f"at {what} the last epoch's loss against the adapter at rest is "
            f"{best['last_loss'] - rest['last_loss']:+.4f} with {best_q} (the lowest) to "
            f"{worst['last_loss'] - rest['last_loss']:+.4f} with {worst['arm'].split(', ')[1]}"
            f", Last spans {_span(trained)} points"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def epsilons(rows: list[Row]) -> str:
    """Question e."""
    parts = []
    for precision in dict.fromkeys(row["arm"].split(",")[0] for row in rows):
        mine = [row for row in rows if row["arm"].startswith(precision + ",")]
        good = [row["arm"].split("eps ")[1] for row in mine if row["one_sided"] >= MIN_FIDELITY]
        lost = [row["last_loss"] for row in mine if row.get("last_loss") is not None]
        losses = f" (losses {min(lost):.4f} to {max(lost):.4f})" if lost else ""
        parts.append(f"in {precision} at eps {', '.join(good) or 'none of these'}{losses}")
    return f"One-sided fidelity is at least {MIN_FIDELITY} " + ", ".join(parts) + "."


def adapter(rows: list[Row]) -> str:
    """Question f: the first row is the adapter at rest, the last two are torch's."""
    rest, runtime, (both, up) = rows[0], rows[1:-2], rows[-2:]
    order = sorted(runtime, key=lambda row: float(row["last_loss"]))
    shown = ", ".join(f"{row['arm']} {row['last_loss'] - rest['last_loss']:+.4f}" for row in order)
    return (
        f"Last epoch's loss against the adapter at rest, lowest first: {shown}; Last spans {_span(runtime)} points. "
        f"The up-projections alone end at {up['last_loss']:.4f} where both end at {both['last_loss']:.4f}."
    )


def naive(rows: list[Row]) -> str:
    """Question g."""
    by = {row["arm"]: row for row in rows}
    parts = []
    long = ", steps as long as the paper's"
    for name, twin in (
        ("zo-all", "zo-fc"),
        (f"zo-all{long}", f"zo-fc (in torch){long}"),
        ("l2p-zo", "l2p"),
        ("coda-prompt-zo", "coda-prompt"),
    ):
        row = by[name]
        way = "rises" if row["last_loss"] > row["first_loss"] else "falls"
        parts.append(
            f"{name}'s loss {way} within a task ({row['first_loss']:.3f} to {row['last_loss']:.3f}), its Last is "
            f"{100 * row['last_accuracy']:.1f} % where {twin} has {100 * by[twin]['last_accuracy']:.1f}"
        )
    return "; ".join(parts) + "."


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _span(rows: list[Row]) -> str:
    values = [row["last_accuracy"] for row in rows]
    return f"{100 * (max(values) - min(values)):.1f}"
