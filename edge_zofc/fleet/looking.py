"""A stream's pictures -> their features under the adapter's start, each picture once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.options import PRESETS
from edge_zofc.data.stream import Part, Sample, Stream, list_samples, read_stream
from edge_zofc.engine.evaluation import labels_of
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.pixel_store import Picture
from edge_zofc.errors import ImageError, InputError, shown
from edge_zofc.fleet.world import Looked
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import MICRO_BATCH
from edge_zofc.storage.settings import Placement


def look(
    bundle: Bundle, folder: Path, threads: int, tell: Callable[[str], None]
) -> tuple[tuple[str, ...], Looked, Looked]:
    """Names of the classes, training and test pictures of all tasks; ``tell`` gets what is left out.

    Raises InputError as ``read_stream``, and where there is no test picture.
    """
    stream = read_stream(folder)
    for note in stream.notes:
        tell(note)
    placement = Placement.simple(MICRO_BATCH).model_copy(update={"threads": threads})
    backbone = Backbone(bundle, placement)
    train, test = (_looked(bundle, backbone, _samples(stream, part), tell) for part in ("train", "test"))
    for what, part in (("training", train), ("test", test)):
        if not len(part.labels):
            raise InputError(f"The stream in {shown(folder)} has no {what} picture that can be read; add some.")
    return stream.class_names, train, test


def _samples(stream: Stream, part: Part) -> list[Sample]:
    return [sample for task in stream.tasks for sample in list_samples(stream, task, part)]


def _looked(bundle: Bundle, backbone: Backbone, samples: list[Sample], tell: Callable[[str], None]) -> Looked:
    features = np.empty((len(samples), bundle.manifest.feature_size), np.float32)
    seen = np.zeros(len(samples), bool)

    def skipped(index: int, path: Path, error: ImageError) -> None:
        tell(f"Left out: {error}")

    reader = PictureReader(bundle.manifest.image, PRESETS["edge"].normalise, skipped)
    pictures = [Picture(sample.path) for sample in samples]
    for indices, found in reader.features(backbone, [bundle.initial_adapter()], pictures):
        features[indices], seen[indices] = found[0], True
    return Looked(features[seen], labels_of(samples)[seen])
