"""``edge-zofc bench estimators``: what inference, SPSA, exact gradients and first order in torch cost.

    --costs BUNDLE...    peak memory and seconds a step of every arm, a whole process each
    --limits BUNDLE...   the lowest memory cgroup in which each arm learns; as root, on a machine that does nothing else
    --curve BUNDLE...    accuracy over seconds and image-forwards, and what half and 90 % of the exact gain take

Without ``--stream`` all classes of the package's photographs are one task.
"""

from __future__ import annotations

import argparse
import importlib.resources
import importlib.util
import itertools
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs import estimator_curve, tables
from edge_zofc.benchmarks.costs.cgroup import (
    GRAIN_MIB,
    LEAST_MIB,
    SLOWER,
    drop_from_cache,
    inside,
    lowest,
    memory_cgroup,
    peak_bytes,
)
from edge_zofc.benchmarks.costs.estimator_arms import (
    ARMS,
    Arm,
    Command,
    Task,
    beside_inference,
    command_of,
    ending,
    lacking,
    numbers,
)
from edge_zofc.benchmarks.costs.machine import machine_line, machine_state
from edge_zofc.benchmarks.costs.setup import MIB, chosen, tell
from edge_zofc.benchmarks.process import Ended, edge_zofc, run
from edge_zofc.data.stream import read_stream
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import read_bundle

LEAST_CLASSES = 4
LIBRARIES = ("torch", "nvidia", "timm", "torchvision", "onnxruntime", "numpy", "PIL")
"""Packages whose libraries a limited process shall be charged for."""
TIMEOUT_SECONDS = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench estimators``."""
    add = parser.add_argument
    for name, text in (
        ("costs", "peak memory and seconds a step"),
        ("limits", "lowest cgroup in which each learns"),
        ("curve", "accuracy over seconds and image-forwards; needs --stream"),
    ):
        add(f"--{name}", metavar="BUNDLE", type=Path, nargs="+", default=[], help=text)
    add("--stream", metavar="FOLDER", type=Path, help="its first task is learnt; of --curve all are")
    add("--arms", metavar="LIST", help="(default: all; of the curve those of learn that are fast)")
    add("--batch-sizes", metavar="LIST", default="16,64", help="of costs; of limits the first (default: 16,64)")
    add("--steps", metavar="N", type=int, default=5, help="of costs and limits (default: 5)")
    estimator_curve.add_arguments(parser)
    add("--out", metavar="FOLDER", type=Path, help="also write tables, JSON and a picture here")
    add("--json", action="store_true", help="print a JSON object for each table on standard output")


def main(options: argparse.Namespace) -> int:
    """Measure, print, and write below ``--out``. Raises InputError."""
    if not (options.costs or options.limits or options.curve):
        raise InputError("Nothing was asked for; give --costs, --limits or --curve with a bundle.")
    if options.steps < 1:
        raise InputError(f"--steps is {options.steps}, it must be at least 1.")
    arms = [arm for arm in ARMS if arm.name in _names(options.arms)]
    batch_sizes = estimator_curve.counts(options.batch_sizes, "batch-sizes")
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as name:
        folder = Path(name)
        for asked, measured, sizes in (("limits", limit_row, batch_sizes[:1]), ("costs", cost_row, batch_sizes)):
            bundles = getattr(options, asked)
            if bundles:
                tasks = list(_tasks(options, bundles, sizes, folder))
                rows = [
                    measured(arm, task, folder / asked / f"{index}-{arm.name}")
                    for (index, task), arm in itertools.product(enumerate(tasks), arms)
                    if _runs(arm, task)
                ]
                _show(options, f"estimators-{asked}", beside_inference(rows), f"{options.steps} steps")
        if options.curve:
            estimator_curve.run(options, [arm.name for arm in arms], folder, partial(_show, options))
    return 0


def _names(text: str | None) -> list[str]:
    known = [arm.name for arm in ARMS]
    return known if text is None else chosen(text, known, "arms")


def _show(options: argparse.Namespace, name: str, rows: list[dict[str, Any]], how: str, **more: Any) -> None:
    # Only now: it imports torch, whose pages a limited process would then not be charged for.
    machine = machine_state()
    caption = f"{how}; {machine_line(machine)}"
    data = {"benchmark": name, "caption": caption, "machine": machine, "rows": rows, **more}
    tables.show(data, options.out, options.json)


def _tasks(options: argparse.Namespace, bundles: list[Path], batch_sizes: list[int], folder: Path) -> Iterable[Task]:
    stream = options.stream or _photographs(folder / "photographs")
    found = read_stream(stream).tasks
    if len(found[0].class_ids) < LEAST_CLASSES:
        raise InputError(
            f"The first task of {stream} has {len(found[0].class_ids)} classes; {LEAST_CLASSES} are needed."
        )
    classes = len({number for task in found for number in task.class_ids})
    for bundle, batch_size in itertools.product(bundles, batch_sizes):
        yield Task(bundle.resolve(), stream.resolve(), classes, batch_size, options.steps)


def _photographs(stream: Path) -> Path:
    """All classes of the package's photographs as one task."""
    if not stream.exists():
        place = importlib.resources.files("edge_zofc.export") / "photographs/clothes"
        with importlib.resources.as_file(place) as pictures:
            classes = sum(1 for _ in (pictures / "train").iterdir())
            edge_zofc("split", pictures, stream, "--classes-per-task", classes, "--copy")
    return stream


