"""The readers of a run's files: journal, snapshots, settings, result, events and kept features."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_runs import make_events, make_result
from PIL import Image
from victim import SPEC, D, Victim, tiny_bundle

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.directions import BALANCED, GRADIENT
from edge_zofc.algorithm.options import Options, make_options
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.pixel_store import Picture, PixelStore
from edge_zofc.engine.progress import Gate, TaskProgress
from edge_zofc.engine.state import RunState
from edge_zofc.inference.transforms import load_test
from edge_zofc.report.classes import cards, matrix, pairs
from edge_zofc.report.curves import read_log
from edge_zofc.report.pictures import Gallery, gallery
from edge_zofc.report.summary import summary
from edge_zofc.storage import bundle, checkpoint, journal
from edge_zofc.storage.journal import Header, Journal, Kind, Record
from edge_zofc.storage.result import WrongPictures, check_result, read_result
from edge_zofc.storage.settings import Placement, Settings, read_settings, write_settings

HEADER = Header(seed=7, bundle_identity="0123456789abcdef" * 4, adapter_size=3, eps=0.25, momentum=0.5, queries=2)
RECORDS = (
    Record(Kind.TASK_START, 0, 0),
    Record(Kind.STEP, 0, 0, 0.5, (1.0, -2.0)),
    Record(Kind.STEP, 0, 1, 0.5, (0.0, 0.25)),
    Record(Kind.TASK_END, 0, 2),
    Record(Kind.TASK_START, 1, 2),
    Record(Kind.STEP, 1, 2, 0.5, (3.0, 4.0)),
    Record(Kind.ROLLBACK, 0, 2),
)


class _Counter:
    theta = np.zeros(3, np.float32)

    def rest(self, initial: np.ndarray) -> None:
        assert np.isfinite(initial).all()

    def apply(self, step: int, coefficients: np.ndarray, learning_rate: float) -> None:
        assert np.isfinite(coefficients).all()

    def apply_gradient(self, gradient: np.ndarray, learning_rate: float) -> None:
        assert gradient.shape == (3,) and np.isfinite(gradient).all()

    def reset_velocity(self) -> None:
        pass


def seal_journal(raw: bytes) -> bytes:
    """A journal whose every CRC fits, whatever it says."""
    head = raw[:104]
    start = zlib.crc32(head)
    size = struct.unpack_from("<I", head, 20)[0] if len(head) == 104 else 0
    size = size if 8 <= size <= 4096 else HEADER.record_bytes
    pieces = [head + struct.pack("<I", start)]
    for at in range(108, len(raw), size):
        body = raw[at : at + size - 4]
        pieces.append(body + struct.pack("<I", zlib.crc32(body, start)))
    return b"".join(pieces)


def with_gradient(record: Record) -> Record:
    """The same record with its coefficients and a zero as a gradient of three entries."""
    if record.kind is not Kind.STEP:
        return record
    return replace(record, coefficients=(), gradient=np.array([*record.coefficients, 0.0], np.float32))


def journal_victims(folder: Path) -> Iterator[Victim]:
    """Read and replayed: version 1, version 3 with a rest, and version 4, which holds gradients."""
    resting = (*RECORDS[:3], Record(Kind.REST, 0, 2), *RECORDS[3:])
    balanced = replace(HEADER, directions=BALANCED, optimizer="adam")
    dense = replace(balanced, directions=GRADIENT, queries=0)
    cases = (
        ("journal", HEADER, RECORDS),
        ("balanced journal", balanced, resting),
        ("gradient journal", dense, tuple(map(with_gradient, resting))),
    )
    for name, header, records in cases:
        path = folder / f"{name}.bin"
        with Journal.create(path, header) as log:
            for record in records:
                log.append(record)

        def read_all(path: Path = path) -> object:
            list(journal.read(path)[1])
            return journal.replay(path, _Counter())

        yield Victim(name, path, read_all, {0, 2, 5}, {0, 2, 5}, seal_journal)


# --- snapshot --------------------------------------------------------------------------------------------


def seal_snapshot(raw: bytes) -> bytes:
    """A snapshot with a right SHA-256 and a right header length where there is a header."""
    raw = raw[:35] + b"0" * 64 + raw[99:]
    return raw[:35] + hashlib.sha256(raw).hexdigest().encode() + raw[99:]


def seal_state(raw: bytes, state: bytes) -> bytes:
    """A snapshot whose JSON state was replaced."""
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header["__metadata__"]["state"] = state.decode("utf-8", "surrogatepass")
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return seal_snapshot(len(text).to_bytes(8, "little") + text + data)


def moved_state(tiny: bundle.Bundle) -> RunState:
    """The same tasks in the edge preset, whose adapter moved and was judged."""
    state = RunState.of(tiny, make_options("edge", {}))
    fill_tasks(state)
    assert state.statistics is not None
    state.statistics = Statistics.of_whole(np.ones((3, D)), np.array([2, 2, 0]), 3 * np.eye(D))
    state.frozen_moment, state.prototype_sums = symmetric.pack(2 * np.eye(D)), np.ones((3, D))
    state.adapter.theta += np.float32(2.0**-10)
    progress = state.progress
    progress.tasks[0].gate = Gate(held_out=4, right_frozen=2, right_moved=3, only_frozen=0, only_moved=1, keeps=True)
    progress.frozen.correct, progress.frozen.correct_by_class = [[2]], [1, 1, 0]
    progress.only_frozen, progress.only_moved = 0, 1
    return state


def small_state(tiny: bundle.Bundle) -> RunState:
    """One finished task of two classes and one under way, with the cosine head's optimiser."""
    state = RunState.of(tiny, make_options("paper", {"epochs": 2}))
    fill_tasks(state)
    state.begin_optimiser()
    return state


