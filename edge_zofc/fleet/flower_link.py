"""The server of a fleet: Flower's SuperLink in this process, and what a ServerApp does with its devices.

``flower-superlink`` serves three interfaces on one port, and two of them ask nobody who they are: whoever reaches the
port may start a run, which is code that every device would execute, or register a key. So SuperLink's application is
started here behind a door that lets nothing pass but the calls of registered devices (``Door``). Runs and keys are made
in this process, and no code ever travels.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.fleet.exchange import MAX_MESSAGE_BYTES
from edge_zofc.fleet.flower_message import MESSAGE_TYPE, bytes_of, content_of

MAX_REQUEST_BYTES = 8 << 20
"""Flower cuts arrays into pieces of 5 MiB."""
MAX_CONNECTIONS = 1000
_LOOK_SECONDS = 0.2
_GONE = b"gone"
_CALLS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "push-object",
        "pull-object", "confirm-message-received",
    )
)  # fmt: skip


class Door:
    """An ASGI application before another one: only ``_CALLS`` of at most MAX_REQUEST_BYTES reach it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.bytes_in = self.bytes_out = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request, or the application's start and end."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
        elif scope["type"] == "http":
            size = dict(scope["headers"]).get(b"content-length", b"")
            passes = scope["method"] == "POST" and scope["path"] in _CALLS and size.isdigit() and len(size) < 12
            if passes and int(size) <= MAX_REQUEST_BYTES:
                self.bytes_in += int(size)
                await self._inner(scope, receive, self._counted(send))
            else:
                await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})

    def _counted(self, send: Any) -> Any:
        async def counted(event: Any) -> None:
            self.bytes_out += len(event.get("body", b""))
            await send(event)

        return counted


