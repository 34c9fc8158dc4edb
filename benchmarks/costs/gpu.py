"""``python -m edge_zofc.benchmarks.costs.gpu --out FOLDER``: what a GPU adds to what the CPU's benchmarks tell.

    --part torch   peak device memory and seconds of first order and SPSA, the paper's own claim
    --part onnx    edge-zofc on onnxruntime's CUDA provider: what it computes, repeats, survives and takes

Each arm has its own process and its own time. Its result is written as soon as it is known, to ``gpu.jsonl`` and to
``gpu.md``; one that fails is written with its reason, and the next begins. ``--device cpu --tiny`` runs all of it on
small networks without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs import gpu_onnx, gpu_torch
from edge_zofc.benchmarks.costs.setup import tell
from edge_zofc.benchmarks.process import command, run
from edge_zofc.benchmarks.tables import as_markdown
from edge_zofc.device.system import board
from edge_zofc.errors import EdgeZofcError

ARM_SECONDS = 60.0
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class Results:
    """Rows, written as they come. A row has "part" and "seconds_in_all", and "failed" if there was no more."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows: list[dict[str, Any]] = []

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Keep a row, write it and tell it."""
        self.rows.append({"part": part, **row})
        with (self.folder / "gpu.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        (self.folder / "gpu.md").write_text(self.markdown(), encoding="utf-8")
        tell(json.dumps(row)[:900])

    def markdown(self) -> str:
        """The rows of torch as a table, then each check of onnxruntime as a list."""
        measured = gpu_torch.with_ratios([row for row in self.rows if row["part"] == "torch"])
        lines = [as_markdown(gpu_torch.COLUMNS, measured)] if measured else []
        for row in self.rows:
            if row["part"] == "onnx":
                lines.append(f"\n## {row['check']} ({row['seconds_in_all']} s)\n")
                found = row.get("found", {"failed": row.get("failed")})
                lines += [f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in found.items()]
        return "\n".join(lines) + "\n"


def run_torch(results: Results, options: argparse.Namespace, folder: Path, ends: float) -> None:
    """Every arm in torch, as long as there is time."""
    batches = (1, 2) if options.tiny else gpu_torch.BATCHES
    setup = gpu_torch.folder_setup(folder, options.tiny, min(board().cpu_count, 8))
    for arm in (each for each in gpu_torch.arms() if options.only in each.name):
        began, left = time.monotonic(), ends - time.monotonic()
        if left < 1:
            results.add("torch", {"arm": arm.name, "batch": None, "failed": "no time left"})
            continue
        request = gpu_torch.request_of(arm, setup, options.device, batches)
        ended = run(command(gpu_torch.__name__, request), min(left, ARM_SECONDS))
        lines = [json.loads(line) for line in ended.output.splitlines() if line.startswith("{")]
        if len(lines) < len(batches):
            failed = f"exit code {ended.code} after {ended.seconds:.0f} s: {ended.message[:300]}"
            lines.append({"arm": arm.name, "batch": None, "failed": failed})
        for line in lines:
            results.add("torch", {**line, "seconds_in_all": round(time.monotonic() - began, 1)})


def run_onnx(results: Results, options: argparse.Namespace, folder: Path, ends: float) -> None:
    """Every check in onnxruntime, as long as there is time."""
    place = gpu_onnx.Place(folder, PROVIDERS[options.device], options.tiny)
    for name, check in gpu_onnx.checks().items():
        if options.only not in name:
            continue
        began = time.monotonic()
        row: dict[str, Any] = {"check": name}
        if ends - began < 1:
            row["failed"] = "no time left"
        else:
            row |= _attempt(check, place)
        results.add("onnx", {**row, "seconds_in_all": round(time.monotonic() - began, 1)})


def _attempt(check: Callable[[gpu_onnx.Place], dict[str, Any]], place: gpu_onnx.Place) -> dict[str, Any]:
    try:
        return {"found": check(place)}
    # Whatever goes wrong in one check must not take the lent machine's time from the next.
    except (EdgeZofcError, OSError, AssertionError, ArithmeticError, LookupError, ValueError) as error:
        return {"failed": f"{type(error).__name__}: {error}"[:900]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where the results go")
    parser.add_argument("--part", choices=("torch", "onnx"), help="one of the two (default: both)")
    parser.add_argument("--device", choices=tuple(PROVIDERS), default="cuda", help="(default: cuda)")
    parser.add_argument("--only", metavar="TEXT", default="", help="arms and checks whose name holds it (default: all)")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the command itself")
    parser.add_argument("--seconds", metavar="N", type=float, default=170, help="of a part (default: 170)")


def main(arguments: list[str]) -> int:
    """Run the parts; returns 1 if something failed."""
    parser = argparse.ArgumentParser(prog="gpu", description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    options = parser.parse_args(arguments)
    results = Results(options.out)
    parts = {"torch": run_torch, "onnx": run_onnx}
    with tempfile.TemporaryDirectory() as name:
        for part, work in parts.items():
            if options.part in (None, part):
                folder = Path(name) / part
                folder.mkdir()
                work(results, options, folder, time.monotonic() + options.seconds)
    return 1 if any("failed" in row for row in results.rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
