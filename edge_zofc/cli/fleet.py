"""The commands of a fleet, ``edge-zofc fleet COMMAND``; as ``commands.py`` otherwise."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from edge_zofc.cli.answer import answer, terminal_width
from edge_zofc.errors import shown

log = logging.getLogger("edge_zofc")


def fleet_share(options: argparse.Namespace) -> int:
    """Write what a run has learnt as a share for its fleet: sums of features, never a picture."""
    from edge_zofc.device.profiles import format_bytes
    from edge_zofc.fleet.sharing import LEAVES, SINCE, share_of
    from edge_zofc.report.text import count, table
    from edge_zofc.storage.fleet_folder import Device
    from edge_zofc.storage.run_folder import refuse_own
    from edge_zofc.storage.share import encode
    from edge_zofc.storage.writing import write_atomic

    refuse_own(options.out)
    name = options.out.name.split(".")[0] if options.name is None else options.name
    found = share_of(options.run, name, options.min_pictures, options.bundle)
    raw, device = encode(found.share), Device.of(found.share)
    write_atomic(options.out, raw)
    title = f"{options.out}: share {device.number} of the device {device.name}, {format_bytes(len(raw))}"
    rows: list[tuple[Any, ...]] = [("pictures", "class"), *((n, text) for text, n in device.classes.items())]
    few = ", ".join(f"{shown(text)} ({n})" for text, n in found.left_out.items())
    lines = [title, table(rows, "rl", terminal_width()), f"What leaves this device: {LEAVES}. {SINCE}"]
    lines += [f"Left out, with fewer than {options.min_pictures} pictures: {few}."] if few else []
    if found.shown:
        lines.append(f"Not in it: {count(found.shown, 'picture')} that learn has not learnt yet.")
    data: dict[str, Any] = {"out": str(options.out), "device": device.name, "share": device.number, "bytes": len(raw)}
    data |= {"classes": device.classes, "left_out": found.left_out, "shown": found.shown}
    return answer(options, data, "\n".join(lines))


def fleet_merge(options: argparse.Namespace) -> int:
    """Make one head of the shares of many devices, or add and replace shares of a fleet that is there."""
    from edge_zofc.fleet.merging import merge as merge_shares
    from edge_zofc.report.fleet import fleet_data, headline, limits
    from edge_zofc.report.text import table

    done = merge_shares(options.bundle, options.shares, options.out, options.cap)
    rows: list[tuple[Any, ...]] = [("device", "share", "pictures", "classes", "", "file")]
    for given, fate in done.fates:
        device = given.device
        rows.append((device.name, device.number, device.pictures, len(device.classes), fate, given.path))
    for note in done.notes:
        log.warning(note)
    told = [table(rows, "lrrrll", terminal_width()), f"{options.out}: {headline(done.merged)}", *limits(done.merged)]
    given_data = [{"file": str(given.path), "device": given.device.name, "fate": fate} for given, fate in done.fates]
    data = {"out": str(options.out), "given": given_data, **fleet_data(done.merged)}
    return answer(options, data, "\n".join(told))


def fleet_revoke(options: argparse.Namespace) -> int:
    """Take a device's share out of a fleet, and take none of it any more."""
    from edge_zofc.fleet.merging import revoke as revoke_device

    was_held = revoke_device(options.fleet, options.name, options.undo)
    if options.undo:
        told = f"{options.fleet}: shares of {options.name} are taken again"
    else:
        told = f"{options.fleet}: {options.name} is revoked, {'its share is out' if was_held else 'it had no share'}"
    return answer(options, {"fleet": str(options.fleet), "device": options.name, "undo": options.undo}, told)


def fleet_report(folder: Path, options: argparse.Namespace) -> int:
    """The report of a fleet, for ``edge-zofc report``."""
    from edge_zofc.report.fleet import fleet_data, fleet_summary, write_fleet_report

    page, merged = write_fleet_report(folder, options.out)
    told = f"{fleet_summary(merged, terminal_width())}\n{page}"
    return answer(options, {"report": str(page), **fleet_data(merged)}, told)
