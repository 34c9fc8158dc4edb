"""The presets: the paper's to the letter, every option inside its limits."""

import pytest

from edge_zofc.algorithm.options import PAPER, differences, make_options, options_from_json
from edge_zofc.errors import InputError


def test_paper_is_the_authors_release() -> None:
    """Literal values of the CIFAR-100 configuration (arXiv 2510.21019)."""
    assert (PAPER.epochs, PAPER.head_epochs, PAPER.batch_size) == (20, 10, 48)
    assert (PAPER.queries, PAPER.query_form, PAPER.eps, PAPER.clip_norm) == (4, "two-sided", 1e-3, 1.0)
    assert (PAPER.adapter_lr, PAPER.head_lr, PAPER.momentum) == (0.01, 0.01, 0.9)
    assert (PAPER.head, PAPER.head_init, PAPER.augment, PAPER.normalise) == ("cosine", "random", "crop", False)


def test_the_share_of_head_epochs_follows_the_epochs() -> None:
    assert make_options("paper", {"epochs": 6}).head_epochs == 3
    assert make_options("paper", {"epochs": 6, "head_epochs": 1}).head_epochs == 1
    assert make_options("edge", {"epochs": 0}).head_epochs == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": -1}, "epochs is -1, it must lie between 0 and 10000"),
        ({"batch_size": 0}, "batch-size is 0"),
        ({"queries": 5000}, "queries is 5000"),
        ({"head_epochs": 3, "epochs": 2}, "head-epochs is 3, it must lie between 0 and 2"),
        ({"seed": -1}, "seed is -1"),
        ({"adapter_lr": float("nan")}, "adapter-lr is nan"),
        ({"head_lr": 1e9}, "head-lr is"),
        ({"eps": 0.0}, "eps is 0.0"),
        ({"queries": True}, "queries is True"),
        ({"head": "svm"}, "head is 'svm', it must be cosine or lda"),
        ({"normalise": 1}, "normalise is 1"),
    ],
)
def test_a_value_outside_its_limits_is_named(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_options("edge", changes)


def test_options_survive_json_and_nothing_else_does() -> None:
    from dataclasses import asdict

    options = make_options("edge", {"queries": 2})
    assert options_from_json(asdict(options)) == options
    with pytest.raises(InputError, match="the options have the keys"):
        options_from_json({"preset": "edge"})
    with pytest.raises(InputError, match="the options have the keys"):
        options_from_json({**asdict(options), "preset": "other"})


def test_only_what_differs_is_named() -> None:
    options = make_options("edge", {"queries": 2})
    assert differences(options, "edge", {"queries": 2}) == {}
    assert differences(options, "paper", {"queries": 3}) == {"preset": "edge -> paper", "queries": "2 -> 3"}
