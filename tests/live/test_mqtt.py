"""What a broker is told, with a client that keeps it in place of paho's."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from edge_zofc.errors import InputError
from edge_zofc.live import mqtt
from edge_zofc.live.mqtt import Broker, Publisher, discovery, read_broker, sensor_id, topic_prefix

HERE = Broker("127.0.0.1", 1883)


class Reason:
    def __init__(self, text: str = "Success") -> None:
        self.text, self.is_failure = text, text != "Success"

    def __str__(self) -> str:
        return self.text


class Sent:
    """A message that left at once, or that waits."""

    def __init__(self, left: bool) -> None:
        self.rc, self.left = 0, left

    def is_published(self) -> bool:
        if self.rc:
            raise RuntimeError
        return self.left

    def wait_for_publish(self, timeout: float) -> None:
        assert timeout < 10


class FakeClient:
    """As paho's client: its first connection succeeds unless ``refusal`` says why not."""

    refusal = ""
    error: Exception | None = None

    def __init__(self, version: object, client_id: str) -> None:
        self.client_id, self.told, self.left = client_id, list[tuple[str, str, bool]](), True
        self.sent: list[Sent] = []
        self.will: tuple[object, ...] = ()
        self.login: tuple[object, ...] = ()
        self.calls: list[str] = []
        self.on_connect: Any = None
        self.on_disconnect: Any = None

    def reconnect_delay_set(self, least: int, most: int) -> None:
        assert least < most

    def will_set(self, *words: object, **more: object) -> None:
        self.will = (*words, more)

    def username_pw_set(self, *words: object) -> None:
        self.login = words

    def connect(self, host: str, port: int, keepalive: int) -> None:
        if self.error:
            raise self.error

    def loop_start(self) -> None:
        self.on_connect(self, None, None, Reason(self.refusal or "Success"), None)

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> Sent:
        self.told.append((topic, payload if isinstance(payload, str) else payload.decode(), retain))
        self.sent.append(Sent(self.left))
        return self.sent[-1]

    def socket(self) -> None:
        return None

    def disconnect(self) -> None:
        self.calls.append("disconnect")

    def loop_stop(self) -> None:
        self.calls.append("loop_stop")

    def take(self) -> list[tuple[str, str, bool]]:
        told, self.told = self.told, []
        return told


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "Client", FakeClient)


def client_of(publisher: Publisher) -> FakeClient:
    found = publisher._client
    assert isinstance(found, FakeClient)
    return found


def line(stable: str | None = None, **more: object) -> dict[str, object]:
    return {"name": stable, "stable": stable, **more}


def test_the_topics_of_a_session_in_their_order() -> None:
    with Publisher(HERE, "a/b") as publisher:
        client = client_of(publisher)
        topic, config = discovery("a/b")
        assert client.take() == [
            (topic, json.dumps(config), True), ("a/b/state", "None", True), ("a/b/available", "online", True),
        ]  # fmt: skip
        publisher.answered(line())
        publisher.answered(line("mug"))
        publisher.answered(line("mug"))
        publisher.answered(line())
        texts = [(topic, text, kept) for topic, text, kept in client.take() if topic != "a/b/answer"]
        assert texts == [("a/b/state", "mug", True), ("a/b/state", "None", True)]
        publisher.answered(line("mug"))
        assert client.take()[0] == ("a/b/answer", json.dumps(line("mug")), False)
    assert client.take() == [("a/b/available", "offline", True)]
    assert client.calls == ["disconnect", "loop_stop"]
    assert client.will == ("a/b/available", "offline", {"retain": True})


def test_the_discovery_has_home_assistants_keys_and_characters() -> None:
    topic, message = discovery('shelf "1"/ä')
    assert re.fullmatch(r"homeassistant/sensor/[0-9A-Za-z_-]+/config", topic)
    assert topic.split("/")[2] == message["unique_id"] == message["device"]["identifiers"][0]
    assert message["state_topic"] == 'shelf "1"/ä/state'
    assert message["json_attributes_topic"] == 'shelf "1"/ä/answer'
    assert message["availability_topic"] == 'shelf "1"/ä/available'
    assert set(message) == {
        "name", "unique_id", "state_topic", "json_attributes_topic", "availability_topic", "payload_available",
        "payload_not_available", "icon", "device", "origin",
    }  # fmt: skip
    assert sensor_id("a/b") != sensor_id("a_b")


def test_hostile_names_are_data() -> None:
    name = 'a "+/#"\n\x1b[2J</script>{{ 1 }} \udcff'
    with Publisher(HERE, "p") as publisher:
        client = client_of(publisher)
        client.take()
        publisher.answered(line(name))
        (topic, text, _), (state_topic, state, _) = client.take()
        assert (topic, state_topic) == ("p/answer", "p/state")
        assert json.loads(text)["stable"] == name
        assert text.isascii()
        assert "\n" not in text
        assert state == name.replace("\udcff", "\\udcff")


