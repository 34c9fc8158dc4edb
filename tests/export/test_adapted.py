"""Which blocks get an adapter, and of which kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exports import TINY

from edge_zofc.errors import InputError
from edge_zofc.export.adapted import AdapterRequest, adapted, parse_blocks
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.writer import export_bundle
from edge_zofc.storage.manifest import AdapterKind


@pytest.mark.parametrize(
    ("text", "depth", "blocks"),
    [("0-4", 12, (0, 1, 2, 3, 4)), ("7-11", 12, (7, 8, 9, 10, 11)), ("5,0, 3", 12, (0, 3, 5)),
     ("0-1,3", 4, (0, 1, 3))],
)  # fmt: skip
def test_adapter_blocks_are_ranges_and_numbers(text: str, depth: int, blocks: tuple[int, ...]) -> None:
    assert parse_blocks(text, depth) == blocks


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "look like"), ("a-b", "look like"), ("1-", "look like"), ("-1", "look like"), ("0,,1", "look like"),
     ("3-12", "blocks 0 to 11"), ("4-2", "blocks 0 to 11"), ("1,1", "twice"), ("0-2,2", "twice"), ("²", "look like"),
     ("0-99999999999", "look like")],
)  # fmt: skip
def test_adapter_blocks_that_make_no_sense_get_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_blocks(text, 12)


@pytest.mark.parametrize(
    ("kind", "depth", "blocks"), [(None, 7, (0, 1, 2, 3, 4)), (None, 2, (0, 1)), ("film", 6, (0, 1, 2, 3, 4, 5))]
)
def test_without_blocks_a_vit_gets_bottlenecks_on_the_first_five_and_films_on_all(
    kind: AdapterKind | None, depth: int, blocks: tuple[int, ...]
) -> None:
    loaded = load_backbone(BackboneRequest("vit_tiny_patch16_224", random_weights=True, img_size=32, depth=depth))
    model = adapted(loaded, AdapterRequest(kind), np.zeros((1, 3, 32, 32), np.float32))
    assert (model.layout.kind, model.layout.blocks) == (kind or "bottleneck", blocks)


@pytest.mark.parametrize(("rank", "scale", "sentence"), [(0, 0.1, "rank"), (9999, 0.1, "rank"), (1, 0.0, "scale")])
def test_an_adapter_that_cannot_be_gets_one_sentence(tmp_path: Path, rank: int, scale: float, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        export_bundle(ExportOptions(tmp_path / "b", rank=rank, scale=scale, **TINY))
