"""timm's CNNs with random weights in which every part matters, and pictures of noise."""

from __future__ import annotations

import numpy as np
import torch

from edge_zofc.export.adapted import AdapterRequest, adapted
from edge_zofc.export.backbones import BackboneRequest, LoadedBackbone, load_backbone
from edge_zofc.export.cnn import AdapterCnn

SIDE = 64
FILMS = AdapterRequest()


def loaded(name: str, side: int = SIDE) -> LoadedBackbone:
    """timm starts norms as the identity and a ConvNeXt's branches at 1e-6; here they are neither."""
    found = load_backbone(BackboneRequest(name, random_weights=True, img_size=side))
    generator = torch.Generator().manual_seed(11)
    for key, value in found.model.state_dict().items():
        if "gamma" in key:
            value.fill_(0.5)
        elif key.endswith(("running_mean", "bias")):
            value.normal_(std=0.1, generator=generator)
        elif key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5, generator=generator)
    return found


def pictures(count: int, side: int = SIDE) -> np.ndarray:
    """Float32 [count, 3, side, side], the same at every call."""
    return np.random.default_rng(3).standard_normal((count, 3, side, side)).astype(np.float32)


def model_of(name: str, request: AdapterRequest = FILMS, side: int = SIDE) -> AdapterCnn:
    """The CNN with adapters."""
    model = adapted(loaded(name, side), request, pictures(2, side))
    assert isinstance(model, AdapterCnn)
    return model
