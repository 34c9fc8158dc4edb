"""Sentences, written numbers and tables, shared by the page and the terminal.

A value that the run does not have (no test pictures, no second task) is a dash, never a zero.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from edge_zofc.algorithm.crowding import LIMIT
from edge_zofc.errors import printable
from edge_zofc.storage.result import AdapterResult, Paired, RunResult, Scores

NOTHING = "–"


def no_accuracy(result: RunResult) -> str:
    """Why there is no accuracy to show."""
    return "the stream has no test pictures" if result.accuracy_matrix else "the run has no finished task yet"


def headline(result: RunResult) -> str:
    """What the run came to, in one sentence."""
    if not result.accuracy_matrix:
        return f"{no_accuracy(result).capitalize()}, so there is no accuracy to show."
    # A stopped run may list tasks that it never reached.
    learnt = result.tasks[: len(result.accuracy_matrix)]
    classes = {class_id for task in learnt for class_id in task.class_ids}
    done = f"After {count(len(learnt), 'task')} and {count(len(classes), 'class', 'classes')} the learner"
    if result.last_accuracy is None:
        return f"{done} has no accuracy: {no_accuracy(result)}."
    baseline = baseline_of(result).last_accuracy
    beside = "" if baseline is None else f"; class means without any training: {percent(baseline)}"
    return f"{done} names {percent(result.last_accuracy)} of all test pictures{beside}."


def verdict(result: RunResult) -> tuple[str, str]:
    """("good" | "bad" | "", sentence): what ``beats_class_mean_floor`` says, and by how many points."""
    if result.beats_class_mean_floor is None:
        return "", "Whether it beats class means without any training cannot be said: there is nothing to compare."
    baseline = baseline_of(result)
    pairs = (
        ("at the end", result.last_accuracy, baseline.last_accuracy),
        ("on average over the stages", result.average_accuracy, baseline.average_accuracy),
    )
    gains = ", ".join(
        f"{points(mine - theirs, signed=True)} {where}"
        for where, mine, theirs in pairs
        if mine is not None and theirs is not None
    )
    if result.beats_class_mean_floor:
        return "good", f"The learner beats the class-mean baseline: {gains}."
    return "bad", f"The learner does not beat the class-mean baseline: {gains}. Training did not pay on this stream."


def baseline_of(result: RunResult) -> Scores:
    """The scores of the class means; empty ones where the run has none."""
    return result.class_mean_floor or Scores(accuracy_matrix=[], stage_accuracy=[])


def adapter_sentence(result: RunResult) -> str:
    """What the adapter was worth, in a sentence or two; "" where nobody asked."""
    found = result.adapter
    return "" if found is None else f"{_start_sentence(found)}{_moved_sentence(found, result)}"


def _start_sentence(found: AdapterResult) -> str:
    """Which start a run chose, with a space behind it; "" where there was no choice."""
    if found.from_tuned is None:
        return ""
    tuned, untuned = found.from_tuned.right_moved, found.from_tuned.right_frozen
    where = "as it was tuned" if found.start == "tuned" else "untuned"
    pictures = count(found.from_tuned.pictures, "picture")
    return f"It started {where}: of {pictures} {tuned} were named rightly from the tuned start, {untuned} without. "


def _moved_sentence(found: AdapterResult, result: RunResult) -> str:
    if found.state == "start":
        return "It did not move." if found.crowding is None or found.crowding >= LIMIT else _stayed(found.crowding)
    if found.state == "rests":
        return f"It rests at its start: moved, it won {_gained(found.held_out)} on held-out training pictures."
    how = "exact gradients" if result.options.get("estimator") == "exact" else "forward passes alone"
    if found.tested is None:
        return f"It moved by {how}: {_gained(found.held_out)} on held-out training pictures."
    return (
        f"It moved by {how}: {_gained(found.tested)} on {count(found.tested.pictures, 'test picture')}, "
        f"{_gained(found.held_out)} on held-out training pictures."
    )


def _stayed(crowding: float) -> str:
    """Why it was not to move."""
    return (
        f"It stayed at its start: a class of the first task and the one most like it are {crowding:.2f} alike, and "
        f"below {LIMIT:.2f} it wins little."
    )


def head_alone(result: RunResult) -> Scores | None:
    """The scores of the same head under the adapter's start; None where the adapter never left it."""
    found = result.frozen_head
    if found is None or result.adapter is None or result.adapter.state == "start":
        return None
    return found if 0 < len(found.accuracy_matrix) == len(result.accuracy_matrix) else None


