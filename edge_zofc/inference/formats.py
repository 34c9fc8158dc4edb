"""The bytes of a picture file -> a Pillow picture with its header read, by what the file is and not by its suffix.

Pillow's ``Image.open`` is not used: it refuses large JPEGs before they can be reduced, and loads plugins of other
formats.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from edge_zofc.errors import ImageError, shown

# Pillow before 11.3 has no such module.
AvifImagePlugin: Any = import_module("PIL.AvifImagePlugin") if find_spec("PIL.AvifImagePlugin") else None

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_BITS, _TIFF_TILE = 258, (322, 323)
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"))
# How files begin that are often found under a picture's name, what they are, and the way out.
_FOREIGN = (
    (b"version https://git-lfs", "a pointer of Git LFS and not the picture itself", "fetch it with 'git lfs pull'"),
    (b"%PDF", "a PDF document", "save its pictures as JPEG"),
    (b"8BPS", "a Photoshop document", "save it as JPEG"),
    (b"\xff\x0a", "a JPEG XL picture", "convert it to JPEG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", "convert it to JPEG"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", "convert it to JPEG"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"<", "a text such as a web page or an SVG drawing", "fetch the picture itself, or save the drawing as PNG"),
)


def open_image(data: bytes, path: Path) -> ImageFile.ImageFile:
    """The picture in ``data``, its pixels not decoded. Raises ImageError, and what Pillow raises on damaged files."""
    if data.startswith(_PNG):
        data = _without_profile(data)
    plugin = _plugin(data)
    if plugin is None:
        raise ImageError(f"{shown(path)} {_foreign(data)}")
    return plugin(io.BytesIO(data))


def is_copied(image: Image.Image) -> bool:
    """Whether the decoder keeps more than one picture of this size in memory."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(_TIFF_BITS, (1,))
        many = bits if isinstance(bits, tuple) else (bits,)
        if max(many) > 8 or len(many) > 3:
            return True
    return image.format in ("WEBP", "AVIF") or image.mode in ("RGBA", "LA", "PA", "F") or "transparency" in image.info


def pixels_to_decode(image: Image.Image) -> int:
    """Pixels that the decoder holds: those of the picture, or of a tile if it is larger."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.width * image.height
    return max(image.width * image.height, _tile_pixels(image))


def _tile_pixels(image: TiffImagePlugin.TiffImageFile) -> int:
    sides = [image.tag_v2.get(tag, 0) for tag in _TIFF_TILE]
    return math.prod(side if isinstance(side, int) else 0 for side in sides)


def _plugin(data: bytes) -> Callable[[io.BytesIO], ImageFile.ImageFile] | None:
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if data.startswith(_PNG):
        return PngImagePlugin.PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if data.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile
    if data.startswith(_TIFF):
        return TiffImagePlugin.TiffImageFile
    if _brands(data) & {b"avif", b"avis"} and AvifImagePlugin is not None and AvifImagePlugin.SUPPORTED:
        avif: Callable[[io.BytesIO], ImageFile.ImageFile] = AvifImagePlugin.AvifImageFile
        return avif
    return None


def _brands(data: bytes) -> set[bytes]:
    """The brands of a file of the ISO base media format (HEIC, AVIF, MP4); none of another file."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12]} | {data[at : at + 4] for at in range(16, end - 3, 4)}


def _foreign(data: bytes) -> str:
    """What a file is that cannot be read, and the way out."""
    brands = _brands(data)
    if brands & {b"avif", b"avis"}:
        return "is an AVIF picture, which this Pillow cannot read; install Pillow 11.3 or newer, or convert it to JPEG."
    if brands & _HEIC_BRANDS:
        return "is a HEIC picture, as phones take them, which cannot be read here; convert it to JPEG."
    if brands:
        return "is a film and not a picture; save its pictures as JPEG."
    for start, what, way_out in _FOREIGN:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start) if start == b"<" else data.startswith(start):
            return f"is {what}; {way_out}."
    return (
        "is not a JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF picture "
        f"(it begins with {data[:4].hex(' ')}); convert it to JPEG or take it away."
    )


def _without_profile(data: bytes) -> bytes:
    """A PNG without its colour profile, which is not used, and which Pillow refuses above 1 MiB."""
    at = len(_PNG)
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"iCCP":
            return data[:at] + data[at + size + 12 :]
        if name in (b"IDAT", b"IEND"):
            return data
        at += size + 12
    return data
