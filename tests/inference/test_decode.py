"""Picture files: odd but good ones, and files nobody checked."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, noise, spec
from PIL import Image, PngImagePlugin, features

from edge_zofc.errors import ImageError
from edge_zofc.inference import decode, formats
from edge_zofc.inference.transforms import load_test, load_train

# --- odd but good pictures


def upright(orientation: int) -> Callable[[Image.Image], Image.Image]:
    """How a camera would have stored an upright picture that EXIF calls ``orientation``."""
    move = Image.Transpose
    stored = {
        1: None,
        2: move.FLIP_LEFT_RIGHT,
        3: move.ROTATE_180,
        4: move.FLIP_TOP_BOTTOM,
        5: move.TRANSPOSE,
        6: move.ROTATE_90,
        7: move.TRANSVERSE,
        8: move.ROTATE_270,
    }[orientation]
    return lambda picture: picture if stored is None else picture.transpose(stored)


AVIF = ["AVIF"] if features.check("avif") else []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", *AVIF])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_camera_picture_comes_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    picture, path = noise(64, 48), tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.write_bytes(encoded(upright(orientation)(picture), kind, exif=exif, quality=100))
    picture.save(tmp_path / "upright.png")
    for load in (load_test, lambda p, s: load_train(p, s, (1, 2))):
        difference = np.abs(load(path, spec()) - load(tmp_path / "upright.png", spec()))
        assert difference.mean() < 0.05


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", *AVIF])
def test_each_format_that_people_bring_is_read_and_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """FAULTS A1: .bmp, .gif, .tif and .avif files are pictures; of an animation the first frame."""
    picture, path = noise(64, 48), tmp_path / "a.jpg"
    more = {} if kind == "BMP" else {"save_all": True, "append_images": [noise(64, 48, 9)]}
    path.write_bytes(encoded(picture, kind, **more))
    picture.save(tmp_path / "same.png")
    assert np.abs(load_test(path, spec()) - load_test(tmp_path / "same.png", spec())).mean() < 0.1
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="megapixels"):
        load_test(path, spec())


def test_a_tiff_of_huge_tiles_or_of_16_bit_colours_has_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS A1: the memory limit holds for what the decoder holds, not just for the picture's size."""
    path = tmp_path / "a.tif"
    tags = {256: 16, 257: 16, 258: 8, 259: 5, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(struct.pack("<4sIH", b"II*\0", 8, len(tags)) + entries + bytes(4))
    with pytest.raises(ImageError, match=r"900\.0 megapixels"):
        load_test(path, spec())
    monkeypatch.setattr(decode, "MAX_PIXELS", 400)
    path.write_bytes(encoded(Image.new("RGB", (20, 20)), "TIFF"))
    load_test(path, spec())
    path.write_bytes(encoded(Image.new("CMYK", (20, 20)), "TIFF"))
    with pytest.raises(ImageError, match="megapixels"):
        load_test(path, spec())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x20ftypheic\0\0\0\0mif1heic", "is a HEIC picture.*convert it to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1", "is a HEIC picture.*convert it to JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42", "is a film"),
        (b"\r\n<!DOCTYPE html>", "a web page"),
        (b"<svg/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_what_is_no_picture_is_told_with_the_way_out(tmp_path: Path, data: bytes, words: str) -> None:
    """FAULTS A10: say what the file is and what to do."""
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=words):
        load_test(path, spec())


def test_an_avif_without_the_plugin_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS A10."""
    monkeypatch.setattr(formats, "AvifImagePlugin", None)
    path = tmp_path / "a.avif"
    path.write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0avif")
    with pytest.raises(ImageError, match=r"AVIF picture.*Pillow 11.3"):
        load_test(path, spec())


def test_a_png_with_a_large_colour_profile_is_read(tmp_path: Path) -> None:
    """FAULTS A10: the profile is not used, so its size does not matter."""
    path, profile = tmp_path / "a.png", np.random.RandomState(0).bytes(2 << 20)
    noise(40, 30).save(tmp_path / "plain.png")
    noise(40, 30).save(path, icc_profile=profile)
    assert path.stat().st_size > 2 << 20
    assert np.array_equal(load_test(path, spec()), load_test(tmp_path / "plain.png", spec()))


def test_a_broken_link_is_named_as_such(tmp_path: Path) -> None:
    """FAULTS A2."""
    (tmp_path / "a.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(ImageError, match=r"broken link: nowhere\.jpg is missing.*--copy"):
        load_test(tmp_path / "a.jpg", spec())


def test_damaged_exif_costs_the_orientation_and_not_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for junk in (b"Exif\0\0MM\0*\0\0", b"Exif\0\0XX", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03" * 9):
        path.write_bytes(encoded(noise(20, 20), "JPEG", exif=junk))
        assert load_test(path, spec()).shape == (3, 16, 16)


def test_an_orientation_among_damaged_exif_data_still_counts(tmp_path: Path) -> None:
    """A rational of three bytes and text without an end stand behind a good orientation."""
    path, picture = tmp_path / "a.jpg", noise(64, 48)
    entries = [(0x0112, 3, 1, b"\0\x06\0\0"), (0x011A, 7, 3, b"abc\0"), (0x8769, 2, 1 << 31, b"zzzz")]
    body = b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    junk = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + body
    path.write_bytes(encoded(upright(6)(picture), "JPEG", exif=junk, quality=100))
    picture.save(tmp_path / "upright.png")
    assert np.abs(load_test(path, spec()) - load_test(tmp_path / "upright.png", spec())).mean() < 0.05


def test_every_mode_of_pixels_becomes_rgb(tmp_path: Path) -> None:
    """A flat colour survives CMYK, palette, grey, one bit, alpha and 16 bit."""
    red = Image.new("RGB", (20, 20), (255, 0, 0))
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    deep = Image.fromarray(np.full((20, 20), 0x3380, np.uint16))
    cases: list[tuple[bytes, tuple[float, float, float]]] = [
        (encoded(red.convert("CMYK"), "JPEG", quality=100), (1, 0, 0)),
        (encoded(red.convert("P"), "PNG"), (1, 0, 0)),
        (encoded(red.convert("RGBA"), "WEBP", lossless=True), (1, 0, 0)),
        (encoded(Image.new("L", (20, 20), 51), "PNG"), (0.2, 0.2, 0.2)),
        (encoded(Image.new("L", (20, 20), 51), "JPEG", quality=100), (0.2, 0.2, 0.2)),
        (encoded(Image.new("LA", (20, 20), (0, 204)), "PNG"), (0.2, 0.2, 0.2)),  # a fifth of white shows
        (encoded(Image.new("1", (20, 20), 1), "PNG"), (1, 1, 1)),
        (encoded(clear, "PNG"), (1, 1, 1)),
        (encoded(clear, "WEBP", lossless=True), (1, 1, 1)),
        (encoded(palette, "PNG", transparency=b"\0\xff"), (1, 1, 1)),
        (encoded(palette, "PNG", transparency=0), (1, 1, 1)),
        (encoded(Image.new("RGB", (20, 20)), "PNG", transparency=(0, 0, 0)), (1, 1, 1)),
        (encoded(deep, "PNG"), (0.2, 0.2, 0.2)),  # 0x33 of 0xff
    ]
    path = tmp_path / "wrong-suffix.jpg"
    for number, (data, colour) in enumerate(cases):
        path.write_bytes(data)
        found = load_test(path, spec(), normalise=False)
        wanted = np.array(colour, np.float32)[:, None, None]
        assert np.abs(found - wanted).max() < 0.02, f"case {number}"


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20000, 1), (3, 2)])
def test_tiny_and_thin_pictures_are_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG"):
        path = tmp_path / "a"
        path.write_bytes(encoded(Image.new("RGB", size, (51, 51, 51)), kind))
        for loaded in (load_test(path, spec(), normalise=False), load_train(path, spec(), (1,), normalise=False)):
            assert np.abs(loaded - 0.2).max() < 0.02


def test_a_jpeg_decoded_smaller_looks_the_same(tmp_path: Path) -> None:
    picture = noise(1600, 1200)
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "JPEG", quality=95))
    (tmp_path / "a.png").write_bytes(encoded(picture, "PNG", compress_level=1))
    for load in (load_test, lambda p, s: load_train(p, s, (1, 2, 3, 4))):
        difference = np.abs(load(tmp_path / "a.jpg", spec(32)) - load(tmp_path / "a.png", spec(32)))
        assert difference.mean() < 0.02
        assert difference.max() < 0.2


def test_a_jpeg_of_400_megapixels_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    path.write_bytes(encoded(Image.new("L", (20_000, 20_000), 51), "JPEG"))
    assert np.abs(load_test(path, spec(), normalise=False) - 0.2).max() < 0.02


# --- files nobody checked


@pytest.fixture
def bomb() -> bytes:
    """A PNG that says 20,000 x 20,000 and holds almost nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_with_its_size_and_the_limit(tmp_path: Path, bomb: bytes) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    with pytest.raises(ImageError, match=r"400\.0 megapixels .* limit is 24"):
        load_test(path, spec())


def test_a_webp_or_transparent_picture_has_half_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 400)
    path = tmp_path / "a"
    path.write_bytes(encoded(Image.new("RGB", (20, 20)), "PNG"))
    load_test(path, spec())
    for mode, kind in (("RGB", "WEBP"), ("RGBA", "PNG")):
        path.write_bytes(encoded(Image.new(mode, (20, 20)), kind))
        with pytest.raises(ImageError, match="megapixels"):
            load_test(path, spec())


