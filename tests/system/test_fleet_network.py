"""A fleet over Flower, with real processes on loopback, TLS and keys."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import three_devices
from network import Start, command, edge_zofc, join, serve, starts, wait_for
from runs import go
from small import write_small_bundle

from edge_zofc.engine.predict import open_run
from edge_zofc.fleet.exchange import MAGIC
from edge_zofc.storage.bundle import Bundle

pytestmark = pytest.mark.flower
ALL = tuple(f"class{n:02d}" for n in range(6))


@pytest.fixture(scope="module", autouse=True)
def flower() -> None:
    if importlib.util.find_spec("flwr") is None:
        pytest.skip("flwr is not installed: pip install 'edge-zofc[fleet]'")


@pytest.fixture(scope="module")
def learnt(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, a stream of three tasks, and three runs that have learnt one each."""
    home = tmp_path_factory.mktemp("network")
    shutil.copytree(small_bundle.folder, home / "bundle")
    three_devices(small_bundle, home)
    return home


@pytest.fixture
def home(learnt: Path, tmp_path: Path) -> Path:
    """A copy of it, and the keys of a fleet and three devices."""
    shutil.copytree(learnt, tmp_path / "home")
    edge_zofc(tmp_path / "home", "fleet", "keys", "fleet")
    for number in range(3):
        edge_zofc(tmp_path / "home", "fleet", "keys", "fleet", "add", f"d{number}")
    return tmp_path / "home"


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    yield from starts(home)


def test_after_one_round_three_devices_name_all_six_classes(home: Path, start: Start) -> None:
    server, address = serve(home, start, "--once", "--json", "--deadline", 60)
    devices = [join(start, address, number, "--once") for number in range(3)]
    assert server.wait(timeout=120) == 0, (home / "serve.out").read_text()
    assert [device.wait(timeout=60) for device in devices] == [0, 0, 0]
    done = json.loads((home / "serve.out").read_text().splitlines()[-1])
    assert done["up_to_date"] == ["d0", "d1", "d2"] and done["classes"] == 6
    wanted = open_run(home / "fleet").head.rows.tobytes()
    for number in range(3):
        found = open_run(home / f"run{number}/fleet")
        assert found.class_names == ALL and found.head.rows.tobytes() == wanted
        right = json.loads(edge_zofc(home, "eval", f"run{number}/fleet", "--stream", "stream", "--json"))
        assert right["unknown_classes"] == []
    for line in (home / "join0.out").read_text(), edge_zofc(home, "fleet", "status", "fleet"):
        assert "Traceback" not in line
    status = json.loads(edge_zofc(home, "fleet", "status", "fleet", "--json"))
    assert [(one["name"], one["head"], one["strikes"]) for one in status["devices"]] == [
        ("d0", 1, 0), ("d1", 1, 0), ("d2", 1, 0),
    ]  # fmt: skip


def test_a_round_closes_without_a_device_that_died_and_the_device_comes_back(home: Path, start: Start) -> None:
    _, address = serve(home, start, "--deadline", 8, "--every", 1)
    devices = [join(start, address, number) for number in range(2)]
    wait_for(home / "serve.out", "d1: has head")
    devices[1].send_signal(signal.SIGKILL)
    devices[1].wait()
    wait_for(home / "serve.out", "silent: d1")
    join(start, address, 2, "--once").wait(timeout=90)
    assert open_run(home / "run2/fleet").class_names == ALL, "the share of who died stays"
    back = join(start, address, 1, "--once")
    assert back.wait(timeout=90) == 0
    assert open_run(home / "run1/fleet").class_names == ALL


def test_a_run_that_is_not_there_does_not_even_connect(home: Path) -> None:
    told = edge_zofc(home, "fleet", "join", "127.0.0.1:9", "--keys", "d0", "--yes", "--run", "nowhere", code=2)
    assert "There is no run in nowhere" in told and "What leaves this device" not in told


def test_a_foreign_key_and_a_revoked_one_never_join(home: Path, start: Start) -> None:
    edge_zofc(home, "fleet", "keys", "other")
    edge_zofc(home, "fleet", "keys", "other", "add", "d0", "-o", "foreign")
    shutil.copyfile(home / "d0/ca.pem", home / "half.pem")
    shutil.copytree(home / "foreign", home / "half")
    shutil.copyfile(home / "half.pem", home / "half/ca.pem")
    server, address = serve(home, start, "--deadline", 5, "--every", 1)
    told = edge_zofc(home, "fleet", "join", address, "--run", "run0", "--keys", "foreign", "--yes", code=2)
    assert f"edge-zofc: The server at {address} is none of this fleet" in told
    told = edge_zofc(home, "fleet", "join", address, "--run", "run0", "--keys", "half", "--yes", code=2)
    assert f"edge-zofc: The fleet at {address} does not let d0 in" in told
    edge_zofc(home, "fleet", "keys", "fleet", "revoke", "d1")
    time.sleep(2)
    assert "does not let d1 in" in edge_zofc(
        home, "fleet", "join", address, "--run", "run1", "--keys", "d1", "--yes", code=2
    )
    assert "share" not in (home / "serve.out").read_text()
    server.terminate()
    assert server.wait(timeout=30) == 143


