"""Pictures x adapters -> features, a micro-batch at a time: what a step and an evaluation are made of.

There is one list of adapters and two ways through it. With K = 1 theta itself is perturbed in place, run and restored.
With K > 1 up to K perturbed copies go through the graph together and share everything before the first adapter. In fp32
both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.spsa import Query
from edge_zofc.errors import ImageError
from edge_zofc.inference.backbone import Backbone

LoadPicture = Callable[[int, np.ndarray], None]
"""Fills ``out`` float32 [3, S, S] with picture number i; raises ImageError if it cannot."""
CheckStop = Callable[[], None]
"""Called before each picture and each run of the graph; raises to abandon the work (a signal came). A picture of 12
megapixels takes half a second to decode, and of a class of empty files none ever reaches the graph."""


@dataclass(frozen=True)
class Pictures:
    """``count`` pictures on their way into the graph."""

    count: int
    load: LoadPicture
    check_stop: CheckStop


class Unreadable(Exception):  # noqa: N818 - carries a picture, is no error of the run
    """Picture number ``index`` of a batch cannot be read, as ``error`` says."""

    def __init__(self, index: int, error: ImageError) -> None:
        super().__init__(str(error))
        self.index, self.error = index, error


def query_features(
    backbone: Backbone, adapter: Adapter, step: int, wanted: Sequence[Query], pictures: Pictures
) -> np.ndarray:
    """Features float32 [len(wanted), count, D] of a batch under each query's adapter.

    Every picture is loaded once. theta is the same afterwards, bit for bit, also when something is raised: Unreadable
    for the first picture that cannot be read.
    """
    count = pictures.count
    result = np.empty((len(wanted), count, backbone.feature_size), np.float32)
    size = backbone.placement.micro_batch
    parallel = min(backbone.placement.parallel_queries, len(wanted))
    copies = np.empty((parallel, adapter.size), np.float32) if parallel > 1 else None
    for start in range(0, count, size):
        end = min(start + size, count)
        for index in range(start, end):
            pictures.check_stop()
            try:
                _load(backbone, pictures, index, index - start)
            except ImageError as error:
                raise Unreadable(index, error) from error
        for first in range(0, len(wanted), parallel):
            some = wanted[first : first + parallel]
            pictures.check_stop()
            if copies is None:
                found = _in_place(backbone, adapter, step, some[0], end - start)
            else:
                for row, query in zip(copies, some, strict=False):
                    adapter.perturbed_into(row, step, query.index, query.sign)
                found = backbone.features(end - start, copies[: len(some)])
            result[first : first + len(some), start:end] = found
    return result


def _load(backbone: Backbone, pictures: Pictures, index: int, place: int) -> None:
    """Fill one place of the image buffer; raises ImageError for a picture that cannot be used."""
    try:
        pictures.load(index, backbone.image_buffer[place])
    except MemoryError as error:
        if backbone.placement.micro_batch > 1:
            raise
        # Nothing is left to shrink, so it is this picture that is too large for the machine, not the batch.
        raise ImageError(f"picture {index} of the batch needs more memory to decode than there is.") from error


def _in_place(backbone: Backbone, adapter: Adapter, step: int, query: Query, count: int) -> np.ndarray:
    theta = adapter.theta[None, :]
    if query.sign == 0:
        return backbone.features(count, theta)
    adapter.perturb(step, query.index, query.sign)
    try:
        return backbone.features(count, theta)
    finally:
        adapter.perturb(step, query.index, -query.sign)


def readable_features(
    backbone: Backbone, adapters: Sequence[np.ndarray], pictures: Pictures, skipped: Callable[[int, ImageError], None]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Micro-batch after micro-batch: (indices int64 [n], features float32 [len(adapters), n, D]).

    Pictures that raise ImageError are reported to ``skipped`` and left out, their places filled by the
    next ones. ``adapters`` are float32 [P] each.
    """
    pending: list[int] = []
    for index in range(pictures.count):
        pictures.check_stop()
        try:
            _load(backbone, pictures, index, len(pending))
        except ImageError as error:
            skipped(index, error)
            continue
        pending.append(index)
        if len(pending) == backbone.placement.micro_batch:
            pictures.check_stop()
            yield np.array(pending), _stacked(backbone, adapters, len(pending))
            pending = []
    if pending:
        pictures.check_stop()
        yield np.array(pending), _stacked(backbone, adapters, len(pending))


def _stacked(backbone: Backbone, adapters: Sequence[np.ndarray], count: int) -> np.ndarray:
    parallel = backbone.placement.parallel_queries
    parts = [
        backbone.features(count, np.stack(adapters[first : first + parallel]))
        for first in range(0, len(adapters), parallel)
    ]
    return np.concatenate(parts)
