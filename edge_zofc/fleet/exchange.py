"""Messages between a fleet and its devices, as bytes that anything may carry.

Format version 1, little-endian: ``b"EZOFCMSG"``, format version (2 bytes), length of the head (4 bytes), the head as
JSON, then the body: the rest. Each message of the fleet has one reply.

    fleet to device   body               reply     body
    Ask               -                  Answer    its newest share (``storage/share.py``), where it is another one
    News              share of all       Receipt   -
    Measure           piece of journal   Measured  float32 [Q]: coefficients of the step's queries, not clipped, or
                                                   [P]: the exact gradient, as the journal's header says
    Renew             piece of journal   Answer    its newest share under the adapter that the journal ends in
    Compare           share of all       Compared  -
    Follow            piece of journal   Followed  -

A piece of the journal is its bytes from ``offset`` to its end, after which it has so many ``records`` and this
``chain`` (``storage/fleet_journal.py``). A device that lacks what comes before replies Followed with the bytes that it
has, whatever it was asked. So does one that finds another chain: it drops its journal and starts over from the bundle.

A nonce of 16 random bytes ties a reply to its message, so that a late reply is known for what it is.
"""

from __future__ import annotations

import json
import secrets
import struct
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.fleet_folder import Hexadecimal
from edge_zofc.storage.fleet_journal import MAX_JOURNAL_BYTES
from edge_zofc.storage.reading import Strict, load_model
from edge_zofc.storage.share import MAX_SHARE_BYTES, MOST_FEATURES

FORMAT_VERSION = 1
MAGIC = b"EZOFCMSG"
MAX_HEAD_BYTES = 1 << 16
MAX_MESSAGE_BYTES = MAX_SHARE_BYTES + MAX_HEAD_BYTES
MOST_REASON = 2000
"""Characters of a reason."""
MOST_VALUE = 1e15
"""No honest loss, coefficient or entry of a gradient is larger; squares of sums of such ones are finite in float32."""
MOST_PICTURES = 65_536
"""Of a step, on one device."""
_START = struct.Struct("<8sHI")

Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Pictures = Annotated[int, Field(ge=0, lt=1 << 32)]
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


class Piece(Strict):
    """Of a journal; the bytes are the message's body."""

    nonce: Nonce
    offset: Annotated[int, Field(ge=0, le=MAX_JOURNAL_BYTES)]
    records: Annotated[int, Field(ge=0, lt=1 << 32)]
    chain: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Follow(Piece):
    """Take these records."""

    kind: Literal["follow"] = "follow"


class Followed(Strict):
    """``held``: bytes of the journal that the device has; fewer than the fleet's where it needs a longer piece."""

    kind: Literal["followed"] = "followed"
    nonce: Nonce
    held: Annotated[int, Field(ge=0, le=MAX_JOURNAL_BYTES)]


class Measure(Piece):
    """Measure the queries of step number ``step`` on so many of your pictures; a reply counts for ``seconds``."""

    kind: Literal["measure"] = "measure"
    step: Annotated[int, Field(ge=0, lt=1 << 53)]
    pictures: Annotated[int, Field(ge=1, le=MOST_PICTURES)]
    seconds: Annotated[float, Field(gt=0, lt=1e6)]


class Measured(Strict):
    """``loss``: the mean of ``pictures`` pictures under the adapter itself; ``nothing``: it cannot measure any."""

    kind: Literal["measured"] = "measured"
    nonce: Nonce
    state: Literal["measured", "nothing"]
    step: Annotated[int, Field(ge=0, lt=1 << 53)]
    pictures: Annotated[int, Field(ge=0, le=MOST_PICTURES)] = 0
    loss: Annotated[float, Field(ge=0, le=MOST_VALUE)] = 0.0
    reason: Reason = ""


class Renew(Piece):
    """Give your newest share under the moved adapter, unless it is the one that I hold (``held``: its SHA-256)."""

    kind: Literal["renew"] = "renew"
    held: Hexadecimal | None


class Compare(Strict):
    """Name your held-out pictures with the head of the body and with the one that you have.

    ``own``: SHA-256 of the device's share that is in the body, ``rest``: of the news that it has.
    """

    kind: Literal["compare"] = "compare"
    nonce: Nonce
    own: Hexadecimal
    rest: Hexadecimal


class Compared(Strict):
    """Right answers on ``total`` pictures that are in neither head; ``only_rest`` and ``only_moved``: by one alone."""

    kind: Literal["compared"] = "compared"
    nonce: Nonce
    state: Literal["compared", "nothing"]
    total: Pictures = 0
    right_rest: Pictures = 0
    right_moved: Pictures = 0
    only_rest: Pictures = 0
    only_moved: Pictures = 0
    reason: Reason = ""

    @model_validator(mode="after")
    def _adds_up(self) -> Compared:
        both = self.right_rest - self.only_rest
        if both != self.right_moved - self.only_moved or not 0 <= both <= self.total - self.only_rest - self.only_moved:
            raise ValueError(f"the right answers do not fit into {self.total} pictures")
        return self


Message = Ask | Answer | News | Receipt | Follow | Followed | Measure | Measured | Renew | Compare | Compared
Head = TypeVar("Head", bound=Message)
KINDS: dict[str, type[Message]] = {
    "ask": Ask, "answer": Answer, "news": News, "receipt": Receipt, "follow": Follow, "followed": Followed,
    "measure": Measure, "measured": Measured, "renew": Renew, "compare": Compare, "compared": Compared,
}  # fmt: skip


def new_nonce() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def sealed(head: Message, body: bytes = b"") -> bytes:
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
