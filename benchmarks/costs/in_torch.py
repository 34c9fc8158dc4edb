"""The steps that ZO-FC is measured against, in torch: first order at its best, full fine-tuning, SPSA.

First order gets its best configuration. Nothing below the first adapter records a graph, because no gradient flows
there. Frozen weights have no gradient. Gradients are set to None. There is one copy of the model, and the same number
of threads as for ZO-FC. With ``micro_batch`` 1 the gradient of the batch is accumulated picture by picture. With
``checkpoint`` each block is computed again in the backward pass, so that the activations of one block are alive. The
last block computes the class token alone where nothing else is read, as the exported graph does.

SPSA is written as in MeZO (arXiv 2305.17333): in place, with a random generator that is seeded again for each
perturbation, in eager mode, with no part of the backbone shared between queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recompute

from edge_zofc.benchmarks.costs.setup import CLASSES, SEED, Setup, block_ranges, labels, read_picture
from edge_zofc.benchmarks.costs.variants import Variant
from edge_zofc.export.adapters import adapter_layout, cut, initial_adapter
from edge_zofc.export.vit import AdapterViT

LEARNING_RATE, MOMENTUM, EPS = 0.01, 0.9, 1e-3


class TorchStep:
    """One batch a call. The variant's kind is "inference" (forward passes alone), "first-order", "full" or "spsa".

    ``device`` is torch's name of one. ``as_the_paper`` has what the paper's code has: attention written out, with its
    matrices kept for the backward pass, and a last block that computes every token.
    """

    def __init__(self, setup: Setup, variant: Variant, device: str = "cpu", as_the_paper: bool = False) -> None:
        torch.set_num_threads(setup.threads)
        torch.manual_seed(SEED)
        loaded = setup.load()
        chosen = block_ranges(loaded.info.depth)[variant.blocks]
        self.model = AdapterViT(loaded.model, adapter_layout(loaded.width, chosen, 5, 0.1)).to(device)
        self.device, self.as_the_paper = torch.device(device), as_the_paper
        for block in loaded.model.blocks if as_the_paper else ():
            block.attn.fused_attn = False
        self.setup, self.kind, self.form = setup, variant.kind, variant.form
        self.micro_batch, self.checkpoint = variant.pictures_a_run(setup), variant.checkpoint
        self.side = int(loaded.image.size)
        self.flat = torch.from_numpy(initial_adapter(self.model.layout, SEED)).to(device)
        self.rows = (torch.rand(CLASSES, loaded.width) - 0.5).to(device).requires_grad_()
        self.sigma = torch.ones(1, device=device, requires_grad=True)
        self.labels = torch.from_numpy(labels(setup.batch_size)).to(device)
        self.count = 0
        trained: list[Tensor] = [self.rows, self.sigma]
        if self.kind == "full":
            trained += list(self.model.timm_model.requires_grad_(True).parameters())
        else:
            trained.append(self.flat.requires_grad_(self.kind == "first-order"))
        self.optimiser = torch.optim.SGD([t for t in trained if t.requires_grad], lr=LEARNING_RATE, momentum=MOMENTUM)
        self.velocity = torch.zeros_like(self.flat)

    def step(self) -> float:
        """Train on the batch once; returns the loss before the step."""
        self.count += 1
        if self.kind == "inference":
            return self._loss(self._all_features())
        return self._spsa() if self.kind == "spsa" else self._first_order()

    def _first_order(self) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for images, wanted in self._micro_batches():
            found = self._features(images)
            loss = functional.cross_entropy(self._logits(found), wanted) * (len(wanted) / self.setup.batch_size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            # Otherwise they are alive during the forward pass of the next micro-batch.
            del images, found, loss
        self.optimiser.step()
        return total

    def _spsa(self) -> float:
        features = self._all_features()
        self.optimiser.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self._logits(features), self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        with torch.inference_mode():
            base = self._loss(features)
            gradient = torch.zeros_like(self.flat)
            for query in range(self.setup.queries):
                gradient += self._projected(query, base) * self._direction(query)
            self.velocity.mul_(MOMENTUM).add_(gradient / self.setup.queries)
            self.flat -= LEARNING_RATE * self.velocity
        return base

    def _projected(self, query: int, base: float) -> float:
        self.flat += EPS * self._direction(query)
        plus = self._loss(self._all_features())
        if self.form == "one-sided":
            self.flat -= EPS * self._direction(query)
            return (plus - base) / EPS
        self.flat -= 2 * EPS * self._direction(query)
        minus = self._loss(self._all_features())
        self.flat += EPS * self._direction(query)
        return (plus - minus) / (2 * EPS)

    def _direction(self, query: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(SEED + 1000 * self.count + query)
        return torch.randn(self.flat.shape, generator=generator, device=self.device)

    def _all_features(self) -> Tensor:
        with torch.no_grad():
            return torch.cat([self._features(images) for images, _ in self._micro_batches()])

    def _loss(self, features: Tensor) -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(self._logits(features), self.labels))

    def _logits(self, features: Tensor) -> Tensor:
        cosines = functional.normalize(features, dim=-1) @ functional.normalize(self.rows, dim=-1).T
        return self.sigma * cosines

    def _micro_batches(self) -> Any:
        """(pictures [n, 3, S, S], classes [n]), read from the file as they are needed."""
        for start in range(0, self.setup.batch_size, self.micro_batch):
            end = min(start + self.micro_batch, self.setup.batch_size)
            images = np.empty((end - start, 3, self.side, self.side), np.float32)
            for index in range(start, end):
                read_picture(self.setup.pictures(), index, images[index - start])
            yield torch.from_numpy(images).to(self.device), self.labels[start:end]

    def _features(self, images: Tensor) -> Tensor:
        """Features [n, D]; the same numbers as AdapterViT's forward, block by block."""
        vit, layout = self.model.timm_model, self.model.layout
        first = 0 if self.kind == "full" else min(layout.blocks)
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for index in range(len(vit.blocks)):
            block = self._block(index)
            is_recomputed = self.checkpoint and index >= first and torch.is_grad_enabled()
            x = recompute(block, x, use_reentrant=False) if is_recomputed else block(x)
        features: Tensor = vit.fc_norm(vit.pool(vit.norm(x)))
        return features

    def _block(self, index: int) -> Callable[[Tensor], Tensor]:
        vit = self.model.timm_model
        block = vit.blocks[index]
        has_adapter = self.kind != "full" and index in self.model.layout.blocks
        is_last = index == len(vit.blocks) - 1
        class_token_alone = is_last and vit.global_pool == "token" and not self.as_the_paper

        def run(x: Tensor) -> Tensor:
            n = block.norm1(x)
            mixed = _attention_of_class_token(block.attn, n) if class_token_alone else block.attn(n)
            x = (x[:, :1] if class_token_alone else x) + block.ls1(mixed)
            n = block.norm2(x)
            x = x + block.ls2(block.mlp(n))
            if has_adapter:
                x = x + self.model._bottleneck(index, n[None], cut(self.flat[None], self.model.layout))[0]
            return x

        return run


def _attention_of_class_token(attention: Any, n: Tensor) -> Tensor:
    """[B, T, D] -> the attention's output for the first token alone, [B, 1, D]."""
    width = n.shape[-1]
    weight, bias = attention.qkv.weight, attention.qkv.bias
    above, below = (None, None) if bias is None else (bias[:width], bias[width:])
    query = functional.linear(n[:, :1], weight[:width], above)
    keys, values = functional.linear(n, weight[width:], below).chunk(2, dim=-1)

    def heads(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], attention.num_heads, -1).transpose(1, 2)

    mixed = functional.scaled_dot_product_attention(heads(query), heads(keys), heads(values), scale=attention.scale)
    found: Tensor = attention.proj(mixed.transpose(1, 2).flatten(2))
    return found
