"""Streams, pictures and profiles from somebody with bad intent."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

from named import named
from PIL import Image


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (head, *chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def _bombs() -> dict[str, bytes]:
    many = zlib.compress(bytes(64 << 20), 9)
    jpeg = io.BytesIO()
    Image.new("L", (16, 16)).save(jpeg, "JPEG")
    raw = bytearray(jpeg.getvalue())
    at = raw.index(b"\xff\xc0") + 5
    raw[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return {
        "png of 10 gigapixels": _png(100_000, 100_000, (b"IDAT", many)),
        "png of text": _png(1, 1, (b"zTXt", b"a\0\0" + many), (b"IDAT", zlib.compress(bytes(4)))),
        "png profile": _png(1, 1, (b"iCCP", b"a\0\0" + many), (b"IDAT", zlib.compress(bytes(4)))),
        "jpeg of 4 gigapixels": bytes(raw),
        "webp of 268 megapixels": b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x0f" + bytes(8),
    }


@named("predict", 2)
def pictures_that_are_bombs(world: Path) -> None:
    for index, raw in enumerate(_bombs().values()):
        (world / f"stream/000_task/test/class00/bomb{index}.png").write_bytes(raw)


@named("learn", 2)
def a_task_of_bombs(world: Path) -> None:
    for index, raw in enumerate(_bombs().values()):
        (world / f"stream/001_task/train/class02/bomb{index}.png").write_bytes(raw)


@named("learn", 2, is_slow=True)
def a_class_of_a_hundred_thousand_empty_files(world: Path) -> None:
    folder = world / "stream/001_task/train/class02"
    for number in range(100_000):
        os.close(os.open(f"{folder}/{number}.png", os.O_CREAT | os.O_WRONLY))


@named("learn", 0, is_slow=True)
def a_hundred_thousand_files_that_are_no_pictures(world: Path) -> None:
    folder = world / "stream/001_task/train/class02"
    for number in range(100_000):
        os.close(os.open(f"{folder}/{number}.txt", os.O_CREAT | os.O_WRONLY))


def _copy_task(world: Path, task: bytes, *classes: bytes) -> None:
    good = world / "stream/001_task/train/class02"
    for name in classes:
        shutil.copytree(good, world / "stream" / os.fsdecode(task) / "train" / os.fsdecode(name))


@named("learn", 0)
def names_that_are_not_utf8(world: Path) -> None:
    _copy_task(world, b"002_\xff\xfe", b"\xc3\x28", b"\xff")


@named("learn", 0)
def names_that_fool_a_terminal_or_a_parser(world: Path) -> None:
    _copy_task(world, b"002_a\nb", b"\x1b[2J", b"...", b"a b\\x", b"%s{0}$(x)", "\u202egnp".encode())


@named("learn", 0)
def names_of_255_bytes(world: Path) -> None:
    _copy_task(world, b"002_" + b"x" * 251, b"y" * 255, b"z" * 254)


@named("learn", 0)
def tasks_whose_numbers_are_huge(world: Path) -> None:
    _copy_task(world, b"9" * 200 + b"_x", b"a", b"b")


@named("learn", 0, 2)
def a_class_that_is_a_link_in_a_circle(world: Path) -> None:
    (world / "stream/001_task/train/self").symlink_to("..")
    (world / "stream/001_task/train/loop").symlink_to("loop")


@named("new", 2)
@named("learn eval", 0)  # train pictures of learnt tasks may be deleted, and test pictures alone are evaluated
def a_stream_that_is_a_file(world: Path) -> None:
    shutil.rmtree(world / "stream/000_task/train")
    for part in ("000_task/test", "001_task", "002_task"):
        (world / "kept").mkdir(exist_ok=True)
        if part != "000_task/test" and (world / "stream" / part).exists():
            shutil.rmtree(world / "stream" / part)
    shutil.copytree(world / "stream/000_task/test/class00", world / "kept/class00")
    (world / "stream/001_task").write_text("no folder")


@named("plan", 2)
def a_profile_of_a_gigabyte(world: Path) -> None:
    with (world / "board.toml").open("wb") as file:
        file.truncate(1 << 30)


@named("plan", 2)
def a_profile_nested_ten_thousand_deep(world: Path) -> None:
    (world / "board.toml").write_bytes(b"a = " + b"[" * 10_000)
