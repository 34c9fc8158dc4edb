"""The page's server at work over a fake learner and a camera that the test holds; each request is a connection."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from pathlib import Path

from fake_learner import FakeLearner
from pictures import blocks

from edge_zofc.live.camera import BrowserCamera, Camera
from edge_zofc.live.guard import Guard, Listen
from edge_zofc.live.seer import Seer
from edge_zofc.live.server import Server, bind
from edge_zofc.live.streams import Bell
from edge_zofc.live.watch import NoWatch
from edge_zofc.live.web import application


class Site:
    """Inside of the ``with`` it answers at ``host``."""

    def __init__(self, folder: Path, camera: Camera | None = None) -> None:
        self.camera, self._folder = camera or BrowserCamera(), folder
        self._socket = bind(Listen("127.0.0.1", 0))
        self.guard = Guard(Listen(*self._socket.getsockname()))
        self.host = f"127.0.0.1:{self.guard.listen.port}"
        self.cookie = f"{self.guard.cookie}={self.guard.token}"
        self._ready = {name: threading.Event() for name in ("seer", "server")}
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._see, self._serve)]

    def _see(self) -> None:
        self.learner = FakeLearner(self._folder)
        self.seer = Seer(self.learner, self.camera, NoWatch())
        self._ready["seer"].set()
        self.seer.run()

    def _serve(self) -> None:
        bell = Bell()
        self.seer.changed = bell.ring
        self.server = Server(application(self.seer, self.camera, self.guard, bell), bell)
        asyncio.run(self.server.serve(self._socket, self._ready["server"].set))

    def __enter__(self) -> Site:
        for thread, ready in zip(self._threads, self._ready.values(), strict=True):
            thread.start()
            assert ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self.server.end()
        self._threads[1].join(10)
        self.seer.stop()
        self._threads[0].join(10)
        self._socket.close()
        assert not any(thread.is_alive() for thread in self._threads)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str | None] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request as the page makes it, changed by ``headers`` (None: left out)."""
        found: dict[str, str | None] = {"Host": self.host, "Cookie": self.cookie}
        if method == "POST":
            found |= {"Content-Type": "application/json", "X-Edge-Zofc": "1", "Content-Length": str(len(body or b""))}
        found |= headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.guard.listen.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in found.items():
                if value is not None:
                    connection.putheader(name, value.encode("utf-8", "surrogateescape"))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path: str, **asked: object) -> tuple[int, dict[str, object]]:
        """A gesture; its status and answer."""
        status, _, body = self.ask("POST", path, json.dumps(asked).encode())
        return status, json.loads(body)

    def frame(self, seed: int) -> None:
        """Give the camera a picture and wait until it was named."""
        data = blocks(seed)
        status, _, body = self.ask("POST", "/api/frame", data, {"Content-Type": "image/jpeg"})
        assert status == 204, body
        serial, until = self.camera.state.pictures, time.monotonic() + 10
        while self.seer.state.view.picture < serial:
            assert time.monotonic() < until
            time.sleep(0.005)

    def show(self, name: str, seeds: range) -> None:
        """A press of the button, with these pictures before the camera."""
        assert self.post("/api/record", name=name, on=True)[0] == 200
        for seed in seeds:
            self.frame(seed)
        assert self.post("/api/record", name=name, on=False)[0] == 200

    def raw(self, data: bytes, seconds: float = 5.0) -> bytes:
        """What comes back for these bytes until the connection ends or for so long."""
        with socket.create_connection(("127.0.0.1", self.guard.listen.port), timeout=seconds) as connection:
            connection.sendall(data)
            found = b""
            try:
                while piece := connection.recv(65536):
                    found += piece
            except (TimeoutError, ConnectionResetError):
                pass
            return found

    def stream(self, path: str) -> socket.socket:
        """A stream that nobody reads yet."""
        connection = socket.create_connection(("127.0.0.1", self.guard.listen.port), timeout=10)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nCookie: {self.cookie}\r\n\r\n".encode())
        return connection
