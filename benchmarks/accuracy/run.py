"""``edge-zofc bench accuracy``: every method on one stream, side by side.

    OUT/cells/METHOD-seedN.json   one finished cell; a cell that is there is not run again
    OUT/logs/METHOD-seedN.txt     what its process said
    OUT/streams/seedN             the stream with its classes in the order of seed N, as links
    OUT/accuracy.md .csv .json    the table
    OUT/*.png                     accuracy over tasks, accuracy against peak memory, forgetting

What may surprise: a seed is a class order too. The first learns the stream as it is, each other one its classes
shuffled anew, so that methods without training vary as well. The settings are kept in OUT/settings.json, and an
OUT with other settings is refused: numbers of different budgets never get into one table.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import PRESETS
from edge_zofc.benchmarks.accuracy.class_orders import has_other_orders, in_order
from edge_zofc.benchmarks.methods.names import EQUAL_FORWARDS, METHODS, SEARCH_FACTORS
from edge_zofc.errors import InputError

log = logging.getLogger("edge_zofc")

DEFAULT_METHODS = "simplecil,ridge,ranpac,lda,head,zo-fc,fo-fc"
FIRST_SEED = 1993


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench accuracy``."""
    parser.add_argument(
        "--stream", type=Path, required=True, help="folder of tasks, as `edge-zofc split` writes it"
    )
    parser.add_argument(
        "--methods", default=DEFAULT_METHODS, help=f"comma-separated, or 'all' (default: {DEFAULT_METHODS})"
    )
    parser.add_argument(
        "--seeds", type=int, default=3,
        help="number of seeds, from 1993 on; the first learns the stream as it is, each other one in its own "
        "class order (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--class-order", choices=("by-seed", "stream"), default="by-seed",
        help="stream: every seed learns the stream as it is (default: by-seed)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder for cells, tables and pictures")
    parser.add_argument(
        "--bundle", type=Path, help="for zo-fc (default: exported from the backbone into OUT)"
    )
    parser.add_argument("--backbone", help="timm name (default: the package's own ViT)")
    parser.add_argument("--checkpoint", type=Path, help="weights of --backbone (default: timm's pretrained)")
    parser.add_argument("--img-size", type=int, help="picture size of the backbone")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="edge", help="values of zo-fc and its relatives"
    )
    parser.add_argument(
        "--epochs", type=int, default=0, help="epochs a task for every method (default: each its own)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=0,
        help="pictures a batch for every trained method (default: each its own, up to 128: on tasks of a few hundred "
        "pictures hardly a step)",
    )  # fmt: skip
    parser.add_argument(
        "--equal", choices=("epochs", "forwards"), default="epochs",
        help="forwards: head and fo-fc get as many image-forwards as zo-fc, by more epochs",
    )  # fmt: skip
    parser.add_argument(
        "--search", type=int, default=1, choices=range(1, len(SEARCH_FACTORS) + 1), metavar="N",
        help="learning rates to try on a validation part of the first task, the same number for every method",
    )  # fmt: skip
    parser.add_argument(
        "--learn-options",
        default="",
        metavar="'...'",
        help="more options of `edge-zofc learn` for zo-fc, in one argument",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print one JSON object on standard output",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the cells that are missing, then write and print the table. Raises InputError, also for failed cells."""
    from edge_zofc.benchmarks.accuracy.tables import markdown, terminal, write_tables

    names = chosen_methods(arguments.methods)
    if arguments.seeds < 1 or arguments.threads < 1 or min(arguments.epochs, arguments.batch_size) < 0:
        raise InputError("--seeds and --threads must be at least 1, --epochs and --batch-size not negative.")
    out = arguments.out.resolve()
    settings = _settings(arguments)
    claim(out, settings)
    if "zo-fc" in names and arguments.bundle is None:
        settings = {**settings, "bundle": str(_own_bundle(arguments, out))}
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    streams = {seed: _stream_of(seed, settings, out) for seed in seeds}
    failed = [
        f"{name} (seed {seed})"
        for seed in seeds
        for name in names
        if not _run_cell(name, seed, streams[seed], settings, out)
    ]
    cells = read_cells(out)
    rows = write_tables(cells, settings, out)
    if cells:
        from edge_zofc.benchmarks.accuracy.charts import write_pictures

        write_pictures(cells, out)
    answer = {"out": str(out), "settings": settings, "rows": rows, "failed": failed}
    print(json.dumps(answer) if getattr(arguments, "json", False) else terminal(rows))  # noqa: T201
    log.info("%s", markdown(rows, settings).splitlines()[0])
    if failed:
        raise InputError(
            f"{len(failed)} cells failed: {', '.join(failed)}; their words are in {out / 'logs'}."
        )
    return 0


def chosen_methods(text: str) -> list[str]:
    """Names from ``--methods``. Raises InputError for an unknown one."""
    names = list(METHODS) if text == "all" else [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise InputError(f"There is no method {unknown or 'given'}; known are {', '.join(METHODS)}.")
    return list(dict.fromkeys(names))


def read_cells(out: Path) -> list[dict[str, Any]]:
    """The finished cells, by the order of METHODS, then seed."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "cells").glob("*.json"))]
    return sorted(found, key=lambda cell: (list(METHODS).index(cell["method"]), cell["seed"]))


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.stream.is_dir():
        raise InputError(f"There is no stream {arguments.stream}; write one with 'edge-zofc split'.")
    from edge_zofc.benchmarks.accuracy.runtime_cell import forwards_a_picture, own_options

    learn_options = shlex.split(arguments.learn_options)
    options = own_options(arguments.preset, arguments.epochs, learn_options)
    return {
        "stream": str(arguments.stream.resolve()),
        "class_order": arguments.class_order,
        "bundle": str(arguments.bundle.resolve()) if arguments.bundle else None,
        "backbone": arguments.backbone,
        "checkpoint": str(arguments.checkpoint.resolve()) if arguments.checkpoint else None,
        "img_size": arguments.img_size,
        "preset": arguments.preset,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size or None,
        "epoch_factor": forwards_a_picture(options) if arguments.equal == "forwards" else 1,
        "search": arguments.search,
        "threads": arguments.threads,
        "learn_options": learn_options,
    }


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folders; keep the settings, or refuse a folder with others."""
    for name in ("cells", "logs", "work", "streams"):
        (out / name).mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other:
            raise InputError(f"{out} holds cells with another {', '.join(other)}; give another --out.")
    path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _own_bundle(arguments: argparse.Namespace, out: Path) -> Path:
    bundle = out / "bundle"
    if not (bundle / "bundle.json").exists():
        from edge_zofc.benchmarks.accuracy.runtime_cell import edge_zofc

        command = ["export", str(bundle)]
        if arguments.backbone:
            command += ["--backbone", arguments.backbone]
            command += (
                ["--checkpoint", str(arguments.checkpoint.resolve())]
                if arguments.checkpoint
                else ["--pretrained"]
            )
        if arguments.img_size:
            command += ["--img-size", str(arguments.img_size)]
        log.info("exporting %s", bundle)
        edge_zofc(command, out / "work")
    return bundle


def _stream_of(seed: int, settings: dict[str, Any], out: Path) -> Path:
    """The stream that ``seed`` learns."""
    given = Path(settings["stream"])
    if seed == FIRST_SEED or settings["class_order"] == "stream":
        return given
    if not has_other_orders(given):
        raise InputError(
            f"In {given.name} classes come back in later tasks, so it has no other class order; give "
            "--class-order stream."
        )
    return in_order(given, seed, out / "streams" / f"seed{seed}")


def _run_cell(name: str, seed: int, stream: Path, settings: dict[str, Any], out: Path) -> bool:
    """Run one cell unless it is there; returns whether it is there now."""
    request = {
        **{key: value for key, value in settings.items() if key != "class_order"},
        "stream": str(stream),
        "epoch_factor": settings["epoch_factor"] if name in EQUAL_FORWARDS else 1,
        "method": name,
        "seed": seed,
        "work": str(out / "work"),
    }
    return run_request(f"{name}-seed{seed}", request, out)


def run_request(name: str, request: dict[str, Any], out: Path) -> bool:
    """Run the ``cell.Request`` as OUT/cells/NAME.json unless it is there; returns whether it is there now."""
    cell = out / "cells" / f"{name}.json"
    if cell.exists():
        return True
    asked = out / "work" / f"{name}.request.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    log.info("running %s", name)
    command = [sys.executable, "-m", "edge_zofc.benchmarks.accuracy.cell", str(asked), str(cell)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(request["threads"])}
    with (out / "logs" / f"{name}.txt").open("w", encoding="utf-8") as said:
        # Not from the present folder: a checkout's edge_zofc/ would hide the installed package.
        subprocess.run(  # noqa: S603
            command, cwd=out / "work", env=environment, stdout=said, stderr=subprocess.STDOUT, check=False
        )
    if not cell.exists():
        log.warning("%s failed; see %s", name, said.name)
    return cell.exists()
