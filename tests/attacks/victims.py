"""Each reader with a small good input of its own, what it may end in, and how its hashes are forged."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from made_runs import make_events, make_result
from PIL import Image
from safetensors.numpy import save

from edge_zofc.algorithm.options import make_options
from edge_zofc.device.profiles import load_profile
from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.pixel_store import Picture, PixelStore
from edge_zofc.engine.state import RunState, TaskProgress
from edge_zofc.inference.transforms import load_test, load_train
from edge_zofc.report.curves import read_log
from edge_zofc.report.summary import summary
from edge_zofc.storage import bundle, checkpoint, journal, manifest
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.journal import Header, Journal, Kind, Record
from edge_zofc.storage.manifest import ImageSpec
from edge_zofc.storage.result import check_result, read_result
from edge_zofc.storage.settings import Placement, Settings, read_settings, write_settings

P, D, SIDE = 12, 4, 8
SPEC = ImageSpec(size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_fraction=1.0)

Seal = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Victim:
    """``file`` is attacked, ``read`` reads it; ``codes`` are the exit codes that a bare change may end in (0: it is
    still good), ``sealed_codes`` those of a change whose hashes ``seal`` made right again; ``forged``: whole files that
    only somebody with bad intent writes.
    """

    name: str
    file: Path
    read: Callable[[], object]
    codes: set[int]
    sealed_codes: set[int] = field(default_factory=set)
    seal: Seal | None = None
    forged: Callable[[], Iterator[tuple[str, bytes]]] = lambda: iter(())

    def __str__(self) -> str:
        return self.name


# --- bundle ----------------------------------------------------------------------------------------------


def tiny_bundle(folder: Path) -> bundle.Bundle:
    """A bundle that every reader takes and no onnxruntime: its graph is three bytes."""
    folder.mkdir(parents=True)
    (folder / manifest.GRAPH).write_bytes(b"abc")
    (folder / manifest.WEIGHTS).write_bytes(bytes(40))
    theta = (np.arange(P, dtype=np.float32) - 5) * np.float32(2.0**-10)
    (folder / manifest.ADAPTER).write_bytes(save({"adapter": theta}))
    probe = {
        "images": np.ones((1, 3, SIDE, SIDE), np.float32),
        "adapters": theta[None],
        "features": np.ones((1, 1, D), np.float32),
    }
    (folder / manifest.PROBE).write_bytes(save(probe))
    layout = {"blocks": [0], "rank": 1, "scale": 0.1, "pieces": [{"name": "down", "shape": [3, 4], "offset": 0}]}
    manifest.write_manifest(
        folder,
        manifest.Manifest.model_validate({
            "format_version": 1,
            "written_by": {"edge-zofc": "0.1.0"},
            "backbone": {"name": "tiny", "source": "random", "weights_sha256": "a" * 64, "depth": 1, "pooling": "avg"},
            "image": SPEC.model_dump(),
            "adapter": layout,
            "feature_size": D,
            "precision": "fp32",
            "fidelity": {"eps": 0.001, "directions": 64, "one_sided": 0.99, "two_sided": 1.0},
            "activation_bytes": {"fixed": 1, "per_image": 2, "per_image_and_adapter": 3},
            "files": {name: entry((folder / name).read_bytes()) for name in manifest.FILES},
        }),
    )  # fmt: skip
    return read_bundle(folder)


def entry(raw: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def rewrite_manifest(folder: Path, name: str, raw: bytes) -> None:
    """Make the manifest agree with a file that was changed."""
    path = folder / manifest.MANIFEST
    data = json.loads(path.read_text())
    data["files"][name] = entry(raw)
    path.write_text(json.dumps(data))


def bundle_victims(folder: Path) -> Iterator[Victim]:
    """The manifest, and each file with its hash wrong and with its hash made right."""
    tiny = tiny_bundle(folder / "bundle")

    def read_all() -> object:
        found = read_bundle(tiny.folder)
        return found.initial_adapter(), found.probe()

    yield Victim("manifest", tiny.folder / manifest.MANIFEST, lambda: read_bundle(tiny.folder), {0, 2, 5})
    for name in manifest.FILES:

        def seal(raw: bytes, name: str = name) -> bytes:
            rewrite_manifest(tiny.folder, name, raw)
            return raw

        parsed = name.endswith(".safetensors")
        yield Victim(name, tiny.folder / name, read_all, {5}, {0, 5} if parsed else {0}, seal if parsed else None)


# --- journal ---------------------------------------------------------------------------------------------

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
    def apply(self, step: int, coefficients: np.ndarray, learning_rate: float) -> None:
        assert np.isfinite(coefficients).all()

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


def journal_victim(folder: Path) -> Victim:
    """Read, replayed and opened for appending."""
    path = folder / "journal.bin"
    with Journal.create(path, HEADER) as log:
        for record in RECORDS:
            log.append(record)

    def read_all() -> object:
        list(journal.read(path)[1])
        return journal.replay(path, _Counter())

    return Victim("journal", path, read_all, {0, 2, 5}, {0, 2, 5}, seal_journal)


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


def small_state(tiny: bundle.Bundle) -> RunState:
    """One finished task of two classes and one under way, with the cosine head's optimiser."""
    state = RunState.of(tiny, make_options("paper", {"epochs": 2}))
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
    state.begin_optimiser()
    return state


