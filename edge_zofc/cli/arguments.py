"""What each command takes: the options of the command line, their types and help; nothing here runs.

Options that steer learning default to None here. None means "not given", which a preset or the run that is there
already then fills. They are declared in ``algorithm/options.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import PRESETS, declared
from edge_zofc.errors import InputError

ADAPTER_KINDS = ("film", "bottleneck")
PRECISIONS = ("fp32", "w8", "w4", "fp16", "int8")
BENCHMARKS = ("memory", "speed", "accuracy", "backbones", "questions", "soak", "growth", "estimators", "streams")

Add = Callable[[Any], Any]
"""Adds an argument, or a group of them, to a parser."""


def _argument(*names: str, **settings: Any) -> Add:
    return lambda parser: parser.add_argument(*names, **settings)


def _path(name: str, metavar: str, text: str, *more: str, **settings: Any) -> Add:
    return _argument(name, *more, metavar=metavar, type=Path, help=text, **settings)


def _number(name: str, text: str, least: int | None = None, **settings: Any) -> Add:
    kind = int if least is None else partial(_at_least, least)
    return _argument(name, **{"metavar": "N", "type": kind, "help": text, **settings})


def _colour(name: str, text: str) -> Add:
    return _argument(name, metavar="R,G,B", type=_three_numbers, help=f"{text} (default: timm's for NAME)")


def _three_numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers R,G,B such as 0.485,0.456,0.406")
    return values


def _seed(text: str) -> Add:
    return _number("--seed", f"{text} (default: 1993)", default=1993)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def _seconds(name: str, text: str, **settings: Any) -> Add:
    return _argument(name, **{"metavar": "S", "type": _above_zero, "help": text, **settings})


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _group(title: str, *members: Add, about: str | None = None) -> Add:
    return lambda parser: _add(parser.add_argument_group(title, about), members)


def _one_of(*members: Add) -> Add:
    return lambda parser: _add(parser.add_mutually_exclusive_group(), members)


def _add(parser: Any, members: tuple[Add, ...]) -> None:
    for member in members:
        member(parser)


RUN = Path("run")
_RUN = _path("run", "RUN", "run folder")
_MOVED_BUNDLE = _path("--bundle", "FOLDER", "where the run's bundle is now, if it moved")
_THREADS = _number("--threads", "CPU threads (default: 1)", 1, default=1)
_PROFILE = "a board's limits, see 'edge-zofc profiles' (default: the run's own, else auto)"
_CAMERA = _one_of(
    _argument(
        "--camera",
        metavar="ADDRESS",
        help="/dev/video0, csi://0, rtsp://..., http://..., file://FILM or folder://FOLDER (live: or browser); "
        "needs ffmpeg, or what the board brings",
    ),
    _argument("--camera-command", metavar="COMMAND", help="a command that writes JPEGs to standard output"),
)
_DEVICE = _group(
    "the device",
    _argument("--device-profile", metavar="NAME|FILE|auto", help=_PROFILE),
    _argument(
        "--memory-budget", metavar="SIZE", help="such as 512MiB; replaces the profile's budget; kept with the run"
    ),
    _number("--micro-batch", "pictures in one run of the graph (default: what fits)", 1),
    _number("--parallel-queries", "adapters in one run of the graph (default: what fits)", 1, metavar="K"),
)
_METHOD = _group(
    "the method",
    _argument("--preset", choices=tuple(PRESETS), help="where the other options come from (default: edge)"),
    *(
        _argument(
            f"--{name.replace('_', '-')}",
            metavar=option.help.metavar,
            type=option.kind,
            choices=option.choices or None,
            help=option.help.text,
        )
        for name, option in declared().items()
        if option.help is not None
    ),
    about="kept with the run by the first learn",
)

COMMANDS: dict[str, tuple[Add, ...]] = {
    "demo": (
        _path(
            "--folder", "FOLDER", "place of bundle/, photographs/ and digits/ (default: demo/)", default=Path("demo")
        ),
        _seed("of the class orders and the runs"),
    ),
    "export": (
        _path("out", "OUT", "bundle folder (default: bundle/)", nargs="?", default=Path("bundle")),
        _group(
            "the network",
            _argument("--backbone", metavar="NAME", help="see 'edge-zofc backbones' (default: EfficientNet-Lite0)"),
            _one_of(
                _argument("--pretrained", action="store_true", help="weights from timm's hub"),
                _path("--checkpoint", "FILE", "weights from a safetensors file with timm's names"),
                _argument("--random-weights", action="store_true", help="untrained weights, for measurements alone"),
            ),
            _argument("--precision", choices=PRECISIONS, default="fp32", help="of the weights (default: fp32)"),
            _colour("--mean", "of the pixels, from 0 to 1, that pictures are normalised with"),
            _colour("--std", "their standard deviation"),
            _number("--img-size", "input side in pixels (default: the network's)"),
            _number("--depth", "keep the first N blocks of a ViT (default: all)"),
        ),
        _group(
            "the adapter",
            _argument(
                "--adapter-kind",
                choices=ADAPTER_KINDS,
                help="film scales and shifts channels, bottleneck is the paper's (default: film for a CNN)",
            ),
            _argument(
                "--adapter-blocks",
                metavar="A-B",
                help="blocks that get one: 0-4 or 0,3,5 (default: all; a ViT's bottlenecks the first five)",
            ),
            _number("--rank", "rank of a bottleneck (default: 5 on a ViT, 8 on a CNN)"),
            _seed("of random weights and of the adapter's start"),
        ),
        _argument(
            "--gradient",
            action=argparse.BooleanOptionalAction,
            help="exact gradients beside forward passes (default: in fp32, w8 and w4, where torch can export them)",
        ),
        _path("--pictures", "FOLDER", "pictures to measure fidelity on (default: the package's own)"),
        _argument("--force", action="store_true", help="replace a bundle that is there"),
    ),
    "split": (
        _path("source", "IMAGE_FOLDER", "{train,test}/<class>/ or <class>/"),
        _path("out", "OUT", "the stream's folder, which must not be there yet"),
        _argument("--classes-per-task", metavar="N", required=True, help="a number, or a list such as 5,4,4,4"),
        _argument(
            "--copy", action="store_true", help="hard links or copies, which can be moved alone (default: links)"
        ),
        _seed("of the class order"),
    ),
    "backbones": (
        _argument("names", metavar="NAME", nargs="*", help="show these alone (default: all)"),
        _argument("--measure", action="store_true", help="time each graph on this machine: seconds for each"),
    ),
    "capture": (
        _path("folder", "FOLDER", "a task's folder, such as camera_tasks/001_fruit"),
        _argument("name", metavar="NAME", help="what the camera shows: the class"),
        _CAMERA,
        _number("--count", "pictures of this burst at most (default: 20)", 1, default=20),
        _seconds("--every", "seconds between two pictures (default: 0.5)", default=0.5),
        _seconds("--seconds", "end the burst S seconds after its first picture (default: at --count)"),
        _argument(
            "--test",
            action="store_true",
            help="keep this burst to test with; make it another burst than those to learn from: move the thing first",
        ),
    ),
    "live": (
        _CAMERA,
        _path("--run", "FOLDER", "run folder, begun with the bundle if it is not there (default: run/)", default=RUN),
        _path("--bundle", "FOLDER", "bundle folder (default: the run's own; bundle/ for a new run)"),
        _argument(
            "--listen",
            metavar="HOST:PORT",
            default="127.0.0.1:8750",
            help="where the page is; 0.0.0.0:8750 lets other computers in, and plain http can be overheard (default: "
            "127.0.0.1:8750, which other computers reach by ssh -L)",
        ),
        _argument("--no-learn", dest="learn", action="store_false", help="collect lessons and let none be learnt"),
        _THREADS,
    ),
    "plan": (
        _path("--bundle", "FOLDER", "bundle folder (default: bundle/)"),
        _argument("--backbone", metavar="NAME", help="plan before an export, in fp32, see 'edge-zofc backbones'"),
        _number("--img-size", "input side in pixels of --backbone (default: the network's)"),
        _path("--stream", "FOLDER", "plan for its classes, and say what its tasks will take"),
        _DEVICE,
        _METHOD,
    ),
    "learn": (
        _path("--stream", "FOLDER", "NNN_name/{train,test}/<class>/", required=True),
        _path("--bundle", "FOLDER", "bundle folder (default: the run's own; bundle/ for a new run)"),
        _path("--run", "FOLDER", "run folder (default: run/)", default=RUN),
        _argument("--resume", action="store_true", help="go on with a run; an error if there is none"),
        _argument("--watch", action="store_true", help="learn task folders as they come, until a signal ends it"),
        _number("--max-steps", "stop, with the state saved, when the run has N steps"),
        _argument(
            "--evaluate",
            choices=("all", "new", "last"),
            default="all",
            help="measure at each task's end: all tasks, the new one, or all once the last is learnt (default: all)",
        ),
        _DEVICE,
        _METHOD,
    ),
    "eval": (
        _RUN,
        _path("--stream", "FOLDER", "the stream whose test pictures are named", required=True),
        _MOVED_BUNDLE,
        _THREADS,
    ),
    "predict": (
        _path("names", "PICTURE", "pictures or folders of them; before them a run (default: run/)", nargs="+"),
        _number("--top", "classes to name (default: 1)", 1, default=1),
        _MOVED_BUNDLE,
        _THREADS,
    ),
    "deploy": (
        _RUN,
        _path("out", "OUT.onnx", "the file to write"),
        _MOVED_BUNDLE,
        _argument("--int8", action="store_true", help="smaller and faster, in 8 bits; some answers may change"),
        _path("--calibrate", "FOLDER", "pictures for --int8 (default: the run's training pictures)"),
    ),
    "report": (
        _RUN,
        _path("--out", "FILE", "the page (default: RUN/report.html)"),
        _path("--stream", "FOLDER", "where the run's stream is now, if it moved"),
        _argument("--no-pictures", dest="pictures", action="store_false", help="leave the stream's pictures out"),
    ),
    "replay": (
        _path("bundle", "BUNDLE", "the bundle that the run was learnt with"),
        _path("journal", "JOURNAL", "the run's journal.bin"),
        _path("-o", "FILE", "adapter as safetensors", "--out", required=True),
        _one_of(
            _number("--until-step", "after N steps", 0), _number("--until-task", "at the end of task N (from 0)", 0)
        ),
    ),
    "history": (_RUN, _MOVED_BUNDLE),
    "rollback": (_RUN, _MOVED_BUNDLE, _number("--to-task", "number of the task, from 0", 0, required=True)),
    "profiles": (_argument("name", metavar="NAME", nargs="?", help="a built-in name, a TOML file, or auto"),),
    "doctor": (_path("--bundle", "FOLDER", "also run this bundle's probe"),),
    # Each benchmark reads its own options, so that --help does not import torch.
    "bench": (
        _argument("name", metavar="NAME", choices=BENCHMARKS, help=", ".join(BENCHMARKS)),
        _argument("rest", metavar="...", nargs=argparse.REMAINDER, help="see 'edge-zofc bench NAME --help'"),
    ),
}


def fill(parser: argparse.ArgumentParser, command: str) -> None:
    """Add what ``command`` takes, and ``--json``, to its parser."""
    _add(parser, COMMANDS[command])
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


learn = partial(fill, command="learn")
"""For the benchmarks, which pass such options on."""


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """The learning options that were given explicitly."""
    given = {name: getattr(options, name) for name, option in declared().items() if option.help is not None}
    return {name: value for name, value in given.items() if value is not None}


def budget(options: argparse.Namespace) -> int | None:
    """``--memory-budget`` in bytes, or None. Raises InputError."""
    from edge_zofc.device.profiles import parse_bytes

    text = options.memory_budget
    found = None if text is None else parse_bytes(text)
    if found is not None and found < 1 << 20 and text.strip().isdecimal():
        raise InputError(f"--memory-budget {text} is {found} bytes; write the unit, such as {text.strip()}MiB.")
    return found


def classes_per_task(text: str) -> int | list[int]:
    """The number in "5" or the list in "5,4,4,4". Raises InputError for anything else."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--classes-per-task is {text!r}; give a number such as 5 or a list such as 5,4,4,4.")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers
