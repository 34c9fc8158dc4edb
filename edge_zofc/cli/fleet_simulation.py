"""``edge-zofc fleet simulate``; as ``fleet.py`` otherwise."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from edge_zofc.cli.answer import answer, need, terminal_width
from edge_zofc.errors import InputError, shown

if TYPE_CHECKING:
    from edge_zofc.fleet.dealing import Wanted
    from edge_zofc.fleet.simulation import Round, Simulated
    from edge_zofc.fleet.world import World

log = logging.getLogger("edge_zofc")

FLEET, RESULT, LOG, PICTURE = "fleet", "simulation.json", "log.txt", "accuracy.png"
_COLUMNS = ("round", "asked", "answered", "silent", "slow", "strikes", "classes", "taken", "to fleet", "to devices")


def fleet_simulate(options: argparse.Namespace) -> int:
    """Try a fleet of virtual devices on a stream, some of them silent, slow, late or hostile."""
    from edge_zofc.fleet.dealing import Wanted
    from edge_zofc.fleet.looking import look
    from edge_zofc.fleet.simulation import in_this_process
    from edge_zofc.fleet.world import World
    from edge_zofc.signals import exit_on_sigterm
    from edge_zofc.storage.bundle import read_bundle
    from edge_zofc.storage.writing import make_folder

    wanted = Wanted(**{name: getattr(options, name) for name in Wanted.__dataclass_fields__})
    wanted.check()
    engine = _flower() if options.engine == "flower" else in_this_process
    if options.out is not None:
        need("matplotlib")
        _refuse_full(options.out)
        make_folder(options.out)
    with exit_on_sigterm(), tempfile.TemporaryDirectory(prefix="edge-zofc-") as home:
        bundle = read_bundle(options.bundle.resolve())
        log.info("computing the features of %s once", shown(options.stream))
        world = World(Path(home), wanted, bundle, *look(bundle, options.stream, options.threads, log.warning))
        sentences = list[str]()
        folder = (Path(home) if options.out is None else options.out) / FLEET
        found = _simulated(world, folder, engine, sentences)
    data = {**_facts(options, wanted, world), **asdict(found)}
    text = _text(world, found)
    if options.out is not None:
        text += f"\n{_keep(options.out, data, sentences, found, options.stream)}"
    return answer(options, data, text)


def _flower() -> Any:
    from edge_zofc.cli.fleet_network import need_flower

    for name in ("flwr", "ray"):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"Flower's simulation engine needs the package {name}; install it with pip install "
                "'edge-zofc[fleet-simulation]', or give --engine plain."
            )
    need_flower()
    from edge_zofc.fleet.flower_simulation import in_flower

    return in_flower


def _refuse_full(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{shown(out)} is not empty; give -o a new folder.")


def _simulated(world: World, folder: Path, engine: Any, sentences: list[str]) -> Simulated:
    from edge_zofc.fleet.simulation import simulate

    def told(done: Round) -> None:
        sentences.append(f"round {done.number}: {done.answered} of {done.asked} answered")
        log.info("round %d of %d: %.1f s", done.number, world.wanted.rounds, done.seconds)

    return simulate(world, folder, engine, sentences.append, told)


def _facts(options: argparse.Namespace, wanted: Wanted, world: World) -> dict[str, Any]:
    held = [len(own) for own in world.dealt[0]]
    return {
        "bundle": str(options.bundle),
        "stream": str(options.stream),
        "engine": options.engine,
        "wanted": asdict(wanted),
        "pictures": len(world.train.labels),
        "test_pictures": len(world.test.labels),
        "classes": len(world.class_names),
        "pictures_a_device": [min(held), mean(held), max(held)],
    }


def _text(world: World, found: Simulated) -> str:
    from edge_zofc.report.text import count, percent, table

    is_hostile, width = bool(found.attackers), terminal_width()
    held, wanted = [len(own) for own in world.dealt[0]], world.wanted
    many = f"{count(len(world.train.labels), 'picture')} of {count(len(world.class_names), 'class', 'classes')}"
    lines = [f"{count(wanted.devices, 'device')}, {many}, {min(held)} to {max(held)} a device ({wanted.split})"]
    lines.append(table(_rows(found, is_hostile), "r" * (len(_COLUMNS) + (4 if is_hostile else 2)), width))
    lines.append("Accuracy: % of the test pictures of all classes. Bytes: those of all devices, both ways.")
    lines.append(f"Each device alone: {percent(found.alone)}; one device with all pictures: {percent(found.whole)}.")
    if is_hostile:
        rows: list[tuple[Any, ...]] = [("hostile", "does", "strikes", "")]
        rows += [(one.name, one.attack, one.strikes, "asked no more" if one.out else "") for one in found.attackers]
        lines.append(table(rows, "llrl", width))
    lines.append(_pace(found))
    return "\n".join(lines)


def _rows(found: Simulated, is_hostile: bool) -> list[tuple[Any, ...]]:
    from edge_zofc.device.profiles import format_bytes
    from edge_zofc.report.text import percent

    more = ("accuracy", f"cap {found.cap:g}", "honest", "s") if is_hostile else ("accuracy", "s")
    rows: list[tuple[Any, ...]] = [(*_COLUMNS, *more)]
    for one in found.rounds:
        scores = (one.scores.shares, one.scores.capped, one.scores.honest) if is_hostile else (one.scores.shares,)
        numbers = (one.number, one.asked, one.answered, one.silent, one.slow, one.strikes, one.classes, one.taken)
        sizes = (format_bytes(one.bytes_to_fleet), format_bytes(one.bytes_to_devices))
        rows.append((*numbers, *sizes, *(percent(score, "") for score in scores), f"{one.seconds:.1f}"))
    return rows


def _pace(found: Simulated) -> str:
    from edge_zofc.device.profiles import format_bytes

    asked = sum(one.asked for one in found.rounds) or 1
    up, down = (sum(getattr(one, what) for one in found.rounds) for what in ("bytes_to_fleet", "bytes_to_devices"))
    seconds = mean(one.seconds for one in found.rounds)
    return (
        f"A device and round: {format_bytes(up // asked)} to the fleet, {format_bytes(down // asked)} to the device. "
        f"{3600 / seconds:,.0f} rounds an hour on this machine, without waiting for the deadline."
    )


def _keep(out: Path, data: dict[str, Any], sentences: list[str], found: Simulated, stream: Path) -> str:
    """Write what can be looked at later; returns the place of the picture."""
    from edge_zofc.report.simulation import accuracy_png
    from edge_zofc.storage.writing import write_atomic

    names = ("shares", "capped", "honest") if found.attackers else ("shares",)
    scores = {name: [getattr(one.scores, name) for one in found.rounds] for name in names}
    title = f"{data['wanted']['devices']} devices, {data['classes']} classes"
    write_atomic(out / RESULT, (json.dumps(data, indent=2) + "\n").encode())
    write_atomic(out / LOG, "".join(f"{shown(sentence)}\n" for sentence in sentences).encode())
    write_atomic(out / PICTURE, accuracy_png(title, scores, found.cap, found.alone, found.whole))
    return f"{shown(out)}: {FLEET}/, {RESULT}, {LOG}, {PICTURE}"
