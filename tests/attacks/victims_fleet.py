"""The readers of a fleet: a share in its place, ``about.json``, which says what it must fit to, and what its network
reads: messages, ``devices.json``, and the name in a device's keys.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from shares import made_share, write_share
from victim import Victim, tiny_bundle
from victims_run import seal_journal

from edge_zofc.algorithm.directions import BALANCED
from edge_zofc.fleet.exchange import Answer, Compared, Follow, Measured, opened, sealed
from edge_zofc.fleet.following import Following
from edge_zofc.fleet.keys import read_device_keys
from edge_zofc.fleet.merging import merge
from edge_zofc.report.fleet import fleet_data, fleet_summary
from edge_zofc.storage.fleet_devices import Devices, Known, read_devices, write_devices
from edge_zofc.storage.fleet_folder import MOVED, FleetFolder
from edge_zofc.storage.fleet_journal import FleetJournal, adapter_digest, replayed
from edge_zofc.storage.journal import Header, Kind, Record
from edge_zofc.storage.share import encode


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
    yield from _moved_victims(folder / "moving")


def _moved_victims(folder: Path) -> Iterator[Victim]:
    """A fleet whose adapter moved: its journal, the folder in force, and what a device gets of the journal."""
    tiny = tiny_bundle(folder / "bundle")
    fleet = FleetFolder(folder / "fleet")
    merge(tiny.folder, [write_share(folder, tiny, "a")], fleet.path)
    header = Header(7, tiny.identity, 12, 2.0**-9, 0.9, 2, BALANCED, "adam")
    found = FleetJournal.begin(fleet.path, header)
    found.append(Record(Kind.TASK_START, 0, 0), Record(Kind.STEP, 0, 0, 0.1, (1.0, -2.0)), Record(Kind.TASK_END, 0, 1))
    about = fleet.about().model_copy(update={"adapter_sha256": adapter_digest(replayed(tiny, found.path)[0].theta)})
    moved = FleetFolder(fleet.path / MOVED)
    with moved.locked():
        share = made_share("a", bundle_identity=tiny.identity, adapter_sha256=about.adapter_sha256, size=4)
        moved.write_share("a", encode(share))
        moved.write_about(about)

    def show() -> object:
        return fleet.adapter(tiny), fleet.in_force().merged().head()

    yield Victim("fleet journal", found.path, show, {0, 5}, {0, 2, 5}, seal_journal)
    yield Victim("moved about.json", moved.path / "about.json", show, {0, 2, 5})
    yield Victim("moved share", moved.share_path("a"), show, {5}, {0, 2, 5}, seal_share)
    facts = {"nonce": "ab" * 16, "offset": 0, "records": found.records, "chain": found.chain}
    piece = folder / "piece"
    piece.write_bytes(sealed(Follow(**facts), found.raw))

    def follow() -> object:
        with tempfile.TemporaryDirectory() as home:
            device = Following(Path(home) / "fleet", tiny)
            held = device.take(*opened(piece.read_bytes(), Follow))
            return held if held is not None else device.adapter()[0].theta

    yield Victim("piece of a journal", piece, follow, {0, 2, 5})
    replies = (
        Measured(nonce="ab" * 16, state="measured", step=3, pictures=4, loss=0.5),
        Compared(nonce="ab" * 16, state="compared", total=9, right_rest=4, right_moved=5, only_rest=1, only_moved=2),
    )
    for reply in replies:
        path = folder / reply.kind
        path.write_bytes(sealed(reply, bytes(8)))
        kind = type(reply)
        yield Victim(f"message {reply.kind}", path, partial(_open, path, kind), {0, 2, 5})


def _open(path: Path, kind: type[Measured | Compared]) -> object:
    return opened(path.read_bytes(), kind)


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
