"""Who may ask the page's server for what: pure checks of a request's head, before anything of its body is read.

    Host     must be this machine's: a foreign name that leads here (DNS rebinding) is answered with 421.
    token    a cookie, set by the printed address. HttpOnly and SameSite=Strict keep it from other pages.
    writes   need the header ``x-edge-zofc: 1`` and no foreign Origin. No other page can send that header, for no answer
             here allows it (CORS).
    body     a Content-Length up to a limit; nothing in pieces.

A name is never trusted, a number of an address always is: whoever controls a name can let it lead here, but no page can
be *loaded* from an address that is not this machine's.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_zofc.errors import InputError, quoted

HEADER = "x-edge-zofc"
MAX_HEAD_BYTES = 16 << 10
MAX_JSON_BYTES = 64 << 10
MAX_PICTURE_BYTES = 4 << 20
PICTURE_PATH = "/api/frame"
_LENGTH = re.compile(r"[0-9]{1,20}")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
"""Go with every answer."""


@dataclass(frozen=True)
class Refusal:
    """A status of HTTP and a sentence for whoever asked."""

    status: int
    sentence: str


@dataclass(frozen=True)
class Listen:
    """Where the server listens."""

    host: str
    port: int

    @property
    def is_open(self) -> bool:
        """Whether other computers reach it."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"


def listen_at(text: str) -> Listen:
    """Read ``HOST:PORT``, such as 127.0.0.1:8750 or [::1]:8750. Raises InputError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (colon and host and port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16):
        raise InputError(f"--listen is {quoted(text)}; give HOST:PORT such as 127.0.0.1:8750, with a port below 65536.")
    return Listen(host, int(port))


@dataclass(frozen=True)
class Guard:
    """The rules of one start of the server. ``token`` is new each time; ``names`` are this machine's own."""

    listen: Listen
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    names: frozenset[str] = field(default_factory=lambda: own_names())

    @property
    def cookie(self) -> str:
        """Its name holds the port, for a browser gives a cookie to every port of a host."""
        return f"edge_zofc_{self.listen.port}"

    def is_token(self, found: str) -> bool:
        """Compares in a time that tells nothing."""
        return secrets.compare_digest(found.encode("utf-8", "surrogateescape"), self.token.encode())

    def refuse(self, method: str, path: str, headers: Mapping[str, str], token: str | None) -> Refusal | None:
        """Why a request is not answered, None where it is; ``token`` is the one in its address."""
        if sum(map(len, (path, *headers, *headers.values()))) > MAX_HEAD_BYTES:
            return Refusal(431, f"The head of the request has more than {MAX_HEAD_BYTES:,} bytes.")
        if not self._is_ours(headers.get("host", "")):
            return Refusal(421, "This server does not answer for that host; open the address that it printed.")
        if method not in ("GET", "POST"):
            return Refusal(405, f"{quoted(method)} is not done here.")
        if token is not None and method == "GET" and path == "/":
            return None if self.is_token(token) else _NO_TOKEN
        if not self.is_token(cookie_of(headers.get("cookie", ""), self.cookie)):
            return _NO_TOKEN
        return _refuse_write(path, headers) if method == "POST" else _refuse_body(headers)

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if re.search(r":[0-9]{1,5}$", host) else host
        name = name.lower().rstrip(".")
        if name in ("localhost", "127.0.0.1", "[::1]"):
            return True
        if not self.listen.is_open:
            return False
        try:
            ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            return name in self.names
        return True


_NO_TOKEN = Refusal(401, "The token is missing or old; open the address that edge-zofc live printed at its last start.")


def own_names() -> frozenset[str]:
    """What this machine calls itself, with and without .local."""
    name = socket.gethostname().lower()
    return frozenset((name, f"{name.partition('.')[0]}.local"))


def cookie_of(header: str, name: str) -> str:
    """The value of the first cookie ``name``; "" without one."""
    for pair in header.split(";"):
        key, equals, value = pair.strip().partition("=")
        if equals and key == name:
            return value
    return ""


def _refuse_body(headers: Mapping[str, str]) -> Refusal | None:
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return Refusal(400, "A question has no body.")
    return None


def _refuse_write(path: str, headers: Mapping[str, str]) -> Refusal | None:
    if headers.get(HEADER) != "1":
        return Refusal(403, f"The header {HEADER}: 1 is missing.")
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
        return Refusal(403, "Another page asks; only the page of this server may.")
    length = headers.get("content-length")
    if "transfer-encoding" in headers or length is None:
        return Refusal(411, "The body needs a Content-Length; pieces are not taken.")
    is_picture = path == PICTURE_PATH
    limit = MAX_PICTURE_BYTES if is_picture else MAX_JSON_BYTES
    if not _LENGTH.fullmatch(length):
        return Refusal(400, "Content-Length is no number.")
    if int(length) > limit:
        return Refusal(413, f"The body has {int(length):,} bytes and the limit is {limit:,}.")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = "image/jpeg" if is_picture else "application/json"
    if kind != wanted:
        return Refusal(415, f"The body must be {wanted}.")
    return None
