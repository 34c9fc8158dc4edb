"""Forged journals, snapshots and settings, whose hashes are right."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from changes import as_json
from named import NAMED, Named, Spoil, named
from victims_run import seal_journal, seal_snapshot, seal_state

from edge_zofc.algorithm.directions import GRADIENT
from edge_zofc.storage import journal
from edge_zofc.storage.journal_format import HEADER_BYTES, MOST_GRADIENT, encode_header


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


@named("learn rollback replay", 5)
def a_journal_of_the_largest_gradients(world: Path) -> None:
    """Three records of 64 MiB each, all holes: the file takes no room on the disk."""
    path = world / "run/journal.bin"
    header = journal.read(path)[0]
    forged = replace(header, queries=0, directions=GRADIENT, adapter_size=MOST_GRADIENT)
    path.write_bytes(encode_header(forged))
    os.truncate(path, HEADER_BYTES + 3 * forged.record_bytes)


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


GATE = {"held_out": 4, "right_frozen": 2, "right_moved": 3, "only_frozen": 0, "only_moved": 1, "keeps": True}


@named("learn history predict", 5)
def a_state_whose_gate_does_not_add_up(world: Path) -> None:
    _forge_gate(world, {**GATE, "right_moved": 4})


@named("learn history", 5)
def a_state_whose_gate_saw_more_than_there_was(world: Path) -> None:
    _forge_gate(world, {**GATE, "held_out": 2})


@named("learn history", 0)
def a_state_whose_gate_is_another_possible_one(world: Path) -> None:
    _forge_gate(world, GATE)


@named("learn predict", 5)
def a_state_whose_adapter_won_more_than_it_named(world: Path) -> None:
    _forge_state(world, only_frozen=1)


@named("learn predict", 5)
def a_state_whose_frozen_head_has_a_square_of_answers(world: Path) -> None:
    _forge_state(world, frozen={"correct": [[1, 2]], "correct_by_class": [1]})


def _forge_gate(world: Path, gate: object) -> None:
    for path in (world / "run/state").glob("snapshot-*"):
        (task,) = json.loads(_header(path)["__metadata__"]["state"])["tasks"]
        _forge_state(world, tasks=[{**task, "gate": gate}])


def _header(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    return dict(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]))


def _forge_array(name: str, make: Callable[[int], np.ndarray]) -> Spoil:
    """Puts one more array into each snapshot; ``make`` takes D."""

    def spoil(world: Path) -> None:
        for path in (world / "run/state").glob("snapshot-*"):
            raw, header = path.read_bytes(), _header(path)
            data, array = raw[8 + int.from_bytes(raw[:8], "little") :], make(header["feature_moment"]["shape"][0])
            dtype = {"float64": "F64", "float32": "F32", "int64": "I64"}[array.dtype.name]
            place = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
            text = json.dumps({**header, name: place}, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            path.write_bytes(seal_snapshot(len(text).to_bytes(8, "little") + text + data + array.tobytes()))

    return spoil


ARRAYS: dict[str, Callable[[int], np.ndarray]] = {
    "of another shape": lambda size: np.eye(size + 1),
    "of float32": lambda size: np.eye(size, dtype=np.float32),
    "of whole numbers": lambda size: np.eye(size, dtype=np.int64),
    "that is not a number": lambda size: np.full((size, size), np.nan),
    "of nothing": lambda size: np.zeros((0, 0)),
    "of no task": lambda size: np.zeros((4, size)),  # of the classes that there are, where none is being learnt
}
for _name in ("frozen_moment", "prototype_sums"):
    for _what, _make in ARRAYS.items():
        _title = f"a_{_name}_{_what}".replace(" ", "_")
        NAMED.append(Named(_title, _forge_array(_name, _make), "learn", frozenset({5})))


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
