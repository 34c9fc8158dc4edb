"""The fleet's side of an exchange: it asks, checks what comes, merges, and gives all of it back; bytes in, bytes out.

Whatever a device sends ends in a sentence and, where no honest device sends such a thing, in a strike. The other
devices go on. Who has MOST_STRIKES in a row is not asked any more until ``serve`` starts anew.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError, printable
from edge_zofc.fleet.exchange import (
    MOST_REASON,
    Answer,
    Ask,
    Follow,
    Followed,
    News,
    Receipt,
    Renew,
    kind_of,
    opened,
    sealed,
)
from edge_zofc.fleet.ledger import MOST_STRIKES, Ledger
from edge_zofc.fleet.merging import begin, take_bytes
from edge_zofc.storage.fleet_folder import RENEWED, FleetFolder, Merged
from edge_zofc.storage.fleet_journal import FleetJournal
from edge_zofc.storage.run_folder import EventLog
from edge_zofc.storage.share import MAX_SHARE_BYTES, Share, encode

__all__ = ["MOST_STRIKES", "Coordinator", "Exchange", "Made", "RoundDone", "share_of_all"]

FLEET_NAME = "fleet"
"""The device that a share of all devices names."""
Exchange = Callable[[Mapping[str, bytes], float], Iterable[tuple[str, bytes]]]
"""Sends messages by device and yields their replies as they come, until all came or so many seconds passed."""


@dataclass(frozen=True)
class RoundDone:
    """Devices that answered, that did not, that now have the newest head, and how many devices and classes it has."""

    answered: tuple[str, ...]
    silent: tuple[str, ...]
    up_to_date: tuple[str, ...]
    devices: int
    classes: int


class Made(Mapping[str, bytes]):
    """Messages that are made when they are taken out."""

    def __init__(self, names: Sequence[str], make: Callable[[str], bytes]) -> None:
        self._names, self._make = names, make

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass
class Coordinator:
    """The fleet in ``folder``, which is begun if need be; ``tell`` gets a sentence for each thing that happens.

    What happens in a round is kept in the fleet's ``events.jsonl`` too. Raises as ``merging.begin``.
    """

    folder: Path
    bundle_folder: Path
    tell: Callable[[str], None]
    cap: float | None = None
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.bundle, _ = begin(self.bundle_folder, self.folder, self.cap)
        self.fleet, self.ledger = FleetFolder(self.folder), Ledger(self.folder, self.tell, self.clock)
        self.journal = FleetJournal.find(self.folder)
        self._held: dict[str, int] = {}
        self._offered: dict[str, int] = {}
        if self.journal is not None:
            self.settle(self.journal)

    def settle(self, journal: FleetJournal) -> None:
        """Do what the journal says of the moved adapter, if that was not done yet."""
        renewed = self.folder / RENEWED
        if journal.is_over and journal.rests:
            shutil.rmtree(renewed, ignore_errors=True)
        elif journal.is_over and FleetFolder(renewed).is_fleet():
            self.fleet.adopt()

    def round(self, names: Iterable[str], exchange: Exchange, deadline: float) -> RoundDone:
        """Ask these devices, merge what comes within ``deadline`` seconds, and give the result to who lacks it."""
        asks = {name: self.ask(name) for name in self.ledger.asked(names)}
        answered = []
        for name, raw in exchange(asks, deadline):
            if self.answered(name, raw):
                answered.append(name)
        merged = self._merged()
        news: Mapping[str, bytes] = {} if merged is None else self._news(merged, answered)
        for name, raw in exchange(news, deadline) if news else ():
            self.received(name, raw)
        self.ledger.keep(rounds=self.ledger.devices.rounds + 1)
        number = self.ledger.devices.head
        up_to_date = tuple(sorted(name for name in answered if number and self.ledger.known[name].head == number))
        silent = tuple(sorted(set(asks) - set(answered)))
        sizes = (0, 0) if merged is None else (len(merged.devices), len(merged.class_names))
        done = RoundDone(tuple(sorted(answered)), silent, up_to_date, *sizes)
        self.log("round", number=self.ledger.devices.rounds, head=number, **vars(done))
        return done

    def log(self, event: str, **values: object) -> None:
        """Keep what happened in ``events.jsonl``."""
        with closing(EventLog(self.folder)) as events:
            events.write(event, **values)

    def ask(self, name: str) -> bytes:
        """What to ask a device: its share under the adapter in force."""
        fleet = self.fleet.in_force()
        if fleet is not self.fleet:
            return self.renew(name, fleet)
        about, held = fleet.about(), fleet.share_bytes(name)
        ask = Ask(
            nonce=self.ledger.nonce(name),
            bundle_identity=about.bundle_identity,
            adapter_sha256=about.adapter_sha256,
            feature_size=about.feature_size,
            normalise=about.normalise,
            held=_digest(held),
        )
        return self.ledger.sent(name, sealed(ask))

    def renew(self, name: str, fleet: FleetFolder) -> bytes:
        """Ask a device for its share under the moved adapter, for the folder ``fleet``."""
        facts, body = self.piece(name)
        return self.ledger.sent(name, sealed(Renew(**facts, held=_digest(fleet.share_bytes(name))), body))

    def piece(self, name: str) -> tuple[dict[str, Any], bytes]:
        """The records that a device lacks, as far as is known: the fields of a ``Piece``, and its body."""
        if self.journal is None:
            raise ValueError("the fleet took no steps")
        journal, offset = self.journal, min(self._held.get(name, 0), len(self.journal.raw))
        self._offered[name] = len(journal.raw)
        facts = {"offset": offset, "records": journal.records, "chain": journal.chain}
        return {"nonce": self.ledger.nonce(name), **facts}, journal.raw[offset:]

    def lacks(self, name: str, raw: bytes) -> bool:
        """Whether a reply, whose nonce is checked here, only tells how much of the journal a device has.

        Any other reply to a message with a piece of it means that it has all. A late one counts nothing.
        """
        if kind_of(raw) == "followed":
            reply, _ = opened(raw, Followed)
            if self.ledger.is_late(name, reply.nonce):
                self.tell(f"{name}: a late reply on records counts nothing")
                return True
            self._offered.pop(name, None)
            self._held[name] = reply.held
            return True
        offered = self._offered.pop(name, None)
        if offered is not None:
            self._held[name] = offered
        return False

    def follow(self, names: Iterable[str], exchange: Exchange, deadline: float) -> None:
        """Give the journal's newest records to the devices that lack some."""
        if self.journal is None:
            return
        due = [name for name in self.ledger.asked(names) if self._held.get(name, 0) != len(self.journal.raw)]
        messages = {}
        for name in due:
            facts, body = self.piece(name)
            messages[name] = self.ledger.sent(name, sealed(Follow(**facts), body))
        for name, raw in exchange(messages, deadline) if messages else ():
            self.ledger.got(name, raw)
            try:
                if not self.lacks(name, raw):
                    raise InputError("The reply is none to records.")
            except EdgeZofcError as error:
                self.ledger.strike(name, str(error))

    def answered(self, name: str, raw: bytes, fleet: FleetFolder | None = None) -> bool:
        """Take in what a device answered, into ``fleet`` (None: the one in force); returns whether it may have news."""
        self.ledger.got(name, raw)
        try:
            if self.lacks(name, raw):
                return False
            head, body = opened(raw, Answer)
            self.ledger.check_nonce(name, head.nonce)
            if len(body) > MAX_SHARE_BYTES or bool(body) != (head.state == "share"):
                raise DamagedFileError(f"The answer {head.state!r} has a body of {len(body)} bytes.")
            if head.state == "share":
                self._take(name, body, fleet or self.fleet.in_force())
            elif head.state != "same":
                self.ledger.note(name, told=head.reason)
                self.tell(f"{name}: {printable(head.reason, MOST_REASON)}")
        except EdgeZofcError as error:
            self.ledger.strike(name, str(error))
            return False
        self.ledger.forgive(name)
        return head.state != "refused"

    def _take(self, name: str, body: bytes, fleet: FleetFolder) -> None:
        device, fate = take_bytes(fleet, self.bundle, name, body)
        if fate == "revoked, not taken":
            raise InputError(f"{name} is revoked; 'edge-zofc fleet revoke --undo' takes it back.")
        self.ledger.note(name, share=device.number, received=self.clock(), told="")
        self.tell(f"{name}: share {device.number}, {len(device.classes)} classes, {device.pictures} pictures ({fate})")

    def received(self, name: str, raw: bytes) -> None:
        """Note whether a device took the news."""
        self.ledger.got(name, raw)
        try:
            receipt, _ = opened(raw, Receipt)
            self.ledger.check_nonce(name, receipt.nonce)
        except EdgeZofcError as error:
            self.ledger.strike(name, str(error))
            return
        number = self.ledger.devices.head
        what = f"head {number}"
        if receipt.taken:
            self.ledger.note(name, head=number, told="")
            self.tell(f"{name}: has {what} ({printable(receipt.reason)})" if receipt.reason else f"{name}: has {what}")
        else:
            self.ledger.note(name, told=receipt.reason)
            self.tell(f"{name}: did not take {what}: {printable(receipt.reason, MOST_REASON)}")

    def _merged(self) -> Merged | None:
        """All shares as one, counted as a new head if it is one; None while there is none, or none that works."""
        fleet = self.fleet.in_force()
        try:
            if not fleet.names(fleet.about()):
                return None
            merged = fleet.merged()
            merged.head()
        except EdgeZofcError as error:
            self.tell(f"There is no head to give back: {error}")
            return None
        sha256, devices = _digest(encode(share_of_all(merged, number=0))), self.ledger.devices
        if sha256 != devices.head_sha256:
            self.ledger.keep(head=devices.head + 1, head_sha256=sha256)  # a number must not be given out twice
        return merged

    def _news(self, merged: Merged, names: Iterable[str]) -> Mapping[str, bytes]:
        """For each device that lacks the newest head; made one after the other, as each has some megabytes."""
        number, devices = self.ledger.devices.head, len(merged.devices)
        body = encode(share_of_all(merged, number))

        def make(name: str) -> bytes:
            news = News(nonce=self.ledger.nonce(name), number=number, devices=devices)
            return self.ledger.sent(name, sealed(news, body))

        return Made([name for name in names if self.ledger.known[name].head != number], make)


def share_of_all(merged: Merged, number: int) -> Share:
    """All shares as that of one device."""
    about = merged.about
    return Share(
        name=FLEET_NAME,
        number=number,
        bundle_identity=about.bundle_identity,
        adapter_sha256=about.adapter_sha256,
        normalise=about.normalise,
        class_names=merged.class_names,
        statistics=merged.statistics,
    )


def _digest(raw: bytes | None) -> str | None:
    return None if raw is None else hashlib.sha256(raw).hexdigest()
