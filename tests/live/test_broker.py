"""``predict --camera --mqtt`` against Debian's Mosquitto: what another client of the broker sees."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpegs import child
from programs import found, need
from small import picture

from edge_zofc.learner import Learner
from edge_zofc.live.mqtt import PASSWORD, discovery
from edge_zofc.storage.bundle import Bundle

pytestmark = pytest.mark.broker
NAME = """mug "1" '+/#' {{ 1 }}""".replace("/", " ")
WAIT_SECONDS = 30


def wait_until(true: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


class Mosquitto:
    """A broker on loopback that can be stopped and started again; it keeps nothing on the disk."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        lines = (f"user {getpass.getuser()}", f"listener {self.port} 127.0.0.1", *settings)
        self.config.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(found("mosquitto")), "-c", str(self.config)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self.is_up)

    def is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def retained(self) -> dict[str, str]:
        """What a client that comes now is told, by topic."""
        command = ["mosquitto_sub", "-p", str(self.port), "--retained-only", "-F", "%j", "-W", "1"]
        for topic in ("homeassistant/#", "+/+/state", "+/+/available"):  # another message ends it
            command += ["-t", topic]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return {each["topic"]: each["payload"] for each in map(json.loads, done.stdout.splitlines())}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    need("mosquitto", "mosquitto_sub")
    made = Mosquitto(tmp_path, "allow_anonymous true")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def taught(small_bundle: Bundle, tmp_path: Path) -> Path:
    """A run that knows two things; the camera beside it, ``shown``, sees the first."""
    with Learner.create(small_bundle.folder, tmp_path / "run", profile="cpu-2gib") as learner:
        for number, name in ((0, NAME), (3, "pen")):
            learner.teach([np.asarray(picture(number, index, side=64)) for index in range(5)], name)
    (tmp_path / "shown").mkdir()
    for index in range(3):
        picture(0, 20 + index, side=64).save(tmp_path / "shown" / f"{index}.jpg")
    return tmp_path / "run"


def words(taught: Path, port: int, *more: str) -> list[str]:
    camera = () if "--camera-command" in more else ("--camera", f"folder://{taught.parent / 'shown'}")
    command = [sys.executable, "-m", "edge_zofc", "predict", str(taught), "--every", "0.1", *camera]
    return [*command, "--mqtt", f"localhost:{port}", *more]


class Answering:
    """A process that answers, and the lines that it printed so far."""

    def __init__(self, process: subprocess.Popen[str], error: Path) -> None:
        self.process, self._error = process, error
        self.lines: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(map(json.loads, self.process.stdout))  # as they come

    def said(self) -> list[str]:
        return self._error.read_text().splitlines()


@contextmanager
def answering(taught: Path, port: int, *more: str, **variables: str) -> Iterator[Answering]:
    error, environment = taught.parent / "stderr", {**os.environ, **variables}
    with error.open("w") as to, subprocess.Popen(
        words(taught, port, *more), stdout=subprocess.PIPE, stderr=to, text=True, env=environment
    ) as process:  # fmt: skip
        try:
            yield Answering(process, error)
        finally:
            process.kill()


