"""The report of a fleet: its devices, and its classes with the devices that know each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_zofc.errors import printable
from edge_zofc.report import text
from edge_zofc.report.page import rendered
from edge_zofc.storage.fleet_folder import FleetFolder, Merged
from edge_zofc.storage.run_folder import refuse_own
from edge_zofc.storage.writing import write_atomic

MOST_NAMES = 6
"""Devices or classes that are named in one cell."""


def write_fleet_report(folder: Path, out: Path | None = None) -> tuple[Path, Merged]:
    """Write the page of a fleet to ``out`` (by default ``report.html`` in its folder); returns its path and the fleet.

    Raises InputError where there is no fleet or no share in it, or the page cannot be written, DamagedFileError where a
    share is damaged.
    """
    if out is not None:
        refuse_own(out)
    merged, path = FleetFolder(folder).in_force().merged(), folder / "report.html" if out is None else out
    name = folder.resolve().name
    page = rendered("fleet.html", name=name, headline=headline(merged), limits=limits(merged), tables=_tables(merged))
    write_atomic(path, page.encode())
    return path, merged


def fleet_data(merged: Merged) -> dict[str, Any]:
    """The same as one JSON-able object."""
    about = merged.about
    devices = [
        {"name": one.name, "share": one.number, "pictures": one.pictures, "classes": one.classes}
        for one in merged.devices
    ]
    return {
        "bundle_identity": about.bundle_identity,
        "cap": about.cap,
        "revoked": list(about.revoked),
        "devices": devices,
        "classes": [{"name": name, "pictures": sum(of.values()), "devices": list(of)} for name, of in _classes(merged)],
    }


def fleet_summary(merged: Merged, width: int = 100) -> str:
    """The same in plain text, without a final newline."""
    lines = [headline(merged), *limits(merged)]
    for rows in _tables(merged):
        lines += ["", text.table(rows, "lrrl" if rows[0][0] == "device" else "lrl", width)]
    return "\n".join(lines)


def headline(merged: Merged) -> str:
    """What the fleet has, in one sentence."""
    pictures = sum(device.pictures for device in merged.devices)
    parts = (
        text.count(len(merged.devices), "device"),
        text.count(len(merged.class_names), "class", "classes"),
        text.count(pictures, "picture"),
    )
    return f"{parts[0]}, {parts[1]}, {parts[2]}"


def limits(merged: Merged) -> list[str]:
    """A sentence for each thing that holds shares back."""
    about = merged.about
    found = [f"A device counts as at most {about.cap:g} times the median device's pictures."] if about.cap else []
    return found + ([f"Revoked: {_some(about.revoked)}."] if about.revoked else [])


def _classes(merged: Merged) -> list[tuple[str, dict[str, int]]]:
    """Each class and how many pictures of it each device has that knows it."""
    return [
        (name, {one.name: one.classes[name] for one in merged.devices if name in one.classes})
        for name in merged.class_names
    ]


def _tables(merged: Merged) -> list[list[tuple[Any, ...]]]:
    """Of devices and of classes, the head first."""
    devices: list[tuple[Any, ...]] = [("device", "share", "pictures", "classes")]
    devices += [(one.name, one.number, one.pictures, _some(one.classes)) for one in merged.devices]
    classes: list[tuple[Any, ...]] = [("class", "pictures", "devices")]
    classes += [(name, sum(of.values()), _some(of)) for name, of in _classes(merged)]
    return [devices, classes]


def _some(names: Any) -> str:
    """The first few names, and how many there are."""
    first = [printable(name, 60) for name in list(names)[:MOST_NAMES]]
    more = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return f"{len(names)}: {', '.join(first)}{more}" if len(names) > 1 else ", ".join(first)
