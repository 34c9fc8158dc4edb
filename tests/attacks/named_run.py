"""Forged journals, snapshots and settings, whose hashes are right."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from changes import as_json
from named import named
from victims_run import seal_journal, seal_snapshot, seal_state


@named("learn replay", 5)
def a_journal_with_a_hole(world: Path) -> None:
    path = world / "run/journal.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:108] + raw[136:])


@named("learn replay", 2, 5)
def a_journal_that_says_it_is_another_runs(world: Path) -> None:
    path = world / "run/journal.bin"
    raw = bytearray(path.read_bytes())
    raw[24] ^= 1  # the seed
    raw[40] ^= 1  # the bundle
    path.write_bytes(seal_journal(bytes(raw)))


@named("learn replay", 5)
def a_journal_of_an_impossible_rate(world: Path) -> None:
    path = world / "run/journal.bin"
    raw = bytearray(path.read_bytes())
    raw[108 + 28 + 16 : 108 + 28 + 20] = struct.pack("<f", float("nan"))
    path.write_bytes(seal_journal(bytes(raw)))


@named("learn", 0)
def a_journal_with_a_tail_of_zeros(world: Path) -> None:
    path = world / "run/journal.bin"
    path.write_bytes(path.read_bytes() + bytes(1 << 20))


def _forge_state(world: Path, **changes: object) -> None:
    for path in (world / "run/state").glob("snapshot-*"):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        state = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["state"])
        path.write_bytes(seal_state(raw, as_json({**state, **changes})))


@named("learn predict history", 5)
def a_state_whose_task_has_a_class_that_is_not_there(world: Path) -> None:
    _forge_state(world, class_names=[])


@named("learn predict", 5)
def a_state_under_way_without_a_task(world: Path) -> None:
    _forge_state(world, phase="training", tasks=[])


@named("learn", 5)
def a_state_with_more_records_than_the_journal(world: Path) -> None:
    _forge_state(world, journal_records=10**9)


@named("learn history report", 0, 2, 5)
def a_state_whose_names_fool_a_terminal(world: Path) -> None:
    _forge_state(world, class_names=["\x1b[2J", "../../etc/passwd\n"])


@named("learn predict", 5)
def a_state_that_is_not_a_number(world: Path) -> None:
    for path in (world / "run/state").glob("snapshot-*"):
        raw = path.read_bytes()
        path.write_bytes(seal_snapshot(raw[:-4] + struct.pack("<f", float("nan"))))


@named("learn history predict", 5)
def settings_with_a_batch_of_a_quintillion(world: Path) -> None:
    _change_settings(world, "execution", micro_batch=10**18)


@named("learn history predict", 5)
def settings_with_half_an_epoch(world: Path) -> None:
    _change_settings(world, "options", epochs=0.5)


@named("history predict", 2)
def settings_with_a_bundle_at_a_name_that_is_too_long(world: Path) -> None:
    _change_settings(world, None, bundle_folder="/x" * 5000)


@named("history predict", 2)
def settings_with_a_bundle_elsewhere(world: Path) -> None:
    _change_settings(world, None, bundle_folder="../../../../etc\x00")


def _change_settings(world: Path, part: str | None, **changes: object) -> None:
    path = world / "run/settings.json"
    data = json.loads(path.read_text())
    (data if part is None else data[part]).update(changes)
    path.write_bytes(as_json(data))