def test_a_device_of_another_bundle_is_told_why(home: Path, start: Start) -> None:
    other = write_small_bundle(home / "other", "w8")
    go(other, home / "stream0", home / "runw8", changes={"adapter": "off"})
    _, address = serve(home, start, "--deadline", 10, "--every", 1)
    told = edge_zofc(home, "fleet", "join", address, "--run", "runw8", "--keys", "d0", "--yes", code=2)
    assert "cannot join this fleet: it was learnt with another bundle" in told.splitlines()[-1]


def test_nothing_but_calls_of_devices_passes_the_door(home: Path, start: Start) -> None:
    """SuperLink's other interfaces ask nobody who they are: a run that is started by one is code on every device."""
    _, address = serve(home, start)
    context = ssl.create_default_context(cafile=home / "d0/ca.pem")

    def code(path: str, body: bytes | None = b"", size: str | None = None) -> int:
        headers = {"content-type": "application/x-protobuf"} | ({"content-length": size} if size else {})
        request = urllib.request.Request(f"https://{address}{path}", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    for path in ("/v1/control/start-run", "/v1/control/register-node", "/v1/control/list-nodes", "/docs", "/",
                 "/v1/runtime/acquire-task", "/v1/fleet/register-node", "/v1/fleet/../control/start-run",
                 "/v1/fleet/get-fab", "/v1/fleet/pull-messages/", "/health"):  # fmt: skip
        assert code(path) == 404, path
        assert code(path, None) == 404, path
    assert code("/v1/fleet/pull-messages") in (400, 401, 415, 422), "a device's call needs its key"
    assert code("/v1/fleet/push-object", MAGIC * 4, str(9 << 20)) == 404, "more than a piece of a message"


def test_one_fleet_has_one_server_and_a_port_in_use_is_told(home: Path, start: Start) -> None:
    _, address = serve(home, start)
    words = ("fleet", "serve", "fleet", "--bundle", "bundle", "--listen", address, "--once", "--deadline", 1)
    assert "is in use by process" in edge_zofc(home, *words, code=2)
    edge_zofc(home, "fleet", "keys", "second")
    told = edge_zofc(home, *words[:2], "second", *words[3:], code=2)
    assert f"edge-zofc: {address} cannot be listened on (Address already in use" in told


def test_without_consent_nothing_is_sent(home: Path, start: Start) -> None:
    words = ("fleet", "join", "127.0.0.1:1", "--run", "run0", "--keys", "d0")
    done = subprocess.run(
        command(*words), cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "never a picture" in done.stderr and "class00 (8), class01 (8)" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("give --yes if it may.")


def test_a_server_that_was_killed_goes_on_where_it_was(home: Path, start: Start) -> None:
    server, address = serve(home, start, "--deadline", 20, "--every", 1)
    join(start, address, 0)
    wait_for(home / "serve.out", "round: 1 answered, 1 have the newest head")
    server.kill()
    server.wait()
    wait_for(home / "join0.out", "does not answer")
    start("again", "fleet", "serve", "fleet", "--bundle", "bundle", "--listen", address, "--every", "1")
    wait_for(home / "again.out", "round: 1 answered, 1 have the newest head")
    assert "has head" not in (home / "again.out").read_text(), "nothing travels twice"
    assert "is there already" in (home / "join0.out").read_text()
    join(start, address, 1, "--once").wait(timeout=90)
    assert open_run(home / "run1/fleet").class_names == ALL[:4]
    wait_for(home / "again.out", "d0: has head 2")


HOSTILE = """
import logging, sys
from pathlib import Path
from edge_zofc.fleet import flower_node
from edge_zofc.fleet.keys import read_device_keys
logging.getLogger("httpx").disabled = True
kind, address = sys.argv[1:]
if kind == "error":
    from flwr.app import Error
    flower_node.content_of = lambda raw: Error(code=0, reason="x" * 100)
elif kind == "record":
    from flwr.app import ConfigRecord, RecordDict
    flower_node.content_of = lambda raw: RecordDict({"edge-zofc": ConfigRecord({"head": b"x"})})
flower_node.Node(address, read_device_keys(Path("d2")), lambda raw: b"noise" * 999, print).run(lambda: False)
"""


@pytest.mark.parametrize("kind", ["noise", "record", "error"])
def test_a_hostile_device_holds_nobody_up(kind: str, home: Path, start: Start) -> None:
    server, address = serve(home, start, "--once", "--json", "--deadline", 30)
    hostile = subprocess.Popen([sys.executable, "-c", HOSTILE, kind, address], cwd=home, stdout=subprocess.DEVNULL)
    try:
        devices = [join(start, address, number, "--once") for number in range(2)]
        assert server.wait(timeout=120) == 0
        assert [device.wait(timeout=60) for device in devices] == [0, 0]
    finally:
        hostile.kill()
        hostile.wait()
    text = (home / "serve.out").read_text()
    done = json.loads(text.splitlines()[-1])
    assert (done["up_to_date"], done["silent"]) == (["d0", "d1"], ["d2"])
    assert "Traceback" not in text and ("d2: strike 1 of 3" in text) == (kind != "error")
