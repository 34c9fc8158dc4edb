"""``python -m edge_zofc.benchmarks.costs.deployed RUN --out FOLDER``: the float file of ``deploy`` beside int8 files.

One int8 file is calibrated on the training pictures of the run's stream, another on the bundle's probe alone. All are
asked about the same test pictures, so that answers that got wrong and right can be counted. The files are timed in one
process, one after the other in each round, and the medians are compared.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.benchmarks.costs import tables
from edge_zofc.benchmarks.costs.machine import machine_line, machine_state
from edge_zofc.benchmarks.costs.setup import MIB, tell
from edge_zofc.engine.predict import open_run
from edge_zofc.errors import InputError
from edge_zofc.export.calibration import Labelled, choose, probe
from edge_zofc.export.deploy import Learnt, deploy
from edge_zofc.export.int8 import deploy_int8
from edge_zofc.export.session import open_session

THREADS = (1, 2)
BATCHES = (1, 8)
FLOAT, INT8, INT8_PROBE = "float32", "int8", "int8, calibrated on the probe"


def write_files(run: Path, bundle: Path | None, folder: Path) -> tuple[dict[str, Path], list[Labelled]]:
    """The three files by name, and the test pictures that they are asked about."""
    trained = open_run(run, bundle)
    learnt = Learnt(trained.head, trained.adapter, trained.class_names, trained.bundle, trained.normalise)
    calibrated, compared = choose(run, learnt, None, tell)
    if compared is calibrated:
        raise InputError(f"The run {run} has no test pictures any more; name one whose stream is there.")
    files = {name: folder / f"{place}.onnx" for place, name in enumerate((FLOAT, INT8, INT8_PROBE))}
    deploy(*learnt[:4], files[FLOAT], normalise=learnt.normalise)
    deploy_int8(learnt, files[INT8], calibrated, compared)
    own = probe(learnt)
    deploy_int8(learnt, files[INT8_PROBE], own, own)  # compared on the probe, so that it is written in any case
    return files, list(compared.read())


def answers(files: dict[str, Path], pictures: Sequence[Labelled]) -> list[dict[str, Any]]:
    """A row for each file: size, right answers, and what changed against the first one."""
    truth = np.array([picture.class_id for picture in pictures])
    rows, first = list[dict[str, Any]](), None
    for name, path in files.items():
        session = open_session(path)
        found = [session.run(["probabilities"], {"image": p.image})[0][0].argmax() for p in pictures]
        right = np.array(found) == truth
        first = (np.array(found), right) if first is None else first
        rows.append(
            {
                "file": name,
                "mib": path.stat().st_size / MIB,
                "right": int(right.sum()),
                "pictures": len(truth),
                "accuracy": float(right.mean()),
                "changed": int((np.array(found) != first[0]).sum()),
                "lost": int((first[1] & ~right).sum()),
                "won": int((~first[1] & right).sum()),
            }
        )
    return rows


def times(files: dict[str, Path], images: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """A row for each number of threads and of pictures: milliseconds of both files, and their ratio."""
    rows = []
    for threads, batch in itertools.product(THREADS, BATCHES):
        sessions = {name: open_session(files[name], threads) for name in (FLOAT, INT8)}
        found: dict[str, list[float]] = {name: [] for name in sessions}
        for number in range(1 + rounds):
            for name, session in sessions.items():
                started = time.perf_counter()
                session.run(["probabilities"], {"image": images[:batch]})
                if number:
                    found[name].append(1e3 * (time.perf_counter() - started))
        middle = {name: statistics.median(values) for name, values in found.items()}
        row = {
            "threads": threads,
            "micro_batch": batch,
            "float_ms": middle[FLOAT],
            "int8_ms": middle[INT8],
            "ratio": middle[FLOAT] / middle[INT8],
            "ratio_fastest": min(found[FLOAT]) / min(found[INT8]),
        }
        tell(", ".join(f"{key} {value}" for key, value in row.items()))
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write below ``--out``."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.costs.deployed")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run whose stream is still there")
    parser.add_argument("--bundle", metavar="FOLDER", type=Path, help="where its bundle is now, if it moved")
    parser.add_argument("--rounds", metavar="N", type=int, default=101, help="of timing (default: 101)")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where the tables go, also as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    caption = machine_line(machine_state())
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as folder:
        files, pictures = write_files(options.run, options.bundle, Path(folder))
        found = {"deployed": answers(files, pictures)}
        images = np.concatenate([picture.image for picture in pictures[: max(BATCHES)]])
        found["deployed-speed"] = times(files, images, options.rounds)
    for name, rows in found.items():
        tables.show({"benchmark": name, "caption": caption, "rows": rows}, options.out, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
