"""Folds batch norms into the convolutions before them, in the network itself.

torch's exporter folds them too, but only in a graph that computes features. Folded here, the graph of features and the
graph of gradients hold the same weights, byte for byte, and can share one file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_zofc.errors import InputError

_TOLERANCE = 1e-4


def fold_batch_norms(network: nn.Module, images: np.ndarray) -> None:
    """Change ``network``, in eval mode, in place; a run on ``images`` float32 [n, 3, S, S] shows what follows what.

    A norm is folded where its input is what a convolution gave and it has running statistics. What else a timm layer
    does behind its norm (its activation) stays in its place. Raises InputError if the network then computes something
    else.
    """
    example = torch.from_numpy(images[:1])
    with torch.no_grad():
        before = network.eval()(example)
    names = {id(module): name for name, module in network.named_modules()}
    for convolution, norm in _pairs(network, example):
        _fold(convolution, norm)
        behind = (getattr(norm, "drop", None), getattr(norm, "act", None))
        kept = [module for module in behind if module is not None and not isinstance(module, nn.Identity)]
        network.set_submodule(names[id(norm)], kept[0] if len(kept) == 1 else nn.Sequential(*kept))
    with torch.no_grad():
        error = float((network(example) - before).norm() / before.norm().clamp(min=1e-12))
    if not error < _TOLERANCE:
        raise InputError(f"This backbone's batch norms cannot be folded (relative error {error:.1e}); choose another.")


@torch.no_grad()
def _pairs(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution whose output goes straight into a norm, and that norm."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept, so that no other one gets its id
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def keep(module: Any, _inputs: Any, output: Tensor) -> None:
        made[id(output)] = module, output

    def pair(module: Any, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made and module.running_var is not None:
            found.append((made.pop(id(inputs[0]))[0], module))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(keep))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(pair))
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    factor = torch.rsqrt(norm.running_var + norm.eps) * (1.0 if norm.weight is None else norm.weight)
    bias = 0.0 if convolution.bias is None else convolution.bias
    shift = 0.0 if norm.bias is None else norm.bias
    convolution.weight.mul_(factor[:, None, None, None])
    convolution.bias = nn.Parameter((bias - norm.running_mean) * factor + shift, requires_grad=False)
