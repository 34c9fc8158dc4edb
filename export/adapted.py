"""A loaded backbone with the adapters that were asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_zofc.errors import InputError
from edge_zofc.export.adapters import bottleneck_layout, film_layout
from edge_zofc.export.backbones import LoadedBackbone
from edge_zofc.export.cnn import AdapterCnn, channel_spreads
from edge_zofc.export.folding import fold_batch_norms
from edge_zofc.export.vit import FILM_PLACES, AdapterViT
from edge_zofc.storage.manifest import AdapterKind, AdapterLayout

Adapted = AdapterViT | AdapterCnn
PAPERS_BLOCKS = 5
"""A ViT's bottlenecks sit on the first five blocks unless told otherwise, as in the paper."""
PAPERS_RANK, CNN_RANK = 5, 8


@dataclass(frozen=True)
class AdapterRequest:
    """Which adapters. None takes the backbone's own: the paper's bottlenecks for a ViT, films for a CNN.

    ``blocks`` is ``0-4``, ``0,3,5`` or a mix; without it bottlenecks sit on a ViT's first five blocks, all others on
    every block. ``rank`` is a bottleneck's: 5 on a ViT, 8 on a CNN. ``scale`` multiplies its output.
    """

    kind: AdapterKind | None = None
    blocks: str | None = None
    rank: int | None = None
    scale: float = 0.1


def adapted(loaded: LoadedBackbone, request: AdapterRequest, images: np.ndarray) -> Adapted:
    """The backbone with adapters; ``images`` float32 [n, 3, S, S] measure the spreads of a CNN's channels.

    The backbone is changed. Raises InputError for blocks that are not there, or as ``fold_batch_norms``.
    """
    kind = request.kind or ("bottleneck" if loaded.is_vit else "film")
    if kind == "film" and request.rank is not None:
        raise InputError(f"--rank {request.rank} is for --adapter-kind bottleneck; a film has no rank.")
    blocks = _blocks(loaded, request, kind)
    if loaded.is_vit:
        return AdapterViT(loaded.model, _vit_layout(loaded.width, blocks, request, kind))
    fold_batch_norms(loaded.model, images)
    spreads = channel_spreads(loaded.model, images)
    widths = {block: len(spreads[block]) for block in blocks}
    layout = film_layout(widths) if kind == "film" else _bottlenecks(widths, request, CNN_RANK)
    return AdapterCnn(loaded.model, layout, spreads, loaded.image.size, loaded.width)


def _vit_layout(width: int, blocks: tuple[int, ...], request: AdapterRequest, kind: AdapterKind) -> AdapterLayout:
    widths = dict.fromkeys(blocks, width)
    return film_layout(widths, FILM_PLACES) if kind == "film" else _bottlenecks(widths, request, PAPERS_RANK)


def _bottlenecks(widths: dict[int, int], request: AdapterRequest, rank: int) -> AdapterLayout:
    return bottleneck_layout(widths, rank if request.rank is None else request.rank, request.scale)


def _blocks(loaded: LoadedBackbone, request: AdapterRequest, kind: AdapterKind) -> tuple[int, ...]:
    depth = loaded.info.depth
    if request.blocks is not None:
        return parse_blocks(request.blocks, depth)
    return tuple(range(min(PAPERS_BLOCKS, depth) if loaded.is_vit and kind == "bottleneck" else depth))


def parse_blocks(text: str, depth: int) -> tuple[int, ...]:
    """Block numbers of ``0-4``, ``0,3,5`` or ``0-2,7``, ascending, of a backbone of ``depth`` blocks.

    Raises InputError if the text is not such a list, names a block twice or one that is not there.
    """
    blocks: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or len(part) > 9:
            raise InputError(f"--adapter-blocks must look like 0-4 or 0,3,5, got '{text}'.")
        low, high = int(first), int(last or first)
        if low > high or high >= depth:
            raise InputError(
                f"--adapter-blocks {text} asks for {part.strip()}, the backbone has blocks 0 to {depth - 1}."
            )
        blocks.extend(range(low, high + 1))
    if len(set(blocks)) != len(blocks):
        raise InputError(f"--adapter-blocks {text} names a block twice.")
    return tuple(sorted(blocks))
