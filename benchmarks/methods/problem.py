"""The problem that every method gets: a frozen backbone, a stream, and the count of what was computed.

Pictures, transforms, batch order and class ids are the runtime's own. So a number here and one from ``learn`` differ by
the method alone.

A method sees a ``TaskData`` once, in ``learn``, and no old one again. Nothing but the method's own state goes from task
to task. Pictures are decoded again for every batch, so the measured memory contains no cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edge_zofc.algorithm.directions import batches
from edge_zofc.algorithm.options import Augment
from edge_zofc.benchmarks.methods import vit_parts
from edge_zofc.benchmarks.methods.vit_parts import NOTHING, Parts
from edge_zofc.benchmarks.streams.validation import set_aside
from edge_zofc.data.stream import Sample, Stream, list_samples
from edge_zofc.errors import InputError
from edge_zofc.export.adapted import Adapted
from edge_zofc.export.vit import AdapterViT
from edge_zofc.inference.transforms import CROP_SCALE, MILD_CROP_SCALE, load_test, load_train
from edge_zofc.storage.manifest import ImageSpec

EVALUATION_BATCH = 16
NEEDS_VIT = "work inside a ViT, and this backbone is a CNN; give --backbone package-vit or another ViT."


@dataclass(frozen=True)
class TaskData:
    """One task: its classes (ascending ids), the number of classes seen when it is over, its pictures."""

    index: int
    class_ids: tuple[int, ...]
    classes_seen: int
    train: list[Sample]
    test: list[Sample]


@dataclass
class PassCount:
    """Pictures that went through the backbone, once for each pass. ``backwards`` went through it backwards."""

    forwards: int = 0
    backwards: int = 0
    evaluation_forwards: int = 0


@dataclass
class Problem:
    """``model`` is a frozen backbone with ZO-FC's adapters. ``seed`` orders batches and crops.

    ``augment`` as in the runtime's options: training pictures are cropped at random, or as at test. ``task_count`` is
    that of the stream, where ``tasks`` holds fewer (0: as many as ``tasks``).
    """

    model: Adapted
    spec: ImageSpec
    tasks: list[TaskData]
    seed: int
    normalise: bool = True
    augment: Augment = "crop"
    passes: PassCount = field(default_factory=PassCount)
    evaluating: bool = False
    task_count: int = 0
    _asked: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        self.task_count = self.task_count or len(self.tasks)

    @property
    def width(self) -> int:
        """D, the length of a feature."""
        return self.model.feature_size

    @property
    def vit(self) -> Any:
        """The backbone as timm's VisionTransformer. Raises InputError if it is none."""
        if not isinstance(self.model, AdapterViT):
            raise InputError(f"Prompts and the like {NEEDS_VIT}")
        return self.model.timm_model

    @property
    def depth(self) -> int:
        """L, the number of blocks of a ViT."""
        return len(self.vit.blocks)

    def features(self, images: Tensor, parts: Parts = NOTHING) -> Tensor:
        """Features [B, D] with ``parts`` added, which need a ViT; counted."""
        self._count(len(images))
        if parts is NOTHING and not isinstance(self.model, AdapterViT):
            found: Tensor = self.model(images, torch.zeros(1, self.model.layout.size))[0]
            return found
        return vit_parts.features(self.vit, images, parts)

    def adapted_features(self, images: Tensor, adapter: Tensor) -> Tensor:
        """Features [B, D] under ``adapter`` [P]; counted."""
        self._count(len(images))
        found: Tensor = self.model(images, adapter[None])[0]
        return found

    def query(self, images: Tensor) -> Tensor:
        """Features [B, D] of the backbone alone, by which prompts are chosen.

        They are computed once for a batch, however often a step asks with the same tensor. SPSA asks 2 Q times.
        """
        if self._asked is None or self._asked[0] is not images:
            self._asked = images, self.features(images)
        return self._asked[1]

    def tokens(self, images: Tensor, parts: Parts = NOTHING) -> Tensor:
        """All output tokens [B, T, D]; counted."""
        self._count(len(images))
        return vit_parts.tokens(self.vit, images, parts)

    def _count(self, images: int) -> None:
        if self.evaluating:
            self.passes.evaluation_forwards += images
        else:
            self.passes.forwards += images

    def training_batches(
        self, task: TaskData, batch_size: int, epoch: int, kept: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures float32 [B, 3, S, S] and class ids int64 [B], in the runtime's order.

        ``kept`` [N, D] are features of the task's pictures, which then come in their place.
        """
        for picked in batches(len(task.train), batch_size, self.seed, task.index, epoch):
            if kept is not None:
                yield kept[torch.from_numpy(picked)], _labels([task.train[i] for i in picked])
            else:
                yield self.some_pictures(task, picked, epoch)

    def some_pictures(self, task: TaskData, picked: np.ndarray, visit: int) -> tuple[Tensor, Tensor]:
        """The task's training pictures at ``picked`` int64 [B], cropped for this ``visit``, as ``training_batches``."""
        pictures = [self._picture(task, visit, int(i)) for i in picked]
        return torch.from_numpy(np.stack(pictures)), _labels([task.train[i] for i in picked])

    def _picture(self, task: TaskData, visit: int, index: int) -> np.ndarray:
        path = task.train[index].path
        if self.augment == "none":
            return load_test(path, self.spec, normalise=self.normalise)
        scale = MILD_CROP_SCALE if self.augment == "mild" else CROP_SCALE
        key = (self.seed, task.index, visit, index)
        return load_train(path, self.spec, key, normalise=self.normalise, scale=scale)

    def plain_batches(self, samples: list[Sample]) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, in order and with the test transform."""
        for start in range(0, len(samples), EVALUATION_BATCH):
            some = samples[start : start + EVALUATION_BATCH]
            pictures = [load_test(sample.path, self.spec, normalise=self.normalise) for sample in some]
            yield torch.from_numpy(np.stack(pictures)), _labels(some)

    def frozen_features(self, samples: list[Sample]) -> tuple[Tensor, Tensor]:
        """Features [N, D] of the backbone alone under the test transform, and class ids [N]."""
        found = [(self.features(images), labels) for images, labels in self.plain_batches(samples)]
        return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])


class Method(Protocol):
    """What the benchmark asks of a method.

    ``frozen``: ``logits`` takes features of the backbone alone, so that they are computed once a test picture.
    """

    frozen: bool

    def learn(self, task: TaskData) -> list[float]:
        """Learn a task; returns the mean training loss of each epoch or step ([] without training)."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Scores [B, C] over the classes seen, for pictures [B, 3, S, S] (or features [B, D], see ``frozen``)."""

    def parameters_of(self, task: TaskData) -> int:
        """Parameters that were trained on this task, the classifier's not counted."""


def read_tasks(stream: Stream) -> list[TaskData]:
    """The stream's tasks with their pictures' paths."""
    found: list[TaskData] = []
    seen = 0
    for task in stream.tasks:
        seen = max(seen, *(class_id + 1 for class_id in task.class_ids))
        train, test = (list_samples(stream, task, "train"), list_samples(stream, task, "test"))
        classes = tuple(sorted({sample.class_id for sample in train}))
        found.append(TaskData(task.index, classes, seen, train, test))
    return found


def validation_task(task: TaskData) -> TaskData:
    """The task with a validation part of its training pictures as its test part."""
    train, held = set_aside(task.train)
    return TaskData(task.index, task.class_ids, task.classes_seen, train, held)


def _labels(samples: list[Sample]) -> Tensor:
    return torch.tensor([sample.class_id for sample in samples], dtype=torch.int64)
