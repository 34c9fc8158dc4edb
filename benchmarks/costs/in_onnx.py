"""The steps that onnxruntime runs: ZO-FC, inference, and a head on frozen features, from the device's own modules.

Pictures are raw floats from a file, for every variant. No time here contains the decoding of JPEGs.
"""

from __future__ import annotations

import time

import numpy as np

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.heads import Head, HeadOptimiser
from edge_zofc.algorithm.spsa import BASE, Query, clip, coefficients, queries
from edge_zofc.benchmarks.costs.setup import CLASSES, SEED, Setup, labels, read_picture
from edge_zofc.benchmarks.costs.variants import Variant
from edge_zofc.device.memory_limit import give_freed_memory_back
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.features import Pictures, query_features
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.settings import Placement

LEARNING_RATE, MOMENTUM, EPS = 0.01, 0.9, 1e-3


class RuntimeStep:
    """One batch a call. ``forward_seconds`` adds up the runs of the graph."""

    def __init__(self, setup: Setup, variant: Variant) -> None:
        placement = Placement(
            micro_batch=variant.pictures_a_run(setup),
            parallel_queries=variant.parallel,
            threads=setup.threads,
            prepacking=variant.prepacking,
            arena=variant.arena,
            head_backend=variant.head,
        )
        if not placement.arena:
            give_freed_memory_back()
        bundle = read_bundle(setup.bundle(variant.precision, variant.blocks))
        self.setup, self.kind, self.form = setup, variant.kind, variant.form
        self.backbone = Backbone(bundle, placement)
        self.adapter = Adapter(bundle.initial_adapter(), SEED, EPS, MOMENTUM)
        self.head = Head.empty(bundle.manifest.feature_size)
        generator = np.random.default_rng(SEED)
        self.head.grow(generator.uniform(-0.5, 0.5, (CLASSES, bundle.manifest.feature_size)))
        self.ids = np.arange(CLASSES)
        self.optimiser = HeadOptimiser(self.head, self.ids, MOMENTUM, variant.head)
        self.labels = labels(setup.batch_size)
        self.count = 0
        self.forward_seconds = 0.0
        self._count_forward_time()

    def step(self) -> float:
        """Run the batch once; returns the loss before the step, also for inference."""
        self.count += 1
        wanted: tuple[Query, ...] = (BASE,)
        if self.kind == "zo-fc":
            wanted += queries(self.form, self.setup.queries)
        pictures = Pictures(self.setup.batch_size, self._load, lambda: None)
        found = query_features(self.backbone, self.adapter, self.count, wanted, pictures)
        if self.kind == "inference":
            return float(self.head.losses(found, self.labels, self.ids)[0])
        loss = self.optimiser.step(found[0], self.labels, LEARNING_RATE)
        if self.kind == "zo-fc":
            losses = self.head.losses(found, self.labels, self.ids)
            raw = coefficients(self.form, losses[1:], float(losses[0]), self.adapter.eps)
            applied, _ = clip(self.adapter, self.count, raw, 1.0)
            self.adapter.apply(self.count, applied, LEARNING_RATE)
        return loss

    def _load(self, index: int, out: np.ndarray) -> None:
        read_picture(self.setup.pictures(), index, out)

    def _count_forward_time(self) -> None:
        run = self.backbone.features

        def timed(count: int, adapters: np.ndarray) -> np.ndarray:
            started = time.perf_counter()
            result = run(count, adapters)
            self.forward_seconds += time.perf_counter() - started
            return result

        self.backbone.features = timed  # type: ignore[method-assign]
