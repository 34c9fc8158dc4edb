"""Who may ask for what: the table of the guard."""

from __future__ import annotations

import pytest

from edge_zofc.errors import InputError
from edge_zofc.live.guard import MAX_JSON_BYTES, MAX_PICTURE_BYTES, Guard, Listen, cookie_of, listen_at

HERE = Guard(Listen("127.0.0.1", 8750), "secret", frozenset(("board", "board.local")))
OPEN = Guard(Listen("0.0.0.0", 8750), "secret", frozenset(("board", "board.local")))


def head(host="127.0.0.1:8750", **more):
    found = {"host": host, "cookie": "edge_zofc_8750=secret", **{name.replace("_", "-"): v for name, v in more.items()}}
    return {name: value for name, value in found.items() if value is not None}


def write(**more):
    return head(**{"x_edge_zofc": "1", "content_type": "application/json", "content_length": "2", **more})


def status(guard, method, path, headers, token=None):
    refusal = guard.refuse(method, path, headers, token)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("host", "here", "everywhere"),
    [
        ("127.0.0.1:8750", None, None),
        ("localhost:8750", None, None),
        ("LOCALHOST:9000", None, None),  # ssh -L may use another port
        ("localhost.", None, None),
        ("[::1]:8750", None, None),
        ("192.168.1.7:8750", 421, None),
        ("[fe80::1]:8750", 421, None),
        ("board.local:8750", 421, None),
        ("board", 421, None),
        ("evil.example:8750", 421, 421),
        ("127.0.0.1.evil.example", 421, 421),
        ("localhost:8750@evil.example", 421, 421),
        ("evil.example#127.0.0.1:8750", 421, 421),
        ("", 421, 421),
        ("[::1", 421, 421),
        ("127.1:8750", 421, 421),
    ],
)
def test_a_host_must_be_this_machines(host, here, everywhere):
    assert status(HERE, "GET", "/", head(host)) == here
    assert status(OPEN, "GET", "/", head(host)) == everywhere


@pytest.mark.parametrize(
    ("cookie", "token", "path", "expected"),
    [
        ("edge_zofc_8750=secret", None, "/", None),
        ("a=b; edge_zofc_8750=secret; c=d", None, "/events", None),
        (None, None, "/", 401),
        ("edge_zofc_8750=", None, "/", 401),
        ("edge_zofc_8750=Secret", None, "/", 401),
        ("edge_zofc_8751=secret", None, "/", 401),
        ("xedge_zofc_8750=secret", None, "/", 401),
        ("edge_zofc_8750=s\u00e9cret\udcff", None, "/", 401),
        (None, "secret", "/", None),
        (None, "wrong", "/", 401),
        ("edge_zofc_8750=secret", "wrong", "/", 401),
        (None, "secret", "/events", 401),
    ],
)
def test_the_token_is_a_cookie_that_the_address_sets(cookie, token, path, expected):
    assert status(HERE, "GET", path, head(cookie=cookie), token) == expected


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/api/undo", write(), None),
        ("/api/undo", write(origin="http://127.0.0.1:8750"), None),
        ("/api/undo", write(origin="https://127.0.0.1:8750"), None),
        ("/api/undo", write(origin="http://127.0.0.1:8751"), 403),
        ("/api/undo", write(origin="http://evil.example"), 403),
        ("/api/undo", write(origin="null"), 403),
        ("/api/undo", write(x_edge_zofc=None), 403),
        ("/api/undo", write(x_edge_zofc="0"), 403),
        ("/api/undo", write(cookie=None), 401),
        ("/api/undo", write(content_length=None), 411),
        ("/api/undo", write(transfer_encoding="chunked"), 411),
        ("/api/undo", write(content_length="-1"), 400),
        ("/api/undo", write(content_length="1e3"), 400),
        ("/api/undo", write(content_length="٣"), 400),
        ("/api/undo", write(content_length="9" * 30), 400),
        ("/api/undo", write(content_length=str(MAX_JSON_BYTES + 1)), 413),
        ("/api/undo", write(content_type="text/plain"), 415),
        ("/api/undo", write(content_type=None), 415),
        ("/api/undo", write(content_type="application/json; charset=utf-8"), None),
        ("/api/frame", write(content_type="image/jpeg", content_length=str(MAX_PICTURE_BYTES)), None),
        ("/api/frame", write(content_type="image/jpeg", content_length=str(MAX_PICTURE_BYTES + 1)), 413),
        ("/api/frame", write(), 415),
    ],
)
def test_a_write_needs_its_header_a_length_and_no_foreign_origin(path, headers, expected):
    assert status(HERE, "POST", path, headers) == expected


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "GE\u202eT"])
def test_nothing_but_get_and_post_is_done(method):
    assert status(HERE, method, "/", head()) == 405


def test_a_large_head_is_refused():
    assert status(HERE, "GET", "/", head(x_long="x" * 16000)) is None
    assert status(HERE, "GET", "/", head(x_long="x" * 17000)) == 431


def test_a_question_with_a_body_is_refused():
    assert status(HERE, "GET", "/", head(content_length="0")) is None
    assert status(HERE, "GET", "/", head(content_length="5")) == 400
    assert status(HERE, "GET", "/", head(transfer_encoding="chunked")) == 400


def test_each_start_has_a_token_of_its_own_and_a_cookie_of_its_port():
    first, second = Guard(Listen("127.0.0.1", 1)), Guard(Listen("127.0.0.1", 2))
    assert first.token != second.token and len(first.token) >= 32
    assert first.cookie != second.cookie
    assert cookie_of("a; =b; c", "a") == ""


@pytest.mark.parametrize(
    ("text", "host", "port", "is_open"),
    [
        ("127.0.0.1:8750", "127.0.0.1", 8750, False),
        ("localhost:0", "localhost", 0, False),
        ("[::1]:8750", "::1", 8750, False),
        ("0.0.0.0:80", "0.0.0.0", 80, True),
        ("[::]:80", "::", 80, True),
        ("192.168.1.7:65535", "192.168.1.7", 65535, True),
        ("board:1", "board", 1, True),
    ],
)
def test_where_to_listen_is_read(text, host, port, is_open):
    found = listen_at(text)
    assert (found.host, found.port, found.is_open) == (host, port, is_open)


@pytest.mark.parametrize(
    "text", ["", "8750", ":8750", "127.0.0.1", "127.0.0.1:", "a:65536", "a:x", "::1:80", "a:-1", "a:" + "9" * 99]
)
def test_where_nobody_can_listen_is_refused(text):
    with pytest.raises(InputError, match="give HOST:PORT"):
        listen_at(text)
