"""``export --tune``: trains the adapter's start on a person's pictures, by backpropagation on the workstation.

The loss is the one that steers the adapter on the device (``algorithm/episodes.py``), on class-balanced batches of
cropped pictures. What comes out is measured on classes that it was not trained on (``tuning_gain.py``), at a quarter,
a half and the whole of the way.

Pictures are read when they are used. Features of at most ``MOST_PICTURES`` are in memory, whatever the folders hold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_zofc.algorithm.directions import episode
from edge_zofc.algorithm.episodes import Prototypes
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.errors import ImageError, InputError
from edge_zofc.export.adapted import Adapted
from edge_zofc.export.adapters import on_lattice
from edge_zofc.export.episodic import backward
from edge_zofc.export.tuning_gain import Gains, best_strength, named_rightly
from edge_zofc.export.tuning_pictures import TO_TRAIN, Tell, TuningPictures, choose_pictures
from edge_zofc.inference.transforms import MILD_CROP_SCALE, load_test, load_train
from edge_zofc.storage.manifest import ImageSpec
from edge_zofc.storage.tuning import TuningInfo

STEPS, MOST_STEPS, BATCH = 100, 10_000, 64
RATES = {"film": 1e-2, "bottleneck": 3e-3}
"""Of Adam, by the adapter's kind."""
STRENGTHS = (0.25, 0.5, 1.0)
LARGEST = 2.0
"""Of a tuned entry: half of the lattice's limit, so that the device has room to move on."""
_AT_ONCE = 16  # pictures in one run of torch
_BACKWARD_COSTS = 3  # forwards that a picture forwards and backwards takes
_LINE_SECONDS = 10.0


@dataclass(frozen=True)
class TuningRequest:
    """Folders and streams of pictures by class, steps of 64 pictures, and the seed of classes, batches and crops."""

    folders: Sequence[Path]
    steps: int = STEPS
    seed: int = 0


def tune(
    model: Adapted, image: ImageSpec, start: np.ndarray, asked: TuningRequest, tell: Tell
) -> tuple[np.ndarray, TuningInfo]:
    """A better start for the adapter of ``model`` than ``start``: float32 [P] on the lattice, and what it won.

    ``tell`` hears of pictures that are left out, of progress and of what each strength won. Raises InputError if the
    folders do not do (``choose_pictures``) or the tuned start does not win, ImageError if a picture goes meanwhile.
    """
    chosen = choose_pictures(asked.folders, asked.seed, tell)
    work = _Work(model, image, _Progress(len(chosen.paths), asked.steps, tell))
    pictures, features = work.first_pass(chosen, start, tell)
    tell(
        f"tuning on {(pictures.folds == TO_TRAIN).sum()} pictures of {(~pictures.held_back).sum()} classes; "
        f"{pictures.held_back.sum()} classes are held back to measure on"
    )
    untuned = named_rightly(features, pictures)
    moved = work.trained(start, pictures, features, asked)
    starts = np.stack([on_lattice(np.clip(start + s * (moved - start), -LARGEST, LARGEST)) for s in STRENGTHS])
    under = work.features(pictures.paths, starts)
    right = [named_rightly(found, pictures) for found in under]
    gains = {s: Gains(untuned, found, pictures.tested) for s, found in zip(STRENGTHS, right, strict=True)}
    for strength, found in gains.items():
        tell(f"tuned start at strength {strength:g}: {found}")
    strength = best_strength(gains)
    tell(f"taken at strength {strength:g}; where a device's pictures lose by it, learn begins untuned")
    return starts[STRENGTHS.index(strength)], _told(asked, pictures, strength, gains[strength])


def _told(asked: TuningRequest, pictures: TuningPictures, strength: float, won: Gains) -> TuningInfo:
    return TuningInfo(
        classes=int((~pictures.held_back).sum()),
        held_back=int(pictures.held_back.sum()),
        pictures=int((pictures.folds == TO_TRAIN).sum()),
        steps=asked.steps,
        strength=strength,
        seed=asked.seed,
        on_held_back=won.on_held_back,
        on_all=won.on_all,
    )


