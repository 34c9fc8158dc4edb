"""``edge-zofc live`` in a process of its own, and the camera that a test holds."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pictures import blocks


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """The process on a free port; killed at the end, if it still runs."""
    command = (sys.executable, "-m", "edge_zofc", "live", "--listen", "127.0.0.1:0", "--json", *map(str, words))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Process:
    """Asked as the page asks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        line = process.stdout.readline() if process.stdout else ""
        assert line, process.stderr.read() if process.stderr else ""
        self.address = json.loads(line)["address"]
        found = urlsplit(self.address)
        self.port = found.port
        self._cookie = f"edge_zofc_{self.port}={found.query.removeprefix('token=')}"
        self.state: dict[str, dict[str, Any]] = {}
        """The newest of each event."""
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Cookie": self._cookie}
        if method == "POST":
            headers |= {"Content-Type": kind, "X-Edge-Zofc": "1"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status < 300, data
        return data

    def post(self, path: str, **asked: object) -> dict[str, str]:
        return json.loads(self.ask("POST", path, json.dumps(asked).encode()))

    def pictures(self) -> list[list[object]]:
        """The lesson's."""
        return json.loads(self.ask("GET", "/api/pictures"))

    def _listen(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/events", headers={"Cookie": self._cookie})
        stream, name = connection.getresponse(), ""
        with contextlib.closing(connection), stream, contextlib.suppress(OSError, http.client.HTTPException):
            for line in stream:
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self.state[name] = json.loads(line[6:])

    def seen(self) -> int:
        """The number of the newest picture that was named."""
        return int(self.state.get("view", {}).get("picture", 0))

    def frame(self, picture: bytes) -> None:
        """Show the camera a picture and wait until it was named."""
        before = self.seen()
        self.ask("POST", "/api/frame", picture, "image/jpeg")
        until = time.monotonic() + 60
        while self.seen() == before:
            assert time.monotonic() < until
            time.sleep(0.01)

    def show(self, name: str, seeds: range, count: int) -> None:
        """A press with pictures of noise; ``count`` are in the lesson then."""
        self.post("/api/record", name=name, on=True)
        for seed in seeds:
            self.frame(blocks(seed))
        self.post("/api/record", name=name, on=False)
        assert len(self.pictures()) == count

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)
