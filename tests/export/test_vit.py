"""The torch side: our forward is timm's forward, with adapters that start as nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_vit import tiny_vit

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.errors import InputError
from edge_zofc.export.adapters import adapter_layout, film_layout, initial_adapter
from edge_zofc.export.vit import FILM_PLACES, AdapterViT

ARCHITECTURES = [
    ("vit_tiny_patch16_224", {}),
    ("deit_tiny_patch16_224", {}),
    ("deit3_small_patch16_224", {"no_embed_class": True, "init_values": 0.3}),
    ("vit_base_patch16_clip_224", {}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 42, "init_values": 0.7}),
    ("vit_base_patch16_gap_224", {}),
    ("vit_base_patch16_siglip_gap_224", {}),
    ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    ("vit_tiny_patch16_224", {"qkv_bias": False, "dynamic_img_size": True}),
]


def random_adapters(size: int, count: int, spread: float = 0.1) -> torch.Tensor:
    return spread * torch.randn(count, size, generator=torch.Generator().manual_seed(1))


def test_a_layout_of_rank_one_on_two_blocks_has_the_pieces_one_writes_down_by_hand() -> None:
    layout = adapter_layout(width=4, blocks=(2, 0), rank=1, scale=0.1)
    assert [(piece.name, piece.shape, piece.offset) for piece in layout.pieces] == [
        ("blocks.0.down.weight", (1, 4), 0),
        ("blocks.0.down.bias", (1,), 4),
        ("blocks.0.up.weight", (4, 1), 5),
        ("blocks.0.up.bias", (4,), 9),
        ("blocks.2.down.weight", (1, 4), 13),
        ("blocks.2.down.bias", (1,), 17),
        ("blocks.2.up.weight", (4, 1), 18),
        ("blocks.2.up.bias", (4,), 22),
    ]
    assert layout.size == 26


def test_the_papers_adapter_has_its_42265_parameters() -> None:
    assert adapter_layout(width=768, blocks=(0, 1, 2, 3, 4), rank=5, scale=0.1).size == 42_265


def test_the_initial_adapter_is_uniform_on_the_lattice_below_one_over_root_d_and_zero_elsewhere() -> None:
    layout = adapter_layout(width=64, blocks=(0, 1), rank=8, scale=0.1)
    values = initial_adapter(layout, seed=3)
    assert values.dtype == np.float32
    assert np.array_equal(values / np.float32(LATTICE_STEP), np.rint(values / np.float32(LATTICE_STEP)))
    for piece in layout.pieces:
        part = values[piece.offset : piece.offset + piece.size]
        if piece.name.endswith("down.weight"):
            assert 0.95 / 8 < np.abs(part).max() <= 1 / 8
            assert abs(part.mean()) < 0.02
        else:
            assert not part.any()
    assert np.array_equal(values, initial_adapter(layout, seed=3))
    assert not np.array_equal(values, initial_adapter(layout, seed=4))


@pytest.mark.parametrize(("name", "changes"), ARCHITECTURES)
def test_with_the_initial_adapter_features_are_those_of_timm(name: str, changes: dict[str, object]) -> None:
    model = tiny_vit(name, **changes)
    layout = adapter_layout(48, (1, 2), 3, 0.1)
    side = model.patch_embed.img_size[0]
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    adapters = torch.from_numpy(initial_adapter(layout, 0))[None].repeat(2, 1)
    with torch.no_grad():
        expected, found = model(images), AdapterViT(model, layout)(images, adapters)
    assert found.shape == (2, 4, 48)
    torch.testing.assert_close(found, expected.expand(2, -1, -1), atol=1e-5, rtol=1e-5)


def test_one_adapter_moves_the_block_by_the_papers_formula() -> None:
    model = tiny_vit(depth=1)
    layout = adapter_layout(48, (0,), 2, 0.1)
    flat = random_adapters(layout.size, 1)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    down, down_bias, up, up_bias = flat[0].split([96, 2, 96, 48])
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(images))
        block = model.blocks[0]
        x = x + block.attn(block.norm1(x))
        n = block.norm2(x)
        hidden = torch.nn.functional.gelu(n @ down.reshape(2, 48).T + down_bias)
        x = x + block.mlp(n) + 0.1 * (hidden @ up.reshape(48, 2).T + up_bias)
        expected = model.norm(x)[:, 0]
        found = AdapterViT(model, layout)(images, flat)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_film_scales_and_shifts_what_leaves_a_norm() -> None:
    model = tiny_vit(depth=1)
    layout = film_layout({0: 48}, FILM_PLACES)
    flat = random_adapters(layout.size, 1)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, first_shift, second, second_shift = flat[0].split(48)
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(images))
        block = model.blocks[0]
        x = x + block.attn(block.norm1(x) * (1 + first) + first_shift)
        x = x + block.mlp(block.norm2(x) * (1 + second) + second_shift)
        expected = model.norm(x)[:, 0]
        found = AdapterViT(model, layout)(images, flat)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_blocks_before_the_first_adapter_see_each_picture_once() -> None:
    model = tiny_vit()
    layout = adapter_layout(48, (1, 2), 2, 0.1)
    seen: list[int] = []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[:-2].numel()))
    with torch.no_grad():
        AdapterViT(model, layout)(torch.zeros(2, 3, 32, 32), random_adapters(layout.size, 3))
    assert seen == [2, 2, 6]


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("vit_tiny_patch16_224", {"qk_norm": True}, "q_norm"),
        ("vit_tiny_patch16_224", {"scale_attn_norm": True}, "norm"),
        ("vit_base_patch16_siglip_224", {}, "'map' pooling"),
        ("deit_tiny_distilled_patch16_224", {}, "VisionTransformerDistilled"),
        ("vit_base_patch16_clip_quickgelu_224", {}, "QuickGELU"),
        ("vit_base_patch16_rpn_224", {}, "ResPostBlock"),
    ],
)
def test_an_unsupported_part_is_named_with_what_is_supported(name: str, changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=f"{named}.*supported are timm VisionTransformer"):
        AdapterViT(tiny_vit(name, **changes), adapter_layout(48, (0,), 2, 0.1))
