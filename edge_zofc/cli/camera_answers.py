"""``predict --camera``: what a camera sees, on standard output and to a broker."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_zofc.cli.answer import need
from edge_zofc.cli.argument_kinds import RUN
from edge_zofc.cli.terminal import say
from edge_zofc.errors import InputError, shown

if TYPE_CHECKING:
    from edge_zofc.live.mqtt import Publisher

log = logging.getLogger("edge_zofc")

_OF_A_CAMERA = ("every", "count", "mqtt", "mqtt_user", "mqtt_tls", "mqtt_topic")


def asks_a_camera(options: argparse.Namespace) -> bool:
    """Whether ``predict`` was given a camera. Raises InputError for options that need one, or for no name."""
    if options.camera is not None or options.camera_command is not None:
        return True
    for name in _OF_A_CAMERA:
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} needs a camera; give --camera ADDRESS, too.")
    if not options.names:
        raise InputError("Nothing to name; give pictures, folders of them, or --camera ADDRESS.")
    return False


def predict_camera(options: argparse.Namespace) -> int:
    """Answer a camera's pictures until ``--count`` of them are answered, or a signal comes."""
    if options.mqtt is not None:
        need("paho")
    from edge_zofc.learner import Learner
    from edge_zofc.live.answering import EVERY_SECONDS, Listener, Pace, answer_pictures
    from edge_zofc.live.camera import open_camera
    from edge_zofc.signals import exit_on_sigterm

    run = _run(options.names)
    camera = open_camera(options.camera, options.camera_command)
    if camera.source.kind == "browser":
        raise InputError("A browser sends its pictures to 'edge-zofc live' alone; give predict another camera.")
    listeners: list[Listener] = [_Printer()]
    with contextlib.ExitStack() as ending:
        ending.enter_context(exit_on_sigterm())
        learner = ending.enter_context(Learner.open(run, bundle=options.bundle, threads=options.threads))
        publisher = _publisher(options, run)
        if publisher is not None:
            listeners.append(ending.enter_context(publisher))
        ending.enter_context(camera)
        pace = Pace(options.every or EVERY_SECONDS, options.count, options.top or 3)
        answer_pictures(learner, camera, pace, listeners)
    return 0


def _run(names: list[Path]) -> Path:
    """The run before ``--camera``, or the default one. Raises InputError where something else is named."""
    from edge_zofc.storage.run_folder import RunFolder

    others = [name for name in names if not RunFolder(name).is_run()] or names[1:]
    if others:
        raise InputError(
            f"Pictures and a camera cannot be named at once, but {shown(others[0])} stands beside a camera; write "
            "edge-zofc predict RUN --camera ADDRESS, with one run or none."
        )
    return names[0] if names else RUN


def _publisher(options: argparse.Namespace, run: Path) -> Publisher | None:
    if options.mqtt is None:
        for name in ("mqtt_user", "mqtt_tls", "mqtt_topic"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} needs a broker; give --mqtt HOST, too.")
        return None
    from edge_zofc.live.mqtt import Publisher, read_broker, topic_prefix

    tls = options.mqtt_tls
    broker = read_broker(options.mqtt, options.mqtt_user, tls is not None, None if tls is True else tls)
    return Publisher(broker, topic_prefix(options.mqtt_topic, run))


class _Printer:
    """Lines to standard output, the camera's coming and going to standard error."""

    def answered(self, line: dict[str, Any]) -> None:
        say(json.dumps(line))

    def camera_is(self, there: bool, sentence: str) -> None:
        (log.info if there else log.warning)("%s", sentence)
