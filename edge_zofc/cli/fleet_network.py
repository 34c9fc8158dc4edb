"""The commands of a fleet that is joined over a network, by Flower; as ``fleet.py`` otherwise."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_zofc.cli.answer import answer, need, terminal_width
from edge_zofc.errors import InputError, shown

if TYPE_CHECKING:
    from edge_zofc.fleet.coordinator import RoundDone
    from edge_zofc.fleet.member import Member
    from edge_zofc.fleet.sharing import Sharing
    from edge_zofc.fleet.stepping import Plan

log = logging.getLogger("edge_zofc")

FLOWER = "1.42."
"""What ``fleet/flower_*.py`` were written for."""
_TALKATIVE = ("flwr", "httpx", "httpcore", "alembic")


def fleet_keys(options: argparse.Namespace) -> int:
    """Make the keys of a fleet, and those of a device; a device without a key cannot join."""
    need_flower()
    from edge_zofc.fleet.keys import add_device, make_server, revoke_device

    if (options.action is None) != (options.name is None):
        raise InputError("Write 'fleet keys FLEET', 'fleet keys FLEET add NAME' or 'fleet keys FLEET revoke NAME'.")
    keys, name, lines = make_server(options.fleet, options.host or ()), options.name, list[str]()
    data: dict[str, Any] = {"fleet": str(options.fleet), "action": options.action, "device": name}
    if options.action == "add":
        out = Path(name) if options.out is None else options.out
        add_device(keys, name, out)
        data["folder"] = str(out)
        lines.append(f"{shown(out)}: the keys of {name}; move this folder to the device, and keep no copy")
    elif options.action == "revoke":
        had_share = revoke_device(keys, name)
        data["had_share"] = had_share
        lines.append(f"{name} has no key any more, {'and its share is out' if had_share else 'it had no share'}")
    devices = list(keys.public_keys())
    lines.append(f"{shown(options.fleet)}: keys of {', '.join(devices) or 'no device'}")
    return answer(options, data | {"devices": devices}, "\n".join(lines))


def fleet_serve(options: argparse.Namespace) -> int:
    """Ask the devices of a fleet for what they learnt, merge it, and give all of it back to each."""
    need_flower()
    from edge_zofc.fleet.coordinator import Coordinator
    from edge_zofc.fleet.flower_link import Link
    from edge_zofc.fleet.keys import KeyFolder
    from edge_zofc.fleet.serving import Pace, serve
    from edge_zofc.signals import exit_on_sigterm
    from edge_zofc.storage.lock import RunLock

    keys = KeyFolder(options.fleet)
    certificate, key = keys.server_files()
    listen = [_address(text) for text in options.listen or ["127.0.0.1:9092"]]
    pace = Pace(options.deadline, options.every, options.once)
    _check_fractions(options)
    with exit_on_sigterm(), RunLock(keys.path):
        coordinator = Coordinator(options.fleet, options.bundle, _tell, options.cap)
        plan = _plan(options, coordinator.bundle.manifest.goes_back)
        with Link(listen, certificate, key) as link:
            _tell(f"listening on {', '.join(f'{host}:{port}' for host, port in link.addresses)}")
            done = serve(coordinator, keys, link, pace, lambda done: _tell(_told(done)), plan)
            traffic = {"bytes_in": link.door.bytes_in, "bytes_out": link.door.bytes_out}
    return answer(options, {**vars(done), **traffic}, f"{options.fleet}: {_told(done)}")


def _plan(options: argparse.Namespace, has_gradient: bool) -> Plan:
    from edge_zofc.fleet.stepping import Estimator, Plan

    auto: Estimator = "exact" if has_gradient else "spsa"
    return Plan(
        steps=options.steps,
        estimator=auto if options.estimator == "auto" else options.estimator,
        sample=options.sample,
        pictures=options.step_pictures,
        deadline=options.step_deadline,
        close_at=options.close_at,
        quorum=options.quorum,
        aggregate=options.aggregate,
        adapter=options.adapter,
    )


def _check_fractions(options: argparse.Namespace) -> None:
    """Raises InputError."""
    for name in ("close_at", "quorum"):
        if not 0 < getattr(options, name) <= 1:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(options, name):g}; give a fraction above 0, at most 1."
            )


def fleet_join(options: argparse.Namespace) -> int:
    """Give what a run has learnt to its fleet, and take what all devices have learnt."""
    need_flower()
    from edge_zofc.fleet.flower_node import Node
    from edge_zofc.fleet.keys import read_device_keys
    from edge_zofc.fleet.member import Member
    from edge_zofc.signals import exit_on_sigterm

    host, port = _address(options.address)
    keys = read_device_keys(options.keys)
    if not 0 <= options.margin <= 1:
        raise InputError(f"--margin is {options.margin:g}; give a fraction from 0 to 1.")
    member = Member(options.run, keys.name, _tell, options.min_pictures, options.bundle, options.margin)
    member.check()
    _ask_consent(member, options)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with exit_on_sigterm():
        Node(address, keys, member.reply, _tell).run(
            lambda: member.refusal is not None or (options.once and member.has_news > 0)
        )
    if member.refusal is not None:
        raise member.refusal
    data = {"run": str(options.run), "device": keys.name, "fleet": str(member.fleet.path)}
    return answer(
        options, data, f"{member.fleet.path}: what the fleet knows; try edge-zofc predict {member.fleet.path}"
    )


def fleet_status(options: argparse.Namespace) -> int:
    """Show the devices of a fleet: their shares and how old they are, strikes and bytes."""
    from edge_zofc.device.profiles import format_bytes
    from edge_zofc.fleet.keys import KeyFolder
    from edge_zofc.report.text import NOTHING, count, duration, table
    from edge_zofc.storage.fleet_devices import Known, read_devices
    from edge_zofc.storage.fleet_folder import FleetFolder
    from edge_zofc.storage.fleet_journal import steps_of

    fleet, key_folder = FleetFolder(options.fleet), KeyFolder(options.fleet)
    about, keys, has_keys = fleet.about(), key_folder.public_keys(), key_folder.has_server()
    held = fleet.in_force().names(about)
    known, now, devices = read_devices(options.fleet), time.time(), list[dict[str, Any]]()
    for name in sorted({*held, *keys, *known.devices, *about.revoked}):
        found = known.devices.get(name, Known())
        ages = {what: None if at is None else max(now - at, 0.0) for what, at in _times(found)}
        facts = found.model_dump(exclude={"received", "seen"})
        states = {"key": name in keys, "revoked": name in about.revoked, "held": name in held}
        devices.append({"name": name, **states, **facts, **ages})
    rows: list[tuple[Any, ...]] = [("device", "share", "age", "seen", "head", "strikes", "in", "out", "")]
    for one in devices:
        words = [word for word, told in (("revoked", one["revoked"]), ("no key", has_keys and not one["key"])) if told]
        share = NOTHING if one["share"] is None else one["share"]
        ages_text = [duration(one[what]) for what in ("share_age", "seen_age")]
        bytes_text = [format_bytes(one[what]) for what in ("bytes_in", "bytes_out")]
        last = "; ".join([*words, *([one["told"]] if one["told"] else [])])
        rows.append((one["name"], share, *ages_text, one["head"] or NOTHING, one["strikes"], *bytes_text, last))
    steps, adapter = steps_of(options.fleet)
    text = f"{options.fleet}: {count(known.rounds, 'round')}, head {known.head or NOTHING}"
    text += f", {count(steps, 'step')}, the adapter {adapter}" if steps else ""
    data = {"fleet": str(options.fleet), "rounds": known.rounds, "head": known.head, "devices": devices}
    data |= {"steps": steps, "adapter": adapter}
    return answer(options, data, f"{text}\n{table(rows, 'lrrrrrrrl', terminal_width())}")


def _times(found: Any) -> tuple[tuple[str, float | None], ...]:
    return ("share_age", found.received), ("seen_age", found.seen)


def need_flower() -> None:
    """Raise InputError or ModuleNotFoundError, which ``main`` explains, where Flower is not as it must be."""
    if sys.version_info < (3, 11):
        raise InputError(
            "A fleet over a network needs Python 3.11 or later, as Flower does; shares can travel as files: "
            "'edge-zofc fleet share' and 'edge-zofc fleet merge'."
        )
    need("flwr")
    found = importlib.metadata.version("flwr")
    if not found.startswith(FLOWER):
        raise InputError(f"flwr {found} is installed, a fleet needs {FLOWER}x; run pip install 'edge-zofc[fleet]'.")
    for name in _TALKATIVE:  # our own sentences say what happened
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("flwr").disabled = True  # it sets its level itself when it is imported


def _address(text: str) -> tuple[str, int]:
    """Host and port. Raises InputError."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise InputError(f"{shown(text)} is no address; write HOST:PORT such as 192.168.1.5:9092 or [::1]:9092.")
    return host, int(port)


