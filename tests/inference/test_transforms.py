"""Transforms: numbers that are easy to check, and torchvision as the reference."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photographs import REAL
from pictures import Interpolation, encoded, noise, spec
from PIL import Image

from edge_zofc.errors import ImageError
from edge_zofc.inference.transforms import load_test, load_train, random_crop

# --- numbers that are easy to check


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


def test_real_pictures_agree_with_torchvision_although_they_are_decoded_smaller() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode.BICUBIC
    reference = transforms.Compose(
        [transforms.Resize(107, interpolation=mode), transforms.CenterCrop(96), transforms.ToTensor()]
    )
    paths = sorted(REAL.glob("test/*/*.jpg"))[:200:20]
    assert len(paths) >= 4
    for path in paths:
        with Image.open(path) as picture:
            theirs = reference(picture.convert("RGB")).numpy()
        assert np.abs(load_test(path, spec(96, 0.89), normalise=False) - theirs).mean() < 0.01
