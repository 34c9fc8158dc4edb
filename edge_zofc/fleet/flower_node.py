"""A device of a fleet: what Flower's SuperNode and ClientApp do, in one process that starts no other.

``flower-supernode`` starts a process for each message, and runs the code that a server names. Here the code is this
package's own, whatever the server sends. The calls are SuperNode's, by Flower's own client.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node as NodeNumber
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.fleet.exchange import MAX_MESSAGE_BYTES
from edge_zofc.fleet.flower_message import bytes_of, content_of
from edge_zofc.fleet.keys import DeviceKeys, private_key

POLL_SECONDS = 3.0
"""Between two looks for a message, as SuperNode's."""
SOON_SECONDS = 0.25
"""After a reply, and twice as long each time: a fleet that takes steps asks again at once."""
MOST_WAIT_SECONDS = 20.0
_PIECE_TRIES = 100
_LOOK_SECONDS = 0.2
_FETCH_SECONDS = 2.0
"""The last reply of a device that has left is lost unless the server has fetched it."""


class Node:
    """The device of ``keys`` at the fleet's server ``address`` (HOST:PORT). Raises InputError, DamagedFileError.

    ``reply`` makes a reply of a message, both bytes. ``is_over`` is asked after each message, and ends ``run``.
    """

    def __init__(self, address: str, keys: DeviceKeys, reply: Callable[[bytes], bytes], tell: Callable[[str], None]):
        self._address, self._keys, self._reply, self._tell = address, keys, reply, tell
        self._key = private_key(keys.key, "The device's key")
        self._number: NodeNumber | None = None

    def run(self, is_over: Callable[[], bool]) -> None:
        """Answer messages until ``is_over`` or an exception. A server that does not answer is waited for.

        Raises InputError where the server is none of this fleet's, or does not know this device.
        """
        wait = POLL_SECONDS
        while True:
            try:
                with self._client() as client:
                    self._activate(client)
                    wait = POLL_SECONDS
                    self._answer(client, is_over)
                    return
            except (httpx.HTTPError, ValueError) as error:
                self._explain(error)
                self._tell(f"{self._address} does not answer ({_short(error)}); trying again in {wait:.0f} s")
            time.sleep(wait)
            wait = min(2 * wait, MOST_WAIT_SECONDS)

    def _client(self) -> FleetHttpClient:
        try:
            return FleetHttpClient.from_server_address(
                self._address,
                insecure=False,
                root_certificates=str(self._keys.authority),
                interceptors=[NodeAuthHttpInterceptor(self._key, self._key.public_key())],
            )
        except OSError as error:  # an SSLError is one
            where = self._keys.authority
            raise DamagedFileError(f"{where} is no certificate ({error}); put back a good copy.") from error

    def _activate(self, client: FleetHttpClient) -> None:
        self._number = None
        key = public_key_to_bytes(self._key.public_key())
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        self._number = NodeNumber(node_id=client.ActivateNode(request).node_id)
        self._tell(f"connected to {self._address} as {self._keys.name}")

    def _answer(self, client: FleetHttpClient, is_over: Callable[[], bool]) -> None:
        # On a thread: to try a head on pictures takes a board longer than a server waits for a sign of life.
        beat = HeartbeatSender(lambda: self._beat(client))
        beat.start()
        wait = POLL_SECONDS
        try:
            while True:
                found = client.PullMessages(PullMessagesRequest(node=self._number))
                if not found.messages_list:
                    time.sleep(wait)
                    wait = min(2 * wait, POLL_SECONDS)
                    continue
                wait = SOON_SECONDS
                message = message_from_proto(found.messages_list[0])
                raw = self._pull(client, message, found.message_object_trees[0])
                self._push(client, message, self._reply(raw))
                if is_over():
                    time.sleep(_FETCH_SECONDS)
                    return
        finally:
            beat.stop()
            with suppress(httpx.HTTPError, ValueError):
                client.DeactivateNode(DeactivateNodeRequest(node_id=self._number.node_id if self._number else 0))

    def _beat(self, client: FleetHttpClient) -> bool:
        request = SendNodeHeartbeatRequest(node=self._number, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            return bool(client.SendNodeHeartbeat(request).success)
        except (httpx.HTTPError, ValueError, RuntimeError):  # the next look for a message finds out why
            return False

    def _pull(self, client: FleetHttpClient, message: Message, tree: object) -> bytes:
        """All pieces of a message. Raises ValueError where they do not come, DamagedFileError for another message."""
        run_id, contents, total = message.metadata.run_id, dict[str, bytes](), 0
        for part in iterate_object_tree(tree):
            request = PullObjectRequest(node=self._number, run_id=run_id, object_id=part.object_id)
            for _ in range(_PIECE_TRIES):
                found = client.PullObject(request)
                if found.object_available:
                    break
                time.sleep(_LOOK_SECONDS)
            else:
                raise ValueError("a piece of a message did not come")
            total += len(found.object_content)
            if total > MAX_MESSAGE_BYTES + (1 << 20):
                raise DamagedFileError(f"A message of the fleet has more than {MAX_MESSAGE_BYTES} bytes.")
            contents[part.object_id] = found.object_content
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._number, run_id=run_id, message_object_id=message.metadata.message_id
            )
        )
        return bytes_of(inflate_object_from_contents(message.metadata.message_id, contents))

    def _push(self, client: FleetHttpClient, message: Message, raw: bytes) -> None:
        reply = Message(content_of(raw), reply_to=message)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            request = PushMessagesRequest(
                node=self._number,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
            wanted = client.PushMessages(request)
            for object_id in wanted.objects_to_push:
                client.PushObject(
                    PushObjectRequest(
                        node=self._number,
                        run_id=message.metadata.run_id,
                        session_id=wanted.session_id,
                        object_id=object_id,
                        object_content=objects[object_id].deflate(),
                    )
                )

    def _explain(self, error: Exception) -> None:
        """Raise InputError where trying again helps nobody."""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise InputError(
                f"The server at {self._address} is none of this fleet: its certificate is not signed by "
                f"{self._keys.authority}, or not made for this address ({_short(error)}); take the keys that "
                "'edge-zofc fleet keys' made for this fleet, and make its certificate with --host."
            ) from error
        # Later on a refusal means that the server was started anew: the device then has another number there.
        if self._number is None and isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
            raise InputError(
                f"The fleet at {self._address} does not let {self._keys.name} in: its key is not known or was revoked, "
                "or the clocks differ by more than 5 minutes; ask for a key ('edge-zofc fleet keys FLEET add "
                f"{self._keys.name}')."
            ) from error


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
