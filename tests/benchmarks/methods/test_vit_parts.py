"""The written-out forward pass is timm's, and each part adds what its paper says."""

from __future__ import annotations

import torch
from benchmark_problem import tiny_vit

from edge_zofc.benchmarks.methods.vit_parts import Adapters, Parts, TorchAdapter, features, tokens
from edge_zofc.export.adapters import adapter_layout, initial_adapter
from edge_zofc.export.vit import AdapterViT

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_with_nothing_added_it_is_timms_forward() -> None:
    vit = tiny_vit()
    with torch.no_grad():
        torch.testing.assert_close(features(vit, IMAGES), vit(IMAGES), rtol=1e-5, atol=1e-5)


def test_an_adapter_of_rank_5_on_768_has_8453_parameters_and_starts_as_nothing() -> None:
    adapter = TorchAdapter(768, 5, "gelu", 0.1)
    assert sum(p.numel() for p in adapter.parameters()) == 8_453
    assert torch.count_nonzero(adapter(torch.rand(2, 3, 768))) == 0


def test_its_adapters_are_those_of_the_exported_graph() -> None:
    vit, layout = tiny_vit(), adapter_layout(32, (0, 2), 5, 0.1)
    flat = torch.from_numpy(initial_adapter(layout, 4)) + 0.05 * torch.randn(layout.size)
    adapters = Adapters(32, (0, 2), 5, "gelu", 0.1)
    with torch.no_grad():
        for piece, target in zip(layout.pieces, adapters.parameters(), strict=True):
            target.copy_(flat[piece.offset : piece.offset + piece.size].reshape(piece.shape))
        expected = AdapterViT(vit, layout)(IMAGES, flat[None])[0]
        torch.testing.assert_close(features(vit, IMAGES, adapters.parts()), expected, rtol=1e-4, atol=1e-5)


def test_lora_on_keys_and_values_is_a_change_of_their_weights() -> None:
    changed, plain = tiny_vit(), tiny_vit()
    keys, values = 0.1 * torch.randn(2, 32, 32)
    with torch.no_grad():
        changed.blocks[1].attn.qkv.weight[32:64] += keys
        changed.blocks[1].attn.qkv.weight[64:] += values
        parts = Parts(lora={1: lambda n: (n @ keys.T, n @ values.T)})
        torch.testing.assert_close(features(plain, IMAGES, parts), changed(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_prefix_that_repeats_the_pictures_own_keys_and_values_changes_nothing() -> None:
    vit, seen = tiny_vit(), []
    with torch.no_grad():
        vit.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        plain = vit(IMAGES)
        _, k, v = vit.blocks[0].attn.qkv(vit.blocks[0].norm1(seen[0])).chunk(3, dim=-1)
        # Each token twice has the same attention-weighted mean as each token once.
        torch.testing.assert_close(features(vit, IMAGES, Parts(prefixes={0: (k, v)})), plain, rtol=1e-4, atol=1e-5)


def test_prompts_are_put_before_the_class_token_and_come_out_first() -> None:
    vit = tiny_vit()
    prompts = torch.randn(3, 4, 32)
    with torch.no_grad():
        out = tokens(vit, IMAGES, Parts(prompts=prompts))
        assert out.shape == (3, 4 + 1 + 4, 32)
        # Without positions of their own, prompts may change places: their outputs do too, the others' stay.
        swapped = tokens(vit, IMAGES, Parts(prompts=prompts.flip(1)))
    torch.testing.assert_close(swapped[:, :4].flip(1), out[:, :4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(swapped[:, 4:], out[:, 4:], rtol=1e-4, atol=1e-5)


def test_an_adapter_beside_the_attention_sees_what_it_sees_and_adds_to_what_it_adds() -> None:
    vit, seen = tiny_vit(depth=1), []
    block = vit.blocks[0]
    with torch.no_grad():
        vit.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        features(vit, IMAGES, Parts(beside_attention={0: lambda n: 2 * n}))
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(IMAGES)))
        x = x + block.attn(block.norm1(x)) + 2 * block.norm1(x)
        torch.testing.assert_close(seen[0], x + block.mlp(block.norm2(x)), rtol=1e-4, atol=1e-5)


def test_watch_sees_the_input_of_every_blocks_attention() -> None:
    seen: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        features(tiny_vit(depth=2), IMAGES, Parts(watch=lambda block, n: seen.update({block: n})))
    assert list(seen) == [0, 1]
    assert seen[1].shape == (3, 5, 32)
    assert float(seen[1].mean(dim=-1).abs().max()) < 1e-5  # a LayerNorm's output