def test_a_lost_camera_is_no_available_sensor() -> None:
    with Publisher(HERE, "p") as publisher:
        client = client_of(publisher)
        publisher.answered(line("mug"))
        client.take()
        publisher.camera_is(False, "It is gone.")
        assert client.take() == [("p/available", "offline", True), ("p/state", "None", True)]
        publisher.camera_is(True, "It is back.")
        assert client.take() == [("p/available", "online", True)]


def test_a_broker_that_goes_is_told_once_and_hears_what_holds_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(HERE, "p") as publisher, caplog.at_level(logging.INFO):
        client = client_of(publisher)
        client.take()
        for _ in range(3):  # further tries that end before a greeting
            publisher._on_disconnect(client, None, None, Reason("Unspecified error"), None)  # type: ignore[arg-type]
        publisher._on_connect(client, None, None, Reason("Not authorized"), None)  # type: ignore[arg-type]
        publisher.answered(line("mug"))
        publisher.camera_is(False, "It is gone.")
        publisher.answered(line("pen"))
        assert client.take() == []
        publisher._on_connect(client, None, None, Reason(), None)  # type: ignore[arg-type]
        assert client.take()[1:] == [("p/state", "pen", True), ("p/available", "offline", True)]
    assert [record.message for record in caplog.records] == [
        "The MQTT broker 127.0.0.1:1883 is gone; pictures are answered on, and it is tried again.",
        "The MQTT broker 127.0.0.1:1883 is back.",
    ]


def test_answers_for_a_broker_that_takes_none_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(HERE, "p") as publisher:
        client = client_of(publisher)
        client.left = False
        for _ in range(1000):
            publisher.answered(line())
        answers = [topic for topic, _, _ in client.take() if topic == "p/answer"]
        assert len(answers) == mqtt.MAX_WAITING
        assert [record.message for record in caplog.records] == [
            "The MQTT broker 127.0.0.1:1883 is slow; answers are left out there."
        ]
        for sent in client.sent[:-1]:
            sent.rc = 7  # lost, as after a new connection
        client.left = True
        publisher.answered(line())
        assert len(client.take()) == 1


@pytest.mark.parametrize(
    ("error", "refusal", "why"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "", "connection refused"),
        (TimeoutError("timed out"), "", "timed out"),
        (UnicodeError("label too long"), "", "label too long"),
        (None, "Not authorized", "not authorized"),
    ],
)
def test_a_broker_that_cannot_be_used_is_one_sentence(
    error: Exception | None, refusal: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeClient, "error", error)
    monkeypatch.setattr(FakeClient, "refusal", refusal)
    publisher = Publisher(Broker("::1", 8883, "me", "secret"), "p")
    with pytest.raises(InputError) as caught:
        publisher.__enter__()
    assert str(caught.value).startswith(f"The MQTT broker [::1]:8883 cannot be used ({why}); check that it runs")
    assert "secret" not in str(caught.value)
    assert client_of(publisher).login == ("me", "secret")


def test_addresses_of_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mqtt.PASSWORD, raising=False)
    assert read_broker("shelf", None, False) == Broker("shelf", 1883)
    assert read_broker("10.0.0.1:1884", "me", False) == Broker("10.0.0.1", 1884, "me")
    assert read_broker("[fe80::1%eth0]:1884", None, False) == Broker("fe80::1%eth0", 1884)
    assert read_broker("shelf", None, True, Path("ca")) == Broker("shelf", 8883, tls=True, ca=Path("ca"))


def test_a_password_comes_from_the_environment_and_no_child_inherits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mqtt.PASSWORD, "secret")
    broker = read_broker("shelf", "me", False)
    assert broker.password == "secret"
    assert "secret" not in repr(broker)
    assert mqtt.PASSWORD not in os.environ


@pytest.mark.parametrize(
    "address", ["", ":1883", "a:0", "a:65536", "a:b", "mqtt://a", "a b", "::1", "me:secret@a", "a\n"]
)
def test_what_is_no_address_of_a_broker_is_told_without_a_password(address: str) -> None:
    with pytest.raises(InputError, match="--mqtt takes HOST or HOST:PORT") as caught:
        read_broker(address, None, False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "/a", "a/", "a//b", "a/+", "#", "$SYS/a", "a\nb", "a\0", "a\udcff", "x" * 201])
def test_what_cannot_begin_a_topic_is_told(prefix: str) -> None:
    with pytest.raises(InputError, match="cannot be the start of a topic"):
        topic_prefix(prefix, Path("run"))


@pytest.mark.parametrize(
    ("run", "found"), [("run", "run"), ("a/my run+#", "my_run_"), ("/", "run"), ("wä", "w_"), ("a/..", "_")]
)
def test_the_topic_is_called_as_the_run(run: str, found: str) -> None:
    assert topic_prefix(None, Path(run)) == f"edge-zofc/{found}"
    assert topic_prefix("shelf 1/b", Path(run)) == "shelf 1/b"


def test_a_file_without_certificates_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # paho's own client
    (tmp_path / "ca").write_text("none")
    for ca in (tmp_path / "ca", tmp_path / "gone", tmp_path):
        with pytest.raises(InputError, match="holds no certificates that can be read"):
            Publisher(Broker("shelf", 8883, tls=True, ca=ca), "p")
