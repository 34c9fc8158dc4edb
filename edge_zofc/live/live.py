"""``edge-zofc live``: camera, learner, page and the child that learns, until a signal ends them all.

The camera's child gives pictures. In this process one thread names and teaches, and the loop answers the page. A third
process, ``learn --watch``, learns the lessons that were kept.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge_zofc.device.memory_limit import enforce
from edge_zofc.device.profiles import AUTO, MIB, load_profile
from edge_zofc.engine.begin import plan_of_teaching
from edge_zofc.engine.predict import run_bundle
from edge_zofc.errors import InputError, shown
from edge_zofc.learner import Learner
from edge_zofc.live.camera import open_camera
from edge_zofc.live.guard import Guard, Listen, listen_at
from edge_zofc.live.seer import Limits, Seer
from edge_zofc.live.server import Server, bind
from edge_zofc.live.streams import Bell
from edge_zofc.live.watch import NoWatch, Watch, learn_command
from edge_zofc.live.web import application
from edge_zofc.storage.bundle import BUNDLE_FOLDER
from edge_zofc.storage.run_folder import RunFolder

SEER_SECONDS = 10.0
"""So long the seer may take for its last picture or gesture."""


@dataclass(frozen=True)
class LiveRequest:
    """What the command was asked for; ``learn``: a child learns what was kept."""

    camera: str | None
    camera_command: str | None
    run: Path
    bundle: Path | None
    listen: str
    learn: bool = True
    threads: int = 1


@dataclass(frozen=True)
class Address:
    """The page's address with its token, and a warning where others can listen to it."""

    url: str
    warning: str | None


def live(request: LiveRequest, tell: Callable[[Address], None]) -> str:
    """Serve the page until SIGINT or SIGTERM, whose name is returned; ``tell`` gets the address once it answers.

    Raises InputError for an address or a run that cannot be used, and what opening a run raises.
    """
    with ExitStack() as ending:
        camera = open_camera(request.camera, request.camera_command)
        listening = ending.enter_context(bind(listen_at(request.listen)))
        guard = Guard(Listen(*listening.getsockname()[:2]))
        ending.enter_context(camera)
        learner, limits = open_learner(request)
        ending.enter_context(learner)
        tasks = learner.lesson_stream
        watch = Watch(learn_command(learner.run, tasks), tasks) if request.learn else NoWatch()
        ending.callback(watch.stop)
        seer = Seer(learner, camera, watch, limits)
        bell = Bell()
        seer.changed = bell.ring
        server = Server(application(seer, camera, guard, bell), bell)
        with _Seeing(seer, server):
            return asyncio.run(_serve(server, listening, lambda: tell(address_of(guard))))


def open_learner(request: LiveRequest) -> tuple[Learner, Limits]:
    """The run, made of the bundle if it is not there, with this process's memory limited, and its limits.

    Raises InputError where there is neither.
    """
    folder, bundle = RunFolder(request.run), Path(request.bundle or BUNDLE_FOLDER)
    if not folder.is_run():
        if not bundle.is_dir():
            raise InputError(
                f"There is no run in {shown(request.run)} and no bundle in {shown(bundle)} to begin one with; make a "
                "bundle with 'edge-zofc export', or name one with --bundle."
            )
        Learner.create(bundle, request.run).close()
    settings = folder.settings()
    sizes = run_bundle(folder, settings, request.bundle).manifest.sizes
    plan = plan_of_teaching(sizes, settings.execution, request.threads, page=True)
    budget = settings.memory_budget_bytes or load_profile(settings.device_profile or AUTO).learning_budget_bytes
    enforce(plan)
    learner = Learner.open(request.run, bundle=request.bundle, threads=request.threads)
    return learner, Limits(plan.budget_bytes // MIB, budget // MIB)


def address_of(guard: Guard) -> Address:
    """What to open in a browser."""
    listen = guard.listen
    if not listen.is_open:
        return Address(_url(listen.host, guard), None)
    host = _own_address() if listen.host in ("0.0.0.0", "::") else listen.host  # noqa: S104 - compared, not bound
    warning = (
        f"Everybody on the network can try to open port {listen.port}, and plain http can be overheard: pictures, and "
        f"the token with which one can teach. Better is --listen 127.0.0.1:{listen.port} here and "
        f"'ssh -L {listen.port}:127.0.0.1:{listen.port} BOARD' on the other computer."
    )
    return Address(_url(host, guard), warning)


def _url(host: str, guard: Guard) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{guard.listen.port}/?token={guard.token}"


def _own_address() -> str:
    """The address of this machine on its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address that is nobody's
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


class _Seeing:
    """The seer's thread: runs inside of the ``with``, ends the server if it fails, and raises then at the end."""

    def __init__(self, seer: Seer, server: Server) -> None:
        self._seer, self._server = seer, server
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="seer", daemon=True)

    def _run(self) -> None:
        try:
            self._seer.run()
        except BaseException as error:  # a defect: raised on the main thread
            self._error = error
            self._server.end()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._seer.stop()
        self._thread.join(SEER_SECONDS)
        if self._error is not None:
            raise self._error


async def _serve(server: Server, listening: socket.socket, ready: Callable[[], None]) -> str:
    """Until a signal comes, whose name is returned."""
    came: list[str] = []
    loop = asyncio.get_running_loop()

    def note(number: signal.Signals) -> None:
        came.append(number.name)
        server.end()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, note, number)
    await server.serve(listening, ready)
    return came[0] if came else ""
