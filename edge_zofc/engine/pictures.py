"""A task's pictures on their way into the graph, and the ones that cannot be read.

A picture that could be read when its task began may be gone later. Its batch goes on without it. Where more than a
tenth are gone it is the disk, and the run stops as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.options import Options
from edge_zofc.data.stream import Sample, Stream
from edge_zofc.engine.pixel_store import Picture, PixelStore
from edge_zofc.engine.state import RunState
from edge_zofc.errors import ImageError, InputError, TaskRefusedError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.features import CheckStop, LoadPicture, Pictures, Unreadable, readable_features
from edge_zofc.inference.transforms import CROP_SCALE, MILD_CROP_SCALE, load_test, load_train
from edge_zofc.storage.manifest import ImageSpec
from edge_zofc.storage.run_folder import EVENTS, EventLog, RunFolder

log = logging.getLogger("edge_zofc")

MAX_SKIPPED_FRACTION = 0.1
MAX_TOLD_SKIPPED = 1000

Picked = list[tuple[int, Sample]]
"""Pictures of a batch with their positions in the task's training list."""


@dataclass(frozen=True)
class PictureReader:
    """How a pass reads pictures: the bundle's test transform, and whom to tell of an unreadable one.

    ``skipped`` gets the position, the path and the reason.
    """

    spec: ImageSpec
    normalise: bool
    skipped: Callable[[int, Path, ImageError], None]
    check_stop: CheckStop = lambda: None
    computed: Callable[[int], None] = lambda count: None
    """Told of each run of the graph: how many image-forwards it was."""
    pixels: PixelStore | None = None
    """Where decoded pictures are kept."""

    def features(
        self, backbone: Backbone, adapters: Sequence[np.ndarray], pictures: Sequence[Picture]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As ``readable_features``: positions int64 [n], features float32 [len(adapters), n, D]."""

        def load(index: int, out: np.ndarray) -> None:
            if self.pixels is None:
                load_test(pictures[index].path, self.spec, normalise=self.normalise, out=out)
            else:
                self.pixels.load(pictures[index], self.normalise, out)

        def skipped(index: int, error: ImageError) -> None:
            self.skipped(index, pictures[index].path, error)

        for part in readable_features(backbone, adapters, Pictures(len(pictures), load, self.check_stop), skipped):
            self.computed(len(part[0]) * len(adapters))
            yield part


@dataclass
class TaskPictures:
    """Reads the pictures of the task that is being learnt, and tells of those that it cannot read."""

    run: RunFolder
    stream: Stream
    spec: ImageSpec
    options: Options
    state: RunState
    events: EventLog
    check_stop: CheckStop
    computed: Callable[[int], None]
    pixels: PixelStore
    kept_in: str
    """The file of the task's decoded train pictures, "" where they are not kept."""

    def reader(self, name: str, count: int, quiet: bool = False) -> PictureReader:
        """The test transform for the ``count`` pictures of task ``name``; an unreadable one is told, unless ``quiet``.

        Where far too many are, this gives up as ``check_skipped`` does before all 100,000 of them are listed.
        """
        lost = 0

        def skipped(index: int, path: Path, error: ImageError) -> None:
            nonlocal lost
            lost += 1
            if not quiet:
                self._tell_skipped(path, error)
                if lost > MAX_TOLD_SKIPPED:
                    self.check_skipped(name, lost, count)

        return PictureReader(self.spec, self.options.normalise, skipped, self.check_stop, self.computed, self.pixels)

    def loader(self, picked: Picked) -> LoadPicture:
        """Fills a place with one of the ``picked`` pictures under the training transform of the present epoch."""
        options, progress = self.options, self.state.progress

        def load(index: int, out: np.ndarray) -> None:
            position, sample = picked[index]
            if options.augment != "none":
                visit = progress.batch if options.loss == "episodic" else progress.epoch
                key = (options.seed, len(progress.tasks) - 1, visit, position)
                scale = MILD_CROP_SCALE if options.augment == "mild" else CROP_SCALE
                load_train(sample.path, self.spec, key, normalise=options.normalise, scale=scale, out=out)
            else:
                self.pixels.load(Picture(sample.path, self.kept_in, position), options.normalise, out)

        return load

    def picked(self, samples: list[Sample], order: np.ndarray) -> Picked:
        """The batch's pictures that could be read so far."""
        unreadable = set(self.state.current_task.unreadable)
        return [(int(i), samples[i]) for i in order if int(i) not in unreadable]

    def batch(self, picked: Picked, work: Callable[[Pictures], np.ndarray]) -> tuple[np.ndarray, Picked] | None:
        """What ``work`` makes of a batch's readable pictures, and those; None if none is left."""
        while picked:
            try:
                return work(Pictures(len(picked), self.loader(picked), self.check_stop)), picked
            except Unreadable as lost:
                self.leave_out(*picked[lost.index], lost.error)
                picked = picked[: lost.index] + picked[lost.index + 1 :]
        return None

    def leave_out(self, position: int, sample: Sample, error: ImageError) -> None:
        """Go on without a picture that could be read when the task began. Raises as ``check_skipped``."""
        self._tell_skipped(sample.path, error)
        task = self.state.current_task
        task.unreadable.append(position)
        task.skipped_images += 1
        self.check_skipped(task.name, task.skipped_images, task.train_images)

    def check_still_there(self, count: int) -> None:
        """Raise InputError if more than a tenth of the pictures that the current task began with are gone.

        ``count``: how many are there now. Most likely it is the disk that the stream lies on, and a task that ends
        without its pictures would be forgotten.
        """
        task = self.state.current_task
        lost = task.train_images - count
        if lost > MAX_SKIPPED_FRACTION * task.train_images:
            raise InputError(
                f"{lost} of the {task.train_images} pictures that task {task.name} began with are gone or cannot be "
                f"read any more; put them back (is the disk of {self.stream.root} mounted?), then go on with --resume."
            )

    def check_skipped(self, name: str, skipped: int, count: int) -> None:
        """Raise TaskRefusedError if more than a tenth of a task's pictures cannot be read."""
        if skipped > MAX_SKIPPED_FRACTION * count:
            raise TaskRefusedError(
                f"{skipped} of {count} pictures of task {name} cannot be read, more than "
                f"{MAX_SKIPPED_FRACTION:.0%}; see {self.run.path / EVENTS} for each, repair or remove them.",
                name,
            )

    def _tell_skipped(self, path: Path, error: ImageError) -> None:
        log.warning("Left out: %s", error)
        self.events.write("image_skipped", path=str(path), reason=str(error))
