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
"""Called before each picture (one of 12 megapixels takes half a second to decode) and each run of the graph; raises to
abandon the work (a signal came)."""


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

    Every picture is loaded once. Raises Unreadable for the first that cannot be read. theta is the same afterwards, bit
    for bit, also when something is raised.
    """
    result = np.empty((len(wanted), pictures.count, backbone.feature_size), np.float32)
    parallel = min(backbone.placement.parallel_queries, len(wanted))
    copies = np.empty((parallel, adapter.size), np.float32) if parallel > 1 else None
    for indices in _micro_batches(backbone, pictures, _refuse):
        for first in range(0, len(wanted), parallel):
            some = wanted[first : first + parallel]
            pictures.check_stop()
            if copies is None:
                found = _in_place(backbone, adapter, step, some[0], len(indices))
            else:
                for row, query in zip(copies, some, strict=False):
                    adapter.perturbed_into(row, step, query.index, query.sign)
                found = backbone.features(len(indices), copies[: len(some)])
            result[first : first + len(some), indices] = found
    return result


def readable_features(
    backbone: Backbone, adapters: Sequence[np.ndarray], pictures: Pictures, skipped: Callable[[int, ImageError], None]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Micro-batch after micro-batch: (indices int64 [n], features float32 [len(adapters), n, D]).

    Pictures that raise ImageError are reported to ``skipped`` and left out, their places filled by the next ones.
    ``adapters`` are float32 [P] each.
    """
    parallel = backbone.placement.parallel_queries
    for indices in _micro_batches(backbone, pictures, skipped):
        pictures.check_stop()
        parts = [
            backbone.features(len(indices), np.stack(adapters[first : first + parallel]))
            for first in range(0, len(adapters), parallel)
        ]
        yield np.array(indices), np.concatenate(parts)


def _micro_batches(
    backbone: Backbone, pictures: Pictures, skipped: Callable[[int, ImageError], None]
) -> Iterator[list[int]]:
    """Fill the image buffer again and again; yields the indices of the pictures in it."""
    size = backbone.placement.micro_batch
    indices: list[int] = []
    for index in range(pictures.count):
        pictures.check_stop()
        try:
            pictures.load(index, backbone.image_buffer[len(indices)])
            indices.append(index)
        except ImageError as error:
            skipped(index, error)
        except MemoryError:
            if size > 1:
                raise
            # Nothing is left to shrink, so it is this picture that is too large for the machine, not the batch.
            text = f"picture {index} of the batch needs more memory to decode than there is."
            skipped(index, ImageError(text))
        if len(indices) == size:
            yield indices
            indices = []
    if indices:
        yield indices


def _refuse(index: int, error: ImageError) -> None:
    raise Unreadable(index, error) from error


def _in_place(backbone: Backbone, adapter: Adapter, step: int, query: Query, count: int) -> np.ndarray:
    theta = adapter.theta[None, :]
    if query.sign == 0:
        return backbone.features(count, theta)
    adapter.perturb(step, query.index, query.sign)
    try:
        return backbone.features(count, theta)
    finally:
        adapter.perturb(step, query.index, -query.sign)