class Link:
    """SuperLink with TLS and keys on ``addresses`` (host, port), as a context.

    ``certificate`` and ``key`` are files. Raises InputError where an address cannot be listened on.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], certificate: Path, key: Path) -> None:
        self._sockets = [_listening(*address) for address in addresses]
        self.addresses = [found.getsockname()[:2] for found in self._sockets]
        app = create_app(_settings(), _Lifespan)
        self._state = app.state.linkstate_factory.state()
        _let_back_in(self._state)
        self.door = Door(app)
        self._nodes: dict[str, tuple[bytes, int]] = {}
        config = uvicorn.Config(
            self.door, ssl_certfile=certificate, ssl_keyfile=key, log_config=None, log_level="critical",
            access_log=False, server_header=False, limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=2,
        )  # fmt: skip
        try:
            config.load()
        except (ssl.SSLError, OSError) as error:
            raise DamagedFileError(f"{certificate} and {key} are no certificate and its key ({error}).") from error
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=(self._sockets,), daemon=True)

    def __enter__(self) -> Link:
        self._run, self._task = self._begin_run()
        self._beat = HeartbeatSender(lambda: bool(self._state.acknowledge_task_heartbeat(self._task)))
        self._beat.start()
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise InputError("The server could not be started; see 'edge-zofc doctor'.")
            time.sleep(0.05)
        return self

    def __exit__(self, *error: object) -> None:
        self._state.finish_task(self._task, SubStatus.COMPLETED, "")
        self._beat.stop()
        self._server.should_exit = True
        self._thread.join(timeout=5)
        for found in self._sockets:
            found.close()

    def _begin_run(self) -> tuple[int, int]:
        """Flower's messages belong to a run; this one has no code. Its number and that of its task."""
        run = self._state.create_run(
            "edge-zofc/fleet", "1", "", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task = self._state.get_run_info(run_ids=[run])[0].primary_task_id
        if task is None or not (self._state.claim_task(task) and self._state.activate_task(task)):
            raise InputError("Flower did not begin its run; install flwr 1.42.")
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, SUPERLINK_NODE_ID, task
        return run, task

    def admit(self, keys: Mapping[str, bytes]) -> None:
        """Let devices with these public keys in, by name, and no others any more."""
        for name, (key, node) in list(self._nodes.items()):
            if keys.get(name) != key:
                with suppress(ValueError, TypeError):  # TypeError: of one that was never there
                    self._state.delete_node(NOOP_FLWR_AID, node)
                del self._nodes[name]
        for name, key in keys.items():
            if name not in self._nodes:
                self._nodes[name] = key, self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)

    def present(self) -> list[str]:
        """Devices that were heard within a minute, sorted."""
        nodes = set(self._state.get_nodes(self._run))
        return sorted(name for name, (_, node) in self._nodes.items() if node in nodes)

    def exchange(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
        """Send each device its message and yield replies as they come, for ``deadline`` seconds; see ``Exchange``."""
        end, waiting, arriving = time.monotonic() + deadline, dict[str, str](), dict[str, Message]()
        for name, raw in messages.items():
            waiting[name] = self._push(self._nodes[name][1], raw, deadline)
        pushed = {message_id for message_id in waiting.values() if message_id}
        waiting = {name: message_id for name, message_id in waiting.items() if message_id}
        try:
            while waiting and time.monotonic() < end:
                for name, message_id in list(waiting.items()):
                    reply = self._reply(message_id, arriving)
                    if reply is not None:
                        del waiting[name]
                        if reply is not _GONE:
                            yield name, reply
                time.sleep(_LOOK_SECONDS)
        finally:
            self._state.delete_messages(pushed)
            for message_id in (*pushed, *(reply.metadata.message_id for reply in arriving.values())):
                self._state.object_store.delete(message_id)

    def _push(self, node: int, raw: bytes, ttl: float) -> str:
        """Lay a message ready for a node; its id, "" where the node has gone."""
        message = Message(content_of(raw), node, MESSAGE_TYPE, ttl=ttl)
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            objects, tree = get_all_nested_objects(message), get_object_tree(message)
            session = self._state.start_session(self._run)
            bare = remove_content_from_message(message)
            stored, missing = self._state.store_message_and_object_tree(bare, tree, session)
            if not stored:
                return ""
            for object_id in missing:
                self._state.store_object(self._run, session, object_id, objects[object_id].deflate())
        return str(message.metadata.message_id)

    def _reply(self, message_id: str, arriving: dict[str, Message]) -> bytes | None:
        """The reply to a message once all of it is here, ``_GONE``, or b"" where the device sent something else."""
        try:
            if message_id not in arriving:
                found = self._state.get_message_res({message_id}, self._run)
                if not found:
                    return None
                arriving[message_id] = found[0]
            reply = arriving[message_id]
            # Flower itself replies with an error where a device is not heard any more.
            return _GONE if reply.has_error() else self._whole(reply.metadata.message_id)
        except Exception:  # the device wrote all of it
            return b""

    def _whole(self, reply_id: str) -> bytes | None:
        """The bytes of a reply; None while pieces are missing."""
        store, contents, total = self._state.object_store, dict[str, bytes](), 0
        for tree in iterate_object_tree(store.get_object_tree(reply_id)):
            content = self._state.get_object(self._run, tree.object_id)
            if not content:
                return None
            contents[tree.object_id] = content
            total += len(content)
            if total > MAX_MESSAGE_BYTES + (1 << 20):
                return b""
        message = inflate_object_from_contents(reply_id, contents)
        return bytes_of(message) if isinstance(message, Message) else b""


class _Lifespan:
    """What ``create_app`` wants to start beside itself: nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def startup(self) -> None:
        """Start nothing."""

    def shutdown(self) -> None:
        """End nothing."""


def _let_back_in(state: Any) -> None:
    """Let a device begin anew that was cut off: Flower refuses that until it was not heard for a minute."""
    activate = state.activate_node

    def activate_again(node_id: int, heartbeat_interval: float) -> bool:
        state.deactivate_node(node_id)
        return bool(activate(node_id, heartbeat_interval))

    state.activate_node = activate_again


def _settings() -> SuperLinkLifespanConfig:
    """Only devices whose keys were admitted; all state in memory. What is not used here is empty."""
    return SuperLinkLifespanConfig(
        control_address="", health_server_address=None, host="", port=0, insecure=False, certificates=None,
        superexec_auth_secret=None, authn_plugin=NoOpControlAuthnPlugin(), event_log_plugin=None,
        fleet_event_log_plugin=None, enable_event_log=False, artifact_provider=None, enable_supernode_auth=True,
        fleet_api_type="", fleet_api_address=None, simulation=False, ssl_ca_certfile=None, ssl_certfile=None,
        ssl_keyfile=None, database=FLWR_IN_MEMORY_DB_NAME, isolation="process", runtime_dependency_install=False,
    )  # fmt: skip


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"{host}:{port} cannot be listened on ({reason}); choose another port or address with --listen."
        ) from error
