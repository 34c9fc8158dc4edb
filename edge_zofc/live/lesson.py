"""What may join a lesson: whole bursts, sharp pictures, no near copies, and not too many of them.

One press of the button is a burst. Pictures of one press are so alike that half of them would name the other half
rightly: the test pictures of a class are therefore whole bursts, every fourth of them.

How alike two pictures are is the cosine of small grey thumbnails without their mean. They take no run of the network
and no memory worth a plan, and all they must find is a camera that nobody moves. On photographs of the package: a still
camera with noise and another brightness 0.998 and more, a hand that moves by 3 % of the picture 0.93 (median) and 0.987
(95 %).
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edge_zofc.engine.pixel_store import FREE_BYTES
from edge_zofc.errors import DoesNotFitError, ImageError, InputError, shown
from edge_zofc.inference.decode import decode, open_picture, pillow_errors
from edge_zofc.learner import ClassInfo, ShownPicture

MAX_CLASSES = 200
MAX_PICTURES = 2000
"""Of one lesson; closing it begins another."""
KEPT_BACK_EVERY = 4
SHARP_LEAST = 12.0
"""Variance of the Laplacian of the grey picture at SHARP_SIDE pixels; photographs have 100 and more."""
SHARP_SIDE = 96
LIKENESS_MOST = 0.985
THUMBNAIL_SIDE = 24
COMPARED = 100
"""After a restart so many pictures of a class get their thumbnail again, the newest."""
_THIS = Path("The picture")


@dataclass(frozen=True)
class Look:
    """How a picture looks: its sharpness, and a thumbnail float32 [THUMBNAIL_SIDE²] of length 1."""

    sharpness: float
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Burst:
    """One press of the button: for which class, and whether it is kept back for the test."""

    name: str
    test: bool


def look_at(picture: bytes) -> Look:
    """Sharpness and thumbnail of a picture file's bytes. Raises ImageError."""
    with pillow_errors(_THIS):
        opened = open_picture(_THIS, picture)
        image = decode(opened, min(opened.size) / SHARP_SIDE, _THIS)
        grey = image.convert("L").resize((SHARP_SIDE, SHARP_SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey, np.float32)
    rows = pixels[:-2, 1:-1] + pixels[2:, 1:-1]
    laplacian = rows + pixels[1:-1, :-2] + pixels[1:-1, 2:] - 4 * pixels[1:-1, 1:-1]
    step = SHARP_SIDE // THUMBNAIL_SIDE
    small = pixels.reshape(THUMBNAIL_SIDE, step, THUMBNAIL_SIDE, step).mean(axis=(1, 3)).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return Look(float(laplacian.var()), small / length if length > 0 else small)


class Lesson:
    """The rules of one lesson of the run in ``folder``.

    ``pictures`` are always the learner's own: what was removed or moved there needs no telling here.
    """

    def __init__(self, folder: Path, bytes_of: Callable[[int], bytes]) -> None:
        self._folder, self._bytes_of = folder, bytes_of
        self._thumbnails: dict[int, np.ndarray] = {}
        self._corrections: set[int] = set()
        self._closed_bursts: Counter[str] = Counter()

    def begin(self, name: str, classes: Sequence[ClassInfo], pictures: Sequence[ShownPicture]) -> Burst:
        """A press of the button for ``name``. Raises InputError or DoesNotFitError where no picture may join."""
        self.check_room(len(pictures))
        check_class(name, classes)
        known = {one.serial for one in pictures}
        self._thumbnails = {serial: found for serial, found in self._thumbnails.items() if serial in known}
        of_class = sorted(one.serial for one in pictures if one.name == name)
        for serial in of_class[-COMPARED:]:
            if serial not in self._thumbnails:
                with contextlib.suppress(ImageError):  # damaged since; the learner tells that
                    self._thumbnails[serial] = look_at(self._bytes_of(serial)).thumbnail
        before = self._closed_bursts[name] + len(self._bursts(name, pictures))
        return Burst(name, before % KEPT_BACK_EVERY == KEPT_BACK_EVERY - 1)

    def _bursts(self, name: str, pictures: Iterable[ShownPicture]) -> set[int]:
        """The bursts that a class has pictures of. A correction is none: every fourth would teach nothing."""
        return {one.burst for one in pictures if one.name == name} - self._corrections

    def check_room(self, pictures: int) -> None:
        """Raise InputError if the lesson is full, DoesNotFitError if the disk nearly is."""
        if pictures >= MAX_PICTURES:
            raise InputError(
                f"This lesson has {pictures:,} pictures and the limit is {MAX_PICTURES:,}; keep it to begin another."
            )
        free = shutil.disk_usage(self._folder).free
        if free < FREE_BYTES:
            raise DoesNotFitError(
                f"Only {free >> 20} MiB are free on the disk and {FREE_BYTES >> 20} MiB stay free for the learner; "
                "make room, then show it again."
            )

    def why_not(self, look: Look, name: str, pictures: Iterable[ShownPicture]) -> str | None:
        """Why a picture does not join the class ``name``, in a sentence; None where it may."""
        if look.sharpness < SHARP_LEAST:
            return f"Left out: blurred (sharpness {look.sharpness:.0f}, at least {SHARP_LEAST:.0f}). Hold still."
        kept = [self._thumbnails[one.serial] for one in pictures if one.name == name and one.serial in self._thumbnails]
        if kept and float((np.stack(kept) @ look.thumbnail).max()) > LIKENESS_MOST:
            return "Left out: the same picture again. Move it, or turn it a little."
        return None

    def joined(self, serial: int, look: Look) -> None:
        """A picture was taught."""
        self._thumbnails[serial] = look.thumbnail

    def corrected(self, serial: int, look: Look) -> None:
        """A picture was taught by a correction, which is no press of the button."""
        self.joined(serial, look)
        self._corrections.add(serial)

    def closed(self, pictures: Sequence[ShownPicture]) -> None:
        """The lesson with these pictures was closed: the counts of bursts go on."""
        for name in {one.name for one in pictures}:
            self._closed_bursts[name] += len(self._bursts(name, pictures))
        self._thumbnails.clear()
        self._corrections.clear()


def check_class(name: str, classes: Sequence[ClassInfo]) -> None:
    """Raise InputError where ``name`` would be one class too many."""
    if len(classes) >= MAX_CLASSES and all(one.name != name for one in classes):
        raise InputError(f"{shown(name)} would be class {len(classes) + 1} and the limit is {MAX_CLASSES}; forget one.")
