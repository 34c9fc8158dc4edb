"""A start that is trained: by the episodic loss, on pictures that are read when they are used, and measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cnns import model_of
from small import SIDE, picture, small_model
from tiny_vit import tiny_film

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.algorithm.directions import episode
from edge_zofc.algorithm.episodes import Prototypes
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.errors import InputError
from edge_zofc.export import tuning, tuning_pictures
from edge_zofc.export.adapted import Adapted, AdapterRequest
from edge_zofc.export.adapters import initial_adapter
from edge_zofc.export.episodic import episodic_loss
from edge_zofc.export.tuning import TuningRequest, tune
from edge_zofc.export.tuning_pictures import TO_TRAIN, choose_pictures
from edge_zofc.inference.transforms import MILD_CROP_SCALE, load_test, load_train
from edge_zofc.storage.manifest import ImageSpec
from edge_zofc.storage.tuning import TuningInfo

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread() -> Any:
    """More threads round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was won, the whole way is taken."""
    monkeypatch.setattr(tuning, "best_strength", max)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes of eight pictures: 36 of six classes train, 12 + 16 test."""
    place = tmp_path_factory.mktemp("tuning") / "train"
    for number in range(8):
        (place / f"class{number}").mkdir(parents=True)
        for index in range(8):
            picture(number, index).save(place / f"class{number}" / f"{index:03d}.png")
    return place.parent


def spec(side: int = SIDE) -> ImageSpec:
    return ImageSpec(size=side, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_fraction=1.0)


def tuned(
    folder: Path, model: Adapted | None = None, tell: list[str] | None = None, **asked: Any
) -> tuple[np.ndarray, np.ndarray, TuningInfo]:
    """The untuned start, the tuned one and what is told of it."""
    model = small_model() if model is None else model
    start, lines = initial_adapter(model.layout, 1), [] if tell is None else tell
    request = TuningRequest([folder], **{"steps": 2, "seed": 5, **asked})
    return start, *tune(model, spec(model.image_side), start, request, lines.append)


@pytest.mark.usefixtures("always")
def test_the_first_step_is_adams_along_the_gradient_of_the_episodic_loss(folder: Path) -> None:
    model = small_model()
    start, found, _ = tuned(folder, model, steps=1)
    pictures = choose_pictures([folder], 5, print)
    fit = np.flatnonzero(pictures.folds == TO_TRAIN)
    labels = pictures.labels[fit]

    def features(images: list[np.ndarray], theta: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = model(torch.from_numpy(np.stack(images)), theta[None])[0]
        return out

    theta = torch.from_numpy(start.copy()).requires_grad_()
    plain = features([load_test(pictures.paths[i], spec()) for i in fit], theta)
    statistics = Statistics.empty(8, model.feature_size)
    statistics.add(plain.detach().numpy(), labels)
    drawn = episode(labels, 64, 5, 0, 0)
    crops = [load_train(pictures.paths[i], spec(), (5, 0, 0, int(i)), scale=MILD_CROP_SCALE) for i in fit[drawn]]
    loss = episodic_loss(Prototypes.of(statistics), features(crops, theta), torch.from_numpy(labels[drawn]))
    (gradient,) = torch.autograd.grad(loss, theta)
    clear = np.abs(gradient.numpy()) > 1e-4
    assert clear.sum() > 50
    expected = start - 3e-3 * np.sign(gradient.numpy())
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-5)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", ["ViT's bottlenecks", "ViT's films", "CNN's films", "CNN's bottlenecks"])
def test_every_kind_of_adapter_is_tuned_and_stays_on_the_lattice(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "BATCH", 16)
    monkeypatch.setattr(tuning_pictures, "MOST_PICTURES", 32)
    request = AdapterRequest(kind="bottleneck" if "bottleneck" in kind else "film")
    vit = small_model() if "bottleneck" in kind else tiny_film()
    model = vit if "ViT" in kind else model_of("mobilenetv3_small_050", request, 32)
    start, found, info = tuned(folder, model)
    moved = np.abs(found - start)
    rate = 3e-3 if "bottleneck" in kind else 1e-2
    assert rate < moved.max() < 2.1 * rate
    assert found.dtype == np.float32
    assert not np.fmod(found, LATTICE_STEP).any()
    assert (info.classes, info.held_back, info.pictures, info.steps, info.seed) == (6, 2, 18, 2, 5)
    assert (info.on_held_back.pictures, info.on_all.pictures, info.strength) == (8, 14, 1)


