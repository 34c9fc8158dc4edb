"""``edge-zofc bench accuracy``: every method on one stream, side by side.

    OUT/cells, logs, work         one cell for each method and seed (``cell_store.py``)
    OUT/streams/seedN             the stream with its classes in the order of seed N, as links
    OUT/accuracy.md .csv .json    the table
    OUT/*.png                     accuracy over tasks, accuracy against peak memory, forgetting

A seed is also a class order. The first seed learns the stream as it is. Each other seed learns its classes in an order
of its own, so that methods without training vary too.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import PRESETS
from edge_zofc.benchmarks.accuracy.cell_store import FIRST_SEED, claim, read_cells, run_cell
from edge_zofc.benchmarks.methods.names import ANY_BACKBONE, EQUAL_FORWARDS, METHODS, SEARCH_FACTORS
from edge_zofc.benchmarks.process import edge_zofc
from edge_zofc.benchmarks.streams.class_orders import has_other_orders, in_order
from edge_zofc.errors import InputError
from edge_zofc.export.shipped import DEFAULT, SHIPPED

log = logging.getLogger("edge_zofc")

DEFAULT_METHODS = "simplecil,ridge,ranpac,lda,head,zo-fc,fo-fc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench accuracy``."""
    add = parser.add_argument
    add("--stream", type=Path, required=True, help="folder of tasks, as `edge-zofc split` writes it")
    add("--out", type=Path, required=True, help="folder for cells, tables and pictures")
    add("--methods", default=DEFAULT_METHODS, help="comma-separated, or 'all' (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object on standard output")
    add("--threads", type=int, default=1, help="threads of torch (default: 1)")
    _add_seeds(parser)
    _add_backbone(parser)
    _add_training(parser)


def _add_seeds(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("seeds").add_argument
    seeds = "number of seeds, from 1993 on; the first learns the stream as it is, each other one in its own class order"
    add("--seeds", type=int, default=3, help=f"{seeds} (default: 3)")
    add(
        "--class-order", choices=("by-seed", "stream"), default="by-seed",
        help="stream: every seed learns the stream as it is (default: by-seed)",
    )  # fmt: skip


def _add_backbone(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("backbone").add_argument
    add("--bundle", type=Path, help="for zo-fc (default: exported from the backbone into OUT)")
    add("--backbone", default=DEFAULT, help="see 'edge-zofc backbones' (default: %(default)s)")
    add("--checkpoint", type=Path, help="weights of --backbone (default: timm's pretrained)")
    add("--img-size", type=int, help="picture size of the backbone")


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--preset", choices=sorted(PRESETS), default="edge", help="values of zo-fc and its relatives")
    add("--epochs", type=int, default=0, help="epochs a task for every method (default: each its own)")
    add(
        "--batch-size", type=int, default=0,
        help="pictures a batch for every trained method (default: each its own, up to 128: on tasks of a few hundred "
        "pictures hardly a step)",
    )  # fmt: skip
    add(
        "--equal", choices=("epochs", "forwards"), default="epochs",
        help="forwards: head and fo-fc get as many image-forwards as zo-fc, by more epochs (default: epochs)",
    )  # fmt: skip
    add(
        "--search", type=int, default=1, choices=range(1, len(SEARCH_FACTORS) + 1), metavar="N",
        help="learning rates to try on a validation part of the first task, the same number for every method "
        "(default: 1)",
    )  # fmt: skip
    add("--learn-options", default="", metavar="'...'", help="more options of learn for zo-fc, in one argument")


def main(arguments: argparse.Namespace) -> int:
    """Run the cells that are missing, then write and print the table. Raises InputError, also for failed cells."""
    from edge_zofc.benchmarks.accuracy.tables import terminal, title, write_tables

    names = chosen_methods(arguments.methods)
    if arguments.seeds < 1 or arguments.threads < 1 or min(arguments.epochs, arguments.batch_size) < 0:
        raise InputError("--seeds and --threads must be at least 1, --epochs and --batch-size not negative.")
    out = arguments.out.resolve()
    settings = _settings(arguments)
    _check_backbone(names, arguments)
    claim(out, settings)
    if "zo-fc" in names and arguments.bundle is None:
        settings = {**settings, "bundle": str(_own_bundle(arguments, out))}
    failed = _run_cells(names, range(FIRST_SEED, FIRST_SEED + arguments.seeds), settings, out)
    cells = read_cells(out)
    rows = write_tables(cells, settings, out)
    if cells:
        from edge_zofc.benchmarks.accuracy.charts import write_pictures

        write_pictures(cells, out)
    answer = {"out": str(out), "settings": settings, "rows": rows, "failed": failed}
    print(json.dumps(answer) if arguments.json else terminal(rows))  # noqa: T201
    log.info("%s", title(settings))
    if failed:
        raise InputError(f"{len(failed)} cells failed: {', '.join(failed)}; their words are in {out / 'logs'}.")
    return 0


def chosen_methods(text: str) -> list[str]:
    """Names from ``--methods``. Raises InputError for an unknown one."""
    names = list(METHODS) if text == "all" else [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise InputError(f"There is no method {unknown or 'given'}; known are {', '.join(METHODS)}.")
    return list(dict.fromkeys(names))


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


def _check_backbone(names: list[str], arguments: argparse.Namespace) -> None:
    """Raises InputError for a CNN under methods that need a ViT."""
    inside = [name for name in names if name not in ANY_BACKBONE]
    if not inside:
        return
    from edge_zofc.benchmarks.accuracy.torch_cell import load_asked
    from edge_zofc.benchmarks.methods.problem import NEEDS_VIT

    if not load_asked(arguments.backbone, arguments.checkpoint, arguments.img_size).is_vit:
        raise InputError(f"{', '.join(inside)} {NEEDS_VIT}")


def _own_bundle(arguments: argparse.Namespace, out: Path) -> Path:
    """The bundle of the backbone, exported once."""
    bundle = out / "bundle"
    if not (bundle / "bundle.json").exists():
        words: list[object] = ["--backbone", arguments.backbone]
        if arguments.backbone not in SHIPPED:
            words += ["--checkpoint", arguments.checkpoint] if arguments.checkpoint else ["--pretrained"]
        if arguments.img_size:
            words += ["--img-size", arguments.img_size]
        log.info("exporting %s", bundle)
        edge_zofc("export", bundle, *words)
    return bundle


def stream_of(seed: int, settings: dict[str, Any], out: Path) -> Path:
    """The stream that ``seed`` learns. Raises InputError."""
    given = Path(settings["stream"])
    if seed == FIRST_SEED or settings["class_order"] == "stream":
        return given
    if not has_other_orders(given):
        raise InputError(
            f"In {given.name} classes come back in later tasks, so it has no other class order; give "
            "--class-order stream."
        )
    return in_order(given, seed, out / "streams" / f"seed{seed}")


def _run_cells(names: list[str], seeds: range, settings: dict[str, Any], out: Path) -> list[str]:
    """Run the cells that are missing; returns those that failed."""
    streams = {seed: stream_of(seed, settings, out) for seed in seeds}
    shared = {key: value for key, value in settings.items() if key != "class_order"}
    failed = []
    for seed in seeds:
        for name in names:
            request = {
                **shared,
                "stream": str(streams[seed]),
                "epoch_factor": settings["epoch_factor"] if name in EQUAL_FORWARDS else 1,
                "method": name,
                "seed": seed,
                "work": str(out / "work"),
            }
            if not run_cell(f"{name}-seed{seed}", request, out):
                failed.append(f"{name} (seed {seed})")
    return failed
