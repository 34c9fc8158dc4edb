"""What a fleet's server knows of its devices: strikes, bytes, and the nonces of messages that wait for a reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edge_zofc.errors import InputError
from edge_zofc.fleet.exchange import MOST_REASON, new_nonce
from edge_zofc.storage.fleet_devices import Known, read_devices, write_devices

MOST_STRIKES = 3


@dataclass
class Ledger:
    """Of the fleet in ``folder``; ``tell`` gets a sentence for each strike."""

    folder: Path
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.time
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _nonces: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.devices = read_devices(self.folder)
        self.known = dict(self.devices.devices)

    def asked(self, names: Iterable[str]) -> list[str]:
        """Those of these devices that have not MOST_STRIKES in a row."""
        return [name for name in names if self._in_a_row.get(name, 0) < MOST_STRIKES]

    def nonce(self, name: str) -> str:
        """A new one for a message to a device; a reply to an older message counts no more."""
        self._nonces[name] = new_nonce()
        return self._nonces[name]

    def is_late(self, name: str, nonce: str) -> bool:
        """Whether a reply is to another message than the last one; a message has one reply."""
        if self._nonces.get(name) != nonce:
            return True
        del self._nonces[name]
        return False

    def check_nonce(self, name: str, nonce: str) -> None:
        """Raise InputError for a reply that ``is_late``."""
        if self.is_late(name, nonce):
            raise InputError("The reply is to another message than the last one.")

    def strike(self, name: str, reason: str) -> None:
        """A device sent what no honest one sends."""
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        self.note(name, strikes=self.known[name].strikes + 1, told=reason[:MOST_REASON])
        self.tell(f"{name}: strike {self._in_a_row[name]} of {MOST_STRIKES}: {reason}")

    def forgive(self, name: str) -> None:
        """A device sent what it should."""
        self._in_a_row[name] = 0

    def sent(self, name: str, raw: bytes) -> bytes:
        """Count a message to a device; returns it."""
        known = self.known.setdefault(name, Known())
        self.note(name, bytes_out=known.bytes_out + len(raw))
        return raw

    def got(self, name: str, raw: bytes) -> None:
        """Count a reply."""
        known = self.known.setdefault(name, Known())
        self.note(name, bytes_in=known.bytes_in + len(raw), seen=self.clock())

    def note(self, name: str, **changes: object) -> None:
        """Change what is known of a device."""
        self.known[name] = self.known[name].model_copy(update=changes)

    def keep(self, **changes: object) -> None:
        """Write it all down. Durable when it returns."""
        self.devices = self.devices.model_copy(update={**changes, "devices": dict(sorted(self.known.items()))})
        write_devices(self.folder, self.devices)
