"""Answers of the page's server that do not end: what happens (server-sent events) and the camera's pictures (MJPEG).

Each is an application of ASGI. One that nobody reads holds a single piece and is closed after a while.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import aclosing, contextmanager
from typing import Any

from edge_zofc.live.camera import Camera
from edge_zofc.live.seer import Known, Seer

MAX_STREAMS = 6
SEND_SECONDS = 20.0
"""A stream that nobody reads for so long is closed."""
PICTURE_SECONDS = 0.1
"""From one picture of a stream to the next."""
ALIVE_SECONDS = 15.0
"""After so long without news an event stream says that it is there."""
BOUNDARY = b"\r\n--picture\r\n"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Pieces = Callable[[], AsyncGenerator[bytes, None]]


class Bell:
    """Wakes the streams on the loop; ``ring`` may be called from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: set[asyncio.Event] = set()
        self.ended = False

    def attach(self) -> None:
        """Hang it up in the running loop."""
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """Something changed."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """Let every stream end; on the loop's thread."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        for event in self._listening:
            event.set()

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set at each ring."""
        event = asyncio.Event()
        self._listening.add(event)
        try:
            yield event
        finally:
            self._listening.discard(event)


class Stream:
    """One kind of stream; ``counter`` is shared by all kinds."""

    def __init__(self, kind: str, pieces: Pieces, counter: list[int]) -> None:
        self._kind, self._pieces, self._counter = kind, pieces, counter

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request until its reader is gone."""
        if self._counter[0] >= MAX_STREAMS:
            sentence = f"{MAX_STREAMS} streams are open already; close a page first."
            await _start(send, 503, "application/json")
            await send({"type": "http.response.body", "body": json.dumps({"error": sentence}).encode()})
            return
        self._counter[0] += 1
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await _start(send, 200, self._kind)
            async with aclosing(self._pieces()) as pieces:
                while (piece := await _next(pieces, gone)) is not None:
                    body = {"type": "http.response.body", "body": piece, "more_body": True}
                    await asyncio.wait_for(send(body), SEND_SECONDS)
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._counter[0] -= 1
            gone.cancel()


async def _next(pieces: AsyncGenerator[bytes, None], gone: asyncio.Future[None]) -> bytes | None:
    """The next piece; None at the end, or as soon as the reader is gone."""
    step: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(pieces, None))
    both: set[asyncio.Future[Any]] = {step, gone}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if gone.done():
        step.cancel()
        await asyncio.wait({step})
        return None
    return step.result()


async def _start(send: Send, status: int, kind: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(name: str, value: Any) -> bytes:
    """A dataclass as an event; JSON in ASCII has no line ends."""
    data = dataclasses.asdict(value)
    if isinstance(value, Known):  # the page asks for the pictures when they changed
        data["pictures"] = len(value.pictures)
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def events(seer: Seer, bell: Bell) -> AsyncGenerator[bytes, None]:
    """View, Known and Doing of the seer's state, each when it changed."""
    sent: dict[str, Any] = {}
    with bell.listening() as changed:
        while not bell.ended:
            changed.clear()
            state = seer.state
            for name, value in (("known", state.known), ("view", state.view), ("doing", state.doing)):
                if value is not sent.get(name):
                    sent[name] = value
                    yield event(name, value)
            try:
                await asyncio.wait_for(changed.wait(), ALIVE_SECONDS)
            except asyncio.TimeoutError:
                yield b": still here\n\n"


async def pictures(camera: Camera, bell: Bell) -> AsyncGenerator[bytes, None]:
    """The camera's newest pictures. A browser shows a part when the next boundary has come, so it follows at once."""
    last = 0
    yield BOUNDARY
    while not bell.ended:
        newest = camera.newest()
        if newest is not None and newest.serial != last:
            last, data = newest.serial, newest.jpeg
            head = f"content-type: image/jpeg\r\ncontent-length: {len(data)}\r\n\r\n".encode()
            yield head + data + BOUNDARY
        await asyncio.sleep(PICTURE_SECONDS)
