"""Classifiers that grow with the classes.

TorchHead      cosine (ZO-FC, arXiv 2510.21019) or linear rows, trained by gradient
ClassMeans     SimpleCIL's prototypes (arXiv 2303.07338)
Discriminant   the runtime's linear discriminant in closed form
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_zofc.algorithm.heads import solve
from edge_zofc.algorithm.statistics import Statistics


class TorchHead:
    """Rows [C, F] (and biases [C] if linear) by class id, for features of width F.

    Cosine: ``sigma * cos(feature, row)``. sigma starts at 1 and is kept over tasks.

    The rows of the current task are parameters that ``begin`` makes and ``end`` writes back. Old rows are no parameters
    meanwhile, so neither weight decay nor a random direction moves them. Under the local loss their gradient is 0.
    """

    def __init__(self, width: int, kind: Literal["cosine", "linear"]) -> None:
        self.kind = kind
        self.rows = torch.zeros(0, width)
        self.bias = torch.zeros(0)
        self.sigma = nn.Parameter(torch.ones(()), requires_grad=kind == "cosine")
        self._ids = torch.zeros(0, dtype=torch.int64)
        self._local = torch.zeros(0, dtype=torch.int64)
        self._rows = nn.Parameter(torch.zeros(0, width))
        self._bias = nn.Parameter(torch.zeros(0))

    def begin(
        self, class_ids: tuple[int, ...], classes_seen: int, new_rows: Tensor | None = None, also: tuple[int, ...] = ()
    ) -> None:
        """Grow to ``classes_seen`` rows and make those of ``class_ids`` trainable.

        ``new_rows`` [classes_seen, F] gives the rows that are new. Without it they are U(+-1/sqrt F). ``also`` names
        old rows that a naive method trains too.
        """
        old, width = self.rows.shape
        start = (torch.rand(classes_seen, width) * 2 - 1) / width**0.5 if new_rows is None else new_rows
        self.rows = torch.cat([self.rows, start[old:classes_seen]])
        self.bias = torch.cat([self.bias, torch.zeros(classes_seen - old)])
        self._ids = torch.tensor(sorted({*class_ids, *also}))
        self._local = torch.searchsorted(self._ids, torch.tensor(sorted(class_ids)))
        self._rows = nn.Parameter(self.rows[self._ids].clone())
        self._bias = nn.Parameter(self.bias[self._ids].clone())

    def trained(self) -> list[nn.Parameter]:
        """The parameters of the current task."""
        return [self._rows, self.sigma if self.kind == "cosine" else self._bias]

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Local cross-entropy: over the current task's classes alone. ``labels`` are class ids [B]."""
        rows, bias = self._rows[self._local], self._bias[self._local]
        return functional.cross_entropy(
            self._scores(features, rows, bias), torch.searchsorted(self._ids[self._local], labels)
        )

    def end(self) -> None:
        """Write the trained rows back."""
        self.rows[self._ids] = self._rows.detach()
        self.bias[self._ids] = self._bias.detach()

    def logits(self, features: Tensor) -> Tensor:
        """[B, C] over every class seen."""
        return self._scores(features, self.rows, self.bias).detach()

    def _scores(self, features: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        if self.kind == "linear":
            return features @ rows.T + bias
        return self.sigma * cosines(features, rows)


def cosines(features: Tensor, rows: Tensor) -> Tensor:
    """[B, C] cosines of features [B, F] with rows [C, F]."""
    return functional.normalize(features, dim=-1) @ functional.normalize(rows, dim=-1).T


class ClassMeans:
    """Running sums of features by class. ``width`` is F."""

    def __init__(self, width: int) -> None:
        self.sums = torch.zeros(0, width)
        self.counts = torch.zeros(0)

    def add(self, features: Tensor, labels: Tensor, classes_seen: int) -> None:
        """Add features [N, F] of class ids [N]."""
        more = classes_seen - len(self.sums)
        self.sums = torch.cat([self.sums, torch.zeros(more, self.sums.shape[1])])
        self.counts = torch.cat([self.counts, torch.zeros(more)])
        self.sums.index_add_(0, labels, features)
        self.counts += torch.bincount(labels, minlength=classes_seen)

    def rows(self) -> Tensor:
        """Unit-length means [C, F]; zeros for a class without pictures."""
        return functional.normalize(self.sums / self.counts.clamp(min=1)[:, None], dim=-1)


class Discriminant:
    """The runtime's head in closed form (``edge_zofc.algorithm.heads``) over features of width F: logits = f W + b.

    ``weights`` [F, C], ``bias`` [C]; ``seen`` holds the statistics of the tasks that were kept.
    """

    def __init__(self, width: int) -> None:
        self.seen = Statistics.empty(0, width)
        self.weights, self.bias = torch.zeros(width, 0), torch.zeros(0)

    def take(self, found: Iterable[tuple[Tensor, Tensor]], classes_seen: int, keep: bool) -> None:
        """Solve for what was kept and ``found``, batches of features [B, F] and class ids. ``keep`` also keeps it."""
        new = Statistics.empty(classes_seen, self.weights.shape[0])
        for features, labels in found:
            new.add(features.detach().numpy(), labels.numpy())
        everything = self.seen.plus(new)
        if keep:
            self.seen = everything
        rows, biases = solve(everything)
        self.weights, self.bias = torch.from_numpy(rows.T.copy()), torch.from_numpy(biases)

    def logits(self, features: Tensor) -> Tensor:
        """[B, C] of features [B, F]: log-likelihoods up to a constant."""
        return features @ self.weights + self.bias
