"""Kept pixels: the same bits as decoding anew, or nothing."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import BY_HEAD, end_state, final_bits, go
from small import picture, write_small_stream

from edge_zofc.engine import pixel_store
from edge_zofc.engine.pixel_store import Picture, PixelStore, slot_bytes
from edge_zofc.errors import ImageError
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import ImageSpec

SPEC = ImageSpec(size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), interpolation="bicubic", crop_fraction=0.9)
SLOT = 16 + 3 * 16 * 16 + 4


@pytest.fixture(autouse=True)
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each picture was decoded for a store. There is room on the disk."""
    real, seen = pixel_store.decode_test, Counter[str]()

    def count(path: Path, spec: ImageSpec) -> Any:
        seen[f"{path.parent.parent.name}/{path.parent.name}/{path.name}"] += 1
        return real(path, spec)

    monkeypatch.setattr(pixel_store, "decode_test", count)
    monkeypatch.setattr(pixel_store, "FREE_BYTES", 1)
    return seen


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A picture with ten times the pixels of the network's input."""
    path = tmp_path / "a/large.png"
    path.parent.mkdir()
    picture(3, 1, side=51).save(path)
    return path


def load(store: PixelStore, path: Path, position: int = 2, normalise: bool = True) -> np.ndarray:
    """The picture through the store, which must give what the test transform gives."""
    out = np.empty((3, 16, 16), np.float32)
    store.load(Picture(path, "set.u8", position), normalise, out)
    assert out.tobytes() == load_test(path, SPEC, normalise=normalise).tobytes()
    return out


@pytest.mark.parametrize("normalise", [True, False])
def test_a_large_picture_is_decoded_once(tmp_path: Path, large: Path, decoded: Counter[str], normalise: bool) -> None:
    """FAULTS D3. Its slot is the third: 16 bytes of key, the pixels, 4 of CRC; another process reads it too."""
    for _ in range(2):
        load(PixelStore(tmp_path, SPEC), large, normalise=normalise)
        load(PixelStore(tmp_path, SPEC), large, normalise=not normalise)
    assert sum(decoded.values()) == 1
    assert (tmp_path / "set.u8").stat().st_size == 3 * SLOT == 3 * slot_bytes(16)


def test_a_small_picture_is_decoded_each_time_and_leaves_nothing(tmp_path: Path, decoded: Counter[str]) -> None:
    """45 x 45 pixels are less than eight times 16 x 16."""
    picture(3, 1, side=45).save(tmp_path / "small.png")
    store = PixelStore(tmp_path, SPEC)
    load(store, tmp_path / "small.png")
    load(store, tmp_path / "small.png")
    assert sum(decoded.values()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]


def test_another_picture_in_its_place_is_seen(tmp_path: Path, large: Path, decoded: Counter[str]) -> None:
    """By size, by time and by name; a picture that is gone is an error as ever."""
    store = PixelStore(tmp_path, SPEC)
    first = load(store, large)
    picture(2, 7, side=51).save(large)
    os.utime(large, ns=(0, 5))
    second = load(store, large)
    assert first.tobytes() != second.tobytes()
    os.utime(large, ns=(0, 6))
    load(store, large)
    load(store, large.rename(large.with_name("other.png")))
    assert sum(decoded.values()) == 4
    with pytest.raises(ImageError):
        store.load(Picture(large, "set.u8", 2), True, np.empty((3, 16, 16), np.float32))


