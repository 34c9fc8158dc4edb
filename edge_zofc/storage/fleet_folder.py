"""The folder of a fleet: the shares of its devices, and what they have in common. Its head is solved when it is opened.

    about.json           bundle, adapter and limits (``About``); its presence makes a folder a fleet
    shares/NAME.share    the newest share of each device (``share.py``)
    keys/                who may join over a network (``fleet/keys.py``)
    devices.json         what passed over a network (``fleet_devices.py``)
    journal.bin          the steps of a fleet whose adapter moves (``fleet_journal.py``)
    moved/               a fleet's folder too, with the shares under the moved adapter; where it is, it is in force
    renewed/             the same, until the fleet has judged it
    own.share            a device's own under the moved adapter
    events.jsonl         what happened over a network
    report.html          what ``edge-zofc report`` wrote last
    lock                 held while shares are taken in or taken out

Nothing merged is kept, so that a device's share is replaced and subtracted by replacing and removing its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.merging import Merging, capped
from edge_zofc.algorithm.naming import solved_head
from edge_zofc.algorithm.options import make_options
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.errors import DamagedFileError, InputError, explained, shown
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_journal import JOURNAL, adapter_digest, replayed
from edge_zofc.storage.lock import LOCK_FILE, RunLock
from edge_zofc.storage.reading import Strict, check_folder, is_there, load_model, read_bounded
from edge_zofc.storage.settings import Placement, Settings
from edge_zofc.storage.share import MAX_SHARE_BYTES, MOST_FEATURES, Share, decode, device_name
from edge_zofc.storage.writing import DISK, TEMPORARY_PREFIX, make_folder, replace_folder, sweep, write_atomic

ABOUT = "about.json"
SHARES = "shares"
SUFFIX = ".share"
KEYS = "keys"
DEVICES = "devices.json"
MOVED, RENEWED, OWN = "moved", "renewed", "own.share"
MOST_DEVICES = 10_000
MICRO_BATCH = 4
"""Pictures in one run of the graph where a fleet names some."""
_LIMIT_BYTES = 4 << 20

Hexadecimal = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DeviceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class About(Strict):
    """The content of ``about.json``. Features of another bundle, adapter or normalisation are not added to these.

    ``bundle_folder`` as in ``Settings``. ``cap``: a device counts as at most so many times the median device's
    pictures; None: as all that it has. The shares of ``revoked`` devices are not taken.
    """

    format_version: Literal[1] = 1
    bundle_identity: Hexadecimal
    bundle_folder: Annotated[str, Field(max_length=4096)]
    adapter_sha256: Hexadecimal
    feature_size: Annotated[int, Field(ge=1, le=MOST_FEATURES)]
    normalise: bool
    cap: Annotated[float, Field(ge=1, le=1e6)] | None = None
    revoked: Annotated[tuple[DeviceName, ...], Field(max_length=MOST_DEVICES)] = ()

    def settings(self) -> Settings:
        """Those of a run that would name pictures as this fleet does."""
        return Settings(
            bundle_identity=self.bundle_identity,
            bundle_folder=self.bundle_folder,
            options=make_options("edge", {"adapter": "off", "normalise": self.normalise}),
            execution=Placement.simple(MICRO_BATCH),
        )


@dataclass(frozen=True)
class Device:
    """One device's share without its sums: ``classes`` has the pictures of each class."""

    name: str
    number: int
    classes: dict[str, int]

    @classmethod
    def of(cls, share: Share) -> Device:
        """What a share tells about its device."""
        counts = map(int, share.statistics.counts)
        return cls(share.name, share.number, dict(zip(share.class_names, counts, strict=True)))

    @property
    def pictures(self) -> int:
        """Of all its classes."""
        return sum(self.classes.values())


