"""Batch norms folded into convolutions: the same features, and no norm where one can go."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from cnns import loaded, pictures
from torch import nn

from edge_zofc.errors import InputError
from edge_zofc.export.folding import fold_batch_norms

NAMES = ("test_efficientnet", "efficientnet_lite0", "mobilenetv3_small_050", "resnet10t", "regnety_002")


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def busy_norm(channels: int = 3, **options: bool) -> nn.BatchNorm2d:
    """A norm that is far from the identity."""
    norm = nn.BatchNorm2d(channels, **options)
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.linspace(0.4, 1.7, channels) * (-1 if name == "bias" else 1))
    return norm.eval()


def difference(network: nn.Module, before: nn.Module, images: np.ndarray) -> float:
    with torch.no_grad():
        found, wanted = (each(torch.from_numpy(images)) for each in (network, before))
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_network_gives_the_same_features_without_norms(name: str) -> None:
    network = loaded(name).model
    before = copy.deepcopy(network)
    assert norms(before)
    fold_batch_norms(network, pictures(1))
    assert norms(network) == []
    assert difference(network, before, pictures(3)) < 1e-5


def test_a_norm_of_two_and_a_convolution_of_three_fold_to_six() -> None:
    """2 (3 x - 1) + 5 = 6 x + 3, but for eps."""
    norm = nn.BatchNorm2d(1, eps=0.0)
    for values, number in ((norm.weight, 4.0), (norm.bias, 5.0), (norm.running_mean, 1.0), (norm.running_var, 4.0)):
        assert values is not None
        nn.init.constant_(values, number)
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), norm)
    nn.init.constant_(network[0].weight, 3.0)
    fold_batch_norms(network, np.ones((1, 1, 2, 2), np.float32))
    assert (network[0].weight.item(), network[0].bias.item()) == (6.0, 3.0)


@pytest.mark.parametrize("affine", [True, False])
def test_a_norm_without_affine_weights_folds_too(affine: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), busy_norm(affine=affine), nn.ReLU())
    before = copy.deepcopy(network)
    fold_batch_norms(network, pictures(1))
    assert norms(network) == []
    assert difference(network, before, pictures(2)) < 1e-5


@pytest.mark.parametrize(
    "behind", [[nn.ReLU(), busy_norm()], [busy_norm(track_running_stats=False)], [nn.Identity(), nn.Softplus()]]
)
def test_a_norm_that_follows_no_convolution_or_has_no_statistics_is_kept(behind: list[nn.Module]) -> None:
    network = nn.Sequential(busy_norm(), nn.Conv2d(3, 3, 3), *behind).eval()
    before = copy.deepcopy(network)
    fold_batch_norms(network, pictures(1))
    assert len(norms(network)) == len(norms(before))
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


class _ReadTwice(nn.Module):
    """What the convolution gives is read before the norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3), busy_norm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        return x + self.norm(x)


def test_a_network_that_would_compute_something_else_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch norms cannot be folded \(relative error .*\); choose another"):
        fold_batch_norms(_ReadTwice(), pictures(1))
