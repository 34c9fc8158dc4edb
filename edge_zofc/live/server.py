"""uvicorn around the application: a socket, limits of connections, and an end on request; it is known here alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_zofc.errors import InputError
from edge_zofc.live.guard import Listen

MAX_CONNECTIONS = 32
HEAD_SECONDS = 10.0
"""A connection that has sent no whole request for so long is closed, so that silent ones cannot fill the limit."""
HEAD_BYTES = 16 << 10