@dataclass(frozen=True)
class Merged:
    """All shares of a fleet as one: class names [C], sorted, and the statistics with these ids."""

    about: About
    devices: tuple[Device, ...]
    class_names: tuple[str, ...]
    statistics: Statistics

    def head(self) -> Head:
        """The head of all devices. Raises DamagedFileError if the statistics have none."""
        with np.errstate(all="ignore"):
            try:
                head = solved_head(self.statistics)
            except np.linalg.LinAlgError as error:
                raise DamagedFileError(
                    "The shares of this fleet have no head; merge them anew, one after the other."
                ) from error
        if not (np.isfinite(head.rows).all() and head.biases is not None and np.isfinite(head.biases).all()):
            raise DamagedFileError("The head of this fleet is not finite; merge its shares anew, one after the other.")
        return head


def misfit(share: Share, about: About) -> str:
    """Why a share's features cannot be added to those of a fleet; "" where they can."""
    found, own = share.bundle_identity[:12], about.bundle_identity[:12]
    if share.bundle_identity != about.bundle_identity:
        return f"it was learnt with another bundle (its identity is {found}..., the fleet's {own}...)"
    if share.adapter_sha256 != about.adapter_sha256:
        found, own = share.adapter_sha256[:12], about.adapter_sha256[:12]
        return f"its features are those of another adapter (SHA-256 {found}..., the fleet's {own}...)"
    if share.statistics.sums.shape[1] != about.feature_size:
        return f"its features have {share.statistics.sums.shape[1]} entries, the bundle's {about.feature_size}"
    if share.normalise != about.normalise:
        return "its pictures and the fleet's are not normalised alike (--normalise)"
    return ""


