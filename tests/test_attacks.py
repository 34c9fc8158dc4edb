"""Every reader under attack: each input ends in the right error class, in one sentence, in time, and writes nothing."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks.changes import as_json, cuts, flips, noise, wild_fields
from attacks.judge import bounded_memory, tree, verdict
from attacks.victims import Victim, all_victims

NAMES = (
    "manifest", "backbone.onnx", "backbone.onnx.data", "adapter.safetensors", "probe.safetensors", "journal",
    "snapshot", "snapshot state", "settings.json", "result.json", "events.jsonl", "frozen features", "profile", "jpeg",
    "progressive", "png", "palette", "apng", "webp", "lossless",
)  # fmt: skip


FEW, EVERY = 200, 1 << 20
"""At how many places a file is cut and flipped in the ordinary tests, and in the slow ones: at every byte."""


def generated(victim: Victim, most: int) -> Iterator[tuple[str, bytes, set[int]]]:
    """(what was done, the file's bytes, the exit codes it may end in)."""
    good = victim.file.read_bytes()
    for source in (cuts(good, most), flips(good, most), noise(good, 100)):
        for what, raw in source:
            if raw != good:
                yield what, raw, victim.codes
    value = json.loads(good) if victim.file.suffix == ".json" else None
    if value is not None:
        for what, changed in itertools.islice(wild_fields(value), 0, None, 1 if most == EVERY else 3):
            yield what, as_json(changed), victim.codes
    if victim.seal is not None:
        for source in (cuts(good, most), flips(good, most, seed=7), noise(good, 100)):
            for what, raw in source:
                yield f"sealed: {what}", victim.seal(raw), victim.sealed_codes


def attack(victim: Victim, most: int) -> Counter[int]:
    """Every generated input of one reader; how many ended in which exit code."""
    good, ends = victim.file.read_bytes(), Counter[int]()
    manifest = victim.file.parent / "bundle.json"
    spared = manifest.read_bytes() if manifest.exists() else b""
    for what, raw, codes in generated(victim, most):
        victim.file.write_bytes(raw)
        ends[verdict(victim.read, codes, f"{victim}: {what}")] += 1
        if spared and victim.file != manifest:
            manifest.write_bytes(spared)  # a seal may have changed it
    victim.file.write_bytes(good)
    return ends


def check(tmp_path: Path, name: str, most: int) -> Counter[int]:
    """Attack one reader. Nothing but the attacked file is written to, and the process does not grow."""
    (tmp_path / "victims").mkdir()
    (victim,) = (found for found in all_victims(tmp_path / "victims") if found.name == name)
    assert verdict(victim.read, {0}, "the good file") == 0
    before = tree(tmp_path).keys()
    with bounded_memory():
        ends = attack(victim, most)
    assert tree(tmp_path).keys() == before
    return ends


@pytest.mark.parametrize("name", NAMES)
def test_a_file_changed_in_any_way_is_read_or_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    assert sum(check(tmp_path, name, FEW).values()) > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_file_changed_at_every_byte_is_read_or_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    assert sum(check(tmp_path, name, EVERY).values()) > 80


def test_there_are_more_than_ten_thousand_inputs(tmp_path: Path) -> None:
    count = sum(1 for victim in all_victims(tmp_path) for _ in generated(victim, FEW))
    assert count > 10_000
