"""What ``plan --fleet`` tells: whether a device can be joined to a fleet over a network, or should go by files."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from edge_zofc.algorithm.options import Options
from edge_zofc.device.fleet_plan import JoinedPlan, joined_plan
from edge_zofc.device.profiles import format_bytes
from edge_zofc.engine.plans import UNKNOWN_CLASSES, Device, Rival
from edge_zofc.report.text import table

_MIB = 1 << 20
_FILES = "let its share go as a file ('edge-zofc fleet share'), and bring the merged fleet's folder back"


def fleet_part(
    compared: Sequence[Rival], chosen: Options, device: Device, classes: int | None, width: int
) -> tuple[dict[str, Any], str]:
    """Numbers and text for a device that would learn as ``chosen`` of ``compared`` and be in a fleet.

    ``classes``: of the stream, None: not known. The fleet may know UNKNOWN_CLASSES.
    """
    learns = next(rival for rival in compared if rival.options is chosen)
    plan, sizes = learns.plan, learns.work.sizes
    assert plan is not None  # noqa: S101 - it was chosen
    if chosen.head != "lda":
        why = "A fleet merges closed-form heads; learn with --head lda to be in one."
        return {"fleet": None}, f"\n\n{why}"
    joined = joined_plan(sizes, plan.placement, learns.work.base, max(UNKNOWN_CLASSES, classes or 0))
    learning = plan.peak_bytes, learns.least_bytes
    verdict, sentence = _verdict(*learning, joined.peak_bytes, device.room_bytes)
    unstepped, other = _verdict(*learning, joined.without_steps_bytes, device.room_bytes)
    if unstepped != verdict:
        sentence = f"In a fleet that may take steps: {sentence} In one that takes none: {other}"
    facts = {
        "verdict": verdict,
        "joined_peak_bytes": joined.peak_bytes,
        "joined_peak_moment": joined.moment,
        "without_steps": {"verdict": unstepped, "joined_peak_bytes": joined.without_steps_bytes},
        "together_bytes": plan.peak_bytes + joined.peak_bytes,
        "room_bytes": device.room_bytes,
        "up_bytes": joined.up_bytes,
        "down_bytes": joined.down_bytes,
    }
    return {"fleet": facts}, f"\n\n{_text(plan.peak_bytes, joined, device.room_bytes, sentence, width)}"


def _verdict(learn: int, least: int, joined: int, room: int) -> tuple[str, str]:
    """Which way into a fleet fits: "both", "thrifty", "in turn" or "files"; and a sentence."""
    if learn + joined <= room:
        return "both", "This device can learn and be joined over the network at once."
    if least + joined <= room:
        budget = f"--memory-budget {(room - joined) // _MIB}MiB"
        return "thrifty", f"It can learn and be joined over the network at once if it learns with {budget}."
    if joined <= room:
        return "in turn", f"It can be joined over the network while it does not learn. Or {_FILES}."
    return "files", f"It cannot be joined over the network: {_FILES}."


def _text(learn: int, joined: JoinedPlan, room: int, sentence: str, width: int) -> str:
    parts = ", ".join(f"{item.name} {ceil((item.anonymous_bytes + item.file_bytes) / _MIB)}" for item in joined.items)
    rows = [
        ("MiB", "in a fleet"),
        (f"{joined.peak_bytes / _MIB:.1f}", f"fleet join: predicted peak, {joined.moment} ({parts})"),
        *_without_steps(joined),
        (f"{(learn + joined.peak_bytes) / _MIB:.1f}", "learn and fleet join at once"),
        (f"{room / _MIB:.1f}", "what both may take"),
    ]
    sizes = f"{format_bytes(joined.up_bytes)} go up once a task, {format_bytes(joined.down_bytes)} come with each head."
    return f"{table(rows, 'rl', width)}\n\n{table([(f'{sentence} {sizes}',)], 'l', width)}"


def _without_steps(joined: JoinedPlan) -> list[tuple[str, str]]:
    """A row for the smaller peak, where there is one."""
    if joined.without_steps_bytes == joined.peak_bytes:
        return []
    return [(f"{joined.without_steps_bytes / _MIB:.1f}", "the same in a fleet that takes no steps (serve --steps 0)")]
