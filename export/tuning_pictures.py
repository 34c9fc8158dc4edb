"""Which pictures of ``--tune`` train the adapter's start, and which test it: a bounded number of any folders.

A quarter of the classes is held back: nothing is trained on them. Of the others the last quarter of each one's
pictures, in the order of their names, tests alone. All that tests is dealt into folds of neighbours, so that a burst is
not torn apart: a head is solved without the fold that it names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.directions import batches
from edge_zofc.data.folders import PARTS, LeftOut
from edge_zofc.data.split import pictures_by_class
from edge_zofc.data.stream import numbered_tasks
from edge_zofc.errors import InputError, shown

LEAST_CLASSES = 8
HELD_BACK = 4
"""One of so many classes is held back, and one of so many pictures of the others tests."""
FOLDS = 4
LEAST_OF_A_CLASS, MOST_OF_A_CLASS = 4, 40
MOST_PICTURES = 3200
"""Of all classes together: with features of 1,280 entries under three adapters 50 MB."""
TO_TRAIN = -1
"""In the place of a fold."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class TuningPictures:
    """``paths`` with their class ids ``labels`` int64 [n], and the fold of each, or TO_TRAIN, ``folds`` int64 [n].

    ``held_back`` bool [C]: classes that nothing is trained on.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    folds: np.ndarray
    held_back: np.ndarray

    @property
    def tested(self) -> np.ndarray:
        """Bool [t]: of the pictures in a fold, in their order, which are of held-back classes."""
        return np.asarray(self.held_back[self.labels[self.folds != TO_TRAIN]])

    def without(self, lost: Collection[int]) -> TuningPictures:
        """All but those at the positions ``lost``. Raises InputError if too few are left."""
        kept = [position for position in range(len(self.paths)) if position not in lost]
        left = TuningPictures(
            tuple(self.paths[position] for position in kept), self.labels[kept], self.folds[kept], self.held_back
        )
        tested = self.held_back[left.labels]
        for some in (left.labels[tested], left.labels[left.folds == TO_TRAIN]):
            if len(np.unique(some)) < 2:
                raise InputError(f"--tune can read only {len(kept)} of {len(self.paths)} pictures; name other folders.")
        return left


def choose_pictures(folders: Sequence[Path], seed: int, tell: Tell) -> TuningPictures:
    """Of the training pictures of folders and streams of pictures; no picture is opened.

    A class of the same name in two folders is one. ``tell`` gets a sentence for each thing that is left out.
    Raises InputError if a folder has no picture, or if there are too few classes.
    """
    found = _by_class(folders, tell)
    small = LeftOut(f"Not tuned on, for the class has fewer than {LEAST_OF_A_CLASS} pictures")
    for name in sorted(name for name, paths in found.items() if len(paths) < LEAST_OF_A_CLASS):
        small.add(name)
        del found[name]
    for note in small.note():
        tell(note)
    if len(found) < LEAST_CLASSES:
        raise InputError(
            f"--tune needs at least {LEAST_CLASSES} classes of {LEAST_OF_A_CLASS} training pictures, as a quarter of "
            f"them is held back to measure on, and found {len(found)}; name more folders, or leave out --tune."
        )
    # In the order of a permutation of the names, which depends on the seed alone.
    names = sorted(found)
    order = [names[i] for i in batches(len(names), len(names), seed, 0, 0)[0]]
    most = MOST_PICTURES // LEAST_OF_A_CLASS
    if len(order) > most:
        tell(f"Of {len(order)} classes {most} are tuned on, chosen by the seed.")
    return _dealt([found[name] for name in order[:most]])


def _by_class(folders: Sequence[Path], tell: Tell) -> dict[str, list[Path]]:
    """Class name -> its training pictures, each once."""
    found = defaultdict[str, list[Path]](list)
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"--tune {shown(folder)} is no folder; name a folder of train/<class>/ or <class>/.")
        notes: list[str] = []
        tasks = [task for task in numbered_tasks(folder).values() if (task / PARTS[0]).is_dir()]
        for source in tasks or [folder]:
            for name, (train, _) in pictures_by_class(source, notes).items():
                found[name] += train
        for note in notes:
            tell(f"{shown(folder)}: {note}")
    return {name: list(dict.fromkeys(paths)) for name, paths in found.items()}


def _dealt(classes: Sequence[Sequence[Path]]) -> TuningPictures:
    """The first classes are held back."""
    held_back = np.arange(len(classes)) < max(2, len(classes) // HELD_BACK)
    most = min(MOST_OF_A_CLASS, MOST_PICTURES // len(classes))
    paths, labels, folds = list[Path](), list[int](), list[int]()
    for label, of_class in enumerate(classes):
        count = min(most, len(of_class))
        paths += [of_class[k * len(of_class) // count] for k in range(count)]
        labels += [label] * count
        tested = count if held_back[label] else count // HELD_BACK
        folds += [TO_TRAIN] * (count - tested) + [k * FOLDS // tested for k in range(tested)]
    return TuningPictures(tuple(paths), np.array(labels), np.array(folds), held_back)
