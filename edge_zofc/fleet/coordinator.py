"""The fleet's side of an exchange: it asks, checks what comes, merges, and gives all of it back; bytes in, bytes out.

Whatever a device sends ends in a sentence and, where no honest device sends such a thing, in a strike. The other
devices go on. Who has MOST_STRIKES in a row is not asked any more until ``serve`` starts anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError, printable
from edge_zofc.fleet.exchange import MOST_REASON, Answer, Ask, News, Receipt, new_nonce, opened, sealed
from edge_zofc.fleet.merging import begin, take_bytes
from edge_zofc.storage.fleet_devices import Known, read_devices, write_devices
from edge_zofc.storage.fleet_folder import FleetFolder, Merged
from edge_zofc.storage.share import MAX_SHARE_BYTES, Share, encode

MOST_STRIKES = 3
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


class _Made(Mapping[str, bytes]):
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

    Raises as ``merging.begin``.
    """

    folder: Path
    bundle_folder: Path
    tell: Callable[[str], None]
    cap: float | None = None
    clock: Callable[[], float] = time.time
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _nonces: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bundle, _ = begin(self.bundle_folder, self.folder, self.cap)
        self._fleet, self._devices = FleetFolder(self.folder), read_devices(self.folder)
        self._known = dict(self._devices.devices)

    def round(self, names: Iterable[str], exchange: Exchange, deadline: float) -> RoundDone:
        """Ask these devices, merge what comes within ``deadline`` seconds, and give the result to who lacks it."""
        asks = {name: self.ask(name) for name in names if self._in_a_row.get(name, 0) < MOST_STRIKES}
        answered = []
        for name, raw in exchange(asks, deadline):
            if self.answered(name, raw):
                answered.append(name)
        merged = self._merged()
        news: Mapping[str, bytes] = {} if merged is None else self._news(merged, answered)
        for name, raw in exchange(news, deadline) if news else ():
            self.received(name, raw)
        self._devices = self._devices.model_copy(update={"rounds": self._devices.rounds + 1})
        self._keep()
        number = self._devices.head
        up_to_date = tuple(sorted(name for name in answered if number and self._known[name].head == number))
        silent = tuple(sorted(set(asks) - set(answered)))
        sizes = (0, 0) if merged is None else (len(merged.devices), len(merged.class_names))
        return RoundDone(tuple(sorted(answered)), silent, up_to_date, *sizes)

    def ask(self, name: str) -> bytes:
        """What to ask a device."""
        about, held = self._fleet.about(), self._fleet.share_bytes(name)
        ask = Ask(
            nonce=self._nonce(name),
            bundle_identity=about.bundle_identity,
            adapter_sha256=about.adapter_sha256,
            feature_size=about.feature_size,
            normalise=about.normalise,
            held=None if held is None else hashlib.sha256(held).hexdigest(),
        )
        return self._sent(name, sealed(ask))

    def answered(self, name: str, raw: bytes) -> bool:
        """Take in what a device answered; returns whether it is a member that may have news."""
        self._got(name, raw)
        try:
            head, body = opened(raw, Answer)
            self._check_nonce(name, head.nonce)
            if len(body) > MAX_SHARE_BYTES or bool(body) != (head.state == "share"):
                raise DamagedFileError(f"The answer {head.state!r} has a body of {len(body)} bytes.")
            if head.state == "share":
                self._take(name, body)
            elif head.state != "same":
                self._note(name, told=head.reason)
                self.tell(f"{name}: {printable(head.reason, MOST_REASON)}")
        except EdgeZofcError as error:
            self._strike(name, str(error))
            return False
        self._in_a_row[name] = 0
        return head.state != "refused"

    def _take(self, name: str, body: bytes) -> None:
        device, fate = take_bytes(self._fleet, self._bundle, name, body)
        if fate == "revoked, not taken":
            raise InputError(f"{name} is revoked; 'edge-zofc fleet revoke --undo' takes it back.")
        self._note(name, share=device.number, received=self.clock(), told="")
        self.tell(f"{name}: share {device.number}, {len(device.classes)} classes, {device.pictures} pictures ({fate})")

    def received(self, name: str, raw: bytes) -> None:
        """Note whether a device took the news."""
        self._got(name, raw)
        try:
            receipt, _ = opened(raw, Receipt)
            self._check_nonce(name, receipt.nonce)
        except EdgeZofcError as error:
            self._strike(name, str(error))
            return
        what = f"head {self._devices.head}"
        if receipt.taken:
            self._note(name, head=self._devices.head, told="")
            self.tell(f"{name}: has {what} ({printable(receipt.reason)})" if receipt.reason else f"{name}: has {what}")
        else:
            self._note(name, told=receipt.reason)
            self.tell(f"{name}: did not take {what}: {printable(receipt.reason, MOST_REASON)}")

    def _merged(self) -> Merged | None:
        """All shares as one, counted as a new head if it is one; None while there is none, or none that works."""
        try:
            if not self._fleet.names(self._fleet.about()):
                return None
            merged = self._fleet.merged()
            merged.head()
        except EdgeZofcError as error:
            self.tell(f"There is no head to give back: {error}")
            return None
        raw = encode(self._share(merged, number=0))
        sha256 = hashlib.sha256(raw).hexdigest()
        if sha256 != self._devices.head_sha256:
            changes = {"head": self._devices.head + 1, "head_sha256": sha256}
            self._devices = self._devices.model_copy(update=changes)
            self._keep()  # a number must not be given out twice
        return merged

    def _share(self, merged: Merged, number: int) -> Share:
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

    def _news(self, merged: Merged, names: Iterable[str]) -> Mapping[str, bytes]:
        """For each device that lacks the newest head; made one after the other, as each has some megabytes."""
        number, devices = self._devices.head, len(merged.devices)
        body = encode(self._share(merged, number))

        def make(name: str) -> bytes:
            return self._sent(name, sealed(News(nonce=self._nonce(name), number=number, devices=devices), body))

        return _Made([name for name in names if self._known[name].head != number], make)

    def _nonce(self, name: str) -> str:
        self._nonces[name] = new_nonce()
        return self._nonces[name]

    def _check_nonce(self, name: str, nonce: str) -> None:
        if self._nonces.pop(name, None) != nonce:
            raise InputError("The reply is to another message than the last one.")

    def _strike(self, name: str, reason: str) -> None:
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        self._note(name, strikes=self._known[name].strikes + 1, told=reason[:MOST_REASON])
        self.tell(f"{name}: strike {self._in_a_row[name]} of {MOST_STRIKES}: {reason}")

    def _sent(self, name: str, raw: bytes) -> bytes:
        known = self._known.setdefault(name, Known())
        self._note(name, bytes_out=known.bytes_out + len(raw))
        return raw

    def _got(self, name: str, raw: bytes) -> None:
        known = self._known.setdefault(name, Known())
        self._note(name, bytes_in=known.bytes_in + len(raw), seen=self.clock())

    def _note(self, name: str, **changes: object) -> None:
        self._known[name] = self._known[name].model_copy(update=changes)

    def _keep(self) -> None:
        self._devices = self._devices.model_copy(update={"devices": dict(sorted(self._known.items()))})
        write_devices(self.folder, self._devices)
