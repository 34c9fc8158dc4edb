"""The training pictures of a run's finished tasks where they still lie, by the names that classes are shown by."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.engine.class_parts import part_key
from edge_zofc.engine.lesson import LessonView
from edge_zofc.engine.state import RunState
from edge_zofc.errors import InputError
from edge_zofc.storage.lesson_log import LessonFolder
from edge_zofc.storage.reading import is_there
from edge_zofc.storage.result import read_result, stream_folder


@dataclass(frozen=True)
class OwnPictures:
    """``paths`` [n] with ``labels`` int64 [n]: positions in ``names``. A class of ``names`` may have lost all."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray


def learnt_streams(run: Path) -> list[Path]:
    """The streams that a run has learnt from: its own, where ``learn`` last found it, and its lesson's."""
    places = [LessonFolder(run).tasks]
    with suppress(InputError):  # it has not finished a learn yet
        learnt = stream_folder(read_result(run), run)
        places += [] if learnt is None else [learnt]
    return [place for place in dict.fromkeys(places) if is_there(place)]


def own_pictures(
    run: Path, state: RunState, view: LessonView, names: Collection[str], tell: Callable[[str], None]
) -> OwnPictures:
    """Those of the classes ``names``, without what was forgotten; ``tell`` gets a sentence for what is gone."""
    shown, known = tuple(names), state.progress.class_names
    due = {task.name: (number, task) for number, task in enumerate(state.finished_tasks)}
    paths, labels = list[Path](), list[int]()
    for place in learnt_streams(run):
        try:
            stream = read_stream(place, known, only=due, needs_train=False)
            found = [(*due.pop(task.name), list_samples(stream, task, "train")) for task in stream.tasks]
        except InputError as error:
            tell(f"Its pictures are not used: {error}")
            continue
        for number, task, samples in found:
            for sample in samples:
                if sample.class_id not in task.class_ids:
                    continue
                name = view.shown(known[sample.class_id])
                if name in shown and part_key(number, task, sample.class_id) not in view.forgotten:
                    paths.append(sample.path)
                    labels.append(shown.index(name))
    for name in due:
        tell(f"The pictures of task {name} are gone.")
    return OwnPictures(shown, tuple(paths), np.array(labels, np.int64))
