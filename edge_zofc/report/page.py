"""A run as one HTML page that opens anywhere.

The surprise: the page asks for nothing, not even from its own folder. Pictures are inline SVG, the style is
here, scripts are forbidden by its own content policy, and everything that came out of a file is escaped, so a
report may be mailed or kept for years.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edge_zofc.errors import printable
from edge_zofc.report import charts
from edge_zofc.report.curves import Log
from edge_zofc.report.text import (
    NOTHING,
    count,
    duration,
    headline,
    memory_sentence,
    number,
    percent,
    points,
    verdict,
)
from edge_zofc.storage.result import RunResult, Scores

LISTED_TASKS = 500  # rows of the per-task table; a run with more keeps them in result.json
LISTED_CLASSES = 6  # class names that a row of that table spells out
LISTED_MATRIX = 60  # tasks up to which the page holds every number of the matrix

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --muted: #5b6572; --grid: #e3e7ec;
  --learner: #0072b2; --floor: #d55e00; --third: #008f68; --limit: #9a3d7c; --good: #006d4e; --bad: #a63c00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --ink: #e8eaed; --muted: #a2abb6;
  --grid: #343a42; --learner: #56b4e9; --floor: #e69f00; --third: #2cc295; --limit: #e08cc0; --good: #4fd1a5;
  --bad: #ff9a5c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .75rem; max-width: 54rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
p { margin: 0 0 .75rem; max-width: 46rem; }
.kicker, figcaption, .small { color: var(--muted); font-size: .88rem; }
.kicker { margin-bottom: .4rem; overflow-wrap: anywhere; }
.verdict { border-left: 4px solid var(--muted); padding: .1rem 0 .1rem .8rem; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.tiles { display: grid; gap: .75rem; margin: 1.5rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); }
.tiles div, figure, .sheet { background: var(--card); border: 1px solid var(--grid); border-radius: .6rem; }
.tiles div { padding: .8rem 1rem; }
.tiles dt { color: var(--muted); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.4rem; font-weight: 600; white-space: nowrap;
  line-height: 1.35; font-variant-numeric: tabular-nums; }
.tiles dd + dd { font-size: .85rem; font-weight: 400; white-space: normal; color: var(--muted); }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
figure { margin: 0; padding: 1rem 1.1rem .8rem; display: flex; flex-direction: column; }
figure h3 { margin: 0 0 .5rem; font-size: 1rem; }
figure svg { width: 100%; height: auto; stroke-linejoin: round; margin-bottom: .4rem; }
figcaption { margin-top: auto; }
figure.wide { grid-column: 1 / -1; }
summary { cursor: pointer; margin: .75rem 0; }
.sheet { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: left; vertical-align: top; border-top: 1px solid var(--grid); }
thead th { border-top: 0; color: var(--muted); font-weight: 600; vertical-align: bottom; }
th { font-weight: 500; } td.n, th.n { text-align: right; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 5.5rem; }
.columns { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  align-items: start; }
ul { padding-left: 1.2rem; overflow-wrap: anywhere; }
@media print { body { background: none; } figure, tr { break-inside: avoid; } }
"""


def page(result: RunResult, log: Log) -> str:
    """The whole document; ``log`` is what ``events.jsonl`` tells beside the result."""
    tone, judgement = verdict(result)
    stopped = (
        "<p class='verdict bad'>This run is not finished: the numbers stand where it stopped, "
        "and <code>edge-zofc learn --resume</code> goes on from there.</p>"
    )
    body = [
        f"<p class='kicker'>edge-zofc report · stream {_text(result.stream)} · {_text(result.backbone)}"
        f" · preset {_text(result.preset)}</p>",
        f"<h1>{escape(headline(result))}</h1>",
        "" if result.completed else stopped,
        f"<p class='verdict {tone}'>{escape(judgement)}</p>",
        f"<p>{escape(memory_sentence(result))}</p>",
        _tiles(result),
        "<h2>Pictures</h2>",
        _pictures(result, log),
        "<h2>Tasks</h2>",
        _task_table(result),
        _definitions(result),
        "<div class='columns'><section><h2>What it cost</h2>",
        _facts(_costs(result)),
        "</section><section><h2>Settings</h2>",
        _facts(_settings(result)),
        "</section></div>",
        _lists(result, log),
        f"<p class='small'>Written by edge-zofc {_text(result.edge_zofc)} from result.json and events.jsonl.</p>",
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
        f"<title>edge-zofc: {_text(result.stream)}</title><style>{STYLE}</style></head>\n<body><main>"
        + "\n".join(body).replace(" %", "\u00a0%")  # no line may begin with a percent sign
        + "</main></body></html>\n"
    )


