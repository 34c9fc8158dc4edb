"""Rounds of a fleet, one after the other, over whatever carries messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_zofc.fleet.coordinator import Coordinator, RoundDone
from edge_zofc.fleet.keys import KeyFolder

_LOOK_SECONDS = 0.5


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
    coordinator: Coordinator, keys: KeyFolder, link: Transport, pace: Pace, told: Callable[[RoundDone], None]
) -> RoundDone:
    """Hold rounds for ever, or one; ``told`` gets what each came to. A key that is new or gone counts from the next.

    A single round begins when every device that has a key is there, at the latest after ``deadline``.
    """
    while True:
        known = keys.public_keys()
        link.admit(known)
        end = time.monotonic() + (pace.deadline if pace.once else 0)
        while time.monotonic() < end and set(link.present()) != set(known):
            time.sleep(_LOOK_SECONDS)
        present = link.present()
        if present or pace.once:
            done = coordinator.round(present, link.exchange, pace.deadline)
            told(done)
            if pace.once:
                return done
        time.sleep(pace.every if present else _LOOK_SECONDS)
