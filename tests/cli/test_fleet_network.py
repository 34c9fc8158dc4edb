"""The commands of a fleet's network as far as they need no Flower; the rest is in ``tests/system``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from shares import write_share

from edge_zofc.cli import fleet_network
from edge_zofc.cli.main import main
from edge_zofc.errors import InputError
from edge_zofc.fleet.merging import merge, revoke
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_devices import Devices, Known, write_devices


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:1", ("host", 1)),
        ("127.0.0.1:9092", ("127.0.0.1", 9092)),
        ("[::1]:65535", ("::1", 65535)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert fleet_network._address(text) == address


@pytest.mark.parametrize(
    "text", ["host", "host:", ":1", "host:-1", "host:65536", "host:x", "host:²", "h:1" + "0" * 9000]
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(InputError, match="is no address; write HOST:PORT"):
        fleet_network._address(text)


@pytest.mark.parametrize("words", [("keys", "f"), ("serve", "f", "--bundle", "b"), ("join", "h:1", "--keys", "k")])
def test_without_flower_a_command_says_what_to_install(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fleet_network.sys, "version_info", (3, 11, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["fleet", *words]) == 2
    assert "install it with pip install 'edge-zofc[fleet]'." in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.30.0")
    assert main(["fleet", *words]) == 2
    assert "flwr 1.30.0 is installed, a fleet needs 1.42.x" in capsys.readouterr().err
    monkeypatch.setattr(fleet_network.sys, "version_info", (3, 10, 9))
    assert main(["fleet", *words]) == 2
    assert "needs Python 3.11 or later, as Flower does; shares can travel as files" in capsys.readouterr().err


def test_the_status_of_a_fleet(small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = tmp_path / "fleet"
    paths = [write_share(tmp_path, small_bundle, name) for name in ("a", "b")]
    merge(small_bundle.folder, paths, fleet)
    revoke(fleet, "b")
    known = {"a": Known(share=4, received=0, seen=1, head=2, bytes_in=2048), "c": Known(strikes=3, told="n\x1b[31mo")}
    write_devices(fleet, Devices(rounds=7, head=2, devices=known))
    assert main(["fleet", "status", str(fleet)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{fleet}: 7 rounds, head 2"
    assert [line.split()[0] for line in told[2:]] == ["a", "b", "c"]
    assert "2 KiB" in told[2] and told[3].endswith("revoked") and told[4].endswith("n\ufffd[31mo")
    (fleet / "keys").mkdir()
    (fleet / "keys/server.pem").touch()
    assert main(["fleet", "status", str(fleet)]) == 0
    assert capsys.readouterr().out.splitlines()[3].endswith("revoked; no key")
    assert main(["fleet", "status", str(fleet), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["held"], one["revoked"], one["strikes"]) for one in found["devices"]] == [
        ("a", True, False, 0), ("b", False, True, 0), ("c", False, False, 3),
    ]  # fmt: skip
    assert main(["fleet", "status", str(tmp_path)]) == 2


def test_learning_and_the_other_commands_of_a_fleet_never_load_flower() -> None:
    code = (
        "import sys, edge_zofc.cli.main, edge_zofc.engine.run, edge_zofc.learner, edge_zofc.fleet.serving, "
        "edge_zofc.fleet.member; print([name for name in ('flwr', 'uvicorn', 'httpx', 'cryptography', 'grpc') "
        "if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
