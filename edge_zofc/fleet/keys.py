"""Who may join a fleet over a network: its own certificate authority, the server's certificate, a key of each device.

    FLEET/keys/ca.key, ca.pem           the authority; nobody needs it after the server's certificate is made
    FLEET/keys/server.key, server.pem   what the server shows, for the hosts that it is reached by
    FLEET/keys/devices/NAME.pub         the public key of each device; the server knows no other devices
    NAME/device.json, device.key, ca.pem   what one device gets, by a memory card or scp: its key is nowhere else

Keys are of P-256 and P-384, private ones are readable by their owner alone. Certificates hold for ten years, as a board
in the field is not easily given a new one: whoever loses a key is taken out by ``revoke``.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_zofc.errors import DamagedFileError, InputError, explained, shown
from edge_zofc.fleet.merging import revoke as revoke_share
from edge_zofc.storage.fleet_folder import KEYS, DeviceName, FleetFolder
from edge_zofc.storage.reading import Strict, is_there, load_model, read_bounded
from edge_zofc.storage.share import device_name
from edge_zofc.storage.writing import DISK, make_folder, write_atomic

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = ("127.0.0.1", "localhost")
YEARS = 10
_MAX_KEY_BYTES = 1 << 16
_PUBLIC = ".pub"


class _About(Strict):
    """The content of ``device.json``."""

    format_version: Literal[1] = 1
    name: DeviceName


@dataclass(frozen=True)
class DeviceKeys:
    """What a device was given: its name, its private key as PEM, and where the fleet's certificate lies."""

    name: str
    key: bytes
    authority: Path


@dataclass(frozen=True)
class KeyFolder:
    """The keys of the fleet in ``fleet``."""

    fleet: Path

    @property
    def path(self) -> Path:
        """The folder."""
        return self.fleet / KEYS

    @property
    def devices(self) -> Path:
        """Where public keys of devices lie."""
        return self.path / "devices"

    def has_server(self) -> bool:
        """Whether a server's certificate was made."""
        return is_there(self.path / "server.pem")

    def server_files(self) -> tuple[Path, Path]:
        """Certificate and key of the server. Raises InputError where they were not made yet."""
        if not self.has_server():
            raise InputError(f"{self.fleet} has no keys yet; make some with 'edge-zofc fleet keys {self.fleet}'.")
        return self.path / "server.pem", self.path / "server.key"

    def public_keys(self) -> dict[str, bytes]:
        """The PEM of each device's public key, by name."""
        found = {}
        if is_there(self.devices):
            with explained(self.devices, "read"):
                paths = sorted(self.devices.glob(f"*{_PUBLIC}"))
            for path in paths:
                found[device_name(path.name[: -len(_PUBLIC)])] = read_bounded(path, _MAX_KEY_BYTES)
        return found


