"""Rounds one after the other, over a transport that is a list."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fleet_steps import Walker, begun, over, walkers
from shares import made_share

from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.fleet import serving, stepping
from edge_zofc.fleet.coordinator import Coordinator, RoundDone
from edge_zofc.fleet.exchange import Answer, Ask, News, Receipt, kind_of, opened, sealed
from edge_zofc.fleet.keys import KeyFolder
from edge_zofc.fleet.serving import Pace, serve
from edge_zofc.fleet.sharing import adapter_sha256
from edge_zofc.fleet.stepping import Plan, Steps
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_journal import FleetJournal
from edge_zofc.storage.share import encode


class Wire:
    """A transport whose devices come one after the other, each time somebody looks."""

    def __init__(self, bundle: Bundle, comes: list[str]) -> None:
        self.bundle, self.comes, self.there = bundle, comes, list[str]()
        self.admitted: list[list[str]] = []

    def admit(self, keys: Mapping[str, bytes]) -> None:
        self.admitted.append(sorted(keys))

    def present(self) -> list[str]:
        self.there += [self.comes.pop(0)] if self.comes else []
        return sorted(self.there)

    def exchange(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
        size, bundle = self.bundle.manifest.feature_size, self.bundle
        facts = {"bundle_identity": bundle.identity, "adapter_sha256": adapter_sha256(bundle)}
        for name, raw in messages.items():
            if kind_of(raw) == "news":
                yield name, sealed(Receipt(nonce=opened(raw, News)[0].nonce, taken=True))
                continue
            ask, share = opened(raw, Ask)[0], encode(made_share(name, size=size, **facts))
            is_held = ask.held == hashlib.sha256(share).hexdigest()
            state = "same" if is_held else "share"
            yield name, sealed(Answer(nonce=ask.nonce, state=state), b"" if is_held else share)  # type: ignore[arg-type]


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    found = KeyFolder(tmp_path / "fleet")
    found.devices.mkdir(parents=True)
    for name in ("a", "b"):
        (found.devices / f"{name}.pub").write_bytes(b"a key")
    return found


@pytest.fixture
def fleet(small_bundle: Bundle, keys: KeyFolder) -> Coordinator:
    """Beside the keys, which are there first."""
    return Coordinator(keys.fleet, small_bundle.folder, print)


def test_one_round_waits_for_every_device_with_a_key(
    small_bundle: Bundle, fleet: Coordinator, keys: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_LOOK_SECONDS", 0)
    told = list[RoundDone]()
    done = serve(fleet, keys, Wire(small_bundle, ["b", "a"]), Pace(deadline=60, once=True), told.append)
    assert told == [done] and done.answered == done.up_to_date == ("a", "b")


def test_one_round_begins_without_those_who_do_not_come(
    small_bundle: Bundle, fleet: Coordinator, keys: KeyFolder
) -> None:
    done = serve(fleet, keys, Wire(small_bundle, ["b"]), Pace(deadline=0.01, once=True), lambda done: None)
    assert (done.answered, done.devices) == (("b",), 1)
    done = serve(fleet, keys, Wire(small_bundle, []), Pace(deadline=0.01, once=True), lambda done: None)
    assert (done.answered, done.devices) == ((), 1), "the head stays"


class Listed(Wire):
    """A transport whose devices are functions of bytes."""

    def __init__(self, bundle: Bundle, devices: dict[str, Walker]) -> None:
        super().__init__(bundle, [])
        self.there, self.devices = list(devices), devices

    def exchange(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
        return iter(over(self.devices)(messages, deadline))


@pytest.mark.parametrize(("alike", "adapter", "steps"), [(0.5, "auto", 0), (0.5, "on", 2), (0.71, "auto", 2)])
def test_a_fleet_whose_classes_stand_far_apart_takes_no_step_unless_it_is_asked_to(
    alike: float, adapter: Any, steps: int, small_bundle: Bundle, keys: KeyFolder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    told, seen = list[str](), list[Statistics]()
    monkeypatch.setattr(stepping, "crowding_of", lambda found: seen.append(found) or alike)
    fleet = Coordinator(keys.fleet, small_bundle.folder, told.append)
    link = Listed(small_bundle, walkers(small_bundle, tmp_path, 2))
    for _ in range(2):
        serve(fleet, keys, link, Pace(deadline=0.01, once=True), lambda done: None, Plan(2, adapter=adapter))
        fleet = Coordinator(keys.fleet, small_bundle.folder, told.append)
    journal = FleetJournal.find(keys.fleet)
    assert (0 if journal is None else journal.steps) == steps
    why = [text for text in told if "no step is taken: the classes of all devices stand far apart" in text]
    events = (keys.fleet / "events.jsonl").read_text()
    assert len(why) == events.count("steps_not_begun") == (0 if steps else 2)
    assert all("are 0.50 alike. Below 0.70" in text and "--adapter on" in text for text in why)
    # Both devices' pictures, by the head's own statistics; asked before the first step alone.
    assert [found.counts.tolist() for found in seen] == [[24, 12, 12]] * {"auto": 1 if steps else 2, "on": 0}[adapter]


def test_made_up_classes_stand_far_apart_and_a_head_is_asked_once(small_bundle: Bundle, tmp_path: Path) -> None:
    told, devices = list[str](), walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(2), told)
    assert steps.win_little() and steps.win_little()
    assert sum("no step is taken" in text for text in told) == 1
    assert not Steps(steps.fleet, Plan(2, adapter="on")).win_little()
    assert not Steps(steps.fleet, Plan()).win_little()
    assert steps.step(devices, over(devices))
    assert not steps.win_little(), "steps that have begun go on"


def test_a_fleet_without_shares_is_not_asked_how_its_classes_stand(small_bundle: Bundle, tmp_path: Path) -> None:
    assert not Steps(Coordinator(tmp_path / "fleet", small_bundle.folder, print), Plan(2)).win_little()


def test_rounds_go_on_and_keys_count_from_the_next(
    small_bundle: Bundle, fleet: Coordinator, keys: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EnoughError(Exception):
        pass

    wire, rounds, naps = Wire(small_bundle, ["a"]), list[RoundDone](), list[float]()

    def told(done: RoundDone) -> None:
        rounds.append(done)
        (keys.devices / "b.pub").unlink(missing_ok=True)
        if len(rounds) == 3:
            raise EnoughError

    monkeypatch.setattr(serving.time, "sleep", naps.append)
    with pytest.raises(EnoughError):
        serve(fleet, keys, wire, Pace(every=7), told)
    assert wire.admitted == [["a", "b"], ["a"], ["a"]] and naps == [7, 7]
