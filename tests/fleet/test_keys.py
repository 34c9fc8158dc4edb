"""Keys of a fleet: who is let in, for which hosts, and that nobody else can read them."""

from __future__ import annotations

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from shares import write_share

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.fleet.keys import KeyFolder, add_device, make_server, private_key, read_device_keys, revoke_device
from edge_zofc.fleet.merging import merge, revoke
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import FleetFolder

x509 = pytest.importorskip("cryptography.x509", reason="needs pip install 'edge-zofc[fleet]'")


def certificate(path: Path) -> object:
    return x509.load_pem_x509_certificate(path.read_bytes())


def hosts(path: Path) -> list[str]:
    names = certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value  # type: ignore[attr-defined]
    return [str(name.value) for name in names]


def test_the_servers_certificate_is_signed_for_its_hosts(tmp_path: Path) -> None:
    keys = make_server(tmp_path / "fleet", ["192.168.1.5", "shed.local", "::1"])
    server, authority = (certificate(keys.path / name) for name in ("server.pem", "ca.pem"))
    server.verify_directly_issued_by(authority)  # type: ignore[attr-defined]
    assert hosts(keys.path / "server.pem") == ["127.0.0.1", "localhost", "192.168.1.5", "shed.local", "::1"]
    ends = server.not_valid_after_utc  # type: ignore[attr-defined]
    assert ends > datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3000)
    ssl.create_default_context(cafile=keys.path / "ca.pem")


def test_private_keys_are_the_owners_alone(tmp_path: Path) -> None:
    keys = make_server(tmp_path / "fleet", [])
    add_device(keys, "d7", tmp_path / "d7")
    private = sorted(path for path in tmp_path.rglob("*.key"))
    assert [path.name for path in private] == ["device.key", "ca.key", "server.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert sorted(path.name for path in (tmp_path / "d7").iterdir()) == ["ca.pem", "device.json", "device.key"]


def test_other_hosts_need_no_new_keys_of_devices(tmp_path: Path) -> None:
    keys = make_server(tmp_path / "fleet", [])
    before = (keys.path / "ca.pem").read_bytes(), (keys.path / "server.pem").read_bytes()
    make_server(tmp_path / "fleet", [])
    assert before == ((keys.path / "ca.pem").read_bytes(), (keys.path / "server.pem").read_bytes())
    make_server(tmp_path / "fleet", ["shed.local"])
    assert (keys.path / "ca.pem").read_bytes() == before[0]
    assert hosts(keys.path / "server.pem") == ["127.0.0.1", "localhost", "shed.local"]
    certificate(keys.path / "server.pem").verify_directly_issued_by(certificate(keys.path / "ca.pem"))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="--host thé is neither a name nor an address"):
        make_server(tmp_path / "fleet", ["thé"])


def test_a_device_gets_the_private_half_of_what_the_fleet_keeps(tmp_path: Path) -> None:
    keys = make_server(tmp_path / "fleet", [])
    add_device(keys, "d7", tmp_path / "d7")
    found = read_device_keys(tmp_path / "d7")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    public = private_key(found.key, "it").public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert found.name == "d7" and keys.public_keys() == {"d7": pem}
    with pytest.raises(InputError, match="d7 has a key already; take it back first"):
        add_device(keys, "d7", tmp_path / "again")
    with pytest.raises(InputError, match="is there already; give -o a new folder"):
        add_device(keys, "d8", tmp_path / "d7")
    with pytest.raises(InputError, match="cannot be the name of a device"):
        add_device(keys, "../d8", tmp_path / "d8")


def test_revoking_takes_key_and_share_and_a_new_key_lets_the_device_back_in(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    keys = make_server(tmp_path / "fleet", [])
    for name in ("a", "b"):
        add_device(keys, name, tmp_path / name)
    merge(small_bundle.folder, [write_share(tmp_path, small_bundle, "a")], tmp_path / "fleet")
    assert revoke_device(keys, "a") and not revoke_device(keys, "b")
    fleet = FleetFolder(tmp_path / "fleet")
    assert keys.public_keys() == {} and fleet.names(fleet.about()) == []
    with pytest.raises(InputError, match=r"has no key of a; it has those of: none\."):
        revoke_device(keys, "a")
    add_device(keys, "a", tmp_path / "a2")
    assert fleet.about().revoked == () and list(keys.public_keys()) == ["a"]
    with pytest.raises(InputError, match="is not revoked"):
        revoke(tmp_path / "fleet", "a", undo=True)


def test_what_is_no_folder_of_keys_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no keys of a device"):
        read_device_keys(tmp_path)
    with pytest.raises(InputError, match="has no keys yet; make some with 'edge-zofc fleet keys"):
        KeyFolder(tmp_path).server_files()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no fleet"):
        make_server(tmp_path, [])
    (tmp_path / "device.json").write_text('{"name": "../x"}')
    with pytest.raises(DamagedFileError, match="is not of a device's keys: name"):
        read_device_keys(tmp_path)
    with pytest.raises(DamagedFileError, match="it is no private key"):
        private_key(b"-----BEGIN PRIVATE KEY-----", "it")