def make_server(fleet: Path, hosts: Sequence[str]) -> KeyFolder:
    """Make the authority if there is none, and a certificate of the server for HOSTS and ``hosts``, names or addresses.

    A certificate that is there is replaced where hosts are given; devices need nothing new. Raises InputError.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = KeyFolder(fleet)
    FleetFolder(fleet).refuse_strangers()
    make_folder(keys.path)
    if not is_there(keys.path / "ca.pem"):
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(keys.path / "ca.key", key)
        write_atomic(keys.path / "ca.pem", _pem(_certificate("edge-zofc fleet", key, None, ())))
    if hosts or not keys.has_server():
        key, names = ec.generate_private_key(ec.SECP256R1()), tuple(dict.fromkeys((*HOSTS, *hosts)))
        made = _certificate("edge-zofc server", key, _authority(keys), names)
        _write_key(keys.path / "server.key", key)
        write_atomic(keys.path / "server.pem", _pem(made))
    return keys


def add_device(keys: KeyFolder, name: str, out: Path) -> None:
    """Make a key for a device: its public half here, the rest in the folder ``out``, which must not be there yet.

    Shares of a device that was revoked are taken again. Raises InputError.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    path = keys.devices / f"{device_name(name)}{_PUBLIC}"
    if is_there(path):
        raise InputError(
            f"{name} has a key already; take it back first: 'edge-zofc fleet keys {keys.fleet} revoke {name}'."
        )
    if is_there(out):
        raise InputError(f"{shown(out)} is there already; give -o a new folder for the keys of {name}.")
    key = ec.generate_private_key(ec.SECP384R1())
    for folder in (out, keys.devices):
        make_folder(folder)
    _write_key(out / "device.key", key)
    write_atomic(out / "ca.pem", read_bounded(keys.path / "ca.pem", _MAX_KEY_BYTES))
    write_atomic(out / "device.json", _About(name=name).model_dump_json().encode())
    write_atomic(path, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    fleet = FleetFolder(keys.fleet)
    if fleet.is_fleet() and name in fleet.about().revoked:
        revoke_share(keys.fleet, name, undo=True)


def revoke_device(keys: KeyFolder, name: str) -> bool:
    """Take a device's key back, and its share out of the fleet; returns whether it had one. A server that runs notices
    at its next round. Raises InputError for a name without key and share.
    """
    path, fleet = keys.devices / f"{device_name(name)}{_PUBLIC}", FleetFolder(keys.fleet)
    has_key = is_there(path)
    has_share = fleet.is_fleet() and any(name in part.names(part.about()) for part in fleet.parts())
    if not (has_key or has_share):
        known = ", ".join(keys.public_keys()) or "none"
        raise InputError(f"{shown(keys.fleet)} has no key of {name}; it has those of: {known}.")
    if has_key:
        with explained(path, "removed"):
            DISK.unlink(path)
            DISK.fsync_folder(keys.devices)
    return revoke_share(keys.fleet, name) if has_share else False


def read_device_keys(folder: Path) -> DeviceKeys:
    """What ``add_device`` gave to a device. Raises InputError where it is not there, DamagedFileError."""
    about = folder / "device.json"
    if not is_there(about):
        raise InputError(
            f"{shown(folder)} has no keys of a device (device.json is missing); "
            "'edge-zofc fleet keys FLEET add NAME' makes such a folder where the fleet is."
        )
    found = load_model(_About, read_bounded(about, _MAX_KEY_BYTES), f"{about} is not of a device's keys:")
    key = read_bounded(folder / "device.key", _MAX_KEY_BYTES)
    read_bounded(folder / "ca.pem", _MAX_KEY_BYTES)
    return DeviceKeys(found.name, key, folder / "ca.pem")


def private_key(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """A private key from its PEM. Raises DamagedFileError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DamagedFileError(f"{where} is no private key; put back a good copy or make a new key.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DamagedFileError(f"{where} is no key of an elliptic curve; put back a good copy or make a new key.")
    return key


def _authority(keys: KeyFolder) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography import x509

    where = keys.path / "ca.pem"
    try:
        made = x509.load_pem_x509_certificate(read_bounded(where, _MAX_KEY_BYTES))
    except ValueError as error:
        raise DamagedFileError(f"{where} is no certificate; put back a good copy.") from error
    return made, private_key(read_bounded(keys.path / "ca.key", _MAX_KEY_BYTES), str(keys.path / "ca.key"))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    hosts: Sequence[str],
) -> x509.Certificate:
    """Signed by ``authority``; None: by itself, an authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    # A board without a clock of its own may live some days ago.
    begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=7)
    issuer = subject if authority is None else authority[0].subject
    signer = key if authority is None else authority[1]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if authority is None:
        builder = builder.add_extension(_signs(), critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _signs() -> x509.KeyUsage:
    from cryptography import x509

    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name == "key_cert_sign" for name in names})


def _host(text: str) -> x509.GeneralName:
    """A name or an address for a certificate. Raises InputError."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError as error:
        raise InputError(f"--host {shown(text)} is neither a name nor an address in ASCII.") from error


def _pem(made: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return bytes(made.public_bytes(Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomic(path, raw, private=True)