def _tell(sentence: str) -> None:
    log.info("%s", shown(sentence))


def _told(done: RoundDone) -> str:
    parts = [f"{len(done.answered)} answered", f"{len(done.up_to_date)} have the newest head"]
    parts += [f"silent: {', '.join(done.silent)}"] if done.silent else []
    return f"round: {', '.join(parts)}; {done.devices} devices, {done.classes} classes"


def _ask_consent(member: Member, options: argparse.Namespace) -> None:
    """Say what leaves this device. Raises InputError unless that was agreed to."""
    from edge_zofc.fleet.sharing import LEAVES, STEPS_LEAVE

    lines = [f"What leaves this device for {options.address}, now and after each task: {LEAVES}.", STEPS_LEAVE]
    lines.append(_now(member))
    lines.append("Everybody in the fleet gets the sums of all devices; of two devices each can tell the other's.")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise InputError("Nobody can be asked here whether that may leave this device; give --yes if it may.")
    print("May it? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("Nothing left this device.")


def _now(member: Member) -> str:
    try:
        found: Sharing = member.sharing()
    except InputError as error:
        return f"Now: nothing. {error}"
    counts = zip(found.share.class_names, found.share.statistics.counts.tolist(), strict=True)
    return "Now: " + ", ".join(f"{shown(name)} ({count})" for name, count in counts) + "."
