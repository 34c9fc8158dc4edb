"""Answers to an MQTT broker, and to Home Assistant through it. The only module that knows paho.

    PREFIX/answer                       each line, as JSON
    PREFIX/state                        the stable name, retained, when it changes; "None" where there is none
    PREFIX/available                    online or offline, retained: pictures are answered; the broker's last will, too
    homeassistant/sensor/<id>/config    what makes a sensor of it, retained

"None" is what sets a sensor of Home Assistant to unknown (its ``mqtt`` documentation). Everything goes at QoS 0: what
is retained is sent again after each connection. While the broker is away nothing is kept for it.

Who connects with the same prefix takes the connection over. So an end that the broker did not notice yet cannot call a
new beginning offline.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from edge_zofc import __version__
from edge_zofc.errors import InputError, quoted, shown

log = logging.getLogger("edge_zofc")

PASSWORD = "EDGE_ZOFC_MQTT_PASSWORD"  # noqa: S105 - the name of a variable
PORT, TLS_PORT = 1883, 8883
DISCOVERY = "homeassistant"
ONLINE, OFFLINE, NOTHING = "online", "offline", "None"
MAX_WAITING = 100
"""Answers that wait for a broker that takes none; further ones are left out."""
KEEPALIVE_SECONDS = 30
CONNECT_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60
FLUSH_SECONDS = 2.0
MAX_TOPIC_BYTES = 200

_ADDRESS = re.compile(r"(?P<host>\[[^\s/@\[\]]+\]|[^\s:/@\[\]]+)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Broker:
    """Where the broker is and who we are there; ``ca``: a file of certificates in place of the system's."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: Path | None = None

    def __str__(self) -> str:
        return shown(f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


def read_broker(address: str, user: str | None, tls: bool, ca: Path | None = None) -> Broker:
    """The broker at HOST or HOST:PORT. A password is taken out of the environment, so that no child inherits it.

    Raises InputError.
    """
    found = _ADDRESS.fullmatch(address)
    port = int((found and found["port"]) or (TLS_PORT if tls else PORT))
    if found is None or not 1 <= port <= 65535:
        what = "what was given" if "@" in address else quoted(address)  # what stands before an @ may be a password
        raise InputError(
            f"--mqtt takes HOST or HOST:PORT, not {what}; a user is given with --mqtt-user, its password in the "
            f"variable {PASSWORD}."
        )
    password = os.environ.pop(PASSWORD, None)
    return Broker(found["host"].strip("[]"), port, user, password if user is not None else None, tls, ca)


def topic_prefix(text: str | None, run: Path) -> str:
    """``--mqtt-topic``, or edge-zofc/<the run's name>. Raises InputError for what cannot be the start of a topic."""
    if text is None:
        return f"edge-zofc/{re.sub(r'[^0-9A-Za-z_-]+', '_', run.absolute().name) or 'run'}"
    is_long = len(text.encode(errors="replace")) > MAX_TOPIC_BYTES
    if is_long or not all(text.split("/")) or text[0] == "$" or set(text) & {"+", "#"} or not text.isprintable():
        raise InputError(
            f"--mqtt-topic {quoted(text)} cannot be the start of a topic; give names with / between them, without + "
            f"and #, in at most {MAX_TOPIC_BYTES} bytes, such as edge-zofc/shelf."
        )
    return text


def sensor_id(prefix: str) -> str:
    """What Home Assistant and the broker know this sensor by: letters, digits, _ and -, another one for each prefix."""
    digest = hashlib.sha256(prefix.encode()).hexdigest()[:12]
    return f"{re.sub('[^0-9A-Za-z_-]+', '_', prefix)[:40]}_{digest}"


def discovery(prefix: str) -> tuple[str, dict[str, Any]]:
    """The topic and the message that make Home Assistant add a sensor of what is seen."""
    name = sensor_id(prefix)
    message = {
        "name": "Seen",
        "unique_id": name,
        "state_topic": f"{prefix}/state",
        "json_attributes_topic": f"{prefix}/answer",
        "availability_topic": f"{prefix}/available",
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
        "icon": "mdi:eye",
        "device": {
            "identifiers": [name],
            "name": prefix,
            "manufacturer": "edge-zofc",
            "model": "camera",
            "sw_version": __version__,
        },
        "origin": {"name": "edge-zofc", "sw_version": __version__},
    }
    return f"{DISCOVERY}/sensor/{name}/config", message


class Publisher:
    """Tells a broker of answers inside of a ``with``; a listener of ``answering.answer_pictures``.

    A broker that goes away is told once and tried again after 1, 2, 4 ... 60 seconds.
    """

    def __init__(self, broker: Broker, prefix: str) -> None:
        self._broker, self._prefix = broker, prefix
        self._lock = threading.Lock()
        self._state, self._available = NOTHING, ONLINE
        self._waiting: deque[MQTTMessageInfo] = deque()
        self._is_connected = self._was_connected = self._is_full = False
        self._heard, self._refusal = threading.Event(), ""
        self._client = self._new_client()

    def _new_client(self) -> Client:
        broker = self._broker
        name = hashlib.sha256(self._prefix.encode()).hexdigest()[:23]  # longer ones need not be taken
        client = Client(CallbackAPIVersion.VERSION2, client_id=name)
        client.connect_timeout = CONNECT_SECONDS
        client.reconnect_delay_set(1, MAX_PAUSE_SECONDS)
        client.will_set(f"{self._prefix}/available", OFFLINE, retain=True)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            try:
                client.tls_set(None if broker.ca is None else str(broker.ca))
            except OSError as error:  # ssl's own errors are such
                raise InputError(
                    f"--mqtt-tls {shown(broker.ca or '')} holds no certificates that can be read ({_reason(error)}); "
                    "give a file in PEM form."
                ) from error
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        return client

    def __enter__(self) -> Publisher:
        """Connect. Raises InputError where the broker does not answer or refuses us."""
        try:
            self._client.connect(self._broker.host, self._broker.port, KEEPALIVE_SECONDS)
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a host
            raise self._away(_reason(error)) from error
        self._client.loop_start()
        self._heard.wait(CONNECT_SECONDS)
        if not self._was_connected:
            self._end()
            raise self._away(self._refusal or f"no answer for {CONNECT_SECONDS:g} s")
        return self

    def _away(self, reason: str) -> InputError:
        return InputError(
            f"The MQTT broker {self._broker} cannot be used ({reason}); check that it runs, and --mqtt, --mqtt-user, "
            f"--mqtt-tls and {PASSWORD}."
        )

    def __exit__(self, *error: object) -> None:
        """Say offline, and go; what still waits is sent, if that takes no more than 2 seconds."""
        with self._lock:
            self._available = OFFLINE
            last = self._send("available", OFFLINE, retain=True)
        if last is not None:
            with contextlib.suppress(RuntimeError):  # the broker went meanwhile, and tells its last will
                last.wait_for_publish(FLUSH_SECONDS)
        held = self._client.socket()
        if last is not None and _waits(last) and isinstance(held, socket.socket):
            with contextlib.suppress(OSError):  # a broker that takes nothing would keep the thread
                held.shutdown(socket.SHUT_RDWR)
        self._end()

    def _end(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def answered(self, line: dict[str, Any]) -> None:
        """Publish an answer, and its stable name if that is another one."""
        with self._lock:
            self._waiting = deque(filter(_waits, self._waiting))
            if len(self._waiting) >= MAX_WAITING:
                if not self._is_full:
                    log.warning("The MQTT broker %s is slow; answers are left out there.", self._broker)
                self._is_full = True
            else:
                self._is_full = False
                sent = self._send("answer", json.dumps(line))
                self._waiting.extend(() if sent is None else (sent,))
            self._tell_state(line["stable"])

    def camera_is(self, there: bool, sentence: str) -> None:
        """Without its camera a sensor is not available, and its state is none."""
        with self._lock:
            self._available = ONLINE if there else OFFLINE
            self._send("available", self._available, retain=True)
            if not there:
                self._tell_state(None)

    def _tell_state(self, name: str | None) -> None:
        # A retained message without a byte would be no message.
        state = NOTHING if name is None else name
        if state != self._state:
            self._state = state
            self._send("state", state, retain=True)

    def _send(self, topic: str, text: str, retain: bool = False) -> MQTTMessageInfo | None:
        """Hold the lock. None while there is no connection: it would go before the greeting of the next one."""
        if not self._is_connected:
            return None
        # Half a character, of a folder's name that is no UTF-8, cannot be sent.
        payload = text.encode("utf-8", "backslashreplace")
        return self._client.publish(f"{self._prefix}/{topic}", payload, retain=retain)

    def _on_connect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refusal = str(reason).lower()
            self._heard.set()
            return
        topic, message = discovery(self._prefix)
        with self._lock:
            self._is_connected = True
            client.publish(topic, json.dumps(message), retain=True)
            self._send("state", self._state, retain=True)
            self._send("available", self._available, retain=True)
            was_connected, self._was_connected = self._was_connected, True
        if was_connected:
            log.info("The MQTT broker %s is back.", self._broker)
        self._heard.set()

    def _on_disconnect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._lock:
            was_connected, self._is_connected = self._is_connected, False
        if was_connected:
            log.warning("The MQTT broker %s is gone; pictures are answered on, and it is tried again.", self._broker)


def _waits(sent: MQTTMessageInfo) -> bool:
    """Whether a message has not left yet; one that is lost waits no more."""
    try:
        return not sent.is_published()
    except (RuntimeError, ValueError):
        return False


def _reason(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
