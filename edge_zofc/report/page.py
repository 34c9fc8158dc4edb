"""The values of a run as one HTML page, which ``page.html`` lays out.

The page can be mailed and kept: it asks for nothing, runs no script (its own content policy forbids both), and shows
whatever came out of a file as plain text.
"""

from __future__ import annotations

from typing import Any

from edge_zofc.errors import printable
from edge_zofc.report import text
from edge_zofc.report.charts import draw_charts
from edge_zofc.report.curves import Log
from edge_zofc.storage.result import RunResult

LISTED_TASKS = 500  # rows of the per-task table; a run with more keeps them in result.json
LISTED_CLASSES = 6  # class names that a row of that table spells out
LISTED_MATRIX = 60  # tasks up to which the page holds every number of the matrix
LISTED_OPTIONS = 100

Pairs = list[tuple[str, str]]


def page(result: RunResult, log: Log) -> str:
    """The whole document; ``log`` is what ``events.jsonl`` tells beside the result."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edge_zofc.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    markup = environment.get_template("page.html").render(_values(result, log))
    return markup.replace(" %", "\u00a0%")  # no line may begin with a percent sign


def _shown(value: Any) -> Any:
    """Every value of the template goes through here before it is escaped: None is a dash, text is one clean line."""
    if value is None:
        return text.NOTHING
    # A chart arrives as Markup, a subclass of str, and stays as it is.
    return printable(value) if type(value) is str else value


def _values(result: RunResult, log: Log) -> dict[str, Any]:
    tone, judgement = text.verdict(result)
    return {
        "run": result,
        "headline": text.headline(result),
        "no_accuracy": text.no_accuracy(result),
        "tone": tone,
        "verdict": judgement,
        "memory": text.memory_sentence(result),
        "tiles": _tiles(result),
        "charts": draw_charts(result, log),
        "matrix": _matrix(result),
        "listed_matrix": LISTED_MATRIX,
        "tasks": _tasks(result),
        "backward_transfer": text.points(result.backward_transfer, signed=True),
        "mean_per_class_accuracy": text.percent(result.mean_per_class_accuracy),
        "facts": [("What it cost", _costs(result)), ("Settings", _settings(result))],
        "lists": _lists(result, log),
    }


def _tiles(result: RunResult) -> list[tuple[str, str, str]]:
    base = text.baseline_of(result)
    last, average = text.percent(result.last_accuracy), text.percent(result.average_accuracy)
    budget, whole = text.number(result.memory_budget_mib, "MiB"), text.duration(result.seconds)
    passes, steps = text.number(result.forward_passes), text.count(result.steps, "training step")
    return [
        ("Accuracy at the end", last, f"class means {text.percent(base.last_accuracy)}"),
        ("Average accuracy", average, f"class means {text.percent(base.average_accuracy)}"),
        ("Forgetting", text.points(result.forgetting), f"class means {text.points(base.forgetting, unit='')}"),
        ("Peak memory", text.number(result.peak_rss_mib, "MiB"), f"budget {budget}"),
        ("Time a step", text.number(result.seconds_per_step, "s", 2), f"{whole} in all"),
        ("Forward passes", passes, f"in {steps}"),
    ]


def _matrix(result: RunResult) -> list[list[str]]:
    """The numbers of the accuracy matrix, a square; no row where there are too few or too many."""
    matrix = result.accuracy_matrix
    if not 2 <= len(matrix) <= LISTED_MATRIX or all(value is None for row in matrix for value in row):
        return []
    return [[text.percent(v, unit="") for v in row] + [""] * (len(matrix) - len(row)) for row in matrix]


def _tasks(result: RunResult) -> list[dict[str, Any]]:
    matrix, base = result.accuracy_matrix, text.baseline_of(result).accuracy_matrix
    lost = result.task_forgetting()
    rows = []
    for index, task in enumerate(result.tasks[:LISTED_TASKS]):
        names = [printable(result.class_names[k], 40) for k in task.class_ids[:LISTED_CLASSES]]
        counts = (task.train_images, task.test_images, task.skipped_images, task.steps)
        numbers = [
            *(text.number(n) for n in counts),
            text.duration(task.seconds),
            f"{text.number(task.first_loss, '', 3)} → {text.number(task.last_loss, '', 3)}",
            text.percent(matrix[index][index] if index < len(matrix) else None),
            text.percent(matrix[-1][index] if index < len(matrix) else None),
            text.percent(base[-1][index] if index < len(base) else None),
            text.points(lost[index] if index < len(lost) else None, unit=""),
        ]
        more = len(task.class_ids) - len(names)
        rows.append({"name": task.name, "classes": ", ".join(names), "more": more, "numbers": numbers})
    return rows


def _costs(result: RunResult) -> Pairs:
    training = text.number(result.forward_passes)
    if result.forward_passes is not None and result.steps:
        training += f" ({result.forward_passes / result.steps:,.0f} a step)"
    return [
        ("Peak memory, resident", text.number(result.peak_rss_mib, "MiB", 1)),
        ("of it anonymous, at its own peak", text.number(result.peak_anonymous_mib, "MiB", 1)),
        ("of it file-backed, at its own peak", text.number(result.peak_file_mib, "MiB", 1)),
        ("Predicted peak", text.number(result.predicted_peak_mib, "MiB", 1)),
        ("Memory budget", text.number(result.memory_budget_mib, "MiB", 1)),
        ("Time", text.duration(result.seconds)),
        ("Training steps", text.number(result.steps)),
        ("Time a step", text.number(result.seconds_per_step, "s", 3)),
        ("Forward passes, training", training),
        ("Forward passes, evaluation", text.number(result.evaluation_forward_passes)),
        ("Forward passes, class means", text.number(result.floor_forward_passes)),
    ]


def _settings(result: RunResult) -> Pairs:
    named: dict[str, object] = {
        "Stream": result.stream,
        "Backbone": result.backbone,
        "Image size": result.image_size and f"{result.image_size} pixels",
        "Feature size": result.feature_size,
        "Precision": result.precision,
        "Bundle": result.bundle_identity and printable(result.bundle_identity, 17),
        "Device profile": result.device_profile,
        "Preset": result.preset,
        "Queries a step": result.queries and f"{result.queries}, {result.query_form or 'form unknown'}",
        "Micro-batch": result.micro_batch,
        "Queries in parallel": result.parallel_queries,
        "Head runs in": result.head_backend,
        "Seed": result.seed,
        "edge-zofc": result.edge_zofc,
    }
    options = {f"option {key}": value for key, value in list(result.options.items())[:LISTED_OPTIONS]}
    return [(name, _setting(value)) for name, value in {**named, **options}.items()]


def _setting(value: object) -> str:
    if value is None:
        return text.NOTHING
    return ("no", "yes")[value] if isinstance(value, bool) else printable(str(value), 80)


def _lists(result: RunResult, log: Log) -> list[tuple[str, list[str], int]]:
    """(title, lines, number of lines in the whole log) of what was skipped and of the notes."""
    notes = list(log.notes)
    if log.starts > 1:
        notes.append(f"The run was started {log.starts} times; where it was cut, the later record counts.")
    if log.unreadable_lines:
        notes.append(f"{text.count(log.unreadable_lines, 'line')} of events.jsonl could not be read.")
    if not log.found:
        notes.append("There is no events.jsonl in the run folder.")
    skipped = max(log.skipped_count, result.skipped_images or 0)
    return [("Skipped pictures", log.skipped, skipped), ("Notes", notes, len(notes) + log.note_count - len(log.notes))]
