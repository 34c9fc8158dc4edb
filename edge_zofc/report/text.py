"""Sentences and written numbers, shared by the page and the terminal.

A value that the run does not have (no test pictures, no second task) is a dash, never a zero.
"""

from __future__ import annotations

from edge_zofc.storage.result import RunResult, Scores

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
    sentence = f"{done} names {percent(result.last_accuracy)} of all test pictures"
    baseline = baseline_of(result)
    if baseline.last_accuracy is None:
        return sentence + "."
    return f"{sentence}; class means without any training: {percent(baseline.last_accuracy)}."


def verdict(result: RunResult) -> tuple[str, str]:
    """("good" | "bad" | "", sentence): what ``beats_class_mean_floor`` says, and by how many points."""
    if result.beats_class_mean_floor is None:
        sentence = "cannot be said: there is nothing to compare."
        return "", f"Whether it beats class means without any training {sentence}"
    baseline = baseline_of(result)
    gains = (
        ("at the end", result.last_accuracy, baseline.last_accuracy),
        ("on average over the stages", result.average_accuracy, baseline.average_accuracy),
    )
    text = ", ".join(
        f"{points(mine - theirs, signed=True)} {where}"
        for where, mine, theirs in gains
        if mine is not None and theirs is not None
    )
    if result.beats_class_mean_floor:
        return "good", f"The learner beats the class-mean baseline: {text}."
    return ("bad", f"The learner does not beat the class-mean baseline: {text}. Training did not pay on this stream.")


def baseline_of(result: RunResult) -> Scores:
    """The scores of the class means; empty ones where the run has none."""
    return result.class_mean_floor or Scores(accuracy_matrix=[], stage_accuracy=[])


def memory_sentence(result: RunResult) -> str:
    """Peak against budget and prediction, in one sentence."""
    peak, budget, predicted = result.peak_rss_mib, result.memory_budget_mib, result.predicted_peak_mib
    if peak is None:
        return "The peak memory was not measured."
    text = f"The process took {number(peak, 'MiB')} at its peak"
    if budget:
        text += f", {100 * peak / budget:.0f} % of its budget of {number(budget, 'MiB')}"
        text += " (over the budget)" if peak > budget else ""
    if predicted and peak:
        error = 100 * (predicted / peak - 1)
        text += f"; {number(predicted, 'MiB')} had been predicted, "
        beside = "above" if error > 0 else "below"
        text += "as measured" if abs(error) < 0.5 else f"{abs(error):.0f} % {beside} that"
    return text + "."


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
    text = f"{value:,.{digits}f}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def duration(seconds: float | None) -> str:
    """Seconds as ``4 min 12 s``, None as a dash."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def count(how_many: int, one: str, many: str | None = None) -> str:
    """``1,234 tasks``; ``many`` where the plural is not ``one`` with an s."""
    return f"{how_many:,} {one if how_many == 1 else many or one + 's'}"