def _runs(arm: Arm, task: Task) -> bool:
    """Whether an arm can run with a task's bundle at all; if not it is told."""
    missing = lacking(arm, read_bundle(task.bundle))
    if missing:
        tell(f"{task.bundle.name}, {arm.title}: left out, {missing}")
    return not missing


def cost_row(arm: Arm, task: Task, folder: Path) -> dict[str, Any]:
    """One arm's process without a limit: a row of the table of costs."""
    row = _row(arm, task)
    try:
        asked = command_of(arm, task, folder)
        drop_from_cache(libraries())  # as after a start of the machine; how much is mapped at once depends on it
        ended = run(asked.line, TIMEOUT_SECONDS)
    except InputError as error:
        return row | {"failed": str(error)}
    failed = ending(ended, task.steps)
    found = row | ({"failed": failed} if failed else numbers(asked, ended))
    tell(f"{row['bundle']}, {arm.title}, batch {task.batch_size}: {failed or _told(found)}")
    return found


def _told(row: dict[str, Any]) -> str:
    return f"{row['peak_rss_mib']:.0f} MiB, {row['seconds_per_step']:.2f} s a step"


def _row(arm: Arm, task: Task) -> dict[str, Any]:
    return {
        "bundle": task.bundle.name,
        "precision": read_bundle(task.bundle).manifest.precision,
        "arm": arm.name,
        "title": arm.title,
        "batch_size": task.batch_size,
        "image_forwards": arm.image_forwards(task.batch_size),
        "failed": None,
    }


def limit_row(arm: Arm, task: Task, folder: Path) -> dict[str, Any]:
    """The lowest cgroup in which an arm still learns in at most SLOWER times its time without a limit."""
    free = cost_row(arm, task, folder / "free")
    if free["failed"]:
        return free
    tried = {int(free["peak_rss_mib"]) + GRAIN_MIB: free}

    def holds(limit_mib: int) -> bool:
        asked = command_of(arm, task, folder / f"{limit_mib}")
        ended, charged = _limited(asked, task, limit_mib * MIB, SLOWER * free["seconds"])
        failed = ending(ended, task.steps)
        tell(f"  limit {limit_mib} MiB: {failed or 'completed'}, {ended.seconds:.1f} s")
        if failed or ended.seconds > SLOWER * free["seconds"]:
            return False
        tried[limit_mib] = numbers(asked, ended) | {"charged_mib": charged}
        return True

    works = lowest(LEAST_MIB, max(tried), GRAIN_MIB, holds)
    kept = {key: tried[works].get(key) for key in ("seconds", "charged_mib", "peak_anonymous_mib")}
    more = {"seconds_without_limit": free["seconds"], "peak_rss_without_limit_mib": free["peak_rss_mib"]}
    return free | kept | more | {"limit_mib": works}


def _limited(asked: Command, task: Task, limit_bytes: int, seconds: float) -> tuple[Ended, float | None]:
    """How the command ended in a cgroup, and the MiB that it was charged at most."""
    drop_from_cache(itertools.chain(task.bundle.iterdir(), libraries()))
    with memory_cgroup(limit_bytes) as place:
        ended = run(inside(place, asked.line), seconds)
        charged = peak_bytes(place)
    return ended, None if charged is None else charged / MIB


def libraries() -> list[Path]:
    """Shared libraries of the packages that the arms import."""
    found = list[Path]()
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            beside = Path(place).with_name(f"{name}.libs")
            found += [path for folder in (Path(place), beside) for path in folder.rglob("*.so*") if path.is_file()]
    return found
