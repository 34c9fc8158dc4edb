"""The page's server, asked over real connections: what it answers, and what it refuses."""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack
from importlib.resources import files

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_site import Site
from pictures import blocks, encoded, noise

from edge_zofc.live import seer, server, streams
from edge_zofc.live.camera import Camera
from edge_zofc.live.guard import MAX_PICTURE_BYTES
from edge_zofc.live.lesson import MAX_PICTURES
from edge_zofc.live.web import STATIC, WRITES

JPEG = blocks()
WEB = files("edge_zofc.live") / "web"


@pytest.fixture(scope="module")
def fast():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seer, "PICTURE_SECONDS", 0.01)
        patch.setattr(seer, "REST_SECONDS", 0.002)
        patch.setattr(streams, "PICTURE_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory, fast):
    """A site that tests may ask anything; what it refuses leaves it as it is."""
    with Site(tmp_path_factory.mktemp("site")) as found:
        found.show("mug", range(3))
        yield found


@pytest.fixture
def site(tmp_path, fast):
    with Site(tmp_path) as found:
        yield found


def read_until(connection, wanted):
    data = b""
    while wanted not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def test_the_printed_address_sets_a_cookie_and_leads_to_the_page(shared):
    status, headers, _ = shared.ask("GET", f"/?token={shared.guard.token}", headers={"Cookie": None})
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert cookie.startswith(f"{shared.cookie};") and "HttpOnly" in cookie and "SameSite=strict" in cookie
    status, headers, body = shared.ask("GET", "/")
    assert status == 200 and headers["content-type"].startswith("text/html") and b"<title>Teach it by showing" in body


def test_every_answer_has_the_policy(shared):
    for path, status in (("/", 200), ("/live.js", 200), ("/nowhere", 404), ("/?token=wrong", 401)):
        found, headers, _ = shared.ask("GET", path)
        assert found == status
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;")
        assert "unsafe" not in policy and headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers and "access-control-allow-origin" not in headers


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, (_, kind) in STATIC.items()])
def test_the_parts_of_the_page_are_there(shared, path, kind):
    status, headers, body = shared.ask("GET", path)
    assert status == 200 and headers["content-type"].startswith(kind) and len(body) > 100


def test_every_file_of_the_page_is_served():
    assert sorted(path.name for path in WEB.iterdir()) == sorted(name for name, _ in STATIC.values())


def test_modules_of_the_page_import_each_other_and_names_that_are_exported():
    code = {path.name: path.read_text() for path in WEB.iterdir() if path.name.endswith(".js")}
    exported = {
        name: set(re.findall(r"^export (?:async )?(?:function|const) ([\w$]+)", text, re.MULTILINE))
        for name, text in code.items()
    }
    imported = {"live.js"}
    for text in code.values():
        for names, other in re.findall(r"^import \{ (.+) \} from \"\./(.+)\";$", text, re.MULTILINE):
            imported.add(other)
            assert set(names.split(", ")) <= exported[other]
    assert imported == set(code)


def test_the_page_names_no_other_host_and_has_no_code_or_style_in_its_markup(shared):
    page = b"".join(shared.ask("GET", path)[2] for path in STATIC if path != "/icon.svg")
    assert page.replace(b"http://www.w3.org/2000/svg", b"").count(b"://") == 0
    assert b"innerHTML" not in page and b"style=" not in page and b"onclick=" not in shared.ask("GET", "/")[2]


def test_a_lesson_from_the_first_picture_to_the_task(site):
    site.show("mug", range(3))
    site.show("cup", range(10, 12))
    names = ["mug"] * 3 + ["cup"] * 2
    listed = [[serial, name, "train", 1 if name == "mug" else 4] for serial, name in enumerate(names, 1)]
    assert json.loads(site.ask("GET", "/api/pictures")[2]) == listed
    status, headers, body = site.ask("GET", "/picture/4.jpg")
    assert (status, headers["content-type"], body) == (200, "image/jpeg", blocks(10))
    assert site.post("/api/move", serials=[3], name="cup") == (200, {"said": "Moved 1 picture to cup."})
    assert site.post("/api/forget", serials=[1, 1]) == (200, {"said": "Forgot 1 picture."})
    assert site.post("/api/rename", old="cup", new="bowl") == (200, {"said": "cup is now bowl."})
    site.frame(77)
    picture = site.seer.state.view.picture
    assert site.post("/api/correct", name="jug", picture=picture) == (200, {"said": "Learnt: that is jug."})
    assert [one.name for one in site.seer.state.known.classes] == ["mug", "bowl", "jug"]
    assert site.post("/api/undo")[1] == {"said": "Undone: the last change taken back."}
    assert site.post("/api/forget-class", name="mug")[0] == 200
    assert site.post("/api/done") == (200, {"task": "001_lesson"})
    assert json.loads(site.ask("GET", "/api/pictures")[2]) == []


