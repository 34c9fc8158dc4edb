"""The digits become a folder of pictures that a stream can be made of."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edge_zofc.benchmarks.streams.digits import NAMES, write_digits
from edge_zofc.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    assert write_digits(out) == 1797
    return out


def test_every_fourth_picture_of_a_digit_is_for_test(folder: Path) -> None:
    for name in NAMES:
        train = {int(path.stem) for path in (folder / "train" / name).iterdir()}
        test = {int(path.stem) for path in (folder / "test" / name).iterdir()}
        assert sorted(train | test)[3::4] == sorted(test)
    assert len(list(folder.glob("*/*/*.png"))) == 1797
    assert sorted(path.name for path in (folder / "train").iterdir()) == sorted(NAMES)


def test_a_picture_is_the_digit_with_each_pixel_enlarged(folder: Path) -> None:
    digits = load_digits()
    path = next(folder.glob("*/*/0042.png"))
    assert path.parent.name == NAMES[digits.target[42]]
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (64, 64)
    assert np.array_equal(np.rint(pixels[::8, ::8] * (16 / 255)), digits.images[42])
    assert np.array_equal(pixels[::8, ::8], pixels[7::8, 7::8])


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        write_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
