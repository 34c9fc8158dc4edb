"""What each command of a fleet takes; as ``arguments.py`` otherwise."""

from __future__ import annotations

from edge_zofc.cli.argument_kinds import MOVED_BUNDLE, RUN, RUN_FOLDER, Add, argument, group, number, path, seconds

_FLEET = path("fleet", "FLEET", "the fleet's folder")


def _fraction(name: str, text: str, default: float) -> Add:
    return argument(name, metavar="X", type=float, default=default, help=text)


_CAP = argument(
    "--cap",
    metavar="X",
    type=float,
    help="count a device as at most X times the median device's pictures, 0 for no limit (default: none)",
)

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
        argument(
            "--margin",
            metavar="X",
            type=float,
            default=0.1,
            help="take no head that loses more of the run's own test pictures, as a fraction (default: 0.1)",
        ),
        argument("--once", action="store_true", help="end after the first head that comes"),
        MOVED_BUNDLE,
    ),
    "fleet status": (_FLEET,),
}
