"""``edge-zofc bench growth``: processor time and disk of three long runs, beside those of an earlier version.

    camera   4 tasks of 2 classes of 16 + 8 pictures of 12 megapixels: what decoding costs
    single   a class a task: theta rests
    many     300 tasks of 2 classes of 2 + 1 tiny pictures: what a task costs for those before it

Each run is a real ``learn`` of defaults in a process of its own. The versions take turns. The earlier version writes
the bundles, as a later one opens them. The seconds are the processor's, of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import edge_zofc
from edge_zofc.benchmarks.costs.learn import CAMERA_PIXELS
from edge_zofc.benchmarks.costs.machine import machine_state
from edge_zofc.benchmarks.costs.setup import MIB, SEED, tell
from edge_zofc.benchmarks.process import Ended, command, run
from edge_zofc.benchmarks.tables import as_markdown, for_terminal, write_json
from edge_zofc.errors import InputError

CASES = ("camera", "single", "many")
MANY_TASKS = 300
TINY = ("--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", "32", "--depth", "2", "--rank", "2")
COLUMNS = {
    "case": ("run", ""),
    "old_seconds": ("before, CPU s", ".1f"),
    "new_seconds": ("now, CPU s", ".1f"),
    "faster": ("before / now", ".2f"),
    "old_mib": ("before, MiB on disk", ".1f"),
    "new_mib": ("now, MiB on disk", ".1f"),
    "old_accuracy": ("before, average accuracy", ".4f"),
    "new_accuracy": ("now, average accuracy", ".4f"),
}


@dataclass(frozen=True)
class Version:
    """A version of the package: ``name`` is "old" or "new", ``path`` a folder that ``edge_zofc`` is imported from."""

    name: str
    path: Path

    def run(self, *words: object) -> tuple[Ended, float]:
        """Run ``edge-zofc WORDS --json`` to its end; with it the processor's seconds. Raises InputError if it fails."""
        line = ["env", f"PYTHONPATH={self.path}", *command("edge_zofc", *words, "--json")]
        before = _children_seconds()
        ended = run(line)
        if ended.code:
            raise InputError(f"The {self.name} version's '{words[0]}' ended with {ended.code}: {ended.message}")
        return ended, _children_seconds() - before


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench growth``."""
    parser.add_argument("--old", metavar="FOLDER", type=Path, help="a checkout of an earlier version")
    parser.add_argument(
        "--pictures", metavar="FOLDER", type=Path, help="train/<class>/ and test/<class>/, for camera and single"
    )
    parser.add_argument("--tasks", metavar="N", type=int, default=MANY_TASKS, help=f"of many (default: {MANY_TASKS})")
    parser.add_argument("--rounds", metavar="N", type=int, default=1, help="the least of N counts (default: 1)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write the answer here, as JSON")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def main(options: argparse.Namespace) -> int:
    """Measure and print. Raises InputError."""
    for name in ("tasks", "rounds"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}, it must be at least 1.")
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as name:
        place = Path(name)
        versions = [Version("new", Path(edge_zofc.__file__).parent.parent)]
        if options.old is not None:
            versions.insert(0, Version("old", importable(options.old, place / "old")))
        rows = _rows(options, versions, place)
    found = {"rows": rows, "machine": machine_state()}
    if options.out is not None:
        write_json(options.out, found)
    print(json.dumps(found) if options.json else for_terminal(COLUMNS, rows))  # noqa: T201 - the answer
    if not options.json:
        tell(as_markdown(COLUMNS, rows))
    return 0


def _rows(options: argparse.Namespace, versions: Sequence[Version], place: Path) -> list[dict[str, Any]]:
    """A row a case; without pictures ``many`` alone."""
    wanted = CASES if options.pictures else ("many",)
    rows = []
    for case in wanted:
        bundle, stream = place / f"bundle-{case == 'many'}", place / case
        if not bundle.exists():
            versions[0].run("export", bundle, *(TINY if case == "many" else ()))
        _WRITERS[case](stream, options)
        rows.append(measure(versions, bundle, stream, options.rounds) | {"case": case})
        tell(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
        shutil.rmtree(stream)
    return rows


def measure(versions: Sequence[Version], bundle: Path, stream: Path, rounds: int) -> dict[str, Any]:
    """Learn ``stream`` with each version in turn: the least seconds of ``rounds``, MiB of the run, average accuracy."""
    row: dict[str, Any] = {}
    for _ in range(rounds):
        for version in versions:
            folder = stream.with_name("run")
            words = ["--bundle", bundle, "--stream", stream, "--run", folder]
            # The old version knows no other loss.
            ended, seconds = version.run("learn", *words, *(() if version.name == "old" else ("--loss", "head")))
            row[f"{version.name}_seconds"] = min(seconds, row.get(f"{version.name}_seconds", seconds))
            row[f"{version.name}_mib"] = sum(path.stat().st_blocks * 512 for path in folder.rglob("*")) / MIB
            row[f"{version.name}_accuracy"] = ended.answer["average_accuracy"]
            shutil.rmtree(folder)
    row["faster"] = row["old_seconds"] / row["new_seconds"] if "old_seconds" in row else None
    return row


def importable(checkout: Path, folder: Path) -> Path:
    """``folder`` with an ``edge_zofc`` of links into a checkout, whose parts may still lie apart in it."""
    package = checkout / "edge_zofc"
    if not (package / "__init__.py").is_file():
        raise InputError(f"--old is {checkout}, which holds no edge_zofc/; name a checkout of an earlier version.")
    (folder / "edge_zofc").mkdir(parents=True)
    apart = (checkout / name for name in ("export", "benchmarks", "device_profiles"))
    for path in (*package.iterdir(), *apart):
        target = folder / "edge_zofc" / path.name
        if not target.exists() and path.name != "__pycache__":
            target.symlink_to(path.absolute())
    return folder


def _camera(folder: Path, options: argparse.Namespace) -> None:
    wanted = {"train": 16, "test": 8}
    names = [
        place.name
        for place in sorted((options.pictures / "train").iterdir())
        if all(len(_pictures(options.pictures / part / place.name)) >= count for part, count in wanted.items())
    ]
    if len(names) < 8:
        raise InputError(f"--pictures has {len(names)} classes of 16 + 8 pictures, 8 are needed.")
    for number, name in enumerate(names[:8]):
        for part, count in wanted.items():
            place = folder / f"{number // 2:03d}_camera" / part / name
            place.mkdir(parents=True)
            for path in _pictures(options.pictures / part / name)[:count]:
                large = Image.open(path).convert("RGB").resize(CAMERA_PIXELS)
                large.save(place / f"{path.stem}.jpg", quality=90)


def _single(folder: Path, options: argparse.Namespace) -> None:
    for number, place in enumerate(sorted((options.pictures / "train").iterdir())):
        for part in ("train", "test"):
            target = folder / f"{number:03d}_single" / part / place.name
            target.parent.mkdir(parents=True)
            target.symlink_to((options.pictures / part / place.name).absolute())


def _many(folder: Path, options: argparse.Namespace) -> None:
    draw = np.random.default_rng(SEED)
    for number in range(2 * options.tasks):
        colour = draw.normal(128, 10, 3)
        for part, count in (("train", 2), ("test", 1)):
            place = folder / f"{number // 2:03d}_many" / part / f"class{number:04d}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = colour + draw.normal(0, 60, 3) + draw.normal(0, 20, (32, 32, 3))
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(place / f"{index}.png")


_WRITERS: dict[str, Callable[[Path, argparse.Namespace], None]] = {"camera": _camera, "single": _single, "many": _many}


def _pictures(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
