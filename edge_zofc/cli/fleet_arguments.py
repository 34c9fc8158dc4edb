"""What each command of a fleet takes; as ``arguments.py`` otherwise."""

from __future__ import annotations

from edge_zofc.cli.argument_kinds import (
    MOVED_BUNDLE,
    RUN,
    RUN_FOLDER,
    THREADS,
    Add,
    argument,
    group,
    number,
    path,
    seconds,
)

_FLEET = path("fleet", "FLEET", "the fleet's folder")


def _fraction(name: str, text: str, default: float) -> Add:
    return argument(name, metavar="X", type=float, default=default, help=text)


_CAP = argument(
    "--cap",
    metavar="X",
    type=float,
    help="count a device as at most X times the median device's pictures, 0 for no limit (default: none)",
)
_MARGIN = argument(
    "--margin",
    metavar="X",
    type=float,
    default=0.1,
    help="take no head that loses more than this fraction of a device's own test pictures, and more than chance "
    "(default: 0.1)",
)


def _chance(name: str, text: str) -> Add:
    return argument(name, metavar="X", type=float, default=0.0, help=f"{text}, from 0 to 1 (default: 0)")


GROUPS = {"fleet": "Put together what many devices have learnt."}
"""What comes before a command's second word."""
FLEET: dict[str, tuple[Add, ...]] = {
    "fleet share": (
        RUN_FOLDER,
        path("-o", "FILE", "the share to write", "--out", required=True),
        argument("--name", metavar="NAME", help="the device's name in its fleet (default: FILE without its ending)"),
        number("--min-pictures", "leave classes with fewer pictures out (default: 8)", 1, default=8),
        MOVED_BUNDLE,
    ),
    "fleet merge": (
        path("bundle", "BUNDLE", "the bundle that all devices learnt with"),
        path("shares", "SHARE", "share files, one or more", nargs="+"),
        path("-o", "FLEET", "the fleet's folder, new or with shares in it", "--out", required=True),
        _CAP,
    ),
    "fleet revoke": (
        _FLEET,
        argument("name", metavar="NAME", help="the device's name"),
        argument("--undo", action="store_true", help="take shares of this device again"),
    ),
    "fleet keys": (
        path("fleet", "FLEET", "the fleet's folder, which may be new"),
        argument("action", metavar="add|revoke", nargs="?", choices=("add", "revoke"), help="with a device's name"),
        argument("name", metavar="NAME", nargs="?", help="the device's name"),
        argument(
            "--host",
            metavar="HOST",
            action="append",
            help="a name or address that devices reach the server by, besides localhost; may be given again",
        ),
        path("-o", "FOLDER", "where add writes what the device gets (default: NAME/)", "--out"),
    ),
    "fleet serve": (
        path("fleet", "FLEET", "the fleet's folder, which has keys"),
        path("--bundle", "FOLDER", "the bundle that all devices learnt with", required=True),
        argument(
            "--listen",
            metavar="HOST:PORT",
            action="append",
            help="where devices reach it, 0.0.0.0:9092 for all networks (default: 127.0.0.1:9092); may be given again",
        ),
        seconds("--deadline", "seconds that a round waits for replies (default: 30)", default=30.0),
        seconds("--every", "seconds from one round to the next (default: 60)", default=60.0),
        argument("--once", action="store_true", help="one round, when all devices with keys are there, then end"),
        _CAP,
        group(
            "steps",
            number("--steps", "steps of the adapter, measured by all devices (default: 0)", 0, default=0),
            argument(
                "--adapter",
                choices=("auto", "on"),
                default="auto",
                help="auto: no step where classes of all devices stand far apart (default); on: steps all the same",
            ),
            argument(
                "--estimator",
                choices=("auto", "spsa", "exact"),
                default="auto",
                help="spsa: by forward passes, a device answers with 8 numbers; exact: with the gradient, by the "
                "bundle's own graph; auto: exact where there is one (default)",
            ),
            number("--sample", "devices that are asked for a step (default: 256)", 1, default=256),
            number("--step-pictures", "pictures that each measures a step on (default: 16)", 1, default=16),
            seconds("--step-deadline", "seconds that a step waits for replies (default: 30)", default=30.0),
            _fraction("--close-at", "fraction of the asked devices after whose replies a step ends (default: 1)", 1.0),
            _fraction("--quorum", "fraction of them that a step needs (default: 0.5)", 0.5),
            argument(
                "--aggregate",
                choices=("trimmed", "median", "mean"),
                default="trimmed",
                help="how replies become one: the mean without a fifth on either side (default), the median, the mean",
            ),
        ),
    ),
    "fleet join": (
        argument("address", metavar="HOST:PORT", help="the fleet's server"),
        path("--run", "FOLDER", "run folder (default: run/)", default=RUN),
        path("--keys", "FOLDER", "what 'fleet keys FLEET add NAME' made", required=True),
        argument("--yes", action="store_true", help="do not ask whether what is printed may leave this device"),
        number("--min-pictures", "leave classes with fewer pictures out (default: 8)", 1, default=8),
        _MARGIN,
        argument("--once", action="store_true", help="end after the first head (not where the fleet takes steps)"),
        MOVED_BUNDLE,
    ),
    "fleet status": (_FLEET,),
    "fleet simulate": (
        path("--bundle", "FOLDER", "the bundle of all devices", required=True),
        path("--stream", "FOLDER", "pictures that are dealt out to them, of all tasks together", required=True),
        number("--devices", "virtual devices (default: 100)", 1, default=100),
        number("--rounds", "rounds (default: 5)", 1, default=5),
        argument(
            "--split",
            metavar="KIND",
            default="classes:2",
            help="'classes:K', K classes a device, or 'dirichlet:A', mixed, the smaller A the less alike "
            "(default: classes:2)",
        ),
        number("--tasks", "a device learns its pictures in N equal parts, one a round (default: 1)", 1, default=1),
        _chance("--drop", "chance that a device is silent in a round"),
        _chance("--slow", "chance that it answers after the deadline"),
        _chance("--late", "part of the devices that join after the first round"),
        _chance("--hostile", "part of the devices that are hostile"),
        argument(
            "--attack",
            default="all",
            choices=("all", "labels", "sums", "huge", "bundle", "noise", "old"),
            help="what hostile devices do: wrong labels with counts x 100, sums + 1e9, the largest integers, a share "
            "of another bundle, noise, their first answer again, or all of it in turn (default: all)",
        ),
        number("--min-pictures", "leave classes with fewer pictures out of shares (default: 8)", 1, default=8),
        _MARGIN,
        _CAP,
        number("--seed", "of the deal and of what befalls devices (default: 1993)", 0, default=1993),
        argument(
            "--engine",
            choices=("flower", "plain"),
            default="flower",
            help="Flower's simulation engine, or one device after the other (default: flower)",
        ),
        THREADS,
        path("-o", "FOLDER", "keep the fleet, the numbers, a log and a picture in a new folder", "--out"),
    ),
}