@pytest.mark.usefixtures("always")
def test_the_same_seed_gives_the_same_bits_and_another_one_others(folder: Path) -> None:
    first, again, other = (tuned(folder, seed=seed)[1] for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_a_strength_is_a_part_of_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for choose in (min, max):
        monkeypatch.setattr(tuning, "best_strength", choose)
        start, theta, info = tuned(folder)
        found.append((info.strength, theta - start))
    (quarter, short), (whole, long) = found
    assert (quarter, whole) == (0.25, 1)
    np.testing.assert_allclose(short, long / 4, atol=2 * LATTICE_STEP)


@pytest.mark.usefixtures("always")
def test_an_entry_leaves_the_device_room_to_move_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tuning.RATES, "bottleneck", 3.0)
    assert np.abs(tuned(folder)[1]).max() == 2


def test_steps_see_the_training_part_of_three_quarters_of_the_classes_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no picture is read before it is used: two passes over those that were chosen, and the steps' own."""
    monkeypatch.setattr(tuning, "best_strength", max)
    monkeypatch.setattr(tuning_pictures, "MOST_PICTURES", 48)
    seen: dict[str, list[Path]] = {"load_test": [], "load_train": []}
    for name, real in (("load_test", load_test), ("load_train", load_train)):

        def noted(path: Path, *args: Any, _name: str = name, _real: Any = real, **options: Any) -> np.ndarray:
            seen[_name].append(path)
            return np.asarray(_real(path, *args, **options))

        monkeypatch.setattr(tuning, name, noted)
    tuned(folder, steps=3)
    pictures = choose_pictures([folder], 5, print)
    assert len(pictures.paths) == 48
    assert seen["load_test"] == [*pictures.paths, *pictures.paths]
    assert len(seen["load_train"]) == 3 * 64
    trained = {path for path, fold in zip(pictures.paths, pictures.folds, strict=True) if fold == TO_TRAIN}
    assert set(seen["load_train"]) == trained


@pytest.mark.usefixtures("always")
def test_what_is_done_what_is_left_and_what_was_won_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_LINE_SECONDS", 0.0)
    lines: list[str] = []
    tuned(folder, tell=lines)
    assert "tuning on 36 pictures of 6 classes; 2 classes are held back to measure on" in lines
    shares = [int(found[1]) for line in lines if (found := re.fullmatch(r"tuning: (\d+) % done, about .* left", line))]
    assert len(shares) >= 6
    assert shares == sorted(shares)
    assert shares[-1] == 99
    assert any(re.fullmatch(r"2 steps took the loss from \d+\.\d\d to \d+\.\d\d", line) for line in lines)
    told = [line for line in lines if line.startswith("tuned start at strength ")]
    assert [line.split(":")[0].rsplit(" ", 1)[1] for line in told] == ["0.25", "0.5", "1"]
    assert lines[-1] == "taken at strength 1; where a device's pictures lose by it, learn begins untuned"


def test_the_time_that_is_left_is_told_in_minutes_where_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 + 19,200 image-forwards 100 took 30 seconds: 195 times as many are left."""
    times = iter((0.0, 5.0, 30.0))
    monkeypatch.setattr(tuning.time, "monotonic", lambda: next(times))
    lines: list[str] = []
    progress = tuning._Progress(100, 100, lines.append)
    progress.forwards(50)
    progress.forwards(50)
    assert lines == ["tuning: 0 % done, about 98 minutes left"]


@pytest.mark.usefixtures("always")
def test_a_picture_that_cannot_be_read_is_told_and_left_out(folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.rglob("*.png")):
        place = tmp_path / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"no picture" if path.stem == "007" else path.read_bytes())
    lines: list[str] = []
    _, _, info = tuned(tmp_path, tell=lines)
    assert any(line.startswith("Not tuned on, for they cannot be read: 8 pictures. The first: ") for line in lines)
    assert (info.pictures, info.on_held_back.pictures, info.on_all.pictures) == (36, 14, 20)


def test_a_tuning_that_diverges_is_refused_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tuning.RATES, "bottleneck", 1e30)
    with pytest.raises(InputError, match="The tuning diverged within 3 steps; leave out --tune, or take fewer steps"):
        tuned(folder, steps=3)