def test_events_tell_what_changed_and_nothing_else(site):
    with site.stream("/events") as connection:
        first = read_until(connection, b"event: doing")
        assert b"event: known" in first and b"event: view" in first
        site.post("/api/record", name="mug", on=True)
        found = read_until(connection, b'"recording": "mug"')
        assert b"event: known" not in found
        site.frame(1)
        assert b'"pictures": 1' in read_until(connection, b'"pictures": 1')


def test_an_event_is_ascii_on_one_line_whatever_the_names_are(site):
    site.show("m\u2028ug"[0] + "ü\U0001f600", range(1))
    with site.stream("/events") as connection:
        found = read_until(connection, b"event: view")
    line = next(line for line in found.split(b"\n") if line.startswith(b"data:"))
    assert line.isascii() and json.loads(line[5:])["classes"][0]["name"] == "mü\U0001f600"


def test_pictures_stream_as_they_come(site):
    with site.stream("/live.mjpeg") as connection:
        read_until(connection, b"multipart/x-mixed-replace; boundary=picture")
        for seed in (1, 2):
            data = blocks(seed)
            site.frame(seed)
            # The boundary follows at once: a browser shows a part when the next one begins.
            assert data in read_until(connection, data + b"\r\n--picture\r\n")


def test_streams_are_few_and_one_that_is_closed_makes_room(site):
    with ExitStack() as opened:
        many = [site.stream("/events" if n % 2 else "/live.mjpeg") for n in range(streams.MAX_STREAMS)]
        for connection in many:
            read_until(opened.enter_context(connection), b"200 OK")
        assert site.ask("GET", "/events")[0] == 503
        assert site.ask("GET", "/")[0] == 200
        many[1].close()
        head, until = b"", time.monotonic() + 5
        while b"200 OK" not in head:
            assert time.monotonic() < until
            with site.stream("/events") as connection:
                head = connection.recv(65536)


def test_streams_that_nobody_reads_are_closed_and_make_room(site, monkeypatch):
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.3)
    large = encoded(noise(2400, 1600), "JPEG", quality=100)
    with ExitStack() as opened:
        for _ in range(streams.MAX_STREAMS):
            opened.enter_context(site.stream("/live.mjpeg"))
        until, head = time.monotonic() + 20, b""
        while b"200 OK" not in head:
            assert time.monotonic() < until
            site.camera.put(large)
            time.sleep(0.03)
            with site.stream("/events") as connection:
                head = connection.recv(65536)


def test_connections_are_few(site):
    with ExitStack() as opened:
        count = server.MAX_CONNECTIONS + 4
        heads = [opened.enter_context(site.stream("/nowhere")).recv(65536) for _ in range(count)]
        assert b" 404 " in heads[server.MAX_CONNECTIONS - 2] and b" 503 " in heads[-1]


