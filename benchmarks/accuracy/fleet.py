"""Devices that see a few classes each, alone and as a fleet: ``python -m edge_zofc.benchmarks.accuracy.fleet --help``.

The classes of an image folder are dealt out to the devices. Each learns its own with the adapter at rest and shares
them; all are judged on the test pictures of all classes. Beside them stands one run that saw everything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from edge_zofc.benchmarks.process import edge_zofc
from edge_zofc.benchmarks.tables import print_measured
from edge_zofc.data.folders import class_folders
from edge_zofc.data.stream import numbered_tasks
from edge_zofc.errors import InputError
from edge_zofc.storage.result import read_result

COLUMNS = {
    "name": ("pictures", ""),
    "devices": ("devices", ""),
    "classes": ("classes", ""),
    "alone": ("each alone", ".1f"),
    "together": ("together", ".1f"),
    "one": ("one run that saw all", ".1f"),
    "share_kib": ("KiB a share", ",.0f"),
}


def measure(bundle: Path, pictures: Path, devices: int, seed: int, out: Path) -> dict[str, Any]:
    """One row, accuracies in percent of the test pictures of all classes; runs and shares stay in ``out``.

    Raises InputError where a command fails or there are fewer classes than devices.
    """
    stream, fleet, shares, right = out / "stream", out / "fleet", list[Path](), list[float]()
    counts = dealt_out(pictures, devices, seed, stream)
    for number, task in enumerate(numbered_tasks(stream).values()):
        run = out / f"run{number}"
        learn_at_rest(bundle, task, run)
        shares.append(out / f"d{number}.share")
        edge_zofc("fleet", "share", run, "-o", shares[-1])
        found = read_result(run)
        right.append((found.last_accuracy or 0.0) * found.tasks[0].test_images)
    edge_zofc("fleet", "merge", bundle, *shares, "-o", fleet)
    learn_at_rest(bundle, stream, out / "whole")
    together, one = (edge_zofc("eval", folder, "--stream", stream) for folder in (fleet, out / "whole"))
    total = sum(task["total"] for task in one["tasks"])
    return {
        "name": pictures.name,
        "devices": devices,
        "classes": f"{min(counts)} to {max(counts)}",
        "alone": 100 * mean(right) / total,
        "together": 100 * together["accuracy"],
        "one": 100 * one["accuracy"],
        "share_kib": mean(path.stat().st_size for path in shares) / 1024,
    }


def dealt_out(pictures: Path, devices: int, seed: int, stream: Path) -> list[int]:
    """Write ``stream``, a task for each device, into a new folder; returns how many classes each has.

    Raises InputError where there are fewer classes than devices.
    """
    classes = len(class_folders(pictures / "train"))
    if classes < devices:
        raise InputError(f"{pictures} has {classes} classes for {devices} devices; take fewer devices.")
    counts = [classes // devices + (number < classes % devices) for number in range(devices)]
    stream.parent.mkdir(parents=True)
    edge_zofc("split", pictures, stream, "--classes-per-task", ",".join(map(str, counts)), "--seed", seed)
    return counts


def learn_at_rest(bundle: Path, stream: Path, run: Path) -> None:
    """Learn a device's stream with the adapter at its start."""
    words = ("--bundle", bundle, "--stream", stream, "--run", run, "--evaluate", "last")
    edge_zofc("learn", *words, "--adapter", "off")


def fleet_parser(module: str) -> argparse.ArgumentParser:
    """What benchmarks of fleets take: the bundle, where runs go, how many devices, and folders of pictures."""
    parser = argparse.ArgumentParser(prog=f"python -m edge_zofc.benchmarks.accuracy.{module}")
    parser.add_argument("--bundle", metavar="FOLDER", type=Path, required=True, help="bundle of all devices")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="a new folder for runs and fleets")
    parser.add_argument("--devices", metavar="N", type=int, default=8, help="devices (default: 8)")
    parser.add_argument("pictures", metavar="PICTURES", type=Path, nargs="+", help="{train,test}/<class>/ each")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Print a Markdown table, a row for each folder of pictures; returns the exit code."""
    parser = fleet_parser("fleet")
    parser.add_argument("--seed", metavar="N", type=int, default=1993, help="of the class order (default: 1993)")
    options = parser.parse_args(words)
    rows = (
        measure(options.bundle, folder, options.devices, options.seed, options.out / folder.name)
        for folder in options.pictures
    )
    return print_measured(COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(main())
