"""Messages between a fleet and its devices, as bytes that anything may carry.

Format version 1, little-endian: ``b"EZOFCMSG"``, format version (2 bytes), length of the head (4 bytes), the head as
JSON, then the body: the rest. The body of an answer is a device's share, that of news the fleet's as one share
(``storage/share.py``).

    fleet to device   Ask     give your newest share, unless it is the one that I hold
    device to fleet   Answer  the share, or why there is none
    fleet to device   News    the statistics of all devices as one share
    device to fleet   Receipt whether it took them, and why not

A nonce of 16 random bytes ties a reply to its message, so that a late reply is known for what it is.
"""

from __future__ import annotations

import json
import secrets
import struct
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.fleet_folder import Hexadecimal
from edge_zofc.storage.reading import Strict, load_model
from edge_zofc.storage.share import MAX_SHARE_BYTES, MOST_FEATURES

FORMAT_VERSION = 1
MAGIC = b"EZOFCMSG"
MAX_HEAD_BYTES = 1 << 16
MAX_MESSAGE_BYTES = MAX_SHARE_BYTES + MAX_HEAD_BYTES
MOST_REASON = 2000
"""Characters of a reason."""
_START = struct.Struct("<8sHI")

Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Reason = Annotated[str, Field(max_length=MOST_REASON)]


class Ask(Strict):
    """``held``: SHA-256 of the share that the fleet holds; the rest: what shares must have in common."""

    kind: Literal["ask"] = "ask"
    nonce: Nonce
    bundle_identity: Hexadecimal
    adapter_sha256: Hexadecimal
    feature_size: Annotated[int, Field(ge=1, le=MOST_FEATURES)]
    normalise: bool
    held: Hexadecimal | None


class Answer(Strict):
    """``state``: ``share`` with a body; ``same`` as is held; ``nothing`` to share yet; ``refused``: it does not fit."""

    kind: Literal["answer"] = "answer"
    nonce: Nonce
    state: Literal["share", "same", "nothing", "refused"]
    reason: Reason = ""


class News(Strict):
    """``number`` counts the heads of the fleet, ``devices`` are in the body's statistics."""

    kind: Literal["news"] = "news"
    nonce: Nonce
    number: Annotated[int, Field(ge=1, lt=1 << 53)]
    devices: Annotated[int, Field(ge=1, lt=1 << 32)]


class Receipt(Strict):
    """Whether the news was taken; ``reason``: why not, or what it was tried on."""

    kind: Literal["receipt"] = "receipt"
    nonce: Nonce
    taken: bool
    reason: Reason = ""


Head = TypeVar("Head", Ask, Answer, News, Receipt)
KINDS: dict[str, type[Ask | Answer | News | Receipt]] = {"ask": Ask, "answer": Answer, "news": News, "receipt": Receipt}


def new_nonce() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def sealed(head: Ask | Answer | News | Receipt, body: bytes = b"") -> bytes:
    """The bytes of a message."""
    raw = head.model_dump_json().encode()
    return _START.pack(MAGIC, FORMAT_VERSION, len(raw)) + raw + body


def split(raw: bytes) -> tuple[bytes, bytes]:
    """A message up to its body, and the body: news have one body for all devices. Bytes of nobody have no body."""
    if len(raw) < _START.size:
        return raw, b""
    end = _START.size + int(_START.unpack_from(raw)[2])
    return raw[:end], raw[end:]


def kind_of(raw: bytes) -> str:
    """Which message it is. Raises as ``opened``."""
    try:
        found = json.loads(_head(raw))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError("The message has no head; both sides need the same edge-zofc.") from error
    return str(found.get("kind"))[:20] if isinstance(found, dict) else "none"


def opened(raw: bytes, wanted: type[Head]) -> tuple[Head, bytes]:
    """Head and body of a message of one kind.

    Raises InputError for a newer format, DamagedFileError for anything that is no such message.
    """
    head = load_model(wanted, _head(raw), f"The message is no {wanted.__name__.lower()}:")
    return head, raw[_START.size + len(_head(raw)) :]


def _head(raw: bytes) -> bytes:
    if len(raw) > MAX_MESSAGE_BYTES:
        raise DamagedFileError(f"The message has {len(raw)} bytes, the limit is {MAX_MESSAGE_BYTES}.")
    if len(raw) < _START.size or raw[: len(MAGIC)] != MAGIC:
        raise DamagedFileError("The message is none of a fleet's; both sides need the same edge-zofc.")
    _, version, length = _START.unpack_from(raw)
    if version != FORMAT_VERSION:
        raise InputError(f"The message has format version {version}, this edge-zofc reads {FORMAT_VERSION}; update it.")
    if length > MAX_HEAD_BYTES or length > len(raw) - _START.size:
        raise DamagedFileError(f"The message's head has {length} bytes, more than there are or may be.")
    return raw[_START.size : _START.size + length]
