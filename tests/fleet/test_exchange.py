"""Messages as bytes: what they hold, and that nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.errors import EdgeZofcError
from edge_zofc.fleet.exchange import (
    MAX_HEAD_BYTES,
    Answer,
    Ask,
    News,
    Receipt,
    kind_of,
    new_nonce,
    opened,
    sealed,
    split,
)

NONCE = "0123456789abcdef" * 2
MESSAGES = (
    Ask(
        nonce=NONCE, bundle_identity="ab" * 32, adapter_sha256="cd" * 32, feature_size=6, normalise=True, held="ef" * 32
    ),
    Answer(nonce=NONCE, state="share"),
    News(nonce=NONCE, number=3, devices=2),
    Receipt(nonce=NONCE, taken=False, reason="thé"),
)
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
)


@pytest.mark.parametrize(("message", "raw"), list(zip(MESSAGES, LITERAL, strict=True)))
def test_each_message_has_these_bytes(message: Ask | Answer | News | Receipt, raw: bytes) -> None:
    body = b"body" if raw.endswith(b"body") else b""
    assert sealed(message, body) == raw
    assert opened(raw, type(message)) == (message, body)
    assert kind_of(raw) == message.kind


@pytest.mark.parametrize("raw", LITERAL)
def test_every_cut_and_every_changed_byte_of_a_head_ends_in_a_sentence_or_another_message(raw: bytes) -> None:
    kind = {"ask": Ask, "answer": Answer, "news": News, "receipt": Receipt}[kind_of(raw)]
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