def test_a_progressive_jpeg_is_held_whole_and_so_limited_at_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 5_000)
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(noise(100, 100), "JPEG"))
    load_test(path, spec())
    path.write_bytes(encoded(noise(100, 100), "JPEG", progressive=True))
    with pytest.raises(ImageError, match="megapixels"):
        load_test(path, spec())


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = encoded(noise(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:-2] + data[last:-2] * 5_000 + b"\xff\xd9")
    with pytest.raises(ImageError, match="more than 100 scans"):
        load_test(path, spec())


def test_a_thumbnail_or_an_appended_film_does_not_count_as_scans(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 300
    data = encoded(noise(64, 64), "JPEG", exif=exif) + b"\xff\xda\0\0" * 300
    (tmp_path / "a.jpg").write_bytes(data)
    assert load_test(tmp_path / "a.jpg", spec()).shape == (3, 16, 16)


def test_text_chunks_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 50_000_000, zip=True)
    (tmp_path / "a.png").write_bytes(encoded(noise(20, 20), "PNG", pnginfo=info))
    with pytest.raises(ImageError, match="damaged"):
        load_test(tmp_path / "a.png", spec())


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    names = ["pipe.jpg", "zero.jpg", "loop.jpg", "folder.jpg", "missing.jpg", "a" * 300, "nul\0byte.jpg"]
    for name in names:
        with pytest.raises(ImageError, match=r"regular file|cannot be read|broken link"):
            load_test(tmp_path / name, spec())


