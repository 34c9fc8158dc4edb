"""Picture files that nobody checked -> upright RGB pictures.

JPEG, PNG, WebP, BMP, GIF, TIFF and AVIF are recognised by their content, whatever the suffix says. Every file ends as
upright RGB: EXIF orientation is applied, transparency is laid on white, 16-bit grey keeps its high byte, of an
animation the first frame is taken, embedded colour profiles are ignored.

A JPEG much larger than the crop is decoded at 1/2, 1/4 or 1/8 of its size, as the format allows (DRAFT_MARGIN times the
pixels that the network sees stay in each direction): a picture of 48 megapixels takes no more memory than a small one.

A file is read whole (up to MAX_FILE_BYTES) and decoded to at most MAX_PIXELS pixels, about 250 MB in the worst case;
for anything larger an ImageError names the value and the limit. Not for several threads at once: Python's warning
filters, which are switched off around Pillow, are per process.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from edge_zofc.errors import ImageError, shown
from edge_zofc.inference.formats import is_copied, open_image, pixels_to_decode

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 24_000_000
"""Pixels that are decoded at most, twice the picture of a 12-megapixel camera; half of it where the decoder
keeps copies (WebP, AVIF, transparency, TIFF of more than 3 x 8 bits). Measured on 24 megapixels: PNG +115 MiB, 16-bit
+169, progressive JPEG +141, TIFF in one strip +221, GIF +126; on 12 megapixels of WebP +190, AVIF +108.
"""
MAX_JPEG_SCANS = 100
"""A progressive JPEG has about ten. Each goes over all pixels: thousands would stall the reader."""
DRAFT_MARGIN = 2
"""A reduced JPEG keeps this many times the crop's output size, so that the final resize still averages."""

# What Pillow raises on damaged files: the first five were seen when every byte of small files of each format
# was cut off or changed, the others stand in its decoders. Not MemoryError: it speaks of this machine.
_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError,
    EOFError, LookupError, ArithmeticError, SystemError, zlib.error,
    RuntimeError,  # AVIF
)  # fmt: skip


@contextmanager
def pillow_errors(path: Path) -> Iterator[None]:
    """Turn what Pillow raises on a damaged file into ImageError, and keep its warnings quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except _PILLOW_ERRORS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, RuntimeError) and "out of memory" in reason.lower():
                raise MemoryError(reason) from error
            raise ImageError(f"{shown(path)} is damaged or cut short ({reason}).") from error


class Opened(NamedTuple):
    """A picture with its header read and its pixels not yet."""

    image: ImageFile.ImageFile
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) when upright."""
        width, height = self.image.size
        return (height, width) if self.orientation >= 5 else (width, height)


def open_picture(path: Path, data: bytes | None = None) -> Opened:
    """Read a file's header; ``data``: its bytes, if they are there already. Raises ImageError, inside
    ``pillow_errors``.
    """
    data = read_file(path) if data is None else _bounded(data, path)
    image = open_image(data, path)
    if image.format != "JPEG" or _has_many_scans(data, path):
        _check_pixels(image, path)
    if image.mode == "F":
        raise ImageError(f"{shown(path)} holds floating-point numbers and no colours; save it as PNG or JPEG.")
    # Only now: a PNG is decoded to its end in search of EXIF data.
    return Opened(image, _orientation(image))


def _check_pixels(image: Image.Image, path: Path) -> None:
    limit = MAX_PIXELS // 2 if is_copied(image) else MAX_PIXELS
    count = pixels_to_decode(image)
    if count > limit:
        raise ImageError(
            f"{shown(path)} has {count / 1e6:.1f} megapixels to decode and the limit is {limit / 1e6:g}; "
            "save it smaller."
        )


def read_file(path: Path) -> bytes:
    """A picture file's bytes; raises ImageError.

    Nothing but a regular file is opened: a pipe would wait, a device might act.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise ImageError(
                f"{shown(path)} is a broken link: {shown(path.readlink())} is missing; copy a stream of links with "
                "'cp -rL', or make it with 'edge-zofc split --copy'."
            )
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{shown(path)} is not a regular file.")
        if not 0 < status.st_size <= MAX_FILE_BYTES:
            raise ImageError(f"{shown(path)} has {status.st_size} bytes, outside of the limits 1 to {MAX_FILE_BYTES}.")
        # Should a pipe have taken the file's place since, O_NONBLOCK opens it without waiting.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(status.st_size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{shown(path)} cannot be read ({reason}).") from error


def _bounded(data: bytes, path: Path) -> bytes:
    if not 0 < len(data) <= MAX_FILE_BYTES:
        raise ImageError(f"{shown(path)} has {len(data)} bytes, outside of the limits 1 to {MAX_FILE_BYTES}.")
    return data


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; damaged EXIF data counts as 1, for the pixels may well be good."""
    if image.format == "TIFF":
        return 1  # Pillow turns it upright as it decodes, and tells the upright size before
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _PILLOW_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decode(opened: Opened, shrink: float, path: Path) -> Image.Image:
    """Decode to upright RGB, which will then be shrunk ``shrink`` times: a JPEG may do part of it at once."""
    image, divisor = opened.image, 1
    if image.format == "JPEG":
        width, height = image.size
        while divisor < 8 and (2 * divisor * DRAFT_MARGIN <= shrink or width * height > MAX_PIXELS * divisor**2):
            divisor *= 2
        image.draft(None, (max(1, width // divisor), max(1, height // divisor)))
    _check_pixels(image, path)
    pixels = _to_rgb(image)
    if opened.orientation > 1:
        # exif_transpose writes the EXIF data in ``info`` anew and fails where they are damaged: only this tag is left.
        pixels.info.clear()
        pixels.getexif()[ExifTags.Base.Orientation] = opened.orientation
        ImageOps.exif_transpose(pixels, in_place=True)
    return pixels


def _has_many_scans(data: bytes, path: Path) -> bool:
    """Whether a JPEG comes in several scans (progressive, mostly), so that libjpeg must hold it whole at full size.

    Raises ImageError above MAX_JPEG_SCANS.
    """
    components, first_scan, scans, at = 0, 0, 0, 2
    while marker := _JPEG_MARKER.search(data, at):
        code, at = marker.group()[1], marker.end()
        if code == 0xD9:
            break
        if code in _JPEG_FRAMES:
            components = int.from_bytes(data[at + 7 : at + 8], "big")
        if code == 0xDA:
            scans += 1
            first_scan = first_scan or int.from_bytes(data[at + 2 : at + 3], "big")
            if scans > MAX_JPEG_SCANS:
                raise ImageError(
                    f"{shown(path)} is a JPEG of more than {MAX_JPEG_SCANS} scans, which no camera writes; "
                    "save it again."
                )
        at += int.from_bytes(data[at : at + 2], "big")
    return scans > 1 or first_scan < components


# 0xFF and a code that is neither a stuffed zero, nor padding, nor a marker without a length.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        high = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(image, mask=image)
        return on_white
    return image if image.mode == "RGB" else image.convert("RGB")