def snapshot_victims(folder: Path) -> Iterator[Victim]:
    """The file itself, and the JSON state in it with the file's hash made right."""
    tiny = tiny_bundle(folder / "bundle")
    state = small_state(tiny)
    path = checkpoint.save(folder, state.to_snapshot())
    good = path.read_bytes()

    def read() -> object:
        found = checkpoint.load(path)
        RunState.of(tiny, make_options("paper", {"epochs": 2})).restore(found)
        return found

    yield Victim("snapshot", path, read, {5}, {0, 2, 5}, seal_snapshot)
    # Here "the file" is the state as JSON text; what reaches the disk is a snapshot that holds it.
    text = folder / "state.json"
    text.write_text(json.dumps(state.to_snapshot().metadata))
    yield Victim("snapshot state", text, read_of(text, path, good, read), {0, 5})


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

    result = {**make_result(2), "tasks": make_result(2)["tasks"]}
    (folder / "result.json").write_text(json.dumps(result))

    def show() -> object:
        return summary(check_result(read_result(folder).model_dump()).model_dump())

    yield Victim("result.json", folder / "result.json", show, {0, 5})
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in make_events(make_result(1, steps=4))))
    yield Victim("events.jsonl", folder / "events.jsonl", lambda: read_log(folder), {0})

    rows = np.arange(2 * (D + 1), dtype=np.float32).reshape(2, D + 1)
    rows[:, 0] = [0, 1]
    pictures, theta = PictureSet("kept", (Path("a"), Path("b"))), np.zeros(3, np.float32)
    writer = FeatureStore(folder / "features", D)
    writer.folder.mkdir()
    writer._append(pictures, theta, rows)

    def read_features() -> object:
        store = FeatureStore(folder / "features", D)
        for positions, features in store.rows(pictures, theta):
            assert features.tobytes() == rows[positions, 1:].tobytes(), "damaged features pass for good"
        return len(store.kept(pictures, theta))

    yield Victim("features", writer.folder / writer.name(pictures, theta), read_features, {0})

    shown = Picture(folder / "shown.png", "kept.u8")
    Image.new("RGB", (4 * SIDE, 4 * SIDE), (10, 20, 30)).save(shown.path)

    def read_pixels() -> object:
        out = np.empty((3, SIDE, SIDE), np.float32)
        PixelStore(writer.folder, SPEC).load(shown, True, out)
        assert out.tobytes() == load_test(shown.path, SPEC).tobytes(), "damaged pixels pass for good"
        return None

    read_pixels()
    yield Victim("pixels", writer.folder / "kept.u8", read_pixels, {0})


PROFILE = b"""name = "mine"
description = "a board"
ram_mib = 2000
system_reserve_mib = 500
learning_budget_mib = 1000
threads = 2
verified_on_hardware = false
[[providers]]
name = "CPUExecutionProvider"
options = { a = "b" }
"""


def profile_victim(folder: Path) -> Victim:
    """A board's TOML."""
    path = folder / "mine.toml"
    path.write_bytes(PROFILE)
    return Victim("profile", path, lambda: load_profile(str(path)), {0, 2})


# --- pictures --------------------------------------------------------------------------------------------


def pictures() -> dict[str, bytes]:
    """Small files of every kind that is decoded."""

    def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    pixels = np.random.default_rng(0).integers(0, 256, (7, 10, 3), dtype=np.uint8)
    picture, other = Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encoded(picture, "JPEG", exif=exif),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "png": encoded(picture, "PNG", exif=exif),
        "palette": encoded(picture.quantize(4), "PNG", transparency=b"\0\x80"),
        "apng": encoded(picture, "PNG", save_all=True, append_images=[other]),
        "webp": encoded(picture, "WEBP", exif=exif),
        "lossless": encoded(picture.convert("RGBA"), "WEBP", lossless=True),
    }


def picture_victims(folder: Path) -> Iterator[Victim]:
    """Both transforms, into a batch that must stay finite."""
    for kind, raw in pictures().items():
        path = folder / f"{kind}.jpg"
        path.write_bytes(raw)

        def read(path: Path = path) -> object:
            found = load_test(path, SPEC), load_train(path, SPEC, (1, 2))
            assert all(np.isfinite(array).all() for array in found)
            return found

        yield Victim(kind, path, read, {0, 2})


def all_victims(folder: Path) -> Iterator[Victim]:
    """Every reader, each below a folder of its own."""
    for name, make in (
        ("bundle", bundle_victims),
        ("journal", lambda place: [journal_victim(place)]),
        ("snapshot", snapshot_victims),
        ("run", run_victims),
        ("profile", lambda place: [profile_victim(place)]),
        ("pictures", picture_victims),
    ):
        place = folder / name
        place.mkdir()
        yield from make(place)
