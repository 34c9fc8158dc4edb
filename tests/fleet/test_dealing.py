"""Who has which pictures in a simulated fleet, and what befalls devices."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.errors import InputError
from edge_zofc.fleet.dealing import ATTACKS, Wanted, attackers, deal, first_rounds, portions


@given(st.sampled_from(["classes:2", "classes:3", "dirichlet:0.3", "dirichlet:50"]), st.integers(0, 1000))
def test_every_picture_goes_to_one_device(split: str, seed: int) -> None:
    wanted, labels = Wanted(devices=9, split=split, seed=seed), np.random.default_rng(seed).integers(0, 5, 200)
    dealt = deal(labels, portions(wanted, 5), (seed,))
    assert len(dealt) == 9
    assert sorted(np.concatenate(dealt).tolist()) == list(range(200))


@pytest.mark.parametrize(("devices", "classes", "each"), [(9, 5, 2), (3, 6, 2), (7, 3, 3), (20, 17, 1)])
def test_a_device_has_so_many_classes_and_each_class_has_devices(devices: int, classes: int, each: int) -> None:
    found = portions(Wanted(devices=devices, split=f"classes:{each}"), classes)
    assert ((found > 0).sum(axis=1) == each).all()
    assert np.allclose(found.sum(axis=0), 1)
    holders = (found > 0).sum(axis=0)
    assert holders.max() - holders.min() <= 1


def test_the_same_seed_deals_the_same_and_another_one_does_not() -> None:
    first, again, other = (portions(Wanted(split="dirichlet:0.3", seed=seed), 4) for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()


def test_a_small_parameter_makes_devices_less_alike() -> None:
    apart, alike = (np.sort(portions(Wanted(split=f"dirichlet:{a}"), 4), axis=0)[-1].mean() for a in (0.05, 50))
    assert apart > 3 * alike


def test_silent_and_slow_devices_are_as_many_as_asked_for() -> None:
    wanted = Wanted(drop=0.1, slow=0.2)
    found = Counter(wanted.fate(device, number) for device in range(100) for number in range(1, 21))
    assert 150 < found["silent"] < 250 and 340 < found["slow"] < 460
    assert {Wanted(drop=1).fate(n, 1) for n in range(9)} == {"silent"}
    assert {Wanted().fate(n, 1) for n in range(9)} == {"in time"}


def test_attackers_do_all_in_turn_or_one_thing() -> None:
    found = attackers(Wanted(hostile=0.06))
    assert sorted(found.values()) == sorted(ATTACKS) and all(0 <= number < 100 for number in found)
    assert list(attackers(Wanted(hostile=0.02, attack="sums")).values()) == ["sums", "sums"]
    assert attackers(Wanted()) == {}


def test_late_devices_join_after_the_first_round() -> None:
    found = first_rounds(Wanted(late=0.3, rounds=4))
    assert sum(number > 1 for number in found) == 30 and set(found) == {1, 2, 3, 4}
    assert set(first_rounds(Wanted(late=0.3, rounds=1))) == {1}


def test_names_are_in_the_order_of_numbers() -> None:
    names = [Wanted(devices=101).name(number) for number in range(101)]
    assert names == sorted(names) and names[7] == "d007"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"devices": 2001}, "--devices is 2001, the limit is 2000"),
        ({"rounds": 1001}, "--rounds is 1001, the limit is 1000"),
        ({"drop": 1.5}, "--drop is 1.5; give a fraction from 0 to 1"),
        ({"hostile": float("nan")}, "--hostile is nan"),
        ({"drop": 0.6, "slow": 0.6}, "more than 1 together"),
        ({"split": "classes:0"}, "--split is 'classes:0'; write 'classes:K'"),
        ({"split": "classes:1.5"}, "--split is 'classes:1.5'"),
        ({"split": "classes:inf"}, "--split is 'classes:inf'"),
        ({"split": "dirichlet:0"}, "--split is 'dirichlet:0'"),
        ({"split": "halves"}, "--split is 'halves'"),
    ],
)
def test_what_no_fleet_is_like_is_told(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Wanted(**changes).check()


@pytest.mark.parametrize("split", ["classes:1", "classes:9"])
def test_devices_that_cannot_hold_the_classes_are_told(split: str) -> None:
    with pytest.raises(InputError, match=r"4 devices of . classes cannot hold 8 classes"):
        portions(Wanted(devices=4, split=split), 8)
