"""What each command takes: the options of the command line, their types and help; nothing here runs.

Options that steer learning default to None here, not to a number. None means "not given", which a preset or the run
that is there already then fills. They are declared in ``algorithm/options.py``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import PRESETS, declared
from edge_zofc.errors import InputError

BUNDLE = Path("bundle")
RUN = Path("run")
SEED = 1993
PRECISIONS = ("fp32", "w8", "w4", "fp16", "int8")


def demo(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``demo``."""
    parser.add_argument(
        "--folder", type=Path, default=Path("demo"), help="where bundle/, stream/ and run/ go (default: demo/)"
    )
    _seed(parser, "of the class order and the run")


def export(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    _path(parser, "out", "OUT", "bundle folder (default: bundle/)", nargs="?", default=BUNDLE)
    network = parser.add_argument_group("the network")
    network.add_argument(
        "--backbone", metavar="NAME", help="timm name of a VisionTransformer (default: the package's own ViT)"
    )
    weights = network.add_mutually_exclusive_group()
    weights.add_argument("--pretrained", action="store_true", help="weights from timm's hub")
    _path(weights, "--checkpoint", "FILE", "weights from a safetensors file with timm's names")
    weights.add_argument("--random-weights", action="store_true", help="untrained weights, for measurements alone")
    network.add_argument("--img-size", metavar="N", type=int, help="input side in pixels")
    network.add_argument("--depth", metavar="N", type=int, help="keep the first N blocks")
    network.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the weights (default: fp32)")
    adapter = parser.add_argument_group("the adapter")
    adapter.add_argument(
        "--adapter-blocks", metavar="A-B", help="blocks that get an adapter: 0-4 or 0,3,5 (default: the first five)"
    )
    adapter.add_argument("--rank", metavar="N", type=int, default=5, help="rank of the adapter (default: 5)")
    _seed(adapter, "of random weights and of the adapter's start")
    _path(parser, "--pictures", "FOLDER", "pictures to measure fidelity on")
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there")


def split(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``split``."""
    _path(parser, "source", "IMAGE_FOLDER", "{train,test}/<class>/ or <class>/")
    _path(parser, "out", "OUT", "the stream's folder, which must not be there yet")
    parser.add_argument("--classes-per-task", metavar="N", required=True, help="a number, or a list such as 5,4,4,4")
    parser.add_argument(
        "--copy", action="store_true", help="hard links or copies, which can be moved alone (default: symbolic links)"
    )
    _seed(parser, "of the class order")


def plan(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``plan``."""
    _bundle(parser)
    _path(parser, "--stream", "FOLDER", "say what disk its tasks will take")
    _device(parser)
    _options(parser)


def learn(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``learn``."""
    _path(parser, "--stream", "FOLDER", "NNN_name/{train,test}/<class>/", required=True)
    _bundle(parser)
    _path(parser, "--run", "FOLDER", "run folder (default: run/)", default=RUN)
    parser.add_argument("--resume", action="store_true", help="go on with a run; an error if there is none")
    parser.add_argument(
        "--watch", action="store_true", help="wait for new task folders and learn each, until a signal comes"
    )
    parser.add_argument(
        "--max-steps", metavar="N", type=int, help="stop, with the state saved, when the run has N steps"
    )
    _device(parser)
    _options(parser)


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``eval``."""
    _trained_run(parser)
    _path(parser, "--stream", "FOLDER", "the stream whose test pictures are named", required=True)
    _threads(parser)


def predict(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``predict``."""
    _trained_run(parser)
    _path(parser, "images", "IMAGE", "picture files", nargs="+")
    parser.add_argument("--top", metavar="N", type=_positive, default=1, help="classes to name (default: 1)")
    _threads(parser)


def deploy(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``deploy``."""
    _trained_run(parser)
    _path(parser, "out", "OUT.onnx", "the file to write")


def report(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``report``."""
    _path(parser, "run", "RUN", "run folder")
    _path(parser, "--out", "FILE", "the page (default: RUN/report.html)")


def replay(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``replay``."""
    _path(parser, "bundle", "BUNDLE", "the bundle that the run was learnt with")
    _path(parser, "journal", "JOURNAL", "the run's journal.bin")
    _path(parser, "-o", "FILE", "adapter as safetensors", "--out", required=True)
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--until-step", metavar="N", type=_natural, help="after N steps")
    until.add_argument("--until-task", metavar="N", type=_natural, help="at the end of task N (from 0)")


def history(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``history``."""
    _path(parser, "run", "RUN", "run folder")


def rollback(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rollback``."""
    _path(parser, "run", "RUN", "run folder")
    parser.add_argument("--to-task", metavar="N", type=_natural, required=True, help="number of the task, from 0")


def profiles(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``profiles``."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a built-in name, a TOML file, or auto")


def doctor(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``doctor``."""
    _path(parser, "--bundle", "FOLDER", "also run this bundle's probe")


def bench(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench``: each benchmark reads its own, so that help does not import torch."""
    names = ("memory", "speed", "accuracy", "questions", "soak", "streams")
    parser.add_argument("name", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="see 'edge-zofc bench NAME --help'")


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """The learning options that were given explicitly."""
    given = {name: getattr(options, name) for name, found in declared().items() if found.help is not None}
    return {name: value for name, value in given.items() if value is not None}


def budget(options: argparse.Namespace) -> int | None:
    """``--memory-budget`` in bytes, or None. Raises InputError."""
    from edge_zofc.device.profiles import parse_bytes

    return None if options.memory_budget is None else parse_bytes(options.memory_budget)


def classes_per_task(text: str) -> int | list[int]:
    """The number in "5" or the list in "5,4,4,4". Raises InputError for anything else."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--classes-per-task is {text!r}; give a number such as 5 or a list such as 5,4,4,4.")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers


def terminal_width() -> int:
    """Columns of the terminal, 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def _path(parser: Any, name: str, metavar: str, text: str, *more: str, **rest: Any) -> None:
    parser.add_argument(name, *more, metavar=metavar, type=Path, help=text, **rest)


def _bundle(parser: argparse.ArgumentParser) -> None:
    _path(parser, "--bundle", "FOLDER", "bundle folder (default: bundle/)", default=BUNDLE)


def _trained_run(parser: argparse.ArgumentParser) -> None:
    _path(parser, "run", "RUN", "run folder")
    _path(parser, "--bundle", "FOLDER", "where the run's bundle is now, if it moved")


def _seed(parser: Any, text: str) -> None:
    parser.add_argument("--seed", metavar="N", type=int, default=SEED, help=f"{text} (default: {SEED})")


def _threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", metavar="N", type=_positive, default=1, help="CPU threads (default: 1)")


def _device(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the device")
    group.add_argument(
        "--device-profile",
        metavar="NAME|FILE|auto",
        default="auto",
        help="a board's limits, see 'edge-zofc profiles' (default: auto)",
    )
    group.add_argument("--memory-budget", metavar="SIZE", help="such as 512MiB; replaces the profile's budget")
    group.add_argument("--micro-batch", metavar="N", type=_positive, help="pictures in one run of the graph")
    group.add_argument("--parallel-queries", metavar="K", type=_positive, help="adapters in one run of the graph")


def _options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the method", "kept with the run by the first learn")
    group.add_argument("--preset", choices=tuple(PRESETS), help="where the other options come from (default: edge)")
    for name, found in declared().items():
        if found.help is not None:
            group.add_argument(
                f"--{name.replace('_', '-')}",
                metavar=found.help.metavar,
                type=found.kind,
                choices=found.choices or None,
                help=found.help.text,
            )


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _natural(text: str) -> int:
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)