def test_a_connection_that_sends_no_whole_head_is_closed(site, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    began = time.monotonic()
    assert site.raw(b"", 5) == b""
    assert site.raw(b"GET / HTTP/1.1\r\nHost: ", 5) == b""
    assert time.monotonic() - began < 4


def test_a_body_that_does_not_come_is_given_up(site, monkeypatch):
    monkeypatch.setattr("edge_zofc.live.web.BODY_SECONDS", 0.3)
    head = f"POST /api/undo HTTP/1.1\r\nHost: {site.host}\r\nCookie: {site.cookie}\r\nX-Edge-Zofc: 1\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{"
    answer = site.raw(head.encode())
    assert b" 503 " in answer.split(b"\r\n")[0]


def test_a_camera_of_the_board_takes_no_pictures_from_a_page(tmp_path, fast):
    (tmp_path / "empty").mkdir()
    with Site(tmp_path, Camera(f"folder://{tmp_path}/empty")) as site:
        status, _, body = site.ask("POST", "/api/frame", JPEG, {"Content-Type": "image/jpeg"})
        assert status == 409 and b"--camera browser" in body


def changed(**headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}


BODY = b'{"serials": [1]}'
PIECES = changed(Content_Length=None, Transfer_Encoding="chunked")
FORM = changed(Content_Type="application/x-www-form-urlencoded")
PICTURE = changed(Content_Type="image/jpeg")
HUGE = changed(Content_Type="image/jpeg", Content_Length=str(MAX_PICTURE_BYTES + 1))
FOREIGN = changed(Origin="http://evil.example")
MANY = json.dumps({"serials": list(range(1, MAX_PICTURES + 2))}).encode()
LONG = json.dumps({"name": "x" * 5000, "on": True}).encode()
WIDE = json.dumps({"name": "\U0001f600" * 60, "on": True}).encode()
FIELDS = st.sampled_from(["name", "on", "serials", "old", "new", "picture", "x"])
HOSTILE = {
    "no token": ("GET", "/", None, changed(Cookie=None), 401),
    "a wrong token": ("GET", "/?token=x", None, {}, 401),
    "a token twice": ("GET", "/?token=x&token=y", None, changed(Cookie=None), 401),
    "a token that is no UTF-8": ("GET", "/?token=%ff%fe", None, changed(Cookie=None), 401),
    "no token for the pictures": ("GET", "/picture/1.jpg", None, changed(Cookie=None), 401),
    "no token for the stream": ("GET", "/live.mjpeg", None, changed(Cookie=None), 401),
    "no token for a place that is not there": ("GET", "/nowhere", None, changed(Cookie=None), 401),
    "another name that leads here": ("GET", "/", None, changed(Host="evil.example"), 421),
    "an address that is not ours": ("GET", "/", None, changed(Host="192.168.1.1"), 421),
    "no own header": ("POST", "/api/forget", BODY, changed(X_Edge_Zofc=None), 403),
    "another page's origin": ("POST", "/api/forget", BODY, FOREIGN, 403),
    "another port's origin": ("POST", "/api/forget", BODY, changed(Origin="http://127.0.0.1:1"), 403),
    "a page without an origin": ("POST", "/api/forget", BODY, changed(Origin="null"), 403),
    "a form": ("POST", "/api/forget", b"serials=1", FORM, 415),
    "text": ("POST", "/api/forget", BODY, changed(Content_Type="text/plain"), 415),
    "no length": ("POST", "/api/forget", None, changed(Content_Length=None), 411),
    "pieces": ("POST", "/api/forget", None, PIECES, 411),
    "a huge length": ("POST", "/api/forget", None, changed(Content_Length=str(1 << 40)), 413),
    "a huge picture": ("POST", "/api/frame", None, HUGE, 413),
    "a picture that is none": ("POST", "/api/frame", b"GIF89a", PICTURE, 400),
    "a page as a picture": ("POST", "/api/frame", b"<script>alert(1)</script>", PICTURE, 400),
    "half a picture": ("POST", "/api/frame", JPEG[:200], PICTURE, 400),
    "an empty picture": ("POST", "/api/frame", b"", PICTURE, 400),
    "no JSON": ("POST", "/api/forget", b"{", {}, 400),
    "deep JSON": ("POST", "/api/forget", b"[" * 60000, {}, 400),
    "JSON of another kind": ("POST", "/api/forget", b"[1]", {}, 400),
    "JSON that is no UTF-8": ("POST", "/api/rename", b'{"old": "\xff", "new": "a"}', {}, 400),
    "half a character": ("POST", "/api/rename", b'{"old": "\\ud800", "new": "a"}', {}, 400),
    "numbers as text": ("POST", "/api/forget", b'{"serials": ["1"]}', {}, 400),
    "a number as truth": ("POST", "/api/forget", b'{"serials": [true]}', {}, 400),
    "a huge number": ("POST", "/api/forget", b'{"serials": [%s]}' % (b"9" * 30000), {}, 400),
    "a number below one": ("POST", "/api/forget", b'{"serials": [-1]}', {}, 400),
    "a number that is not there": ("POST", "/api/forget", b'{"serials": [999]}', {}, 400),
    "no number": ("POST", "/api/forget", b'{"serials": []}', {}, 400),
    "too many numbers": ("POST", "/api/forget", MANY, {}, 400),
    "more than was asked": ("POST", "/api/forget", b'{"serials": [1], "path": "/etc/passwd"}', {}, 400),
    "a name that leads up": ("POST", "/api/rename", b'{"old": "mug", "new": "../../etc"}', {}, 400),
    "a name with a line end": ("POST", "/api/rename", b'{"old": "mug", "new": "a\\nb"}', {}, 400),
    "a name that turns the direction": ("POST", "/api/rename", b'{"old": "mug", "new": "\\u202egum"}', {}, 400),
    "an empty name": ("POST", "/api/record", b'{"name": "", "on": true}', {}, 400),
    "a long name": ("POST", "/api/record", LONG, {}, 400),
    "a name of too many bytes": ("POST", "/api/record", WIDE, {}, 400),
    "a class that is not there": ("POST", "/api/forget-class", b'{"name": "nothing"}', {}, 400),
    "a picture that was never seen": ("POST", "/api/correct", b'{"name": "mug", "picture": 999999}', {}, 400),
    "a picture by path": ("GET", "/picture/..%2f..%2fetc%2fpasswd", None, {}, 404),
    "a picture by a path of dots": ("GET", "/picture/../live.py", None, {}, 404),
    "a picture of a huge number": ("GET", f"/picture/{'9' * 5000}.jpg", None, {}, 404),
    "a picture of another alphabet's number": ("GET", "/picture/%D9%A1.jpg", None, {}, 404),
    "a picture of number 0": ("GET", "/picture/0.jpg", None, {}, 404),
    "a picture with a zero byte": ("GET", "/picture/1%00.jpg", None, {}, 404),
    "a module": ("GET", "/live.py", None, {}, 404),
    "a folder": ("GET", "/web/", None, {}, 404),
    "a slash more": ("GET", "//", None, {}, 404),
    "a write by a question": ("GET", "/api/undo", None, {}, 405),
    "a question by a write": ("POST", "/api/pictures", b"{}", {}, 405),
    "another method": ("DELETE", "/api/forget", None, {}, 405),
    "the head alone": ("HEAD", "/events", None, {}, 405),
    "what another page's browser asks first": ("OPTIONS", "/api/forget", None, FOREIGN, 405),
    "a question with a body": ("GET", "/", b"x", changed(Content_Length="1"), 400),
    "a huge head": ("GET", "/", None, changed(X_Long="x" * 40000), 431),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_requests_are_refused_with_a_sentence_and_change_nothing(shared, what):
    method, path, body, headers, expected = HOSTILE[what]
    before = shared.learner.pictures, list(shared.learner.log)
    status, found, answer = shared.ask(method, path, body, headers)
    assert status == expected, answer
    assert "access-control-allow-origin" not in found
    if method != "HEAD":
        assert json.loads(answer)["error"].endswith(".")
    assert (shared.learner.pictures, shared.learner.log) == before
    assert shared.seer.state.view.recording is None
    assert shared.ask("GET", "/")[0] == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([*WRITES, "/api/done"]), body=JSON.map(json.dumps).map(str.encode) | st.binary(max_size=200)
)
def test_whatever_is_asked_is_done_or_refused_with_a_sentence(site, path, body):
    status, _, answer = site.ask("POST", path, body)
    assert status in (200, 400)
    found = json.loads(answer)
    assert found["error"].isprintable() if status == 400 else {"said", "task"} & set(found)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a browser that tries TLS
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"POST /api/undo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"\r\n" * 100,
        b"GET /" + b"a" * 70000,
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_what_is_no_request_of_ours_is_refused_and_the_next_one_answered(shared, data, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    answer = shared.raw(data, 3)
    assert not answer or answer.split(b" ")[1] in (b"400", b"401", b"421", b"426")
    assert shared.ask("GET", "/")[0] == 200