class _Progress:
    """Tells now and then how far a tuning is, and about how long it will still take."""

    def __init__(self, pictures: int, steps: int, tell: Tell) -> None:
        self.tell, self._done = tell, 0
        self._total = (1 + len(STRENGTHS)) * pictures + _BACKWARD_COSTS * BATCH * steps
        self._began = self._told = time.monotonic()

    def forwards(self, count: int) -> None:
        """What takes as long as so many image-forwards was done."""
        self._done += count
        now = time.monotonic()
        if now - self._told >= _LINE_SECONDS:
            self._told = now
            left = (now - self._began) * max(self._total - self._done, 0) / self._done
            shown = f"{left:.0f} seconds" if left < 90 else f"{left / 60:.0f} minutes"
            self.tell(f"tuning: {min(100 * self._done // self._total, 99)} % done, about {shown} left")


@dataclass(frozen=True)
class _Work:
    """What runs the network in torch, on pictures that it reads."""

    model: Adapted
    image: ImageSpec
    progress: _Progress

    def first_pass(
        self, pictures: TuningPictures, adapter: np.ndarray, tell: Tell
    ) -> tuple[TuningPictures, np.ndarray]:
        """The pictures that can be read and their features float32 [n, D]; ``tell`` hears of the others."""
        lost: dict[int, ImageError] = {}

        def read() -> Iterator[np.ndarray]:
            for index, path in enumerate(pictures.paths):
                try:
                    yield load_test(path, self.image)
                except ImageError as error:
                    lost[index] = error

        features = self._features(read(), adapter[None])[0]
        if lost:
            first = next(iter(lost.values()))
            tell(f"Not tuned on, for they cannot be read: {len(lost)} pictures. The first: {first}")
        return pictures.without(lost), features

    def features(self, paths: Sequence[Path], adapters: np.ndarray) -> np.ndarray:
        """Float32 [K, n, D] under ``adapters`` float32 [K, P]. Raises ImageError."""
        return self._features((load_test(path, self.image) for path in paths), adapters)

    def _features(self, images: Iterator[np.ndarray], adapters: np.ndarray) -> np.ndarray:
        theta = torch.from_numpy(adapters)
        found = [np.zeros((len(adapters), 0, self.model.feature_size), np.float32)]
        while some := list(islice(images, _AT_ONCE)):
            with torch.no_grad():
                found.append(self.model(_tensor(some), theta).numpy())
            self.progress.forwards(len(some) * len(adapters))
        return np.concatenate(found, axis=1)

    def trained(
        self, start: np.ndarray, pictures: TuningPictures, features: np.ndarray, asked: TuningRequest
    ) -> np.ndarray:
        """Float32 [P] after all steps; ``features`` float32 [n, D] are those under ``start``. Raises InputError."""
        fit = np.flatnonzero(pictures.folds == TO_TRAIN)
        labels = pictures.labels[fit]
        statistics = Statistics.empty(len(pictures.held_back), features.shape[1])
        statistics.add(features[fit], labels)
        prototypes = Prototypes.of(statistics)
        theta = torch.from_numpy(start.copy()).requires_grad_()
        optimiser = torch.optim.Adam([theta], lr=RATES[self.model.layout.kind])
        losses = []
        for step in range(asked.steps):
            drawn = episode(labels, BATCH, asked.seed, 0, step)
            images = _tensor([self._cropped(pictures.paths[i], asked, step, i) for i in fit[drawn]])
            optimiser.zero_grad()
            wanted = torch.from_numpy(labels[drawn])
            losses.append(backward(prototypes, lambda x: self.model(x, theta[None])[0], images, wanted, _AT_ONCE))
            optimiser.step()
            self.progress.forwards(_BACKWARD_COSTS * BATCH)
        if not math.isfinite(sum(losses)):
            raise InputError(f"The tuning diverged within {asked.steps} steps; leave out --tune, or take fewer steps.")
        some = max(1, asked.steps // 10)
        self.progress.tell(
            f"{asked.steps} steps took the loss from {np.mean(losses[:some]):.2f} to {np.mean(losses[-some:]):.2f}"
        )
        return theta.detach().numpy()

    def _cropped(self, path: Path, asked: TuningRequest, step: int, index: int) -> np.ndarray:
        return load_train(path, self.image, (asked.seed, 0, step, int(index)), scale=MILD_CROP_SCALE)


def _tensor(images: Sequence[np.ndarray]) -> Tensor:
    """Float32 [n, 3, S, S]; a CNN takes half the time where the channels of a pixel lie side by side."""
    return torch.from_numpy(np.stack(images)).contiguous(memory_format=torch.channels_last)
