"""The whole road on what ships in packages: export the own ViT, learn handwritten digits, write the report.

Every step is the command that is printed, run as a process of its own, so that the memory that the report shows is that
of ``learn`` alone.
"""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge_zofc.errors import InputError
from edge_zofc.report.summary import write_report
from edge_zofc.report.text import verdict
from edge_zofc.storage.result import read_result

log = logging.getLogger("edge_zofc")


def run_demo(folder: Path, seed: int) -> dict[str, Any]:
    """Run the demo below ``folder``; returns ``result.json``'s content with the report's path added.

    Raises InputError if a run is there already, or a step failed (it has said why).
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    bundle, stream, run = folder / "bundle", folder / "stream", folder / "run"
    if run.exists():
        raise InputError(f"{run} is there already; remove it or give --folder another place.")
    if not bundle.exists():
        _command("export", bundle)
    if not stream.exists():
        pictures = folder / "digits"
        if not pictures.exists():
            log.info("writing scikit-learn's handwritten digits as pictures to %s", pictures)
            importlib.import_module("edge_zofc.benchmarks.streams.digits").write_digits(pictures)
        _command("split", pictures, stream, "--classes-per-task", 2, "--seed", seed)
    _command("learn", "--bundle", bundle, "--stream", stream, "--run", run, "--seed", seed)
    page = write_report(run)
    result = read_result(run)
    log.info("%s\nreport: %s; %.0f s in all", verdict(result)[1], page, time.monotonic() - started)
    return {**result.model_dump(mode="json"), "report": str(page)}


def _command(*words: object) -> None:
    """Run ``edge-zofc WORDS`` in a process of its own; its answer goes where its messages go."""
    texts = [str(word) for word in words]
    log.info("$ edge-zofc %s", " ".join(texts))
    # This interpreter with the words above; no shell.
    done = subprocess.run([sys.executable, "-m", "edge_zofc", *texts], stdout=sys.stderr, check=False)  # noqa: S603
    if done.returncode != 0:
        raise InputError(f"The demo stopped: edge-zofc {texts[0]} ended with code {done.returncode}, see above.")
