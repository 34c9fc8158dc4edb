"""Rounds of a fleet, one after the other, over whatever carries messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_zofc.fleet.coordinator import Coordinator, RoundDone
from edge_zofc.fleet.keys import KeyFolder
from edge_zofc.fleet.stepping import Plan, Steps

_LOOK_SECONDS = 0.5
NO_STEPS = Plan()


class Transport(Protocol):
    """What carries messages; see ``flower_link.Link``."""

    def admit(self, keys: Mapping[str, bytes]) -> None:
        """Let these devices in, by their public keys, and no others any more."""

    def present(self) -> list[str]:
        """Devices that can be asked now."""

    def exchange(self, messages: Mapping[str, bytes], deadline: float) -> Iterable[tuple[str, bytes]]:
        """See ``coordinator.Exchange``."""


@dataclass(frozen=True)
class Pace:
    """Seconds that a round waits for replies, and from one round to the next; ``once``: one round, then end."""

    deadline: float = 30.0
    every: float = 60.0
    once: bool = False


def serve(
    coordinator: Coordinator,
    keys: KeyFolder,
    link: Transport,
    pace: Pace,
    told: Callable[[RoundDone], None],
    plan: Plan = NO_STEPS,
) -> RoundDone:
    """Hold rounds for ever, or one; ``told`` gets what each came to. A key that is new or gone counts from the next.

    A single round begins when every device that has a key is there, at the latest after ``deadline``. Steps of a
    ``plan`` follow each round, until the next is due, and a round follows the verdict on them.
    """
    steps = Steps(coordinator, plan)
    while True:
        known = keys.public_keys()
        link.admit(known)
        end = time.monotonic() + (pace.deadline if pace.once else 0)
        while time.monotonic() < end and set(link.present()) != set(known):
            time.sleep(_LOOK_SECONDS)
        present = link.present()
        if present or pace.once:
            began = time.monotonic()
            done = coordinator.round(present, link.exchange, pace.deadline)
            told(done)
            if take_steps(steps, link, pace):
                done = coordinator.round(link.present(), link.exchange, pace.deadline)
                told(done)
            if pace.once:
                return done
            left = began + pace.every - time.monotonic() if steps.are_due else pace.every
            time.sleep(max(left, _LOOK_SECONDS))
        else:
            time.sleep(_LOOK_SECONDS)


def take_steps(steps: Steps, link: Transport, pace: Pace) -> bool:
    """Take steps until all are judged, the next round is due, or too few devices are there; returns whether the
    verdict came. None is begun where the devices' classes stand far apart.
    """
    if steps.win_little():
        return False
    end, came = time.monotonic() + pace.every, False
    while steps.are_due and not came and (pace.once or time.monotonic() < end):
        if steps.are_left:
            if not steps.step(link.present(), link.exchange):
                break
        else:
            came = steps.judge(link.present(), link.exchange, pace.deadline)
            if not came:
                break
    steps.fleet.follow(link.present(), link.exchange, pace.deadline)
    return came
