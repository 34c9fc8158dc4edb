"""Pictures: values one can do by hand, torchvision as the reference, and files nobody checked."""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from edge_zofc.errors import ImageError
from edge_zofc.inference import decode, formats
from edge_zofc.inference.transforms import load_test, load_train, random_crop
from edge_zofc.storage.bundle import ImageSpec

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
REAL = Path(__file__).parents[3] / "shared" / "data" / "grocery"


def spec(size: int = 16, crop_fraction: float = 1.0, interpolation: Interpolation = "bicubic") -> ImageSpec:
    return ImageSpec(
        size=size, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2), interpolation=interpolation, crop_fraction=crop_fraction
    )


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth noise: big soft blots, as pictures have."""
    rows = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(rows).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- numbers one can do in one's head


def test_a_grey_picture_becomes_x_over_255_minus_mean_over_std(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (20, 20), (51, 102, 153)).save(path)
    plain = load_test(path, spec(), normalise=False)
    assert plain.shape == (3, 16, 16)
    assert plain.dtype == np.float32
    assert plain.flags.c_contiguous
    assert np.allclose(plain[:, 3, 3], [0.2, 0.4, 0.6])
    assert np.allclose(load_test(path, spec())[:, 3, 3], [-0.6, 0.0, 1.5])


def test_the_test_transform_shows_the_middle_of_a_wide_picture(tmp_path: Path) -> None:
    thirds = np.repeat(np.array([[[0] * 3, [51] * 3, [255] * 3]], np.uint8), 16, axis=0).repeat(16, axis=1)
    for name, pixels in (("wide.png", thirds), ("tall.png", thirds.transpose(1, 0, 2))):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / name)
        assert np.allclose(load_test(tmp_path / name, spec(), normalise=False), 0.2)


def test_a_batch_row_is_filled_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise(40, 30).save(path)
    batch = np.full((2, 3, 16, 16), 7, np.float32)
    returned = load_test(path, spec(), out=batch[1])
    assert np.shares_memory(returned, batch)
    assert np.array_equal(batch[1], load_test(path, spec()))
    assert np.all(batch[0] == 7)
    with pytest.raises(ValueError, match="C-contiguous float32"):
        load_test(path, spec(), out=np.zeros((3, 16, 15), np.float32))


def test_a_bad_picture_leaves_the_batch_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(40, 30), "PNG")[:-40])
    row = np.full((3, 16, 16), 7, np.float32)
    with pytest.raises(ImageError):
        load_test(path, spec(), out=row)
    assert np.all(row == 7)


# --- random crops


def test_the_same_key_gives_the_same_crop_and_every_part_of_the_key_counts() -> None:
    keys = [(1, 2, 3, 4), (9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9), (1, 2, 3), (4, 3, 2, 1)]
    crops = [random_crop(500, 400, key) for key in keys]
    assert len(set(crops)) == len(keys)
    assert crops == [random_crop(500, 400, key) for key in keys]


def test_the_crop_of_a_known_key_never_changes() -> None:
    """Golden values: a resumed run on another numpy must see the same pictures (Philox4x64-10 raw words)."""
    assert random_crop(640, 480, (1993, 0, 0, 0)) == ((170, 16, 350, 460), False)
    assert random_crop(640, 480, (1993, 3, 7, 12345)) == ((1, 28, 203, 186), True)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_a_random_crop_lies_inside_of_its_picture(width: int, height: int, seed: int, index: int) -> None:
    crop, _ = random_crop(width, height, (seed, 0, 0, index))
    assert all(value == int(value) for value in crop)
    assert crop.left >= 0 and crop.left + crop.width <= width and crop.width >= 1
    assert crop.top >= 0 and crop.top + crop.height <= height and crop.height >= 1


def test_a_key_of_another_length_is_refused() -> None:
    for key in ((), (1, 2, 3, 4, 5)):
        with pytest.raises(ValueError, match="one to four"):
            random_crop(10, 10, key)


def test_crops_are_spread_as_those_of_torchvision() -> None:
    """Areas, ratios and corners of 1,500 crops: the quantiles of both samples agree within 0.06."""
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    torch.manual_seed(0)
    picture = Image.new("RGB", (400, 300))
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(picture, [0.05, 1.0], [3 / 4, 4 / 3]) for _ in range(1500)]
    )
    drawn = [random_crop(400, 300, (0, 0, 0, i)) for i in range(1500)]
    ours = np.array([(crop.top, crop.left, crop.height, crop.width) for crop, _ in drawn])
    for measure in (
        lambda b: b[:, 2] * b[:, 3] / 120_000,
        lambda b: np.log(b[:, 3] / b[:, 2]),
        lambda b: b[:, 0] / 300,
        lambda b: b[:, 1] / 400,
    ):
        quantiles = np.linspace(0.02, 0.98, 25)
        assert np.allclose(np.quantile(measure(theirs), quantiles), np.quantile(measure(ours), quantiles), atol=0.06)
    assert abs(np.mean([flip for _, flip in drawn]) - 0.5) < 0.05


def test_a_strip_falls_back_to_torchvisions_centred_crop() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    for size in ((1000, 10), (10, 1000), (777, 8)):
        theirs = transforms.RandomResizedCrop.get_params(Image.new("RGB", size), [0.05, 1.0], [3 / 4, 4 / 3])
        crop, _ = random_crop(*size, (5,))
        assert (crop.top, crop.left, crop.height, crop.width) == theirs


# --- torchvision is the reference


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize(("width", "height"), [(61, 47), (47, 61), (40, 40), (333, 95), (20, 31), (16, 16)])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.9, 0.875])
def test_the_test_transform_is_torchvisions(
    tmp_path: Path, interpolation: Interpolation, width: int, height: int, crop_fraction: float
) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode(interpolation)
    picture, wanted = noise(width, height), spec(32, crop_fraction, interpolation)
    picture.save(tmp_path / "a.png")
    reference = transforms.Compose(
        [
            transforms.Resize(math.floor(32 / crop_fraction), interpolation=mode),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
        ]
    )
    ours = load_test(tmp_path / "a.png", wanted, normalise=False)
    difference = np.abs(ours - reference(picture).numpy())
    assert difference.max() == 0
    full = transforms.Normalize(wanted.mean, wanted.std)(reference(picture)).numpy()
    assert np.array_equal(load_test(tmp_path / "a.png", wanted), full)


@pytest.mark.parametrize("index", range(8))
def test_the_training_transform_is_torchvisions_crop_and_flip(tmp_path: Path, index: int) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    picture, key = noise(61, 47), (3, 1, 4, index)
    picture.save(tmp_path / "a.png")
    crop, flip = random_crop(61, 47, key)
    box = [int(crop.top), int(crop.left), int(crop.height), int(crop.width)]
    cut = functional.resized_crop(picture, *box, [16, 16], interpolation=functional.InterpolationMode.BICUBIC)
    reference = functional.to_tensor(functional.hflip(cut) if flip else cut).numpy()
    assert np.array_equal(load_train(tmp_path / "a.png", spec(), key, normalise=False), reference)


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


def test_real_pictures_agree_with_torchvision_although_they_are_decoded_smaller() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    if not REAL.is_dir():
        pytest.skip(f"no real pictures in {REAL}")
    mode = transforms.InterpolationMode.BICUBIC
    reference = transforms.Compose(
        [transforms.Resize(107, interpolation=mode), transforms.CenterCrop(96), transforms.ToTensor()]
    )
    for path in sorted(REAL.glob("test/*/*.jpg"))[:200:20]:
        with Image.open(path) as picture:
            theirs = reference(picture.convert("RGB")).numpy()
        assert np.abs(load_test(path, spec(96, 0.89), normalise=False) - theirs).mean() < 0.01
