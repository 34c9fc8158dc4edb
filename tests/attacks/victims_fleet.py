"""The readers of a fleet: a share in its place, ``about.json``, which says what it must fit to, and what its network
reads: messages, ``devices.json``, and the name in a device's keys.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from shares import write_share
from victim import Victim, tiny_bundle

from edge_zofc.fleet.exchange import Answer, opened, sealed
from edge_zofc.fleet.keys import read_device_keys
from edge_zofc.fleet.merging import merge
from edge_zofc.report.fleet import fleet_data, fleet_summary
from edge_zofc.storage.fleet_devices import Devices, Known, read_devices, write_devices
from edge_zofc.storage.fleet_folder import FleetFolder


def seal_share(raw: bytes) -> bytes:
    """A share whose checksum fits."""
    return raw[:-4] + struct.pack("<I", zlib.crc32(raw[:-4]))


def fleet_victims(folder: Path) -> Iterator[Victim]:
    """Two devices, merged and shown."""
    tiny = tiny_bundle(folder / "bundle")
    paths = [write_share(folder, tiny, name, classes=c) for name, c in (("a", (0, 1)), ("b", (1, 4)))]
    fleet = FleetFolder(folder / "fleet")
    merge(tiny.folder, paths, fleet.path, cap=2)

    def show() -> object:
        merged = fleet.merged()
        return merged.head(), fleet_data(merged), fleet_summary(merged)

    yield Victim("share", fleet.share_path("a"), show, {5}, {0, 2, 5}, seal_share)
    yield Victim("about.json", fleet.path / "about.json", show, {0, 2, 5})
    yield from _network_victims(folder, fleet.path)


def _network_victims(folder: Path, fleet: Path) -> Iterator[Victim]:
    write_devices(fleet, Devices(rounds=3, head=2, devices={"a": Known(share=4, received=1.0, told="why", strikes=1)}))
    yield Victim("devices.json", fleet / "devices.json", lambda: read_devices(fleet), {0, 5})
    keys = folder / "d7"
    keys.mkdir()
    for name, text in (("device.json", '{"format_version":1,"name":"d7"}'), ("device.key", "key"), ("ca.pem", "ca")):
        (keys / name).write_text(text)
    yield Victim("device.json", keys / "device.json", lambda: read_device_keys(keys), {0, 5})
    answer = folder / "answer"
    answer.write_bytes(sealed(Answer(nonce="ab" * 16, state="nothing", reason="It has nothing yet.")))
    yield Victim("message", answer, lambda: opened(answer.read_bytes(), Answer), {0, 2, 5})
