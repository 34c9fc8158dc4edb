"""Each reader with a small good input of its own, what it may end in, and how its hashes are forged."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jpegs import with_thumbnail
from PIL import Image
from victim import SPEC, Victim, rewrite_manifest, tiny_bundle
from victims_fleet import fleet_victims
from victims_lesson import lesson_victims
from victims_run import journal_victims, run_victims, snapshot_victims

from edge_zofc.device.profiles import load_profile
from edge_zofc.inference.transforms import load_test, load_train
from edge_zofc.live.jpegs import Splitter, is_picture
from edge_zofc.storage import manifest
from edge_zofc.storage.bundle import read_bundle


def bundle_victims(folder: Path) -> Iterator[Victim]:
    """The manifest, and each file with its hash wrong and with its hash made right."""
    tiny = tiny_bundle(folder / "bundle")

    def read_all() -> object:
        found = read_bundle(tiny.folder)
        return [one.initial_adapter() for one in found.starts()], found.probe()

    yield Victim("manifest", tiny.folder / manifest.MANIFEST, lambda: read_bundle(tiny.folder), {0, 2, 5})
    for name in (*manifest.FILES, *manifest.GRADIENT_FILES, manifest.UNTUNED):

        def seal(raw: bytes, name: str = name) -> bytes:
            rewrite_manifest(tiny.folder, name, raw)
            return raw

        parsed = name.endswith(".safetensors")
        yield Victim(name, tiny.folder / name, read_all, {5}, {0, 5} if parsed else {0}, seal if parsed else None)


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


def pipe_victim(folder: Path) -> Victim:
    """What a camera's child writes: nothing but whole pictures comes out of it."""
    path = folder / "pipe"
    path.write_bytes(b"text\n" + with_thumbnail() + pictures()["progressive"] + with_thumbnail(1))

    def read() -> object:
        raw, splitter = path.read_bytes(), Splitter()
        found = [jpeg for at in range(0, len(raw), 300) for jpeg in splitter.feed(raw[at : at + 300])]
        assert all(map(is_picture, found))
        return found

    return Victim("camera's pipe", path, read, {0})


def all_victims(folder: Path) -> Iterator[Victim]:
    """Every reader, each below a folder of its own."""
    for name, make in (
        ("bundle", bundle_victims),
        ("journal", journal_victims),
        ("snapshot", snapshot_victims),
        ("run", run_victims),
        ("fleet", fleet_victims),
        ("lesson", lesson_victims),
        ("profile", lambda place: [profile_victim(place)]),
        ("pictures", picture_victims),
        ("camera", lambda place: [pipe_victim(place)]),
    ):
        place = folder / name
        place.mkdir()
        yield from make(place)
