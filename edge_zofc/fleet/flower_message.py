"""Bytes as messages of Flower, and back. Written for flwr 1.42, whose parts that run a fleet are no public interface.

A message holds one array of bytes, which Flower sends in pieces of 5 MiB. Nothing in it is ever run or unpickled.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Message, RecordDict

from edge_zofc.errors import DamagedFileError
from edge_zofc.fleet.exchange import MAX_MESSAGE_BYTES

MESSAGE_TYPE = "query"
_RECORD, _ARRAY, _KIND = "edge-zofc", "message", "bytes"


def content_of(raw: bytes) -> RecordDict:
    """The content of a Flower message that carries ``raw``."""
    return RecordDict({_RECORD: ArrayRecord({_ARRAY: Array("uint8", (len(raw),), _KIND, raw)})})


def bytes_of(message: Message) -> bytes:
    """What ``content_of`` put in. Raises DamagedFileError for any other message."""
    try:
        raw = message.content[_RECORD][_ARRAY].data
    except Exception as error:  # whatever the other side made of it
        raise DamagedFileError("The message is none of a fleet's; both sides need the same edge-zofc.") from error
    if not isinstance(raw, bytes) or len(raw) > MAX_MESSAGE_BYTES:
        raise DamagedFileError(f"The message is no bytes, or more than {MAX_MESSAGE_BYTES} of them.")
    return raw
