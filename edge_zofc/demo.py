"""The whole road on what ships in packages: export the own ViT, learn handwritten digits, write the report.

What may surprise: the demo calls the same functions as the commands that it prints, and leaves bundle/, stream/
and run/ where the README's next lines expect them.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from pathlib import Path
from typing import Any

from edge_zofc.bundle import MANIFEST, read_bundle
from edge_zofc.errors import InputError
from edge_zofc.progress import StepProgress
from edge_zofc.report import summary, write_report
from edge_zofc.run import Request, learn_run
from edge_zofc.stream import split_image_folder

log = logging.getLogger("edge_zofc")

_NEEDED = {"timm": "export", "onnx": "export", "sklearn": "demo"}


def run_demo(folder: Path, seed: int) -> dict[str, Any]:
    """Run the demo below ``folder``; returns ``result.json``'s content with the report's path added.

    Raises InputError if packages are missing, or if a run is there already that this would mix with.
    """
    _check_packages()
    started = time.monotonic()
    bundle, stream, run = folder / "bundle", folder / "stream", folder / "run"
    if run.exists():
        raise InputError(f"{run} is there already; remove it or give --folder another place.")
    if not (bundle / MANIFEST).exists():
        log.info("$ edge-zofc export %s", bundle)
        export = importlib.import_module("edge_zofc.export.export")
        export.export_bundle(export.ExportOptions(out=bundle), log.info)
    if not stream.exists():
        log.info("writing scikit-learn's handwritten digits as pictures, then\n$ edge-zofc split ... %s "
                 "--classes-per-task 2", stream)  # fmt: skip
        pictures = folder / "digits"
        if not pictures.exists():
            importlib.import_module("edge_zofc.benchmarks.digits").write_digits(pictures)
        split_image_folder(pictures, stream, 2, seed)
    log.info("$ edge-zofc learn --bundle %s --stream %s --run %s", bundle, stream, run)
    with StepProgress() as progress:
        request = Request(bundle, stream, run, changes={"seed": seed})
        result = learn_run(request, progress.step)
    if "stopped" in result:
        raise InputError(
            f"The demo was stopped; go on with 'edge-zofc learn --stream {stream} --run {run} --resume'."
        )
    page = write_report(run)
    log.info("%s", summary(result, 100))
    log.info("%s", _verdict(result))
    log.info("%s: %d adapter parameters moved by forward passes alone; report in %s; %.0f s in all",
             run, read_bundle(bundle).manifest.adapter.size, page, time.monotonic() - started)  # fmt: skip
    return {**result, "report": str(page)}


def _verdict(result: dict[str, Any]) -> str:
    mine, floor = result["average_accuracy"], result["class_mean_floor"]["average_accuracy"]
    if result["beats_class_mean_floor"]:
        return f"Average accuracy {mine:.3f} beats the training-free class means' {floor:.3f}."
    return f"Average accuracy {mine:.3f} does NOT beat the training-free class means' {floor:.3f}."


def _check_packages() -> None:
    for name, extra in _NEEDED.items():
        if importlib.util.find_spec(name) is None:
            raise InputError(f"The demo needs {name}; install it with pip install 'edge-zofc[{extra}]'.")
