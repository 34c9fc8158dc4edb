"""Pictures in groups that belong together, to measure a class without what resembles a picture too much.

Pictures of one burst are near copies: one of them says nothing about how the others would be known. A lesson knows its
bursts. Of what ``learn`` learnt a fifth of a class, in the order of its files, counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.likeness import Group
from edge_zofc.engine.class_parts import class_of, keys_of, load_features
from edge_zofc.engine.lesson import LessonView
from edge_zofc.engine.state import RunState
from edge_zofc.errors import EdgeZofcError

BLOCKS = 5
MOST_PARTS = 64
"""Parts of classes that are read, spread evenly over all."""


def lesson_groups(view: LessonView, features: dict[int, np.ndarray], names: list[str]) -> Iterator[Group]:
    """The bursts of a lesson, those that are kept back too; ``features`` float32 [D] by number."""
    bursts: dict[tuple[int, bool], list[int]] = {}
    for serial, picture in view.pictures.items():
        if serial in features and picture.name in names:
            bursts.setdefault((picture.burst, picture.test), []).append(serial)
    for (_, test), serials in bursts.items():
        by_name: dict[str, list[np.ndarray]] = {}
        for serial in serials:
            by_name.setdefault(view.pictures[serial].name, []).append(features[serial])
        for name, rows in by_name.items():
            yield names.index(name), np.stack(rows), not test


def learnt_groups(run: Path, state: RunState, view: LessonView, names: list[str], moved: bool) -> Iterator[Group]:
    """Fifths of what each class gave in each finished task, where it was kept."""
    own = state.progress.class_names
    keys = [key for key in keys_of(state.finished_tasks, range(len(own))) if key not in view.forgotten]
    for key in keys[:: max(1, -(-len(keys) // MOST_PARTS))]:
        name = view.shown(own[class_of(key)])
        if name not in names:
            continue
        with suppress(EdgeZofcError):  # an earlier version kept none: the others speak
            rows = load_features(run, key, moved)
            for block in np.array_split(rows, BLOCKS) if len(rows) else ():
                yield names.index(name), block, True
