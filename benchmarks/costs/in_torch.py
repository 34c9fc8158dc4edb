"""The steps that ZO-FC is measured against, in torch: first order at its best, full fine-tuning, SPSA.

First order gets its best configuration (``vit_in_torch.py``). Frozen weights have no gradient. Gradients are set to
None. There is one copy of the model, and the same number of threads as for ZO-FC. With ``micro_batch`` 1 the gradient
of the batch is accumulated picture by picture. With ``checkpoint`` the activations of one block are alive.

SPSA is written as in MeZO (arXiv 2305.17333): in place, with a random generator that is seeded again for each
perturbation, in eager mode, with no part of the backbone shared between queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge_zofc.benchmarks.costs.setup import CLASSES, SEED, Setup, block_ranges, labels, read_picture
from edge_zofc.benchmarks.costs.variants import Variant
from edge_zofc.benchmarks.costs.vit_in_torch import vit_features
from edge_zofc.export.adapters import adapter_layout, initial_adapter
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
        adapter = None if self.kind == "full" else self.flat
        return vit_features(self.model, images, adapter, self.checkpoint, whole_last_block=self.as_the_paper)
