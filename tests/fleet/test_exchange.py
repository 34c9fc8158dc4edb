"""Messages as bytes: what they hold, and that nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.errors import EdgeZofcError
from edge_zofc.fleet.exchange import (
    KINDS,
    MAX_HEAD_BYTES,
    Answer,
    Ask,
    Compare,
    Compared,
    Follow,
    Followed,
    Measure,
    Measured,
    Message,
    News,
    Receipt,
    Renew,
    kind_of,
    new_nonce,
    opened,
    sealed,
    split,
)

NONCE = "0123456789abcdef" * 2
PIECE = {"nonce": NONCE, "offset": 108, "records": 2, "chain": "0123456789abcdef"}
MESSAGES: tuple[Message, ...] = (
    Ask(
        nonce=NONCE, bundle_identity="ab" * 32, adapter_sha256="cd" * 32, feature_size=6, normalise=True, held="ef" * 32
    ),
    Answer(nonce=NONCE, state="share"),
    News(nonce=NONCE, number=3, devices=2),
    Receipt(nonce=NONCE, taken=False, reason="thé"),
    Follow(**PIECE),
    Followed(nonce=NONCE, held=164),
    Measure(**PIECE, step=5, pictures=16, seconds=30),
    Measured(nonce=NONCE, state="measured", step=5, pictures=15, loss=1.25),
    Renew(**PIECE, held="ef" * 32),
    Compare(nonce=NONCE, own="ab" * 32, rest="cd" * 32),
    Compared(nonce=NONCE, state="compared", total=9, right_rest=4, right_moved=5, only_rest=1, only_moved=2),
)
_NONCE = b'"nonce":"0123456789abcdef0123456789abcdef"'
_PIECE = _NONCE + b',"offset":108,"records":2,"chain":"0123456789abcdef"'
LITERAL = (
    b'EZOFCMSG\x01\x00\x4e\x01\x00\x00{"kind":"ask","nonce":"0123456789abcdef0123456789abcdef","bundle_identity":"'
    + b"ab" * 32
    + b'","adapter_sha256":"'
    + b"cd" * 32
    + b'","feature_size":6,"normalise":true,"held":"'
    + b"ef" * 32
    + b'"}',
    b'EZOFCMSG\x01\x00\x58\x00\x00\x00{"kind":"answer","nonce":"0123456789abcdef0123456789abcdef","state":"share",'
    b'"reason":""}body',
    b'EZOFCMSG\x01\x00\x51\x00\x00\x00{"kind":"news","nonce":"0123456789abcdef0123456789abcdef","number":3,'
    b'"devices":2}body',
    b'EZOFCMSG\x01\x00\x5b\x00\x00\x00{"kind":"receipt","nonce":"0123456789abcdef0123456789abcdef","taken":false,'
    b'"reason":"th\xc3\xa9"}',
    b"EZOFCMSG\x01\x00\x70\x00\x00\x00{" + _PIECE + b',"kind":"follow"}body',
    b'EZOFCMSG\x01\x00\x49\x00\x00\x00{"kind":"followed",' + _NONCE + b',"held":164}',
    b"EZOFCMSG\x01\x00\x97\x00\x00\x00{" + _PIECE + b',"kind":"measure","step":5,"pictures":16,"seconds":30.0}body',
    b'EZOFCMSG\x01\x00\x80\x00\x00\x00{"kind":"measured",' + _NONCE + b',"state":"measured","step":5,"pictures":15,'
    b'"loss":1.25,"reason":""}body',
    b"EZOFCMSG\x01\x00\xb9\x00\x00\x00{" + _PIECE + b',"kind":"renew","held":"' + b"ef" * 32 + b'"}body',
    b'EZOFCMSG\x01\x00\xd0\x00\x00\x00{"kind":"compare",'
    + _NONCE
    + b',"own":"'
    + b"ab" * 32
    + b'","rest":"'
    + b"cd" * 32
    + b'"}body',
    b'EZOFCMSG\x01\x00\xa3\x00\x00\x00{"kind":"compared",' + _NONCE + b',"state":"compared","total":9,"right_rest":4,'
    b'"right_moved":5,"only_rest":1,"only_moved":2,"reason":""}',
)


@pytest.mark.parametrize(("message", "raw"), list(zip(MESSAGES, LITERAL, strict=True)))
def test_each_message_has_these_bytes(message: Message, raw: bytes) -> None:
    body = b"body" if raw.endswith(b"body") else b""
    assert sealed(message, body) == raw
    assert opened(raw, type(message)) == (message, body)
    assert kind_of(raw) == message.kind


@pytest.mark.parametrize("raw", LITERAL)
def test_every_cut_and_every_changed_byte_of_a_head_ends_in_a_sentence_or_another_message(raw: bytes) -> None:
    kind = KINDS[kind_of(raw)]
    end = raw.index(b"}") + 1
    for length in range(end):
        with pytest.raises(EdgeZofcError):
            opened(raw[:length], kind)
    for at in range(end):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        try:
            assert opened(changed, kind) != opened(raw, kind)
        except EdgeZofcError as error:
            assert str(error).isprintable()


@given(st.binary(max_size=200))
def test_bytes_of_nobody_end_in_a_sentence(raw: bytes) -> None:
    for whole in (raw, b"EZOFCMSG\x01\x00" + len(raw).to_bytes(4, "little") + raw):
        with pytest.raises(EdgeZofcError):
            opened(whole, Answer)
        try:
            kind_of(whole)
        except EdgeZofcError as error:
            assert str(error).isprintable()


def test_a_head_has_a_limit_and_a_newer_format_is_told() -> None:
    with pytest.raises(EdgeZofcError, match="head has 65537 bytes"):
        opened(b"EZOFCMSG\x01\x00" + (MAX_HEAD_BYTES + 1).to_bytes(4, "little") + bytes(MAX_HEAD_BYTES + 1), Answer)
    with pytest.raises(EdgeZofcError, match="format version 2, this edge-zofc reads 1; update it"):
        opened(LITERAL[1].replace(b"\x01", b"\x02", 1), Answer)
    with pytest.raises(EdgeZofcError, match="head"):
        kind_of(b"EZOFCMSG\x01\x00\xe8\xfd\x00\x00" + b"[" * 65000)


@given(st.binary(max_size=60))
def test_head_and_body_together_are_the_message(raw: bytes) -> None:
    assert b"".join(split(raw)) == raw
    assert split(sealed(MESSAGES[2], raw)) == (sealed(MESSAGES[2]), raw)


def test_no_two_nonces_are_alike() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "votes", [{"right_rest": 10}, {"only_rest": 5}, {"only_moved": 3}, {"right_moved": 4}, {"only_rest": 2, "total": 5}]
)
def test_votes_that_do_not_add_up_are_no_votes(votes: dict[str, int]) -> None:
    good = MESSAGES[10].model_dump()
    with pytest.raises(ValueError, match="do not fit into"):
        Compared(**{**good, **votes})


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "1e999"])
def test_a_loss_that_is_no_number_is_told(loss: str) -> None:
    raw = LITERAL[7].replace(b"1.25", loss.encode()).replace(b"\x80", bytes([0x80 + len(loss) - 4]), 1)
    with pytest.raises(EdgeZofcError):
        opened(raw, Measured)
