"""uvicorn around the application: a socket, limits of connections, and an end on request; it is known here alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_zofc.errors import InputError
from edge_zofc.live.guard import MAX_HEAD_BYTES, Listen
from edge_zofc.live.streams import Bell

MAX_CONNECTIONS = 32
HEAD_SECONDS = 10.0
"""A connection that has sent no whole head of a request for so long is closed: silent ones cannot fill the limit."""
UNREAD_SECONDS = 30.0
"""A connection whose other end takes nothing of what was sent for so long is ended."""
END_SECONDS = 3


def bind(listen: Listen) -> socket.socket:
    """A socket that listens. Raises InputError."""
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, proto)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(place)
            found.listen(MAX_CONNECTIONS)
        except BaseException:
            found.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"--listen {listen.host}:{listen.port} cannot be used ({reason}); give another port, or end what uses it."
        ) from error
    return found


class _Protocol(H11Protocol):
    """One connection. Each head of a request has to come whole in time; uvicorn itself waits for ever."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # A reader that has gone, or reads nothing, keeps what is on its way for ever otherwise.
        own = transport.get_extra_info("socket")
        if own is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNREAD_SECONDS))
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._late is None and self._is_idle():
            self._expect_head()
        super().data_received(data)
        if not self._is_idle():
            self._stop_expecting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_expecting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Uvicorn(uvicorn.Server):
    """Leaves the signals to whoever runs the loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """The application on one socket; ``end`` may be called from any thread."""

    def __init__(self, application: Any, bell: Bell) -> None:
        self._bell, self._is_ended = bell, False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                application,
                loop="asyncio",
                http=_Protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=int(HEAD_SECONDS),
                timeout_graceful_shutdown=END_SECONDS,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )

    async def serve(self, listening: socket.socket, ready: Callable[[], None]) -> None:
        """Answer until ``end``; ``ready`` is called once it does."""
        self._loop = asyncio.get_running_loop()
        self._bell.attach()
        work = asyncio.ensure_future(self._uvicorn.serve(sockets=[listening]))
        while not self._uvicorn.started and not work.done():
            await asyncio.sleep(0.01)
        if not self._is_ended and not work.done():
            ready()
        await work

    def end(self) -> None:
        """Let ``serve`` return: streams end, answers at work are finished."""
        self._is_ended = self._uvicorn.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bell.end)
