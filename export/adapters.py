"""The adapters' flat vector: which pieces it has on which blocks, and where learning starts.

Two kinds (``AdapterLayout.kind``), both the identity at the start:

    bottleneck   x + scale * s (W2 GELU(W1 n + b1) + b2), rank r: the paper's (arXiv 2510.21019)
    film         x + g x + s b: a scale and a shift of every channel (FiLM; arXiv 2303.13199)

On a ViT's bottleneck n is what the MLP reads and s is 1; its films follow the norms of a block, with s = 1. On a CNN
both kinds follow a block, s is the spread of each of its channels (see ``cnn``) and n is x / s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.errors import InputError
from edge_zofc.storage.manifest import AdapterLayout, AdapterPiece

MAX_RANK = 256
_ADAPTER_KEY = 0x41444150  # keeps the initial adapter apart from other Philox streams of the same seed


def adapter_layout(width: int, blocks: tuple[int, ...], rank: int, scale: float) -> AdapterLayout:
    """Bottlenecks of ``rank`` on ``blocks`` of a ViT of ``width`` D.

    Raises InputError if there is no block, a block twice or a rank outside 1..MAX_RANK.
    """
    _check_blocks(blocks)
    return bottleneck_layout(dict.fromkeys(blocks, width), rank, scale)


def bottleneck_layout(widths: Mapping[int, int], rank: int, scale: float) -> AdapterLayout:
    """Bottlenecks of ``rank`` on blocks of as many channels as ``widths`` says. Raises InputError as above."""
    _check_blocks(tuple(widths))
    if not 1 <= rank <= MAX_RANK:
        raise InputError(f"The adapter's rank must be 1 to {MAX_RANK}, got {rank}.")
    if not math.isfinite(scale) or scale == 0.0:
        raise InputError(f"The adapter's scale must be a finite number other than 0, got {scale}.")
    shapes = [
        (f"blocks.{block}.{name}", shape)
        for block, width in sorted(widths.items())
        for name, shape in (
            ("down.weight", (rank, width)),
            ("down.bias", (rank,)),
            ("up.weight", (width, rank)),
            ("up.bias", (width,)),
        )
    ]
    return AdapterLayout(blocks=tuple(sorted(widths)), rank=rank, scale=scale, pieces=_pieces(shapes))


def film_layout(widths: Mapping[int, int], places: tuple[str, ...] = ("",)) -> AdapterLayout:
    """A scale and a shift of every channel at each of a block's ``places``, in the order in which they run.

    ``widths`` as above. A place is a prefix of the pieces' names, such as ``norm1.``.
    """
    _check_blocks(tuple(widths))
    shapes = [
        (f"blocks.{block}.{place}{name}", (width,))
        for block, width in sorted(widths.items())
        for place in places
        for name in ("scale", "shift")
    ]
    return AdapterLayout(kind="film", blocks=tuple(sorted(widths)), rank=0, scale=1.0, pieces=_pieces(shapes))


def _check_blocks(blocks: tuple[int, ...]) -> None:
    if not blocks or len(set(blocks)) != len(blocks) or min(blocks) < 0:
        raise InputError(f"Adapter blocks must be distinct block numbers from 0, got {list(blocks)}.")


def _pieces(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[AdapterPiece, ...]:
    pieces: list[AdapterPiece] = []
    offset = 0
    for name, shape in shapes:
        pieces.append(AdapterPiece(name=name, shape=shape, offset=offset))
        offset += pieces[-1].size
    return tuple(pieces)


def pieces_at(layout: AdapterLayout, block: int, place: str = "") -> tuple[AdapterPiece, ...]:
    """The pieces of one block, or of one of its places, in their order (for a bottleneck down, up, each with bias)."""
    return tuple(piece for piece in layout.pieces if piece.name.startswith(f"blocks.{block}.{place}"))


def cut(adapters: Tensor, layout: AdapterLayout) -> dict[str, Tensor]:
    """The pieces of ``adapters`` [K, P] by their names, each [K, *shape].

    In one operator: its gradient is one, too, where slices would each have a gradient of P entries.
    """
    flat = torch.split(adapters, [piece.size for piece in layout.pieces], dim=1)
    return {piece.name: values.reshape(-1, *piece.shape) for piece, values in zip(layout.pieces, flat, strict=True)}


def initial_adapter(layout: AdapterLayout, seed: int) -> np.ndarray:
    """The starting point, float32 [P] on the lattice: the identity.

    A bottleneck's ``down.weight`` is uniform on +-1/sqrt(width), which is kaiming_uniform with a = sqrt(5); the rest is
    zero.
    """
    flat = np.zeros(layout.size, dtype=np.float64)
    for index, piece in enumerate(layout.pieces):
        if piece.name.endswith("down.weight"):
            bound = 1.0 / math.sqrt(piece.shape[1])
            flat[piece.offset : piece.offset + piece.size] = bound * _uniform(seed, index, piece.size)
    return on_lattice(flat)


def on_lattice(values: np.ndarray) -> np.ndarray:
    """``values`` rounded to multiples of 2^-22, as float32."""
    return np.asarray(np.rint(values / LATTICE_STEP) * LATTICE_STEP, dtype=np.float32)


def _uniform(seed: int, stream: int, size: int) -> np.ndarray:
    """float64 [size], uniform on [-1, 1), from raw Philox words: the same under every numpy version."""
    key = np.array([seed, _ADAPTER_KEY], dtype=np.uint64)
    counter = np.array([0, stream, 0, 0], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(size)
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0)
