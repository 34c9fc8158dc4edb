"""Bytes as messages of Flower, and back. Written for flwr 1.42, whose parts that run a fleet are no public interface.

A message holds two arrays of bytes, its head and its body, which Flower sends in pieces of 5 MiB. A body that goes to
many devices is kept once. Nothing in a message is ever run or unpickled.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Message, RecordDict

from edge_zofc.errors import DamagedFileError
from edge_zofc.fleet.exchange import MAX_MESSAGE_BYTES, split

MESSAGE_TYPE = "query"
_RECORD, _PARTS, _KIND = "edge-zofc", ("head", "body"), "bytes"


def content_of(raw: bytes) -> RecordDict:
    """The content of a Flower message that carries ``raw``."""
    parts = zip(_PARTS, split(raw), strict=True)
    return RecordDict({_RECORD: ArrayRecord({name: Array("uint8", (len(part),), _KIND, part) for name, part in parts})})


def bytes_of(message: Message) -> bytes:
    """What ``content_of`` put in. Raises DamagedFileError for any other message."""
    try:
        parts = [message.content[_RECORD][name].data for name in _PARTS]
        raw = b"".join(parts)
    except Exception as error:  # whatever the other side made of it
        raise DamagedFileError("The message is none of a fleet's; both sides need the same edge-zofc.") from error
    if len(raw) > MAX_MESSAGE_BYTES:
        raise DamagedFileError(f"The message has {len(raw)} bytes, the limit is {MAX_MESSAGE_BYTES}.")
    return raw
