"""Each rule of a gradient alone, against torch's autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional

from edge_zofc.export import gradient_rules


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 1},
        {"kernel": 1, "stride": 2},
        {"kernel": 3, "padding": 1},
        {"kernel": 3, "stride": 2, "padding": 1},
        {"kernel": 2, "stride": 2},
        {"kernel": 3, "groups": 6, "padding": 1},
        {"kernel": 5, "groups": 6, "padding": 2, "stride": 2},
        {"kernel": 3, "groups": 6, "padding": 2, "dilation": 2},
        {"kernel": 3, "groups": 3, "padding": 1},
        {"kernel": 3, "groups": 3, "stride": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [8, 11])
def test_a_convolutions_rule_is_autograds(options: dict[str, int], size: int) -> None:
    random = torch.Generator().manual_seed(3)
    kernel, groups = options["kernel"], options.get("groups", 1)
    x = torch.randn(2, 6, size, size + 1, generator=random, requires_grad=True)
    weight = torch.randn(6, 6 // groups, kernel, kernel, generator=random)
    more = {name: value for name, value in options.items() if name != "kernel"}
    y = functional.conv2d(x, weight, **more)
    asked = torch.randn(y.shape, generator=random)
    (wanted,) = torch.autograd.grad(y, x, asked)
    lists = ([more.get(name, default)] * 2 for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)))
    rule: Any = gradient_rules._convolution_backward
    found, *rest = rule(asked, x.detach(), weight, None, *lists, False, [0, 0], groups, [True, False, False])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert rest == [None, None]


@pytest.mark.parametrize(
    ("window", "size", "ceil"), [([2, 2], (4, 6), False), ([3, 2], (7, 5), False), ([3, 2], (7, 5), True)]
)
def test_poolings_rule_is_autograds(window: Sequence[int], size: tuple[int, int], ceil: bool) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3), requires_grad=True)
    y = functional.avg_pool2d(x, list(window), ceil_mode=ceil)
    asked = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    (wanted,) = torch.autograd.grad(y, x, asked)
    rule: Any = gradient_rules._avg_pool2d_backward
    torch.testing.assert_close(rule(asked, x.detach(), window, [], [0, 0], ceil, True, None), wanted)


def test_the_slopes_of_bounded_activations_are_0_and_1() -> None:
    x, ones = torch.tensor([-1.0, 0.0, 0.5, 6.0, 7.0]), torch.ones(5)
    assert gradient_rules._hardtanh_backward(ones, x, 0.0, 6.0).tolist() == [0, 0, 1, 0, 0]
    assert gradient_rules._threshold_backward(ones, functional.relu(x), 0.0).tolist() == [0, 0, 1, 1, 1]
