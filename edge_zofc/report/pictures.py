"""Thumbnails for the page: examples of each class and pictures that were named wrongly, as ``data:`` URIs.

They are read from the stream when the report is written. Pictures may have been deleted since they were learnt; the
page then says how many are missing. A thumbnail holds pixels alone: place, time and comments in a picture's file do
not go into the page. However many classes there are, the page gets at most MOST_THUMBNAILS of them, each of a few
kilobytes.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from edge_zofc.data.stream import PARTS, Sample, Stream, list_samples, read_stream
from edge_zofc.errors import EdgeZofcError, ImageError
from edge_zofc.inference.decode import decode, open_picture, pillow_errors
from edge_zofc.report.text import count
from edge_zofc.storage.result import RunResult, stream_folder

SIDE = 96
"""Pixels; the page shows them at half of that, so that they are sharp on a fine screen."""
QUALITY = 75
MOST_OF_A_CLASS = 3
MOST_OF_CLASSES = 240
MOST_PAIRS = 12
MOST_OF_A_PAIR = 3
MOST_THUMBNAILS = MOST_OF_CLASSES + MOST_PAIRS * MOST_OF_A_PAIR
"""About 1.2 MB of photographs, base64 included."""


@dataclass
class Gallery:
    """What the page can show: thumbnails by class id and by confused pair, and why some or all are missing."""

    by_class: dict[int, list[str]] = field(default_factory=dict)
    wrong: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    note: str = ""


def gallery(result: RunResult, run_folder: Path, named: Path | None, shown: Sequence[int]) -> Gallery:
    """Thumbnails of the classes ``shown`` and of the most confused pairs.

    ``named`` is where the stream is now; None: where it was. Raises InputError where ``named`` is
    no stream; else nothing for what is missing or damaged.
    """
    root = named or stream_folder(result, run_folder)
    if root is None:
        return Gallery(note="This run does not say where its stream lay: name it with --stream to show pictures.")
    found = Gallery()
    try:
        learnt = {task.name: task.class_ids for task in result.tasks}
        stream = read_stream(root, result.class_names, frozenset(learnt), learnt, needs_train=False)
        found.by_class = _of_classes(stream, shown)
    except (EdgeZofcError, OSError):  # a name that is too long, say
        if named is not None:
            raise
        note = "The pictures of this run are no longer where they were learnt from; if they moved, name the stream "
        return Gallery(note=f"{note}with --stream to show them.")
    gone = 0
    for pair in result.wrong_pictures[:MOST_PAIRS]:
        paths = [root / path for path in pair.paths[:MOST_OF_A_PAIR]]
        thumbnails = found.wrong[pair.class_id, pair.named_id] = list(_thumbnails(paths))
        gone += len(paths) - len(thumbnails)
    found.note = _missing(sum(not found.by_class.get(class_id) for class_id in shown), gone)
    return found


def _missing(classes: int, pictures: int) -> str:
    """The line on what is no longer there; "" where all is."""
    parts = [f"no picture of {count(classes, 'class', 'classes')}"] if classes else []
    parts += [f"{count(pictures, 'wrong picture')} fewer"] if pictures else []
    told = "Some pictures are no longer in the stream or cannot be read, so the page shows"
    return f"{told} {' and '.join(parts)}." if parts else ""


def _of_classes(stream: Stream, shown: Sequence[int]) -> dict[int, list[str]]:
    """Thumbnails by class id: of train pictures, of test pictures where a class has no other any more."""
    most = max(1, min(MOST_OF_A_CLASS, MOST_OF_CLASSES // max(1, len(shown))))
    missing, found = set(shown), dict[int, list[str]]()
    for part in PARTS:
        for task in stream.tasks:
            for class_id, paths in _by_class(list_samples(stream, task, part), missing).items():
                thumbnails = [uri for _, uri in zip(range(most), _thumbnails(_spread(paths, most)), strict=False)]
                if thumbnails:
                    found[class_id] = thumbnails
                    missing.discard(class_id)
    return found


def _by_class(samples: Sequence[Sample], wanted: Collection[int]) -> dict[int, list[Path]]:
    found = defaultdict[int, list[Path]](list)
    for sample in samples:
        if sample.class_id in wanted:
            found[sample.class_id].append(sample.path)
    return found


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    """``most`` of the paths, evenly spread: a camera's neighbours look alike. A few more follow, should some be bad."""
    first = [paths[k * len(paths) // most] for k in range(min(most, len(paths)))]
    return first + [path for path in paths[: 3 * most] if path not in first]


def _thumbnails(paths: Sequence[Path]) -> Iterator[str]:
    """The ``data:`` URI of each picture that can be read."""
    for path in paths:
        try:
            yield thumbnail(path)
        except ImageError:
            continue


def thumbnail(path: Path) -> str:
    """The middle square of a picture as a JPEG of SIDE pixels in a ``data:`` URI. Raises ImageError."""
    with pillow_errors(path):
        opened = open_picture(path)
        pixels = ImageOps.fit(decode(opened, min(opened.size) / SIDE, path), (SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels.info.clear()  # a JPEG's comment would be written again
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
