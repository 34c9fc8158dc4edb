"""The frozen network: pictures x adapters -> features, and the way back from a gradient of the features.

onnxruntime plans its memory per input shape, so shapes are static while a run lasts: a short last micro-batch is padded
with zeros and the padding's features are dropped. The adapters are read where they lie: on the CPU a run sees the
caller's array itself, and perturbing theta in place needs no copy.
"""

from __future__ import annotations

import numpy as np

from edge_zofc.inference.graph import CPU, Graph, Providers
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement


class Backbone:
    """An open session on a verified bundle.

    ``image_buffer`` is float32 [micro_batch, 3, S, S]: fill the first n entries, then call ``features(n, ...)``.
    """

    def __init__(self, bundle: Bundle, placement: Placement, providers: Providers = CPU) -> None:
        """Open the graph. Raises DamagedFileError if onnxruntime cannot, MemoryError if it runs out."""
        self.bundle, self.placement, self.providers = bundle, placement, providers
        self.feature_size = bundle.manifest.feature_size
        self.graph = Graph(bundle.graph_path, placement, providers)
        side = bundle.manifest.image.size
        self.image_buffer = np.zeros((placement.micro_batch, 3, side, side), np.float32)

    def interrupt(self) -> None:
        """End the present run of the graph, after the node that it is at, and every later one; from any thread."""
        self.graph.interrupt()

    def close(self) -> None:
        """Give the session's memory back; nothing can be run afterwards."""
        self.graph.close()

    def features(self, count: int, adapters: np.ndarray) -> np.ndarray:
        """Features float32 [K, count, D] of the first ``count`` pictures in ``image_buffer``.

        ``adapters`` is float32 [K, P] with K at most ``parallel_queries``. Raises as ``Graph.run``.
        """
        self.image_buffer[count:] = 0.0
        feed = {"images": self.image_buffer, "adapters": adapters}
        due = (len(adapters), len(self.image_buffer), self.feature_size)
        return self.graph.run("features", feed, due)[:, :count]


class GradientGraph:
    """An open session on a bundle's graph for exact gradients, one picture at a time.

    ``image`` is float32 [1, 3, S, S]: fill it, then call ``gradient``.
    """

    def __init__(self, bundle: Bundle, placement: Placement, providers: Providers = CPU) -> None:
        """Open the graph, which the bundle must have. Raises as ``Backbone``."""
        self.graph = Graph(bundle.gradient_path, placement, providers)
        side = bundle.manifest.image.size
        self.image = np.zeros((1, 3, side, side), np.float32)

    def interrupt(self) -> None:
        """As ``Backbone.interrupt``."""
        self.graph.interrupt()

    def close(self) -> None:
        """As ``Backbone.close``."""
        self.graph.close()

    def gradient(self, theta: np.ndarray, feature_gradient: np.ndarray) -> np.ndarray:
        """What the picture's features would have to change by, carried back to the adapter: float32 [P].

        ``theta`` float32 [P]; ``feature_gradient`` float32 [D] is the loss's gradient at the picture's features. Raises
        as ``Graph.run``.
        """
        feed = {"images": self.image, "adapters": theta[None], "feature_gradients": feature_gradient[None]}
        return self.graph.run("adapter_gradient", feed, theta.shape)
