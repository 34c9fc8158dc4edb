"""The runtime's episodic loss (``edge_zofc.algorithm.episodes``) with a gradient of torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edge_zofc.algorithm.episodes import Prototypes


def episodic_loss(prototypes: Prototypes, features: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of features float32 [B, D] and class ids int64 [B]: ``Prototypes.losses`` with a gradient.

    The means, and what a picture added to its own, are constants.
    """
    counts = torch.from_numpy(prototypes.counts)
    sums = torch.from_numpy(prototypes.sums)
    known = counts.nonzero()[:, 0]
    means = sums[known] / counts[known, None]
    own = torch.searchsorted(known, labels)
    whitened = (features @ torch.from_numpy(prototypes.whitening)).double()
    others = counts[labels, None] - 1
    without = torch.where(others > 0, (sums[labels] - whitened.detach()) / others.clamp(min=1), means[own])
    distances = whitened.square().sum(dim=1, keepdim=True) - 2 * whitened @ means.T + means.square().sum(dim=1)
    to_own = (whitened - without).square().sum(dim=1, keepdim=True)
    return functional.cross_entropy(-prototypes.sharpness * distances.scatter(1, own[:, None], to_own), own)


def backward(
    prototypes: Prototypes, features_of: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, at_once: int
) -> float:
    """Add up the gradient of the batch's mean loss where ``features_of`` needs it; returns that loss.

    ``images`` float32 [B, 3, S, S] of class ids int64 [B] go through ``features_of``, which gives [b, D], ``at_once``
    at a time. The means are constants, so a batch in parts has the gradient of the whole: memory does not grow with
    it. Afterwards the pictures join the means, in place.
    """
    total, found = 0.0, []
    for first in range(0, len(images), at_once):
        some = slice(first, first + at_once)
        features = features_of(images[some])
        loss = episodic_loss(prototypes, features, labels[some]) * (len(features) / len(images))
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
        found.append(features.detach())
    prototypes.absorb(torch.cat(found).numpy(), labels.numpy())
    return total
