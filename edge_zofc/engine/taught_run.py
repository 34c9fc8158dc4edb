"""A run at its newest checkpoint with what was shown since, open for questions. It writes nothing and needs no lock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.likeness import Likeness, unknown_limit
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.device.teaching_plan import one_by_one
from edge_zofc.engine import lesson
from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.groups import learnt_groups, lesson_groups
from edge_zofc.engine.lesson import Knowledge, LessonView, view_of
from edge_zofc.engine.state import RunState
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.decode import read_file
from edge_zofc.inference.transforms import crop_test, decode_test, to_input
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.lesson_log import Base, Entry, LessonFolder
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings

log = logging.getLogger("edge_zofc")

SHOWN = PictureSet("lesson", ())


class TaughtRun:
    """The run in ``run`` at its newest checkpoint, with what was shown since. Raises as ``RunFolder.latest``."""

    def __init__(self, run: RunFolder, bundle: Bundle, settings: Settings, threads: int = 1) -> None:
        self.run, self.bundle, self.settings, self.threads = run, bundle, settings, threads
        self.folder = LessonFolder(run.path)
        self.tell: Callable[[str], None] = log.warning
        self._backbone: Backbone | None = None
        self._load()

    def _load(self) -> None:
        self._seen_log = self._log_mark()
        for name in ("state", "knowledge", "head", "likeness"):  # not both in memory: these hold large matrices
            self.__dict__.pop(name, None)
        found = self.run.latest()
        self.checkpoint = None if found is None else found.path
        self.state = RunState.of(self.bundle, self.settings.options, None if found is None else found.snapshot)
        self.state.frozen_moment = None  # of no use here
        if found is not None:
            found.snapshot.arrays.clear()  # the state has copies
        self.theta = self.state.adapter.theta
        self.finished = [task.name for task in self.state.finished_tasks]
        start = self.bundle.initial_adapter()
        self._moved = not np.array_equal(self.theta, start)
        self._store = FeatureStore(self.folder.features, self.state.head.rows.shape[1])
        self.features: dict[int, np.ndarray] = {}
        base, entries = self._logged()
        self._look(view_of(self.folder, base, entries, self.finished))

    def _logged(self) -> tuple[Base, list[Entry]]:
        return self.folder.read()[:2]

    def _log_mark(self) -> tuple[int, ...]:
        """What changes with the lesson's log: its inode, size and time of change; nothing where there is none."""
        try:
            found = self.folder.log.stat()
        except OSError:  # whoever reads it next says why
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _look(self, view: LessonView) -> None:
        """Build what is known from the checkpoint and the lesson."""
        self.view = view
        self._compute()
        self.knowledge: Knowledge | None = None
        if self.state.statistics is not None:
            self.knowledge = lesson.learnt_knowledge(self.run.path, self.state, view, self._moved)
            lesson.add_lesson(self.knowledge, view, self.features, self.tell)
        self._changed()

    def _changed(self) -> None:
        for name in ("head", "likeness", "kept_back", "left_out", "limit"):
            self.__dict__.pop(name, None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that can be answered, [C]."""
        if self.knowledge is not None and self.view.changes:
            return tuple(self.knowledge.names)
        return tuple(self.state.progress.class_names)

    @cached_property
    def head(self) -> Head:
        """Rows [C, D] for ``class_names``; the checkpoint's own where nothing was shown."""
        return self.knowledge.head() if self.knowledge is not None and self.view.changes else self.state.head

    @property
    def statistics(self) -> Statistics:
        """Sums and counts by class for ``class_names``; for a cosine head those of the adapter's start."""
        if self.knowledge is not None and self.view.changes:
            return self.knowledge.statistics
        known, found = len(self.class_names), self.state.statistics
        if found is None:
            return Statistics(self.state.class_sums, self.state.class_counts, np.zeros(0))
        return found.plus(Statistics.empty(known, found.sums.shape[1]))

    @cached_property
    def likeness(self) -> Likeness:
        """To the classes of ``class_names``."""
        return Likeness(self.statistics)

    @cached_property
    def kept_back(self) -> tuple[list[str], np.ndarray]:
        """Names [n] and features float32 [n, D] of the pictures that were kept back and can be read."""
        chosen = [p for p in self.view.pictures.values() if p.test and p.serial in self.features]
        none = np.zeros((0, self._store.feature_size), np.float32)
        rows = np.stack([self.features[p.serial] for p in chosen]) if chosen else none
        return [picture.name for picture in chosen], rows

    @cached_property
    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """``Likeness.left_out`` of the pictures that the run has features of."""
        names = list(self.class_names)
        learnt = learnt_groups(self.run.path, self.state, self.view, names, self._moved)
        return self.likeness.left_out(chain(lesson_groups(self.view, self.features, names), learnt))

    @cached_property
    def limit(self) -> float:
        """The likeness below which a picture is unknown."""
        return unknown_limit(self.left_out[0])

    def features_of(self, picture: bytes | np.ndarray, name: str) -> np.ndarray:
        """Features float32 [D] of a picture file's bytes or of RGB pixels uint8 [H, W, 3]; ``name`` is for an error.

        Raises ImageError for a picture that cannot be read, MemoryError if the graph runs out of memory.
        """
        spec, backbone = self.bundle.manifest.image, self.backbone
        if isinstance(picture, bytes):
            pixels = decode_test(Path(name), spec, picture).pixels
        else:
            pixels = crop_test(picture, spec)
        to_input(pixels, spec, self.settings.options.normalise, backbone.image_buffer[0])
        return np.array(backbone.features(1, self.theta[None])[0, 0])

    @property
    def backbone(self) -> Backbone:
        """The session, of one picture and one adapter; opened when it is needed first."""
        if self._backbone is None:
            self._backbone = Backbone(self.bundle, one_by_one(self.settings.execution, self.threads))
        return self._backbone

    def _compute(self) -> None:
        """Features of the lesson's pictures, those of the cache read and those that it lacks computed."""
        for positions, rows in self._store.rows(SHOWN, self.theta):
            self.features |= {
                int(n): row for n, row in zip(positions, rows, strict=True) if int(n) in self.view.pictures
            }
        missing = [picture for serial, picture in self.view.pictures.items() if serial not in self.features]
        found = lesson.read_features(missing, lambda path: self.features_of(read_file(path), str(path)), self.tell)
        self._keep_features(found)

    def _keep_features(self, found: dict[int, np.ndarray]) -> None:
        self.features |= found

    def refresh(self) -> bool:
        """Take over what others did since, learning or teaching; returns whether there was anything."""
        found = self.run.latest()
        is_newer = (None if found is None else found.path) != self.checkpoint or self._log_mark() != self._seen_log
        if is_newer:
            self._load()
        return is_newer

    def close(self) -> None:
        """Give the session back."""
        if self._backbone is not None:
            self._backbone.close()
        self._backbone = None
