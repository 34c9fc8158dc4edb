"""Rounds of simulated fleets, and what they come to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from worlds import made_world

from edge_zofc.engine.predict import open_run
from edge_zofc.fleet.merging import revoke
from edge_zofc.fleet.simulation import Round, Simulated, in_this_process, simulate
from edge_zofc.fleet.world import World
from edge_zofc.storage.bundle import Bundle


def simulated(bundle: Bundle, place: Path, **wanted: Any) -> tuple[World, Simulated, list[str]]:
    world, told, rounds = made_world(bundle, place / "world", **wanted), list[str](), list[Round]()
    found = simulate(world, place / "fleet", in_this_process, told.append, rounds.append)
    assert tuple(rounds) == found.rounds
    return world, found, told


def accuracy(world: World, fleet: Path) -> float:
    run = open_run(fleet, world.bundle.folder)
    return world.right(run.head, run.class_names) / len(world.test.labels)


def test_a_fleet_without_failures_is_one_device_with_all_pictures(small_bundle: Bundle, tmp_path: Path) -> None:
    world, found, _ = simulated(small_bundle, tmp_path, margin=1.0)
    for one in found.rounds:
        assert one.scores.shares == one.scores.honest == found.whole == accuracy(world, tmp_path / "fleet")
        assert (one.asked, one.answered, one.silent, one.slow, one.strikes, one.taken) == (12, 12, 0, 0, 0, 12)
    assert found.alone < 0.4 < found.whole, "a device has two of six classes"
    first, second = found.rounds[:2]
    assert first.bytes_to_fleet > 10 * second.bytes_to_fleet, "shares go once"
    assert first.bytes_to_devices > 10 * second.bytes_to_devices, "and so does a head"


def test_every_device_that_was_asked_is_counted_once(small_bundle: Bundle, tmp_path: Path) -> None:
    world, found, told = simulated(
        small_bundle, tmp_path, devices=40, rounds=4, drop=0.2, slow=0.2, hostile=0.2, late=0.25
    )
    assert [one.joined for one in found.rounds] == sorted(one.joined for one in found.rounds)
    assert found.rounds[0].joined == 30 and found.rounds[-1].joined == 40
    for one in found.rounds:
        assert one.asked == one.answered + one.silent + one.slow + one.strikes
        assert one.silent >= 0 and one.slow >= 0
    assert sum(one.silent for one in found.rounds) > 5 and sum(one.slow for one in found.rounds) > 5
    assert sum(one.strikes for one in found.rounds) == sum("strike" in sentence for sentence in told)
    assert found.rounds[-1].scores.shares is not None and len(world.attackers) == 8


def test_the_head_without_hostile_devices_is_that_of_a_fleet_that_revoked_them(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    world, found, _ = simulated(small_bundle, tmp_path, hostile=0.1, attack="labels")
    (bad,), last = found.attackers, found.rounds[-1].scores
    assert (bad.strikes, bad.out) == (0, False), "wrong labels pass every check"
    assert last.shares == accuracy(world, tmp_path / "fleet")
    assert last.honest is not None and last.shares is not None and last.shares < last.honest - 0.05
    revoke(tmp_path / "fleet", bad.name)
    assert last.honest == accuracy(world, tmp_path / "fleet")


def test_a_cap_is_that_of_the_fleet(small_bundle: Bundle, tmp_path: Path) -> None:
    world, found, _ = simulated(small_bundle, tmp_path / "one", hostile=0.1, attack="labels", cap=1.5)
    last = found.rounds[-1].scores
    assert found.cap == 1.5 and last.capped == accuracy(world, tmp_path / "one/fleet")
    assert last.capped is not None and last.shares is not None and last.capped > last.shares
    _, other, _ = simulated(small_bundle, tmp_path / "two", hostile=0.1, attack="labels")
    assert other.cap == 2 and other.rounds[-1].scores.shares == last.shares


def test_devices_with_pictures_enough_do_not_take_a_head_of_wrong_labels(small_bundle: Bundle, tmp_path: Path) -> None:
    """Each has 25 test pictures; three devices lie."""
    _, found, _ = simulated(small_bundle, tmp_path, each=200, hostile=0.25, attack="labels")
    for one in found.rounds:
        assert one.answered == 12 and one.taken <= 3
    _, honest, _ = simulated(small_bundle, tmp_path / "honest", each=200)
    assert [one.taken for one in honest.rounds] == [12, 12, 12]


def test_who_has_three_strikes_is_asked_no_more(small_bundle: Bundle, tmp_path: Path) -> None:
    _, found, _ = simulated(small_bundle, tmp_path, rounds=5, hostile=0.25, attack="noise")
    assert [one.asked for one in found.rounds] == [12, 12, 12, 9, 9]
    assert all(one.out and one.strikes == 3 for one in found.attackers)
    assert found.rounds[-1].scores.shares == found.rounds[-1].scores.honest


def test_the_same_seed_gives_the_same_rounds(small_bundle: Bundle, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"drop": 0.2, "slow": 0.1, "hostile": 0.3, "late": 0.2, "tasks": 2}
    one, other = (
        [replace(found, seconds=0) for found in simulated(small_bundle, tmp_path / name, **wanted)[1].rounds]
        for name in ("one", "other")
    )
    assert one == other


def test_a_fleet_in_which_nobody_answers_has_no_head(small_bundle: Bundle, tmp_path: Path) -> None:
    _, found, _ = simulated(small_bundle, tmp_path, drop=1.0)
    assert [(one.answered, one.silent, one.scores.shares) for one in found.rounds] == [(0, 12, None)] * 3
    assert found.rounds[0].bytes_to_devices > 0, "messages to silent devices are sent all the same"