def _text(value: str | None, limit: int = 120) -> str:
    return NOTHING if value is None else escape(printable(value, limit))


def _tiles(result: RunResult) -> str:
    floor = result.class_mean_floor or Scores(accuracy_matrix=[], stage_accuracy=[])
    budget = result.memory_budget_mib
    tiles = [
        ("Accuracy at the end", percent(result.last_accuracy), f"class means {percent(floor.last_accuracy)}"),
        (
            "Average accuracy",
            percent(result.average_accuracy),
            f"class means {percent(floor.average_accuracy)}",
        ),
        (
            "Forgetting",
            points(result.forgetting),
            f"class means {points(floor.forgetting).removesuffix(' points')}",
        ),
        ("Peak memory", number(result.peak_rss_mib, "MiB"), f"budget {number(budget, 'MiB')}"),
        ("Time a step", number(result.seconds_per_step, "s", 2), f"{duration(result.seconds)} in all"),
        ("Forward passes", number(result.forward_passes), f"in {count(result.steps, 'training step')}"),
    ]
    cells = (f"<div><dt>{a}</dt><dd>{escape(b)}</dd><dd>{escape(c)}</dd></div>" for a, b, c in tiles)
    return f"<dl class='tiles'>{''.join(cells)}</dl>"


def _pictures(result: RunResult, log: Log) -> str:
    accuracy, matrix = charts.accuracy_chart(result), charts.matrix_chart(result)
    forgetting, memory = charts.forgetting_chart(result), charts.memory_chart(result, log)
    made = [chart for chart in (accuracy, matrix, forgetting, memory) if chart is not None]
    # Two pictures stand side by side; the loss fills the row that is left.
    loss = charts.loss_chart(result, log, wide=len(made) % 2 == 0)
    figures = "".join(
        f"<figure{' class=wide' if chart.wide else ''}><h3>{chart.title}</h3>{chart.svg}"
        f"<figcaption>{chart.caption}</figcaption></figure>"
        for chart in (*made, loss)
        if chart is not None
    )
    missing = ""
    if accuracy is None:
        missing = "<p class='small'>There are no accuracies to draw: the stream has no test pictures.</p>"
    elif forgetting is None:
        missing = "<p class='small'>Forgetting begins with a second task.</p>"
    if loss is None:
        missing += "<p class='small'>There is no step in events.jsonl, so the loss is not drawn.</p>"
    return f"{missing}<div class='pictures'>{figures}</div>" + (
        "" if matrix is None else _matrix_table(result)
    )


