"""Rounds of a fleet whose devices are virtual, and what each round came to.

The coordinator is the real one, with its folder and its checks. What carries messages is an ``Engine``. Of devices that
are silent in a round, and of those that answer after its deadline, the coordinator gets nothing, as with
``flower_link.Link``. No time is spent on waiting for them: seconds are those of the work.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

import numpy as np

from edge_zofc.algorithm.merging import Merging, capped
from edge_zofc.algorithm.naming import solved_head
from edge_zofc.fleet.coordinator import MOST_STRIKES, Coordinator
from edge_zofc.fleet.virtual import virtual
from edge_zofc.fleet.world import World
from edge_zofc.storage.fleet_devices import Devices, read_devices
from edge_zofc.storage.fleet_folder import FleetFolder

CAP = 2.0
"""What heads with a cap are judged with where the fleet has none."""
Carry = Callable[[int, Iterable[tuple[str, bytes]]], Iterator[tuple[str, bytes]]]
"""Brings messages to devices, by name, in a round, and yields their replies by name as they come."""
Engine = Callable[[World, Callable[[Carry], None]], None]
"""Calls the function with what carries messages between it and the devices of a world."""


@dataclass(frozen=True)
class Scores:
    """Test pictures of all classes that heads name rightly, as fractions: of all shares, of all with a cap, and of
    those of honest devices alone. None while there is no such head.
    """

    shares: float | None = None
    capped: float | None = None
    honest: float | None = None


@dataclass(frozen=True)
class Round:
    """One round. ``taken``: devices that now have the newest head. Bytes are those of all devices together, to and
    from the fleet; ``strikes`` were given in this round.
    """

    number: int
    joined: int
    asked: int
    answered: int
    silent: int
    slow: int
    devices: int
    classes: int
    taken: int
    scores: Scores
    bytes_to_fleet: int
    bytes_to_devices: int
    strikes: int
    seconds: float


@dataclass(frozen=True)
class Attacker:
    """A hostile device: what it did, how often that was seen, and whether it is asked no more."""

    name: str
    attack: str
    strikes: int
    out: bool


@dataclass(frozen=True)
class Simulated:
    """All rounds; ``alone``: mean accuracy of the honest devices' own heads, ``whole``: of one head of all pictures."""

    rounds: tuple[Round, ...]
    attackers: tuple[Attacker, ...]
    alone: float
    whole: float
    cap: float


def in_this_process(world: World, act: Callable[[Carry], None]) -> None:
    """An ``Engine``: one device after the other."""

    def carry(round_number: int, messages: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        numbers = world.numbers
        for name, raw in messages:
            yield name, virtual(world, numbers[name], round_number).reply(raw)

    act(carry)


def simulate(
    world: World, folder: Path, engine: Engine, tell: Callable[[str], None], told: Callable[[Round], None]
) -> Simulated:
    """Hold all rounds of a fleet in ``folder``; ``tell`` as of ``Coordinator``, ``told`` gets each round.

    Raises as ``Coordinator``, and InputError where the devices cannot hold the classes.
    """
    coordinator = Coordinator(folder, world.bundle.folder, tell, world.wanted.cap)
    judge, rounds = _Judge(world, FleetFolder(folder)), list[Round]()

    def act(carry: Carry) -> None:
        for number in range(1, world.wanted.rounds + 1):
            rounds.append(_round(coordinator, judge, number, carry))
            told(rounds[-1])

    engine(world, act)
    known = read_devices(folder).devices
    found = []
    for number, attack in sorted(world.attackers.items()):
        name = world.wanted.name(number)
        strikes = known[name].strikes if name in known else 0
        found.append(Attacker(name, attack, strikes, strikes >= MOST_STRIKES))
    return Simulated(tuple(rounds), tuple(found), _alone(world), _whole(world), judge.cap)


def _round(coordinator: Coordinator, judge: _Judge, number: int, carry: Carry) -> Round:
    world, before = judge.world, read_devices(coordinator.folder)
    names = [world.wanted.name(i) for i, first in enumerate(world.first_rounds) if first <= number]
    slow = list[str]()

    def exchange(messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
        for name, reply in carry(number, _heard(world, number, messages)):
            if world.wanted.fate(world.numbers[name], number) == "in time":
                yield name, reply
            else:
                slow.append(name)

    began = time.perf_counter()
    done = coordinator.round(names, exchange, 0.0)
    seconds, after = time.perf_counter() - began, read_devices(coordinator.folder)
    gained = {what: _sum(after, what) - _sum(before, what) for what in ("bytes_in", "bytes_out", "strikes")}
    refused = gained["strikes"]
    return Round(
        number=number,
        joined=len(names),
        asked=len(done.answered) + len(done.silent),
        answered=len(done.answered),
        silent=len(done.silent) - len(slow) - refused,
        slow=len(slow),
        devices=done.devices,
        classes=done.classes,
        taken=len(done.up_to_date),
        scores=judge.scores(after.head),
        bytes_to_fleet=gained["bytes_in"],
        bytes_to_devices=gained["bytes_out"],
        strikes=refused,
        seconds=seconds,
    )


def _heard(world: World, number: int, messages: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The messages that reach their devices; all of them are sent."""
    for name in messages:
        raw = messages[name]
        if world.wanted.fate(world.numbers[name], number) != "silent":
            yield name, raw


def _sum(devices: Devices, what: str) -> int:
    return sum(getattr(known, what) for known in devices.devices.values())


@dataclass
class _Judge:
    """Measures heads of a fleet's shares on all test pictures."""

    world: World
    fleet: FleetFolder
    _last: tuple[int, Scores] = field(default=(0, Scores()))

    @property
    def cap(self) -> float:
        """Of the heads with a cap."""
        return self.world.wanted.cap or CAP

    def scores(self, head: int) -> Scores:
        """Those of the fleet as it is; ``head`` is the number of its head, which a new share changes."""
        if head != self._last[0]:
            self._last = head, self._measured()
        return self._last[1]

    def _measured(self) -> Scores:
        hostile = {self.world.wanted.name(number) for number in self.world.attackers}
        about, every, bad = self.fleet.about(), Merging(self.fleet.about().feature_size), list[str]()
        pictures = dict[str, int]()
        for name in self.fleet.names(about):
            share = self.fleet.share(name, about)
            every.add(share.class_names, share.statistics)
            pictures[name] = share.pictures
            bad += [name] if name in hostile else []
        honest, held_down = copy.deepcopy(every), copy.deepcopy(every)
        most = self.cap * median(pictures.values())
        for name in pictures:
            if name in bad or pictures[name] > most:
                share = self.fleet.share(name, about)
                if name in bad:
                    honest.add(share.class_names, share.statistics, -1)
                if pictures[name] > most:
                    held_down.add(share.class_names, share.statistics, -1)
                    held_down.add(share.class_names, capped(share.statistics, most))
        return Scores(*(self._accuracy(merging) for merging in (every, held_down, honest)))

    def _accuracy(self, merging: Merging) -> float | None:
        names, statistics = merging.result()
        if not names:
            return None
        return self.world.right(solved_head(statistics), names) / len(self.world.test.labels)


def _alone(world: World) -> float:
    found = []
    for number, places in enumerate(world.dealt[0]):
        if number not in world.attackers:
            names, statistics = world.statistics(places)
            found.append(world.right(solved_head(statistics), names) if names else 0)
    return mean(found) / len(world.test.labels) if found else 0.0


def _whole(world: World) -> float:
    names, statistics = world.statistics(np.arange(len(world.train.labels)))
    return world.right(solved_head(statistics), names) / len(world.test.labels)