def test_empty_foreign_and_oversized_files_say_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="has 0 bytes"):
        load_test(path, spec())
    for foreign in (b"GIF98b", b"svg", b"RIFF\0\0\0\0WAVE", b"\xff\xd8", encoded(noise(9, 9), "ICO")):
        path.write_bytes(foreign)
        with pytest.raises(ImageError, match="not a JPEG, PNG, WebP"):
            load_test(path, spec())
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 100)
    path.write_bytes(encoded(noise(64, 64), "PNG"))
    with pytest.raises(ImageError, match=r"bytes, outside of the limits 1 to 100"):
        load_test(path, spec())


def test_a_name_that_is_not_utf8_gives_a_printable_sentence(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n\x1b[31m.jpg"))
    path.write_bytes(b"junk")
    with pytest.raises(ImageError) as caught:
        load_test(path, spec())
    assert str(caught.value).isprintable()
    assert "caf\\xe9\\n\\x1b[31m.jpg" in str(caught.value).encode().decode()


def test_running_out_of_memory_is_not_a_bad_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(image: Image.Image) -> Image.Image:
        raise MemoryError

    noise(20, 20).save(tmp_path / "a.png")
    monkeypatch.setattr(decode, "_to_rgb", exhausted)
    with pytest.raises(MemoryError):
        load_test(tmp_path / "a.png", spec())


def small_files() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = noise(10, 7)
    return {
        "jpeg": encoded(picture, "JPEG", exif=exif),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "png": encoded(picture, "PNG", exif=exif),
        "palette": encoded(picture.quantize(4), "PNG", transparency=b"\0\x80"),
        "apng": encoded(picture, "PNG", save_all=True, append_images=[noise(10, 7, 1)]),
        "webp": encoded(picture, "WEBP", exif=exif),
        "lossless": encoded(picture.convert("RGBA"), "WEBP", lossless=True),
        "bmp": encoded(picture, "BMP"),
        "gif": encoded(picture.quantize(16), "GIF"),
        "tiff": encoded(picture, "TIFF"),
        "tiff-lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": encoded(picture, "TIFF", compression="jpeg"),
        **{kind.lower(): encoded(picture, kind, exif=exif) for kind in AVIF},
    }


@pytest.mark.parametrize("kind", list(small_files()))
def test_a_file_cut_at_or_changed_in_any_byte_is_a_picture_or_an_image_error(tmp_path: Path, kind: str) -> None:
    """Warnings are errors here, so a Pillow warning that escapes fails this too."""
    data, path, refused = small_files()[kind], tmp_path / "a.jpg", 0
    changed = [data[:length] for length in range(len(data))]
    changed += [data[:i] + bytes([data[i] ^ 0xFF]) + data[i + 1 :] for i in range(len(data))]
    for attack in changed:
        path.write_bytes(attack)
        try:
            loaded = load_test(path, spec(8))
        except ImageError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert np.isfinite(loaded).all()
    # A BMP or a plain TIFF is mostly pixels, each of which may be changed.
    assert refused > len(data) // (4 if kind in ("bmp", "tiff") else 2)
