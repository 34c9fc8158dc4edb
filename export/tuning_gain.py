"""What a tuned start is worth: the closed-form head of all classes names pictures that nothing was trained on.

The tuned start is taken at the strength that names the most pictures of the held-back classes, if these are more than
one standard error above the untuned start's, and if all classes together do not lose. Else it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_zofc.algorithm.naming import named, solved_head
from edge_zofc.algorithm.paired import gain, is_worse
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.errors import InputError
from edge_zofc.export.tuning_pictures import FOLDS, TO_TRAIN, TuningPictures
from edge_zofc.storage.tuning import TuningGain


class Gains:
    """What one start won over another on the pictures of the held-back classes, and on those of all.

    ``untuned`` and ``tuned`` bool [t]: which pictures are named rightly (``named_rightly``); ``held_back`` bool [t]:
    which of them are of held-back classes.
    """

    def __init__(self, untuned: np.ndarray, tuned: np.ndarray, held_back: np.ndarray) -> None:
        self.on_held_back = _gain(untuned[held_back], tuned[held_back])
        self.on_all = _gain(untuned, tuned)
        won, lost = (tuned & ~untuned)[held_back], (untuned & ~tuned)[held_back]
        # The untuned start would have to be worse.
        self.wins = is_worse(int(won.sum()), int(lost.sum())) and self.on_all.gain >= 0

    def __str__(self) -> str:
        return f"held-back classes {described(self.on_held_back)}; all classes {described(self.on_all)}"


def described(found: TuningGain) -> str:
    """In percent and points."""
    return (
        f"{found.untuned:.1%} -> {found.untuned + found.gain:.1%} ({100 * found.gain:+.1f} points, 95 % interval "
        f"{100 * found.low:+.1f} to {100 * found.high:+.1f}, {found.pictures} pictures)"
    )


def best_strength(gains: Mapping[float, Gains]) -> float:
    """The strength that is taken. Raises InputError where none wins."""
    order = sorted(gains, key=lambda strength: gains[strength].on_held_back.gain, reverse=True)
    winning = [strength for strength in order if gains[strength].wins]
    if not winning:
        raise InputError(
            f"The tuned start is refused and nothing is written, for it does not win at any strength "
            f"({', '.join(f'{strength:g}' for strength in sorted(gains))}): at {order[0]:g}, the best, "
            f"{gains[order[0]]}; name more classes like those that the device will see, or leave out --tune."
        )
    return winning[0]


def named_rightly(features: np.ndarray, pictures: TuningPictures) -> np.ndarray:
    """Bool [t]: which of the pictures in a fold, in their order, are named rightly by a head without their fold.

    ``features`` float32 [n, D] are those of all ``pictures``.
    """
    labels, folds = pictures.labels, pictures.folds
    statistics = Statistics.empty(int(labels.max()) + 1, features.shape[1])
    statistics.add(features, labels)
    right = np.zeros(len(labels), bool)
    for fold in range(FOLDS):
        tested = folds == fold
        statistics.add(features[tested], labels[tested], times=-1)
        right[tested] = named(solved_head(statistics), features[tested]) == labels[tested]
        statistics.add(features[tested], labels[tested])
    return np.asarray(right[folds != TO_TRAIN])


def _gain(untuned: np.ndarray, tuned: np.ndarray) -> TuningGain:
    only = int((untuned & ~tuned).sum()), int((tuned & ~untuned).sum())
    difference, low, high = gain(*only, len(untuned))
    return TuningGain(pictures=len(untuned), untuned=float(untuned.mean()), gain=difference, low=low, high=high)