@pytest.mark.parametrize("at", [0, 2 * SLOT, 2 * SLOT + 20, 3 * SLOT - 1])
def test_a_damaged_slot_counts_for_nothing(tmp_path: Path, large: Path, decoded: Counter[str], at: int) -> None:
    """Each byte of the slot counts; one before it does not."""
    load(PixelStore(tmp_path, SPEC), large)
    raw = bytearray((tmp_path / "set.u8").read_bytes())
    raw[at] ^= 1
    (tmp_path / "set.u8").write_bytes(raw)
    load(PixelStore(tmp_path, SPEC), large)
    (tmp_path / "set.u8").write_bytes(raw[: -SLOT // 2])
    load(PixelStore(tmp_path, SPEC), large)
    assert sum(decoded.values()) == (2 if at == 0 else 3)


def test_the_files_are_bounded(
    tmp_path: Path, large: Path, decoded: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for four slots in all: the fifth picture is decoded each time."""
    monkeypatch.setattr(pixel_store, "LIMIT_BYTES", 4 * SLOT)
    for _ in range(2):
        store = PixelStore(tmp_path, SPEC)
        out = np.empty((3, 16, 16), np.float32)
        for name, position in (("a.u8", 0), ("a.u8", 1), ("b.u8", 0), ("b.u8", 1), ("b.u8", 2)):
            store.load(Picture(large, name, position), True, out)
    assert sum(decoded.values()) == 5 + 1
    assert sum(path.stat().st_size for path in tmp_path.glob("*.u8")) == 4 * SLOT


@pytest.mark.parametrize("fault", ["little room", "gone", "a folder in its place"])
def test_a_disk_that_refuses_ends_the_keeping_and_not_the_run(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """It is told once, and what was kept is removed: the room is for the run's own files."""
    folder = tmp_path / "features"
    folder.mkdir()
    store = PixelStore(folder, SPEC)
    load(store, large, position=0)
    if fault == "little room":
        monkeypatch.setattr(pixel_store, "FREE_BYTES", 1 << 60)
    elif fault == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "set.u8").unlink()
        (folder / "set.u8").mkdir()
    caplog.set_level("INFO", logger="edge_zofc")
    for position in (1, 2, 1):
        load(store, large, position)
    assert len(caplog.records) == 1
    assert "Decoded pictures are not kept" in caplog.text
    assert not [path for path in tmp_path.rglob("*.u8") if path.is_file()]


@pytest.fixture
def camera_stream(tmp_path: Path) -> Path:
    """Two tasks of two classes, 4 + 2 pictures of 100 x 100 pixels each, for a network that sees 32 x 32."""
    stream = write_small_stream(tmp_path / "stream", tasks=2, train=4, test=2, alike=True)
    for index, path in enumerate(sorted(stream.rglob("*.png"))):
        picture(index % 6, index, side=100).save(path)
    return stream


@pytest.mark.parametrize("changes", [{}, {"head": "cosine"}, {"augment": "crop"}, {"optimizer": "conserve"}], ids=str)
def test_a_run_decodes_each_large_picture_once_and_learns_the_same_bits(
    small_bundle: Bundle,
    camera_stream: Path,
    tmp_path: Path,
    decoded: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    """FAULTS D3: begin, steps, refresh and the evaluations of later tasks read the same pixels.

    A finished task leaves the pixels of its test pictures alone.
    """
    more: dict[str, Any] = {"changes": {**BY_HEAD, "epochs": 2, "batch_size": 4, "queries": 1, **changes}}
    go(small_bundle, camera_stream, tmp_path / "run", **more)
    assert len(decoded) == 2 * 2 * (4 + 2)
    assert set(decoded.values()) == {1}
    kept = sorted(path.name[:8] for path in (tmp_path / "run/features").glob("*.u8"))
    assert kept == ["000-test", "001-test"]
    monkeypatch.setattr(pixel_store, "KEEP_FACTOR", 1 << 30)
    go(small_bundle, camera_stream, tmp_path / "anew", **more)
    assert max(decoded.values()) > 2
    assert end_state(tmp_path / "run") == end_state(tmp_path / "anew")
    assert final_bits(tmp_path / "run")[0] != small_bundle.initial_adapter().tobytes()


@pytest.mark.parametrize("more", [{"evaluate": "new", "changes": {"epochs": 0}}, {"changes": {"epochs": 0}}], ids=str)
def test_what_is_read_once_is_not_kept(
    small_bundle: Bundle, camera_stream: Path, tmp_path: Path, decoded: Counter[str], more: dict[str, Any]
) -> None:
    go(small_bundle, camera_stream, tmp_path / "run", **more)
    assert set(decoded.values()) == {1}
    assert not list((tmp_path / "run/features").glob("*.u8"))


def test_a_run_goes_on_where_the_pixels_were_deleted_or_a_picture_changed(
    small_bundle: Bundle, camera_stream: Path, tmp_path: Path, decoded: Counter[str]
) -> None:
    """A picture that changes after the task began is decoded anew, as the bits of a run without kept pixels are."""
    changed = sorted((camera_stream / "001_task/train").rglob("*.png"))[0]

    def disturb(trainer: Any, loss: float) -> None:
        if trainer.state.progress.step == 1:
            for path in (tmp_path / "run/features").glob("*.u8"):
                path.unlink()
        if trainer.state.progress.step == 5:
            picture(5, 999, side=100).save(changed)

    go(
        small_bundle,
        camera_stream,
        tmp_path / "run",
        disturb,
        changes={**BY_HEAD, "epochs": 2, "batch_size": 4, "queries": 1},
    )
    assert decoded["train/" + "/".join(changed.parts[-2:])] >= 2


def test_a_run_killed_among_kept_pixels_goes_on_to_the_same_bits(
    small_bundle: Bundle, camera_stream: Path, tmp_path: Path, decoded: Counter[str]
) -> None:
    """A slot torn by the kill is decoded anew, the others are read."""
    changes = {**BY_HEAD, "epochs": 2, "batch_size": 4, "queries": 1}
    go(small_bundle, camera_stream, tmp_path / "whole", changes=changes)
    decoded.clear()

    def die(trainer: Any, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(small_bundle, camera_stream, tmp_path / "run", die, changes=changes)
    kept = next((tmp_path / "run/features").glob("000-train-*.u8"))
    os.truncate(kept, kept.stat().st_size - 1)
    go(small_bundle, camera_stream, tmp_path / "run", changes=changes)
    assert sorted(decoded.values()) == [1] * 23 + [2]
    assert end_state(tmp_path / "run") == end_state(tmp_path / "whole")
