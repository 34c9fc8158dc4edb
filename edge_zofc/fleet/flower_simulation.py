"""Virtual devices in Flower's simulation engine: a ServerApp holds the rounds, and ray's actors run the ClientApp.

A message names the device and the round beside the bytes that it carries. Which of Flower's nodes takes it does not
matter, as what a device keeps lies in the world's folder. Written for flwr 1.42 and its ray.
"""

from __future__ import annotations

import functools
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from edge_zofc.device.system import board
from edge_zofc.errors import EdgeZofcError, InputError
from edge_zofc.fleet.flower_message import MESSAGE_TYPE, bytes_of, content_of
from edge_zofc.fleet.simulation import Carry
from edge_zofc.fleet.virtual import virtual
from edge_zofc.fleet.world import World

_ABOUT = "simulated"
_AT_WORK = 16
"""Messages that are under way together: each has some megabytes, and each processor takes one at a time."""
_TTL_SECONDS = 3600.0
_LOOK_SECONDS = 0.02
_STORE_BYTES = 256 << 20
"""Of ray's shared memory, through which messages go."""


def _answer(message: Message, context: Context) -> Message:
    if _ABOUT not in message.content:
        return Message(message.content, reply_to=message)
    about = message.content[_ABOUT]
    device = virtual(_world(str(about["world"])), int(about["device"]), int(about["round"]))
    return Message(content_of(device.reply(bytes_of(message))), reply_to=message)


client_app = ClientApp()
client_app.query()(_answer)


@functools.lru_cache(maxsize=1)
def _world(home: str) -> World:
    return World.read(Path(home))


def in_flower(world: World, act: Callable[[Carry], None]) -> None:
    """An ``Engine`` (``simulation.py``). Raises whatever ``act`` raises."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # ray would start its actors with niceness 15: beside other work they get hardly any time.
    os.environ.setdefault("RAY_worker_niceness", "0")
    from flwr.simulation import run_simulation

    world.keep()
    failed, server_app = list[BaseException](), ServerApp()

    def main(grid: Grid, context: Context) -> None:
        try:
            nodes = _nodes(grid, world.wanted.devices)
            # ray starts when the first message comes; that is no part of a round.
            grid.send_and_receive([Message(RecordDict(), nodes[0], MESSAGE_TYPE)])
            act(functools.partial(_carry, world, grid, nodes))
        except BaseException as error:  # on a thread of Flower's
            failed.append(error)

    server_app.main()(main)
    logging.getLogger("flwr").disabled = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ray's own about what it will do in the future
        run_simulation(server_app, client_app, world.wanted.devices, backend_config=_resources())
    if failed:
        raise failed[0]


def _resources() -> dict[str, Any]:
    start = {"num_cpus": board().usable_cpus, "logging_level": "ERROR", "log_to_driver": False}
    return {
        "init_args": {**start, "object_store_memory": _STORE_BYTES},
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    }


def _carry(
    world: World, grid: Grid, nodes: Sequence[int], round_number: int, messages: Iterable[tuple[str, bytes]]
) -> Iterator[tuple[str, bytes]]:
    under_way, left = dict[str, str](), iter(messages)
    while True:
        while len(under_way) < _AT_WORK and (found := next(left, None)) is not None:
            name, raw = found
            number = world.numbers[name]
            content = content_of(raw)
            content[_ABOUT] = ConfigRecord({"world": str(world.home), "device": number, "round": round_number})
            message = Message(content, nodes[number], MESSAGE_TYPE, ttl=_TTL_SECONDS)
            under_way |= dict.fromkeys(grid.push_messages([message]), name)
        if not under_way:
            return
        for reply in grid.pull_messages(list(under_way)):
            name = under_way.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                raise EdgeZofcError(f"The virtual device {name} failed: {reply.error.reason}")
            yield name, bytes_of(reply)
        time.sleep(_LOOK_SECONDS)


def _nodes(grid: Grid, devices: int) -> list[int]:
    """Flower's nodes, which come to life while it starts."""
    for _ in range(600):
        found = sorted(grid.get_node_ids())
        if len(found) == devices:
            return found
        time.sleep(0.1)
    raise InputError(f"Flower started {len(found)} of {devices} nodes within a minute; try --engine plain.")