def test_a_subscriber_sees_lines_the_state_and_what_home_assistant_reads(broker: Mosquitto, taught: Path) -> None:
    command = ["mosquitto_sub", "-p", str(broker.port), "-t", "edge-zofc/run/answer", "-F", "%j", "-C", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscriber:
        time.sleep(0.5)  # it has subscribed
        done = subprocess.run(words(taught, broker.port, "--count", "4"), capture_output=True, text=True, check=True)
        seen = subscriber.communicate(timeout=WAIT_SECONDS)[0]
    messages = [json.loads(each) for each in seen.splitlines()]
    assert [each["payload"] for each in messages] == done.stdout.splitlines()
    assert {each["retain"] for each in messages} == {0}
    assert done.stderr == ""
    topic, config = discovery("edge-zofc/run")
    kept = broker.retained()
    assert json.loads(kept.pop(topic)) == config
    assert kept == {"edge-zofc/run/state": NAME, "edge-zofc/run/available": "offline"}


def test_a_process_that_is_killed_is_called_offline_by_the_broker(broker: Mosquitto, taught: Path) -> None:
    with answering(taught, broker.port, "--mqtt-topic", "shelf 1/äpfel") as found:
        wait_until(lambda: broker.retained().get("shelf 1/äpfel/state") == NAME)
        assert broker.retained()["shelf 1/äpfel/available"] == "online"
        found.process.kill()
        wait_until(lambda: broker.retained()["shelf 1/äpfel/available"] == "offline")


def test_a_signal_says_offline_and_ends_with_its_code(broker: Mosquitto, taught: Path) -> None:
    with answering(taught, broker.port) as found:
        wait_until(lambda: found.lines)
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(WAIT_SECONDS) == 143
        assert broker.retained()["edge-zofc/run/available"] == "offline"
        assert found.said() == []


def test_a_broker_that_goes_and_comes_again_is_told_once_and_hears_all_anew(broker: Mosquitto, taught: Path) -> None:
    with answering(taught, broker.port) as found:
        wait_until(lambda: broker.retained().get("edge-zofc/run/state") == NAME)
        broker.stop()
        before = len(found.lines)
        wait_until(lambda: len(found.lines) >= before + 4)
        assert found.said() == [
            f"The MQTT broker localhost:{broker.port} is gone; pictures are answered on, and it is tried again."
        ]
        broker.start()  # with an empty memory
        wait_until(lambda: len(found.said()) == 2)
        assert found.said()[1] == f"The MQTT broker localhost:{broker.port} is back."
        kept = {discovery("edge-zofc/run")[0], "edge-zofc/run/state", "edge-zofc/run/available"}
        wait_until(lambda: set(broker.retained()) == kept)
        assert broker.retained()["edge-zofc/run/state"] == NAME
        assert broker.retained()["edge-zofc/run/available"] == "online"
        assert len(found.said()) == 2


def test_a_broker_that_hangs_keeps_nobody_from_ending(broker: Mosquitto, taught: Path) -> None:
    assert broker.process is not None
    with answering(taught, broker.port) as found:
        wait_until(lambda: found.lines)
        broker.process.send_signal(signal.SIGSTOP)
        before = len(found.lines)
        wait_until(lambda: len(found.lines) >= before + 2)
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(15) == 130


def test_the_second_with_a_topic_takes_it_over_and_both_are_told(broker: Mosquitto, taught: Path) -> None:
    with answering(taught, broker.port) as first:
        wait_until(lambda: first.lines)
        done = subprocess.run(words(taught, broker.port, "--count", "1"), capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == 1
        wait_until(lambda: len(first.said()) >= 2)
        assert "is gone" in first.said()[0]
        assert "is back" in first.said()[1]
        wait_until(lambda: broker.retained()["edge-zofc/run/available"] == "online")


def test_a_password_is_the_brokers_and_no_childs(tmp_path: Path, taught: Path) -> None:
    need("mosquitto", "mosquitto_sub")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "me", "se cret"], check=True)
    broker = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    broker.start()
    try:
        body = "open(sys.argv[2], 'w').write(repr(dict(os.environ)))\nwrite(open(sys.argv[1], 'rb').read())"
        camera = shlex.join(child(body, tmp_path / "shown" / "0.jpg", tmp_path / "environment"))
        more = ("--mqtt-user", "me", "--count", "1", "--camera-command", camera)
        for password, code in (("se cret", 0), ("wrong", 2)):
            done = subprocess.run(
                words(taught, broker.port, *more), capture_output=True, text=True,
                check=False, env={**os.environ, PASSWORD: password},
            )  # fmt: skip
            assert done.returncode == code, done.stderr
            assert password not in done.stderr
        assert "not authorized" in done.stderr.lower() or "bad user name or password" in done.stderr.lower()
        assert PASSWORD not in (tmp_path / "environment").read_text()
        done = subprocess.run(words(taught, broker.port), capture_output=True, text=True, check=False)
        assert done.returncode == 2
    finally:
        broker.stop()


def test_an_encrypted_broker_is_checked_by_its_certificate(tmp_path: Path, taught: Path) -> None:
    need("mosquitto", "mosquitto_sub", "openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    broker = Mosquitto(tmp_path, "allow_anonymous true", f"keyfile {key}", f"certfile {certificate}")
    broker.start()
    try:
        for how, code, why in (
            (("--mqtt-tls", str(certificate)), 0, ""),
            (("--mqtt-tls",), 2, "certificate verify failed"),
            ((), 2, "cannot be used"),
        ):
            done = subprocess.run(
                words(taught, broker.port, "--count", "1", *how), capture_output=True, text=True, check=False
            )
            assert done.returncode == code, done.stderr
            assert why in done.stderr
            assert len(done.stderr.splitlines()) == (1 if code else 0)
    finally:
        broker.stop()
