"""The commands that show a run pictures and change what it knows; as ``commands.py`` otherwise."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge_zofc.cli.answer import answer, terminal_width
from edge_zofc.errors import InputError, quoted, shown

if TYPE_CHECKING:
    from edge_zofc.engine.predict import Named
    from edge_zofc.learner import Learner

log = logging.getLogger("edge_zofc")


def teach(options: argparse.Namespace) -> int:
    """Show a run pictures of a class, which the next answer knows."""
    from edge_zofc.data.folders import LeftOuts, all_pictures
    from edge_zofc.learner import Learner
    from edge_zofc.report.text import count
    from edge_zofc.storage.bundle import BUNDLE_FOLDER
    from edge_zofc.storage.run_folder import RunFolder

    left, pictures = LeftOuts(), list[Path]()
    for path in options.pictures:
        pictures += all_pictures(path, left) if path.is_dir() else [path]
    for note in left.notes():
        log.warning("%s", note)
    if not pictures:
        raise InputError(f"There is no picture in {shown(options.pictures[0])}; name pictures or folders of them.")
    if RunFolder(options.run).is_run():
        learner = Learner.open(options.run, bundle=options.bundle, threads=options.threads, limit_memory=True)
    else:
        learner = Learner.create(options.bundle or BUNDLE_FOLDER, options.run, threads=options.threads)
    with learner:
        found = learner.teach(tuple(pictures), options.name, test=options.test)
        known = [each.name for each in learner.classes]
    for reason in found.skipped:
        log.warning("Left out: %s", reason)
    how = "kept back" if options.test else "learnt"
    text = f"{count(len(found.serials), 'picture')} of {shown(found.name)} {how}; known: {', '.join(map(shown, known))}"
    return answer(options, {**asdict(found), "classes": known}, text)


def forget(options: argparse.Namespace) -> int:
    """Make a class unknown again, as if it had never been seen."""
    with _open(options) as learner:
        learner.forget(options.name)
        return _told(options, learner, f"{shown(options.name)} is forgotten")


def rename(options: argparse.Namespace) -> int:
    """Give a class another name; that of another class makes both one."""
    with _open(options) as learner:
        learner.rename(options.name, options.to)
        return _told(options, learner, f"{shown(options.name)} is called {shown(options.to)}")


def undo(options: argparse.Namespace) -> int:
    """Take the last change by teach, forget or rename back."""
    with _open(options) as learner:
        return _told(options, learner, shown(learner.undo()))


def lesson(options: argparse.Namespace) -> int:
    """List what a run was shown, or make it a task for learn."""
    from edge_zofc.report.text import table

    with _open(options) as learner:
        closed = learner.close_lesson() if options.close else None
        classes, kept = learner.classes, learner.kept_back
        data = {"classes": [asdict(each) for each in classes], "kept_back": asdict(kept), "task": closed}
        if closed is not None:
            how = f"edge-zofc learn --run {shown(options.run)} --stream {shown(learner.lesson_stream)}"
            return answer(options, data, f"{closed} is a task now; learn it with: {how}")
    rows = [("class", "learnt", "shown", "kept back", "looks like")]
    for each in classes:
        back = f"{each.kept_back_right} of {each.kept_back} right" if each.kept_back else ""
        rows.append((shown(each.name), str(each.learnt), str(each.taught), back, shown(each.looks_like or "")))
    return answer(options, data, table(rows, "lrrrl", terminal_width()))


def named_text(found: Named, may_be_unknown: bool) -> str:
    """A picture's answer on a line. Without ``may_be_unknown`` the most probable classes stand there in any case."""
    if may_be_unknown and found.unknown:
        nearest = found.guesses[0]
        return f"unknown (likeness {found.likeness:.2f}, below {found.limit:.2f}; nearest {shown(nearest.class_name)})"
    if may_be_unknown:
        return ", ".join(f"{guess.class_name}, likeness {guess.likeness:.2f}" for guess in found.guesses)
    return ", ".join(f"{guess.class_name} {guess.probability:.3f}" for guess in found.guesses)


def _open(options: argparse.Namespace) -> Learner:
    from edge_zofc.learner import Learner

    return Learner.open(options.run, bundle=options.bundle)


def _told(options: argparse.Namespace, learner: Learner, text: str) -> int:
    names = [each.name for each in learner.classes]
    return answer(options, {"classes": names}, f"{text}; the classes are: {', '.join(map(quoted, names)) or 'none'}")