def _matrix_table(result: RunResult) -> str:
    matrix = result.accuracy_matrix
    if len(matrix) > LISTED_MATRIX:
        return f"<p class='small'>The {len(matrix)} rows of the accuracy matrix are in result.json.</p>"
    head = "".join(f"<th scope='col' class=n>{index + 1}</th>" for index in range(len(matrix)))
    rows = ""
    for index, row in enumerate(matrix):
        cells = "".join(f"<td class=n>{percent(value).removesuffix(' %')}</td>" for value in row)
        cells += "<td></td>" * (len(matrix) - len(row))
        rows += f"<tr><th scope='row' class=n>{index + 1}</th>{cells}</tr>"
    table = (
        f"<table><thead><tr><th scope='col'>after task</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
    return f"<details><summary>The accuracy matrix in numbers (%)</summary><div class='sheet'>{table}</div></details>"


def _task_table(result: RunResult) -> str:
    head = ["Task", "Name", "Classes", "Train", "Test", "Skipped", "Steps", "Time", "Loss"]
    head += ["Just learnt", "At the end", "Class means", "Points lost"]
    matrix, lost = result.accuracy_matrix, result.task_forgetting()
    floor = [] if result.class_mean_floor is None else result.class_mean_floor.accuracy_matrix
    rows = []
    for index, task in enumerate(result.tasks[:LISTED_TASKS]):
        names = ", ".join(printable(result.class_names[k], 40) for k in task.class_ids[:LISTED_CLASSES])
        more = len(task.class_ids) - LISTED_CLASSES
        values = [
            *(number(n) for n in (task.train_images, task.test_images, task.skipped_images, task.steps)),
            duration(task.seconds),
            f"{number(task.first_loss, '', 3)} → {number(task.last_loss, '', 3)}",
            percent(matrix[index][index] if index < len(matrix) else None),
            percent(matrix[-1][index] if index < len(matrix) else None),
            percent(floor[-1][index] if index < len(floor) else None),
            points(lost[index] if index < len(lost) else None).removesuffix(" points"),
        ]
        cells = "".join(f"<td class='n'>{value}</td>" for value in values)
        classes = escape(names) + (f" and {more:,} more" if more > 0 else "")
        rows.append(
            f"<tr><td class='n'>{index + 1}</td><td class='name'>{_text(task.name)}</td>"
            f"<td class='name'>{classes}</td>{cells}</tr>"
        )
    titles = "".join(
        f"<th scope='col'{'' if k in (1, 2) else ' class=n'}>{name}</th>" for k, name in enumerate(head)
    )
    rest = len(result.tasks) - LISTED_TASKS
    note = f"<p class='small'>{rest:,} more tasks are in result.json.</p>" if rest > 0 else ""
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class='sheet'>{table}</div>{note}"


def _definitions(result: RunResult) -> str:
    definition = result.forgetting_definition or (
        "mean over all tasks but the last of a task's best accuracy over all stages minus its accuracy at the end"
    )
    return (
        f"<p class='small' style='margin-top:.75rem'>Forgetting: {_text(definition, 500)}. Backward transfer: "
        f"{escape(points(result.backward_transfer, signed=True))}. Mean of the accuracies of the classes at the end: "
        f"{percent(result.mean_per_class_accuracy)}. Class means: every class is named by the mean of its features "
        "from the frozen backbone, so nothing is trained; a learner has to beat that.</p>"
    )


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td class='name'>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<div class='sheet'><table><tbody>{cells}</tbody></table></div>"


def _lists(result: RunResult, log: Log) -> str:
    notes = list(log.notes)
    if log.starts > 1:
        notes.append(f"The run was started {log.starts} times; where it was cut, the later record counts.")
    if log.unreadable_lines:
        notes.append(f"{count(log.unreadable_lines, 'line')} of events.jsonl could not be read.")
    if not log.found:
        notes.append("There is no events.jsonl in the run folder.")
    skipped = max(log.skipped_count, result.skipped_images or 0)
    parts = (
        ("Skipped pictures", log.skipped, skipped),
        ("Notes", notes, len(notes) + log.note_count - len(log.notes)),
    )
    text = ""
    for title, lines, whole in parts:
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        items += f"<li>and {whole - len(lines):,} more</li>" if whole > len(lines) else ""
        text += f"<h2>{title} ({whole:,})</h2>" + (f"<ul>{items}</ul>" if items else "<p>None.</p>")
    return text


def _costs(result: RunResult) -> list[tuple[str, str]]:
    training = number(result.forward_passes)
    if result.forward_passes is not None and result.steps:
        training += f" ({result.forward_passes / result.steps:,.0f} a step)"
    return [
        ("Peak memory, resident", number(result.peak_rss_mib, "MiB", 1)),
        ("of it anonymous, at its own peak", number(result.peak_anonymous_mib, "MiB", 1)),
        ("of it file-backed, at its own peak", number(result.peak_file_mib, "MiB", 1)),
        ("Predicted peak", number(result.predicted_peak_mib, "MiB", 1)),
        ("Memory budget", number(result.memory_budget_mib, "MiB", 1)),
        ("Time", duration(result.seconds)),
        ("Training steps", number(result.steps)),
        ("Time a step", number(result.seconds_per_step, "s", 3)),
        ("Forward passes, training", training),
        ("Forward passes, evaluation", number(result.evaluation_forward_passes)),
        ("Forward passes, class means", number(result.floor_forward_passes)),
    ]


def _settings(result: RunResult) -> list[tuple[str, str]]:
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
    options = {f"option {printable(key, 60)}": value for key, value in list(result.options.items())[:100]}
    return [(name, _setting(value)) for name, value in {**named, **options}.items()]


def _setting(value: object) -> str:
    if value is None:
        return NOTHING
    return ("no", "yes")[value] if isinstance(value, bool) else printable(str(value), 80)
