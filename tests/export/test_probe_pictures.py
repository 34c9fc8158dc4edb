"""The pictures of an export: the package's photographs, or the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_zofc.errors import InputError
from edge_zofc.export.probe_pictures import probe_pictures
from edge_zofc.storage.manifest import ImageSpec

SPEC = ImageSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_fraction=1.0)


PIXELS = ImageSpec(size=40, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic", crop_fraction=1.0)


def test_the_packages_photographs_are_the_same_every_time_and_differ_from_each_other() -> None:
    first, other = probe_pictures(PIXELS, 2)
    again = probe_pictures(PIXELS, 1)[0]
    assert first.shape == (3, 40, 40)
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05


def test_the_package_has_eight_photographs_dark_and_bright_ones() -> None:
    brightness = [float(picture.mean()) for picture in probe_pictures(PIXELS, 8)]
    assert min(brightness) < 0.3
    assert max(brightness) > 0.6


def test_the_users_own_pictures_are_taken_from_sub_folders_and_broken_ones_passed_over(tmp_path: Path) -> None:
    for name, shade in (("a/1.png", 0), ("b/2.png", 255)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), (shade, shade, shade)).save(tmp_path / name)
    (tmp_path / "a" / "0.jpg").write_bytes(b"")
    found = probe_pictures(SPEC, 2, tmp_path)
    assert sorted(float(picture.mean()) for picture in found) == [-1.0, 1.0]
    with pytest.raises(InputError, match="holds 2 readable pictures"):
        probe_pictures(SPEC, 3, tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        probe_pictures(SPEC, 3, tmp_path / "none")
