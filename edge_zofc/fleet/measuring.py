"""What a device measures for its fleet on pictures of its own: the queries of a step, statistics under the moved
adapter, and two heads beside each other.

Pictures are those that the run learnt from, where they still lie, of the classes that it shares. A fifth of them is
held out: it takes no part in steps, and judges what came of them without being in either head.

The loss is that of ``algorithm/episodes.py`` over the classes of all devices: means and covariance are the fleet's, so
that a device of two classes learns what tells them from the others'. The means stay those of the adapter's start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.directions import episode
from edge_zofc.algorithm.episodes import HELD_OUT, Prototypes
from edge_zofc.algorithm.naming import named, solved_head
from edge_zofc.algorithm.spsa import BASE, QueryForm, coefficients, queries
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.own_pictures import OwnPictures
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.pixel_store import Picture
from edge_zofc.errors import ImageError, InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.features import Pictures, Unreadable, query_features
from edge_zofc.inference.transforms import MILD_CROP_SCALE, load_train
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Header
from edge_zofc.storage.settings import Placement
from edge_zofc.storage.share import Share

FORM: QueryForm = "one-sided"


@dataclass(frozen=True)
class Estimate:
    """``values`` float32 [Q] or [P], the mean ``loss`` and the number of pictures."""

    values: np.ndarray
    loss: float
    pictures: int


class Measuring:
    """A device's ``pictures``; a session is opened when it is needed and kept until ``close``."""

    def __init__(
        self, bundle: Bundle, placement: Placement, normalise: bool, pictures: OwnPictures, tell: Callable[[str], None]
    ) -> None:
        self.pictures = pictures
        self._bundle, self._placement, self._normalise, self._tell = bundle, placement, normalise, tell
        self._held = held_out(pictures.labels)
        self._backbone: Backbone | None = None
        self._prototypes: tuple[Share, Prototypes] | None = None
        self._lost: set[int] = set()

    def close(self) -> None:
        """Give the session's memory back."""
        if self._backbone is not None:
            self._backbone.close()
        self._backbone = None

    def estimate(self, merged: Share, adapter: Adapter, header: Header, step: int, count: int) -> Estimate:
        """The queries of a step, or its exact gradient, on ``count`` pictures, classes in turn.

        ``merged``: of all devices, under the adapter's start. Raises InputError where there is no picture to measure.
        """
        labels = _labels_in(self.pictures, merged)
        fit = np.flatnonzero(~self._held & (labels >= 0))
        if header.is_dense and not self._bundle.manifest.goes_back:
            raise InputError("The bundle has no graph for exact gradients.")
        self.backbone.go_back(header.is_dense)
        drawn = fit[episode(labels[fit], count, header.seed, 0, step)] if len(fit) else fit
        picked = [int(i) for i in drawn if int(i) not in self._lost]
        wanted = (BASE,) if header.is_dense else (BASE, *queries(FORM, header.queries))
        features = None
        while picked and features is None:
            load = self._loader(picked, header.seed, step)
            try:
                features = query_features(self.backbone, adapter, step, wanted, Pictures(len(picked), load, _go_on))
            except Unreadable as error:
                self._leave_out(picked.pop(error.index), error.error)
        if features is None:
            raise InputError("There is no picture to measure.")
        prototypes, own = self._prototypes_of(merged), labels[picked]
        losses = prototypes.losses(features, own)
        if header.is_dense:
            load = self._loader(picked, header.seed, step)
            values = self._gradient(load, adapter.theta, prototypes.gradients(features[0], own))
        else:
            values = coefficients(FORM, losses[1:], float(losses[0]), adapter.eps)
        if not (np.isfinite(values).all() and np.isfinite(losses).all()):
            raise InputError("The loss is not finite.")
        return Estimate(values.astype(np.float32), float(losses[0]), len(picked))

    def statistics(self, theta: np.ndarray, least: int) -> tuple[tuple[str, ...], Statistics]:
        """Of all pictures under ``theta`` float32 [P], by class, and the names of the classes.

        A class of which fewer than ``least`` pictures are left is left out. Raises InputError where all are.
        """
        names, labels, kept = self.pictures.names, self.pictures.labels, np.arange(len(self.pictures.names))
        while len(kept):
            found = Statistics.empty(len(names), self._bundle.manifest.feature_size)
            for chosen, features in self._features(np.flatnonzero(np.isin(labels, kept)), [theta]):
                found.add(features[0], labels[chosen])
            enough = kept[found.counts[kept] >= least]
            if len(enough) == len(kept):
                parts = Statistics(found.sums[kept], found.counts[kept], found.moment)
                return tuple(names[i] for i in kept), parts
            few = ", ".join(names[i] for i in kept if i not in enough)
            self._tell(f"Fewer than {least} pictures are left of: {few}.")
            kept = enough
        raise InputError("No class has enough pictures left.")

    def compare(self, rest: Share, moved: Share, adapters: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Which held-out pictures, of classes that both shares have, each head names rightly: bool [n] twice.

        Both shares, of all devices, have these pictures in them, and are solved without them. ``adapters``: theirs.
        """
        both = (rest, moved)
        labels = [_labels_in(self.pictures, share) for share in both]
        chosen = np.flatnonzero(self._held & (labels[0] >= 0) & (labels[1] >= 0))
        parts = list(self._features(chosen, adapters))
        places = np.concatenate([np.zeros(0, np.int64), *(part for part, _ in parts)])
        if not len(places):
            return np.zeros(0, bool), np.zeros(0, bool)
        right = []
        for index, share in enumerate(both):
            features, own = np.concatenate([found[index] for _, found in parts]), labels[index][places]
            without = Statistics.empty(*share.statistics.sums.shape)
            without.add(features, own)
            left = share.statistics.minus(without)
            if (left.counts < 1).any():
                raise InputError("The held-out pictures are not in the head.")
            right.append(named(solved_head(left), features) == own)
        return right[0], right[1]

    @property
    def backbone(self) -> Backbone:
        """The session, opened when it is needed first."""
        if self._backbone is None:
            self._backbone = Backbone(self._bundle, self._placement)
        return self._backbone

    def _gradient(self, load: Callable[[int, np.ndarray], None], theta: np.ndarray, towards: np.ndarray) -> np.ndarray:
        """The loss's gradient at the features, ``towards`` float32 [B, D], carried back to theta: float64 [P]."""
        total = np.zeros(len(theta))
        for index, row in enumerate(towards):
            load(index, self.backbone.gradient_image[0])
            total += self.backbone.gradient(theta, row)
        return total

    def _prototypes_of(self, merged: Share) -> Prototypes:
        if self._prototypes is None or self._prototypes[0] is not merged:
            self._prototypes = merged, Prototypes.of(merged.statistics)
        return self._prototypes[1]

    def _loader(self, picked: list[int], seed: int, step: int) -> Callable[[int, np.ndarray], None]:
        spec = self._bundle.manifest.image

        def load(index: int, out: np.ndarray) -> None:
            key, path = (seed, 0, step, picked[index]), self.pictures.paths[picked[index]]
            load_train(path, spec, key, normalise=self._normalise, scale=MILD_CROP_SCALE, out=out)

        return load

    def _features(self, chosen: np.ndarray, adapters: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions int64 [n] and features float32 [K, n, D] of the readable of these pictures, in portions."""

        def skipped(index: int, path: Path, error: ImageError) -> None:
            self._leave_out(int(chosen[index]), error)

        reader = PictureReader(self._bundle.manifest.image, self._normalise, skipped)
        files = [Picture(self.pictures.paths[i]) for i in chosen]
        for part, found in reader.features(self.backbone, adapters, files):
            yield chosen[part], found

    def _leave_out(self, position: int, error: ImageError) -> None:
        if position not in self._lost:
            self._tell(f"Left out: {error}")
        self._lost.add(position)


def held_out(labels: np.ndarray) -> np.ndarray:
    """Bool [n]: the last fifth of pictures of class ids ``labels`` int64 [n], class by class, but never all of a class.

    What a small class has too few for, the next one makes up: a device may have four pictures of each of many classes.
    """
    found, due = np.zeros(len(labels), bool), 0
    for one in np.unique(labels):
        places = np.flatnonzero(labels == one)
        due += len(places)
        some = min(due // HELD_OUT, len(places) - 1)
        found[places[len(places) - some :]] = True
        due -= HELD_OUT * some
    return found


def _labels_in(pictures: OwnPictures, share: Share) -> np.ndarray:
    """Class ids int64 [n] of the pictures in ``share``, -1 for a class that it lacks."""
    ids = {name: number for number, name in enumerate(share.class_names)}
    of = np.array([ids.get(name, -1) for name in pictures.names] or [-1], np.int64)
    return of[pictures.labels] if len(pictures.labels) else np.zeros(0, np.int64)


def _go_on() -> None:
    """Nobody asks a device to stop in the middle of a batch."""
