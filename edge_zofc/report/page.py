"""The page of a run: ``page.html``, filled by Jinja2.

The page can be mailed and kept: it asks for nothing, runs no script (its own content policy forbids both), and shows
whatever came out of a file as plain text.
"""

from __future__ import annotations

from typing import Any

from edge_zofc.errors import printable
from edge_zofc.report import classes, first_order, text
from edge_zofc.report.charts import draw_charts
from edge_zofc.report.curves import Log
from edge_zofc.report.pictures import Gallery
from edge_zofc.storage.result import RunResult

FIRST_CARDS = 24
"""Classes that are shown at once; the others are folded up."""


def page(result: RunResult, log: Log, pictures: Gallery | None = None) -> str:
    """The whole document; ``log`` is what ``events.jsonl`` tells beside the result. None: no pictures, and no word."""
    pictures = pictures or Gallery()
    return rendered(
        "page.html",
        run=result,
        base=text.baseline_of(result),
        text=text,
        charts=draw_charts(result, log),
        lists=_lists(result, log),
        pictures=pictures,
        cards=classes.cards(result),
        first_cards=FIRST_CARDS,
        most_cards=classes.MOST_CARDS,
        matrix_of_classes=classes.matrix(result),
        pairs=classes.pairs(result, pictures),
        first_order=first_order,
        memory=first_order.bars(result),
    )


def rendered(template: str, **values: Any) -> str:
    """The document that a template of this package makes of ``values``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        extensions=["jinja2.ext.do"],
        loader=PackageLoader("edge_zofc.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["brief"] = _brief
    markup = environment.get_template(template).render(**values)
    return markup.replace(" %", "\u00a0%")  # no line may begin with a percent sign


def _shown(value: Any) -> Any:
    """Every value of the template goes through here before it is escaped: None is a dash, text is one clean line."""
    if value is None:
        return text.NOTHING
    # A chart arrives as Markup, a subclass of str, and stays as it is.
    return printable(value) if type(value) is str else value


def _brief(value: object, limit: int = 80) -> str | None:
    """A name or an option's value of any type, cut at ``limit`` characters; None stays None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else printable(str(value), limit)


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
