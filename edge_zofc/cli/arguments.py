"""What each command takes: the options of the command line, their types and help; nothing here runs.

Options that steer learning default to None here. None means "not given", which a preset or the run that is there
already then fills. They are declared in ``algorithm/options.py``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import PRESETS, declared
from edge_zofc.cli.argument_kinds import (
    MOVED_BUNDLE,
    RUN,
    RUN_FOLDER,
    THREADS,
    Add,
    add,
    argument,
    colour,
    folders,
    group,
    number,
    one_of,
    path,
    seconds,
    seed,
)
from edge_zofc.cli.fleet_arguments import FLEET
from edge_zofc.cli.teaching_arguments import TEACHING
from edge_zofc.errors import InputError

ADAPTER_KINDS = ("film", "bottleneck")
PRECISIONS = ("fp32", "w8", "w4", "fp16", "int8")
BENCHMARKS = (
    "memory",
    "speed",
    "accuracy",
    "backbones",
    "questions",
    "soak",
    "growth",
    "estimators",
    "unknown",
    "streams",
)

_LEARNT = path("run", "RUN", "folder of a run or a fleet")
_PROFILE = "a board's limits, see 'edge-zofc profiles' (default: the run's own, else auto)"
_CAMERA = one_of(
    argument(
        "--camera",
        metavar="ADDRESS",
        help="/dev/video0, csi://0, rtsp://..., http://..., file://FILM or folder://FOLDER (live: or browser); "
        "needs ffmpeg, or what the board brings",
    ),
    argument("--camera-command", metavar="COMMAND", help="a command that writes JPEGs to standard output"),
)
_DEVICE = group(
    "the device",
    argument("--device-profile", metavar="NAME|FILE|auto", help=_PROFILE),
    argument(
        "--memory-budget", metavar="SIZE", help="such as 512MiB; replaces the profile's budget; kept with the run"
    ),
    number("--micro-batch", "pictures in one run of the graph (default: what fits)", 1),
    number("--parallel-queries", "adapters in one run of the graph (default: what fits)", 1, metavar="K"),
)
_METHOD = group(
    "the method",
    argument("--preset", choices=tuple(PRESETS), help="where the other options come from (default: edge)"),
    *(
        argument(
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
        path("--folder", "FOLDER", "place of bundle/, photographs/ and digits/ (default: demo/)", default=Path("demo")),
        seed("of the class orders and the runs"),
    ),
    "export": (
        path("out", "OUT", "bundle folder (default: bundle/)", nargs="?", default=Path("bundle")),
        group(
            "the network",
            argument("--backbone", metavar="NAME", help="see 'edge-zofc backbones' (default: EfficientNet-Lite0)"),
            one_of(
                argument("--pretrained", action="store_true", help="weights from timm's hub"),
                path("--checkpoint", "FILE", "weights from a safetensors file with timm's names"),
                argument("--random-weights", action="store_true", help="untrained weights, for measurements alone"),
            ),
            argument("--precision", choices=PRECISIONS, default="fp32", help="of the weights (default: fp32)"),
            colour("--mean", "of the pixels, from 0 to 1, that pictures are normalised with"),
            colour("--std", "their standard deviation"),
            number("--img-size", "input side in pixels (default: the network's)"),
            number("--depth", "keep the first N blocks of a ViT (default: all)"),
        ),
        group(
            "the adapter",
            argument(
                "--adapter-kind",
                choices=ADAPTER_KINDS,
                help="film scales and shifts channels, bottleneck is the paper's (default: film for a CNN)",
            ),
            argument(
                "--adapter-blocks",
                metavar="A-B",
                help="blocks that get one: 0-4 or 0,3,5 (default: all; a ViT's bottlenecks the first five)",
            ),
            number("--rank", "rank of a bottleneck (default: 5 on a ViT, 8 on a CNN)"),
            seed("of random weights, of the adapter's start and of --tune"),
            folders("--tune", "train the start on pictures by class, of the device's kind (else learn leaves it)"),
            number("--tune-steps", "its steps, of 64 pictures each (default: 100)"),
        ),
        argument(
            "--gradient",
            action=argparse.BooleanOptionalAction,
            help="exact gradients beside forward passes (default: in fp32, w8 and w4, where torch can export them)",
        ),
        path("--pictures", "FOLDER", "pictures to measure fidelity on (default: the package's own)"),
        argument("--force", action="store_true", help="replace a bundle that is there"),
    ),
    "split": (
        path("source", "IMAGE_FOLDER", "{train,test}/<class>/ or <class>/"),
        path("out", "OUT", "the stream's folder, which must not be there yet"),
        argument("--classes-per-task", metavar="N", required=True, help="a number, or a list such as 5,4,4,4"),
        argument("--copy", action="store_true", help="hard links or copies, which can be moved alone (default: links)"),
        seed("of the class order"),
    ),
    "backbones": (
        argument("names", metavar="NAME", nargs="*", help="show these alone (default: all)"),
        argument("--measure", action="store_true", help="time each graph on this machine: seconds for each"),
    ),
    "capture": (
        path("folder", "FOLDER", "a task's folder, such as camera_tasks/001_fruit"),
        argument("name", metavar="NAME", help="what the camera shows: the class"),
        _CAMERA,
        number("--count", "pictures of this burst at most (default: 20)", 1, default=20),
        seconds("--every", "seconds between two pictures (default: 0.5)", default=0.5),
        seconds("--seconds", "end the burst S seconds after its first picture (default: at --count)"),
        argument(
            "--test",
            action="store_true",
            help="keep this burst to test with; make it another burst than those to learn from: move the thing first",
        ),
    ),
    "live": (
        _CAMERA,
        path("--run", "FOLDER", "run folder, begun with the bundle if it is not there (default: run/)", default=RUN),
        path("--bundle", "FOLDER", "bundle folder (default: the run's own; bundle/ for a new run)"),
        argument(
            "--listen",
            metavar="HOST:PORT",
            default="127.0.0.1:8750",
            help="where the page is; 0.0.0.0:8750 lets other computers in, and plain http can be overheard (default: "
            "127.0.0.1:8750, which other computers reach by ssh -L)",
        ),
        argument("--no-learn", dest="learn", action="store_false", help="collect lessons and let none be learnt"),
        THREADS,
    ),
    "plan": (
        path("--bundle", "FOLDER", "bundle folder (default: bundle/)"),
        argument("--backbone", metavar="NAME", help="plan before an export, in fp32, see 'edge-zofc backbones'"),
        number("--img-size", "input side in pixels of --backbone (default: the network's)"),
        path("--stream", "FOLDER", "plan for its classes, and say what its tasks will take"),
        argument("--fleet", action="store_true", help="say whether this device can be joined to a fleet, too"),
        _DEVICE,
        _METHOD,
    ),
    "learn": (
        path("--stream", "FOLDER", "NNN_name/{train,test}/<class>/", required=True),
        path("--bundle", "FOLDER", "bundle folder (default: the run's own; bundle/ for a new run)"),
        path("--run", "FOLDER", "run folder (default: run/)", default=RUN),
        argument("--resume", action="store_true", help="go on with a run; an error if there is none"),
        argument("--watch", action="store_true", help="learn task folders as they come, until a signal ends it"),
        number("--max-steps", "stop, with the state saved, when the run has N steps"),
        argument(
            "--evaluate",
            choices=("all", "new", "last"),
            default="all",
            help="measure at each task's end: all tasks, the new one, or all once the last is learnt (default: all)",
        ),
        _DEVICE,
        _METHOD,
    ),
    "eval": (
        _LEARNT,
        path("--stream", "FOLDER", "the stream whose test pictures are named", required=True),
        MOVED_BUNDLE,
        THREADS,
    ),
    "predict": (
        path("names", "PICTURE", "pictures or folders of them; first a run or a fleet (default: run/)", nargs="*"),
        number("--top", "classes to name (default: 1; with a camera: 3)", 1),
        argument("--unknown", action="store_true", help='answer "unknown" where a picture is like no class'),
        MOVED_BUNDLE,
        THREADS,
        group(
            "a camera in place of pictures",
            _CAMERA,
            seconds("--every", "seconds between two answers (default: 0.5)"),
            number("--count", "end after N answers (default: never)", 1),
            argument("--mqtt", metavar="HOST[:PORT]", help="send the answers to this broker, too; for Home Assistant"),
            argument("--mqtt-user", metavar="USER", help="its password stands in EDGE_ZOFC_MQTT_PASSWORD"),
            path(
                "--mqtt-tls",
                "CA_FILE",
                "encrypt, and check the broker by this file of certificates (default: the system's)",
                nargs="?",
                const=True,
            ),
            argument(
                "--mqtt-topic",
                metavar="PREFIX",
                help="of the topics; each camera needs its own (default: edge-zofc/ and the run's name)",
            ),
            about="one JSON object a picture on standard output, until a signal ends it",
        ),
    ),
    **TEACHING,
    "deploy": (
        _LEARNT,
        path("out", "OUT.onnx", "the file to write"),
        MOVED_BUNDLE,
        argument("--int8", action="store_true", help="smaller and faster, in 8 bits; some answers may change"),
        path("--calibrate", "FOLDER", "pictures for --int8 (default: the run's training pictures)"),
    ),
    "report": (
        _LEARNT,
        path("--out", "FILE", "the page (default: RUN/report.html)"),
        path("--stream", "FOLDER", "where the run's stream is now, if it moved"),
        argument("--no-pictures", dest="pictures", action="store_false", help="leave the stream's pictures out"),
    ),
    "replay": (
        path("bundle", "BUNDLE", "the bundle that the run was learnt with"),
        path("journal", "JOURNAL", "the run's journal.bin"),
        path("-o", "FILE", "adapter as safetensors", "--out", required=True),
        one_of(number("--until-step", "after N steps", 0), number("--until-task", "at the end of task N (from 0)", 0)),
    ),
    "history": (RUN_FOLDER, MOVED_BUNDLE),
    "rollback": (RUN_FOLDER, MOVED_BUNDLE, number("--to-task", "number of the task, from 0", 0, required=True)),
    **FLEET,
    "profiles": (argument("name", metavar="NAME", nargs="?", help="a built-in name, a TOML file, or auto"),),
    "doctor": (path("--bundle", "FOLDER", "also run this bundle's probe"),),
    # Each benchmark reads its own options, so that --help does not import torch.
    "bench": (
        argument("name", metavar="NAME", choices=BENCHMARKS, help=", ".join(BENCHMARKS)),
        argument("rest", metavar="...", nargs=argparse.REMAINDER, help="see 'edge-zofc bench NAME --help'"),
    ),
}


def fill(parser: argparse.ArgumentParser, command: str) -> None:
    """Add what ``command`` takes, and ``--json``, to its parser."""
    add(parser, COMMANDS[command])
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
