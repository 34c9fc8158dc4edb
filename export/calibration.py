"""Which pictures an int8 file is calibrated on, and on which its answers are compared with the float file's.

Calibrated on: ``--calibrate FOLDER``, else the training pictures of the run's stream, else the bundle's probe.
Compared on: the test pictures of the run's stream, else the pictures that it was calibrated on.
Of many pictures a part is taken, evenly over the classes and over each class's file names.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from edge_zofc.data.folders import LeftOuts, Part, all_pictures
from edge_zofc.data.stream import Sample, Stream, list_samples, read_stream
from edge_zofc.errors import EdgeZofcError, ImageError, InputError, shown
from edge_zofc.export.deploy import Learnt
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.result import read_result, stream_folder

CALIBRATED_ON = 64
COMPARED_ON = 512
"""At most so many pictures."""
UNKNOWN = -1
"""The class id of a picture whose class is not known."""

Tell = Callable[[str], None]
T = TypeVar("T")


class Labelled(NamedTuple):
    """A network input float32 [1, 3, S, S] and its class id, or UNKNOWN."""

    image: np.ndarray
    class_id: int


@dataclass(frozen=True)
class Pictures:
    """``source`` says in words which they are; ``read`` gives them one by one, and anew at each call."""

    source: str
    read: Callable[[], Iterator[Labelled]]


def choose(run: Path, learnt: Learnt, folder: Path | None, tell: Tell) -> tuple[Pictures, Pictures]:
    """The pictures to calibrate on and those to compare on; ``tell`` hears of what is left out or missing.

    Raises InputError if ``folder`` is given and holds no picture that can be read.
    """
    train, test = _of_stream(run, learnt.class_names)
    if folder is not None:
        source, train = "pictures of --calibrate", [Sample(path, UNKNOWN) for path in _below(folder, tell)]
    else:
        source = "training pictures of the run's stream"
    kept = list(_files(source, train, CALIBRATED_ON, learnt, tell).read())
    if not kept and folder is not None:
        raise InputError(f"No picture in --calibrate {shown(folder)} can be read; name a folder of pictures.")
    if not kept:
        tell(
            "The training pictures of the run are not where they were, so the bundle's own few stand in for them; "
            "name pictures like the camera's with --calibrate FOLDER."
        )
    calibrated = Pictures(source, lambda: iter(kept)) if kept else probe(learnt)
    compared = _files("test pictures of the run's stream", test, COMPARED_ON, learnt, tell)
    return calibrated, compared if any(True for _ in compared.read()) else calibrated


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """``samples`` in another order: the first ``count`` are spread over the classes, and over each one's files."""
    by_class = defaultdict[int, list[Sample]](list)
    for sample in samples:
        by_class[sample.class_id].append(sample)
    share = math.ceil(count / max(1, len(by_class)))
    turns = zip_longest(*(_spread(each, share) for each in by_class.values()))
    return [sample for turn in turns for sample in turn if sample is not None]


def _spread(values: Sequence[T], most: int) -> list[T]:
    """``most`` of the values, evenly spread, then the others."""
    first = sorted({k * len(values) // most for k in range(most)})
    others = sorted(set(range(len(values))) - set(first))
    return [values[k] for k in first + others]


def _of_stream(run: Path, class_names: Sequence[str]) -> tuple[list[Sample], list[Sample]]:
    """The training and the test pictures of what the run learnt; [] for what is no longer there."""
    try:
        result = read_result(run)
        root, learnt = stream_folder(result, run), {task.name: task.class_ids for task in result.tasks}
        if root is None:
            return [], []
        stream = read_stream(root, class_names, frozenset(learnt), learnt, needs_train=False)
        return _listed(stream, "train", len(class_names)), _listed(stream, "test", len(class_names))
    except EdgeZofcError:  # no result yet, or no such stream any more: the caller tells what stands in
        return [], []


def _listed(stream: Stream, part: Part, known: int) -> list[Sample]:
    return [s for task in stream.tasks for s in list_samples(stream, task, part) if s.class_id < known]


def _below(folder: Path, tell: Tell) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"--calibrate {shown(folder)} is no folder; name a folder of pictures.")
    left = LeftOuts()
    found = all_pictures(folder, left)
    for note in left.notes():
        tell(note)
    if not found:
        raise InputError(f"--calibrate {shown(folder)} is a folder without a picture; name a folder of pictures.")
    return found


def _files(source: str, samples: Sequence[Sample], count: int, learnt: Learnt, tell: Tell) -> Pictures:
    """The first ``count`` that can be read; the others are told once, at the end."""

    def read() -> Iterator[Labelled]:
        taken, lost = 0, list[ImageError]()
        for sample in evenly(samples, count):
            try:
                image = load_test(sample.path, learnt.bundle.manifest.image, normalise=learnt.normalise)
            except ImageError as error:
                lost.append(error)
                continue
            yield Labelled(image[None], sample.class_id)
            taken += 1
            if taken == count:
                break
        if lost:
            tell(f"Left out of the {source}, for they cannot be read: {len(lost)}. The first: {lost[0]}")

    return Pictures(source, read)


def probe(learnt: Learnt) -> Pictures:
    """The few pictures of the bundle, whose classes are not known."""
    images, spec = learnt.bundle.probe().images, learnt.bundle.manifest.image
    if not learnt.normalise:  # the probe holds normalised pixels
        images = images * np.array(spec.std, np.float32)[:, None, None] + np.array(spec.mean, np.float32)[:, None, None]
    return Pictures("the bundle's probe", lambda: (Labelled(image[None], UNKNOWN) for image in images))
