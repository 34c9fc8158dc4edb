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
    """A verified bundle, and the one session on it that is open: on the graph of the features, or on the one that goes
    both ways, which gives the same features.

    ``image_buffer`` is float32 [micro_batch, 3, S, S]: fill the first n entries, then call ``features(n, ...)``.
    ``gradient_image`` is float32 [1, 3, S, S]: fill it, then call ``gradient``.
    """

    def __init__(
        self, bundle: Bundle, placement: Placement, providers: Providers = CPU, goes_back: bool = False
    ) -> None:
        """Open a session; ``goes_back`` as ``go_back``.

        Raises DamagedFileError if onnxruntime cannot, MemoryError if it runs out.
        """
        self.bundle, self.placement, self.providers = bundle, placement, providers
        self.feature_size = bundle.manifest.feature_size
        side = bundle.manifest.image.size
        self.image_buffer = np.zeros((placement.micro_batch, 3, side, side), np.float32)
        self.gradient_image = np.zeros((1, 3, side, side), np.float32)
        self._goes_back, self._is_interrupted = goes_back, False
        self._graph: Graph | None = None
        self._opened()

    def interrupt(self) -> None:
        """End the present run of a graph, after the node that it is at, and every later one; from any thread."""
        self._is_interrupted = True
        graph = self._graph  # the learning thread may close it meanwhile
        if graph is not None:
            graph.interrupt()

    def close(self) -> None:
        """Give the session's memory back; the next run opens one again."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def go_back(self, wanted: bool) -> None:
        """Whether ``gradient`` can be called from now on, which the bundle's manifest must allow.

        Its session is a larger one, in place of the other; the next run opens it.
        """
        if wanted != self._goes_back:
            self.close()
            self._goes_back = wanted

    def features(self, count: int, adapters: np.ndarray) -> np.ndarray:
        """Features float32 [K, count, D] of the first ``count`` pictures in ``image_buffer``.

        ``adapters`` is float32 [K, P] with K at most ``parallel_queries``. Raises as ``Graph.run``.
        """
        self.image_buffer[count:] = 0.0
        if not self._goes_back:
            return self._features(adapters, {})[:, :count]
        none = {
            "gradient_images": self.gradient_image[:0],
            "feature_gradients": np.empty((0, self.feature_size), np.float32),
        }
        # The way back takes one adapter.
        rows = [self._features(adapters[row : row + 1], none) for row in range(len(adapters))]
        return np.concatenate(rows)[:, :count]

    def gradient(self, theta: np.ndarray, feature_gradient: np.ndarray) -> np.ndarray:
        """What the features of ``gradient_image`` would have to change by, carried back to the adapter: float32 [P].

        ``theta`` float32 [P]; ``feature_gradient`` float32 [D] is the loss's gradient at these features. Raises as
        ``Graph.run``, ValueError unless ``go_back`` allowed it.
        """
        if not self._goes_back:
            raise ValueError("the session does not go back")
        feed = {
            "images": self.image_buffer[:0],
            "gradient_images": self.gradient_image,
            "adapters": theta[None],
            "feature_gradients": feature_gradient[None],
        }
        return self._opened().run("adapter_gradient", feed, theta.shape)

    def _features(self, adapters: np.ndarray, more: dict[str, np.ndarray]) -> np.ndarray:
        """Of the whole buffer."""
        due = (len(adapters), len(self.image_buffer), self.feature_size)
        return self._opened().run("features", {"images": self.image_buffer, "adapters": adapters, **more}, due)

    def _opened(self) -> Graph:
        """The session, opened where there is none."""
        if self._graph is None:
            path = self.bundle.gradient_path if self._goes_back else self.bundle.graph_path
            self._graph = Graph(path, self.placement, self.providers)
            if self._is_interrupted:
                self._graph.interrupt()
        return self._graph
