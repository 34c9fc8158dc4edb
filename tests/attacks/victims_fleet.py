"""The readers of a fleet: a share in its place, and ``about.json``, which says what it must fit to."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from shares import write_share
from victim import Victim, tiny_bundle

from edge_zofc.fleet.merging import merge
from edge_zofc.report.fleet import fleet_data, fleet_summary
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
