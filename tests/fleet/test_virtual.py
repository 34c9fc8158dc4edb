"""Virtual devices: honest ones are members, hostile ones do what they are said to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from worlds import made_world

from edge_zofc.fleet.coordinator import Coordinator
from edge_zofc.fleet.dealing import ATTACKS
from edge_zofc.fleet.exchange import News, Receipt, opened, sealed
from edge_zofc.fleet.virtual import virtual
from edge_zofc.fleet.world import World
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import FleetFolder
from edge_zofc.storage.share import encode

NONCE = "ab" * 16


def test_a_world_that_was_kept_deals_the_same(small_bundle: Bundle, tmp_path: Path) -> None:
    world = made_world(small_bundle, tmp_path / "world", hostile=0.2, late=0.3)
    world.keep()
    again = World.read(tmp_path / "world")
    assert (again.wanted, again.class_names, again.bundle.identity) == (
        world.wanted, world.class_names, world.bundle.identity,
    )  # fmt: skip
    assert [own.tolist() for own in again.dealt[0]] == [own.tolist() for own in world.dealt[0]]
    assert again.attackers == world.attackers and again.first_rounds == world.first_rounds
    one, other = (encode(virtual(found, 3, 1).sharing().share) for found in (world, again))
    assert one == other


def test_a_device_learns_its_pictures_in_parts(small_bundle: Bundle, tmp_path: Path) -> None:
    world = made_world(small_bundle, tmp_path / "world", tasks=2)
    (first, second), third = (virtual(world, 0, number).sharing().share for number in (1, 2)), virtual(world, 0, 3)
    assert (first.number, second.number) == (1, 2) and first.pictures < second.pictures == len(world.dealt[0][0])
    assert encode(third.sharing().share) == encode(second), "the same state gives the same share"


def test_classes_with_few_pictures_are_not_shared(small_bundle: Bundle, tmp_path: Path) -> None:
    world = made_world(small_bundle, tmp_path / "world", min_pictures=11, split="dirichlet:0.5")
    for number in range(world.wanted.devices):
        names, statistics = world.statistics(world.dealt[0][number])
        many = {name for name, count in zip(names, statistics.counts, strict=True) if count >= 11}
        device = virtual(world, number, 1)
        if many:
            found = device.sharing()
            assert set(found.share.class_names) == many and found.share.statistics.counts.min() >= 11
            assert set(found.left_out) == set(names) - many


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_hostile_devices_send_is_seen_or_not(attack: str, small_bundle: Bundle, tmp_path: Path) -> None:
    world, told = made_world(small_bundle, tmp_path / "world", hostile=1, attack=attack), list[str]()
    coordinator = Coordinator(tmp_path / "fleet", small_bundle.folder, told.append)
    for number in (1, 2):
        coordinator.answered("d00", virtual(world, 0, number).reply(coordinator.ask("d00")))
    reasons = {
        "sums": "beyond the bound of 1024",
        "huge": "second moment is beyond the bound",
        "bundle": "learnt with another bundle",
        "noise": "none of a fleet's",
        "old": "another message than the last one",
    }
    strikes = [sentence for sentence in told if "strike" in sentence]
    assert len(strikes) == {"labels": 0, "old": 1}.get(attack, 2)
    assert all(reasons[attack] in sentence for sentence in strikes)
    held = list((tmp_path / "fleet/shares").iterdir())
    assert bool(held) == (attack in ("labels", "old"))


def test_wrong_labels_are_another_class_and_a_hundred_times_as_many(small_bundle: Bundle, tmp_path: Path) -> None:
    world, told = made_world(small_bundle, tmp_path / "world", hostile=1, attack="labels"), list[str]()
    coordinator = Coordinator(tmp_path / "fleet", small_bundle.folder, told.append)
    assert coordinator.answered("d00", virtual(world, 0, 1).reply(coordinator.ask("d00")))
    names, statistics = world.statistics(world.dealt[0][0])
    merged = FleetFolder(tmp_path / "fleet").merged()
    assert merged.statistics.counts.sum() == 100 * statistics.counts.sum()
    assert set(merged.class_names) == {f"class{(int(name[-1]) + 1) % 6}" for name in names}


def test_a_device_does_not_take_a_head_that_its_own_pictures_lose_by(small_bundle: Bundle, tmp_path: Path) -> None:
    world = made_world(small_bundle, tmp_path / "world", each=200, devices=3, split="classes:6")
    good, device = virtual(world, 1, 1).sharing().share, virtual(world, 0, 1)
    turned = tuple(good.class_names[1:] + good.class_names[:1])

    def news(names: tuple[str, ...]) -> bytes:
        from dataclasses import replace

        body = encode(replace(good, name="fleet", class_names=names))
        return sealed(News(nonce=NONCE, number=1, devices=3), body)

    taken = [opened(device.reply(news(names)), Receipt)[0].taken for names in (good.class_names, turned)]
    assert taken == [True, False]
    last = virtual(world, 0, 2)._last()
    assert last is not None and last[0] == good.class_names, "what it took lies in a file"


def test_right_counts_test_pictures_by_name(small_bundle: Bundle, tmp_path: Path) -> None:
    world = made_world(small_bundle, tmp_path / "world", each=200)
    names, statistics = world.statistics(np.arange(len(world.train.labels)))
    from edge_zofc.algorithm.naming import solved_head

    head = solved_head(statistics)
    assert world.right(head, names) > 0.9 * len(world.test.labels)
    assert world.right(head, names[1:] + names[:1]) < 0.1 * len(world.test.labels)
    assert world.right(head, ()) == 0 and not world.are_right(head, names, np.zeros(0, np.int64)).size