def adapter_rows(result: RunResult) -> list[tuple[str, ...]]:
    """A row for each task: accuracy of the learner and of the head alone on all classes seen after it, what the adapter
    won there, and what it won on this task's own pictures at the end. [] where the adapter never left its start.
    """
    alone = head_alone(result)
    if alone is None:
        return []
    mine, theirs = result.accuracy_matrix[-1], alone.accuracy_matrix[-1]
    columns = zip(result.stage_accuracy, alone.stage_accuracy, mine, theirs, strict=False)
    return [
        (percent(all_seen), percent(without), _won(all_seen, without), _won(own, own_without))
        for all_seen, without, own, own_without in columns
    ]


def _won(mine: float | None, theirs: float | None) -> str:
    """The points between two accuracies."""
    return points(None if mine is None or theirs is None else mine - theirs, signed=True, unit="")


def gate_word(gate: Mapping[str, int] | None) -> str:
    """What the adapter won at a task's end on held-out pictures, as ``+2.2`` points, or ``rests``; "" for None."""
    if gate is None or not gate["held_out"]:
        return ""
    won = (gate["right_moved"] - gate["right_frozen"]) / gate["held_out"]
    return points(won, signed=True, unit="") if gate["keeps"] else "rests"


def _gained(paired: Paired | None) -> str:
    """A gain with its interval."""
    if paired is None:
        return NOTHING
    low, high = (points(value, signed=True, unit="") for value in (paired.low, paired.high))
    return f"{points(paired.gain, signed=True)} (95 %: {low} to {high})"


def memory_sentence(result: RunResult) -> str:
    """Peak against budget and prediction, in one sentence."""
    peak, budget, predicted = result.peak_rss_mib, result.memory_budget_mib, result.predicted_peak_mib
    if peak is None:
        return "The peak memory was not measured."
    text = f"The process took {number(peak, 'MiB')} at its peak"
    if budget:
        over = " (over the budget)" if peak > budget else ""
        text += f", {100 * peak / budget:.0f} % of its budget of {number(budget, 'MiB')}{over}"
    if predicted and peak:
        error = 100 * (predicted / peak - 1)
        beside = f"{abs(error):.0f} % {'above' if error > 0 else 'below'} that"
        text += f"; {number(predicted, 'MiB')} had been predicted, {beside if abs(error) >= 0.5 else 'as measured'}"
    return text + "."


def time_sentence(result: RunResult) -> str:
    """What the last ``learn`` took beside what had been predicted, in one sentence."""
    cost = result.last_learn
    if cost is None:
        return "The time was not predicted."
    took = f"{number(cost.seconds / 60, 'min', 1)} for {count(cost.image_forwards, 'image-forward')}"
    took += " (a gradient counts as 4)" if result.gradient_passes else ""
    if not cost.predicted_image_forwards:
        return f"The last learn took {took}; there was nothing to learn."
    minutes = "" if cost.predicted_seconds is None else f"{number(cost.predicted_seconds / 60, 'min', 1)} for "
    return f"The last learn took {took}; at most {minutes}{number(cost.predicted_image_forwards)} had been predicted."


def percent(fraction: float | None, unit: str = " %") -> str:
    """A fraction as ``71.2 %``, None as a dash."""
    return NOTHING if fraction is None else f"{100 * fraction:.1f}{unit}"


def points(change: float | None, signed: bool = False, unit: str = " points") -> str:
    """A difference of fractions as ``10.5 points``, None as a dash."""
    return NOTHING if change is None else f"{100 * change:{'+' if signed else ''}.1f}{unit}"


def number(value: float | None, unit: str = "", digits: int = 0) -> str:
    """``1,234.5 unit``, None as a dash; what is too long to read becomes a power of ten."""
    if value is None:
        return NOTHING
    return f"{value:,.{digits}f} {unit}".rstrip() if abs(value) < 1e15 else f"{value:.3g} {unit}".rstrip()


def duration(seconds: float | None) -> str:
    """Seconds as ``4 min 12 s``, None as a dash."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def count(how_many: int, one: str, many: str | None = None) -> str:
    """``1,234 tasks``; ``many`` where the plural is not ``one`` with an s."""
    return f"{how_many:,} {one if how_many == 1 else many or one + 's'}"


def table(rows: Sequence[Sequence[object]], align: str, width: int = 0) -> str:
    """Rows in columns two spaces apart; ``align`` holds "l" or "r" for each column, the head is a row as any other.

    ``width`` is that of the terminal: the last column is wrapped to what the others leave of it, 0 leaves it whole.
    Cells become printable lines, as names and messages of the system may hold line ends and escape sequences.
    """
    cells = [[printable(" ".join(str(cell).split())) for cell in row] for row in rows]
    others = sum(max(map(len, column)) + 2 for column in list(zip(*cells, strict=True))[:-1])
    wrap = textwrap.TextWrapper(max(20, width - others), break_long_words=False, break_on_hyphens=False)
    for row in cells if width else ():
        row[-1] = wrap.fill(row[-1])
    sides = ["right" if side == "r" else "left" for side in align]
    return tabulate(cells, tablefmt="plain", colalign=sides, disable_numparse=True)