def fill_tasks(state: RunState) -> None:
    """One finished task of two classes and one under way."""
    progress = state.progress
    state.add_classes(["cup", "jar", "pot"], np.ones((3, D), np.float32))
    progress.tasks = [
        TaskProgress(name="000_a", class_ids=[0, 1], steps=3, first_loss=0.5, fingerprint="f" * 64, unreadable=[1]),
        TaskProgress(name="001_b", class_ids=[1, 2], first_losses=[0.5]),
    ]
    progress.phase, progress.total, progress.step = "training", [4], 3
    for counts in (progress.learner, progress.floor):
        counts.correct, counts.correct_by_class = [[3]], [1, 2, 0]
    progress.total_by_class = [2, 2, 0]
    progress.wrong_pictures = [WrongPictures(class_id=0, named_id=1, paths=["000_a/test/cup/1.png"])]
    state.confusion = np.array([[0, 1, 1]], np.int64)


def snapshot_victims(folder: Path) -> Iterator[Victim]:
    """The file itself, and the JSON state in it with the file's hash made right: of both presets."""
    tiny = tiny_bundle(folder / "bundle")
    for name, preset, state in (
        ("snapshot", "paper", small_state(tiny)),
        ("moved snapshot", "edge", moved_state(tiny)),
    ):
        place = folder / preset
        place.mkdir()
        path = checkpoint.save(place, state.to_snapshot())
        good, options = path.read_bytes(), make_options(preset, {})

        def read(path: Path = path, options: Options = options) -> object:
            found = checkpoint.load(path)
            RunState.of(tiny, options).restore(found)
            return found

        yield Victim(name, path, read, {5}, {0, 2, 5}, seal_snapshot)
        # Here "the file" is the state as JSON text; what reaches the disk is a snapshot that holds it.
        text = place / "state.json"
        text.write_text(json.dumps(state.to_snapshot().metadata))
        yield Victim(f"{name} state", text, read_of(text, path, good, read), {0, 5})


def read_of(text: Path, path: Path, good: bytes, read: Callable[[], object]) -> Callable[[], object]:
    """Put what ``text`` holds into the snapshot at ``path``, then read that."""

    def forge_and_read() -> object:
        path.write_bytes(seal_state(good, text.read_bytes().decode("utf-8", "replace").encode()))
        return read()

    return forge_and_read


# --- settings, results, events, cache, profiles ------------------------------------------------------------


def run_victims(folder: Path) -> Iterator[Victim]:
    """The other files of a run folder."""
    tiny = tiny_bundle(folder / "bundle")
    write_settings(folder, Settings.of(tiny, make_options("edge", {}), Placement.simple(4, 2), folder))
    yield Victim("settings.json", folder / "settings.json", lambda: read_settings(folder).options, {0, 5})

    wrong = [{"class_id": 0, "named_id": 1, "paths": ["000_pair/test/digit 0/1.png"]}]
    won = {"pictures": 4, "right_frozen": 2, "right_moved": 3, "gain": 0.25, "low": -0.2, "high": 0.7}
    moved = {"state": "moved", "held_out": won, "tested": won}
    result = make_result(2, wrong_pictures=wrong, stream_folder="../stream", adapter=moved)
    (folder / "result.json").write_text(json.dumps(result))

    def show() -> object:
        found = read_result(folder)
        shown = cards(found), matrix(found), pairs(found, Gallery()), gallery(found, folder, None, range(4))
        return summary(check_result(found.model_dump()).model_dump()), shown

    yield Victim("result.json", folder / "result.json", show, {0, 5})
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in make_events(make_result(1, steps=4))))
    yield Victim("events.jsonl", folder / "events.jsonl", lambda: read_log(folder), {0})

    rows = np.arange(2 * (D + 1), dtype=np.float32).reshape(2, D + 1)
    rows[:, 0] = [0, 1]
    pictures, theta = PictureSet("kept", (Path("a"), Path("b"))), np.zeros(3, np.float32)
    writer = FeatureStore(folder / "features", D)
    writer.folder.mkdir()
    writer.append(pictures, theta, rows)

    def read_features() -> object:
        store = FeatureStore(folder / "features", D)
        for positions, features in store.rows(pictures, theta):
            assert features.tobytes() == rows[positions, 1:].tobytes(), "damaged features pass for good"
        return len(store.kept(pictures, theta))

    yield Victim("features", writer.folder / writer.name(pictures, theta), read_features, {0})

    shown = Picture(folder / "shown.png", "kept.u8")
    side = SPEC.size
    Image.new("RGB", (4 * side, 4 * side), (10, 20, 30)).save(shown.path)

    def read_pixels() -> object:
        out = np.empty((3, side, side), np.float32)
        PixelStore(writer.folder, SPEC).load(shown, True, out)
        assert out.tobytes() == load_test(shown.path, SPEC).tobytes(), "damaged pixels pass for good"
        return None

    read_pixels()
    yield Victim("pixels", writer.folder / "kept.u8", read_pixels, {0})