class FleetFolder:
    """The fleet in the folder ``path``, which need not be there yet. Readers need no lock."""

    def __init__(self, path: Path) -> None:
        self.path, self.shares = path, path / SHARES

    def is_fleet(self) -> bool:
        """Whether a fleet was begun here."""
        return is_there(self.path / ABOUT)

    def in_force(self) -> FleetFolder:
        """The folder whose shares count: that of the moved adapter where there is one."""
        moved = FleetFolder(self.path / MOVED)
        return moved if moved.is_fleet() else self

    def parts(self) -> list[FleetFolder]:
        """The folder itself, and those of the moved adapter that are there."""
        inner = (FleetFolder(self.path / name) for name in (MOVED, RENEWED))
        return [self, *(part for part in inner if part.is_fleet())]

    def adapter(self, bundle: Bundle) -> np.ndarray:
        """The adapter in force, float32 [P]: the bundle's initial one, or what the journal ends in.

        Raises DamagedFileError where that is not the one that the shares were computed with, else as ``replayed``.
        """
        wanted, start = self.in_force().about().adapter_sha256, bundle.initial_adapter()
        if adapter_digest(start) == wanted:
            return start
        theta = replayed(bundle, self.path / JOURNAL)[0].theta
        if adapter_digest(theta) != wanted:
            raise DamagedFileError(
                f"{self.path / JOURNAL} does not end in the adapter of the shares in {self.in_force().path}; put back "
                "a good copy of both."
            )
        return theta

    def about(self) -> About:
        """Raises InputError if there is no fleet, DamagedFileError if its ``about.json`` is not valid."""
        path = self.path / ABOUT
        if not is_there(path):
            raise InputError(f"There is no fleet in {self.path} ({ABOUT} is missing); start one with "
                             "'edge-zofc fleet merge'.")  # fmt: skip
        return load_model(About, read_bounded(path, _LIMIT_BYTES), f"{path} is not a fleet's:")

    def write_about(self, about: About) -> None:
        """Durable when it returns."""
        write_atomic(self.path / ABOUT, (about.model_dump_json(indent=2) + "\n").encode())

    def adopt(self) -> None:
        """What was in ``renewed/`` is in force."""
        replace_folder(self.path / RENEWED, self.path / MOVED)

    def end(self) -> None:
        """No fleet any more; what else lies here stays."""
        with explained(self.path / ABOUT, "removed"):
            DISK.unlink(self.path / ABOUT)
            DISK.fsync_folder(self.path)

    def names(self, about: About) -> list[str]:
        """The devices that have a share here and are not revoked, sorted. Raises InputError for too many."""
        check_folder(self.shares)
        found = []
        with explained(self.shares, "read"), suppress(FileNotFoundError):
            for path in self.shares.iterdir():
                with suppress(InputError):  # somebody else's file
                    if path.name.endswith(SUFFIX):
                        found.append(device_name(path.name[: -len(SUFFIX)]))
        if len(found) > MOST_DEVICES:
            raise InputError(f"{self.shares} has {len(found)} shares, the limit is {MOST_DEVICES}; merge some groups "
                             "into fleets of their own.")  # fmt: skip
        return sorted(set(found) - set(about.revoked))

    def share_path(self, name: str) -> Path:
        """Where the share of a device lies."""
        return self.shares / f"{name}{SUFFIX}"

    def share_bytes(self, name: str) -> bytes | None:
        """The file of a device's share as it is; None where there is none."""
        path = self.share_path(name)
        return read_bounded(path, MAX_SHARE_BYTES) if is_there(path) else None

    def share(self, name: str, about: About) -> Share:
        """The share of a device. Raises DamagedFileError if it is not whole, not its own, or of another fleet."""
        path = self.share_path(name)
        share = read_share(path)
        reason = f"it is a share of {share.name}" if share.name != name else misfit(share, about)
        if reason:
            raise DamagedFileError(f"{path} does not belong here: {reason}; take it out with 'edge-zofc fleet revoke'.")
        return share

    def merged(self) -> Merged:
        """All shares as one; one of them is in memory at a time.

        Raises InputError if there is no fleet or no share in it, DamagedFileError if a file is not as it was written.
        """
        about = self.about()
        names, most = self.names(about), float("inf")
        if not names:
            raise InputError(f"The fleet in {self.path} has no share; add some with 'edge-zofc fleet merge'.")
        if about.cap is not None:
            most = about.cap * median(self.share(name, about).pictures for name in names)
        merging, devices = Merging(about.feature_size), []
        for name in names:
            share = self.share(name, about)
            merging.add(share.class_names, capped(share.statistics, most))
            devices.append(Device.of(share))
        return Merged(about, tuple(devices), *merging.result())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, hold its lock and remove what a crash left over.

        Raises InputError if something else lies in it, RunLockedError while another process changes it.
        """
        self.refuse_strangers()
        make_folder(self.path)
        with RunLock(self.path):
            check_folder(self.shares)
            make_folder(self.shares)
            for folder in (self.path, self.shares):
                sweep(folder)
            yield

    def refuse_strangers(self) -> None:
        """Raise InputError if something else than a fleet lies here."""
        if self.is_fleet() or not is_there(self.path):
            return
        if not self.path.is_dir():
            raise InputError(f"{shown(self.path)} is a file; give -o a folder.")
        # Keys may be there first, at a device its fleet's journal. A start that was cut off leaves a lock, an empty
        # folder, and perhaps a half-written about.json.
        for name in (entry.name for entry in self.path.iterdir()):
            is_half = name.startswith(TEMPORARY_PREFIX) and name.endswith(ABOUT)
            if name not in (LOCK_FILE, SHARES, KEYS, JOURNAL, OWN) and not is_half:
                raise InputError(f"{shown(self.path)} is not empty and holds no fleet; give -o a new folder.")

    def write_share(self, name: str, raw: bytes) -> None:
        """Put the bytes of a share in place of the device's last one; durable when it returns."""
        write_atomic(self.share_path(name), raw)

    def remove_share(self, name: str) -> None:
        """Take a device's share away."""
        path = self.share_path(name)
        with explained(path, "removed"):
            DISK.unlink(path)
            DISK.fsync_folder(self.shares)


def read_share(path: Path) -> Share:
    """Read one share file. Raises InputError if it is missing, else as ``decode``."""
    return decode(read_bounded(path, MAX_SHARE_BYTES), shown(path))
