"""scikit-learn's 1,797 handwritten digits as a folder of pictures: a real stream that needs no download.

The digits are 8 x 8 pixels of 17 grey levels (Alpaydin and Kaynak, "Optical Recognition of Handwritten
Digits", UCI, 1998). They are enlarged by whole pixels, without interpolation. Each network resizes them as its own
transform says. Classes are named by words (``three``), so their order in a stream is not that of the digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edge_zofc.errors import InputError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ENLARGED = 8
"""Pixels that each pixel becomes in both directions: pictures of 64 x 64."""
TEST_EVERY = 4


def write_digits(folder: Path) -> int:
    """Write ``folder/{train,test}/<digit>/NNNN.png``, every 4th picture of a digit for test; returns 1,797.

    NNNN is the digit's index in scikit-learn's order. Raises InputError if scikit-learn is not installed
    or ``folder`` cannot be written or is not empty.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "The digits come with scikit-learn, which is not installed; run: pip install 'edge-zofc[demo]'."
        ) from error
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not an empty folder; give another or remove it.")
    digits = load_digits()
    seen = [0] * len(NAMES)
    try:
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            seen[label] += 1
            part = "test" if seen[label] % TEST_EVERY == 0 else "train"
            path = folder / part / NAMES[label] / f"{index:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(pixels).save(path)
    except OSError as error:
        raise InputError(f"The digits cannot be written to {folder} ({error.strerror}).") from error
    return len(digits.images)


def _picture(pixels: np.ndarray) -> Image.Image:
    """A grey picture from float [8, 8] of 0 (paper) to 16 (ink), enlarged by whole pixels."""
    grey = np.rint(pixels * (255 / 16)).astype(np.uint8)
    return Image.fromarray(np.kron(grey, np.ones((ENLARGED, ENLARGED), np.uint8)))
