"""What a run answers to a picture, and what it says of its classes: names, likeness, "unknown"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_zofc.engine.taught_run import TaughtRun
from edge_zofc.errors import InputError

ALIKE = 0.8
"""Two classes whose means are so near that they are told as looking alike."""


@dataclass(frozen=True)
class Guess:
    """One class for one picture. ``probability``: the head's softmax over the known classes, which is no measure of
    whether the thing is any of them; ``likeness``: cosine to the class mean, -1 to 1.
    """

    class_name: str
    probability: float
    likeness: float


@dataclass(frozen=True)
class Answer:
    """What a picture shows: ``name`` is None where its likeness to the nearest class is below ``limit``.

    ``guesses``: all classes, the head's best first.
    """

    name: str | None
    likeness: float
    limit: float
    guesses: tuple[Guess, ...]

    def __str__(self) -> str:
        return f"{'unknown' if self.name is None else self.name} {self.likeness:.2f}"


@dataclass(frozen=True)
class ClassInfo:
    """A class: pictures of finished tasks, of the lesson, kept back and of those named rightly.

    ``looks_like``: the class that it is easily taken for, None where it stands apart.
    """

    name: str
    learnt: int
    taught: int
    kept_back: int
    kept_back_right: int
    looks_like: str | None


@dataclass(frozen=True)
class KeptBack:
    """How many pictures were kept back, and how many of them are named rightly."""

    right: int
    total: int


def answer_of(run: TaughtRun, features: np.ndarray) -> Answer:
    """The answer to a picture with ``features`` float32 [D]. Raises InputError while no class is known."""
    names = run.class_names
    if not names:
        raise InputError(
            f"The run in {run.run.path} knows no class yet; teach it some: edge-zofc teach RUN NAME IMAGE."
        )
    probabilities = run.head.probabilities(features[None])[0]
    likenesses = run.likeness.to_classes(features[None])[0]
    order = np.argsort(-probabilities, kind="stable")
    guesses = tuple(Guess(names[i], float(probabilities[i]), float(likenesses[i])) for i in order)
    nearest, limit = float(likenesses.max()), run.limit
    return Answer(guesses[0].class_name if nearest >= limit else None, nearest, limit, guesses)


def classes_of(run: TaughtRun) -> tuple[ClassInfo, ...]:
    """All classes that can be answered."""
    right, total = _kept_back_by_class(run)
    between = run.likeness.between_classes()
    learnt = run.knowledge.learnt if run.knowledge is not None else {}
    found = []
    for index, name in enumerate(run.class_names):
        near = int(between[index].argmax()) if len(between) > 1 else index
        taught = sum(1 for picture in run.view.pictures.values() if picture.name == name and not picture.test)
        looks_like = run.class_names[near] if between[index][near] >= ALIKE else None
        found.append(ClassInfo(name, learnt.get(name, 0), taught, total.get(name, 0), right.get(name, 0), looks_like))
    return tuple(found)


def kept_back_of(run: TaughtRun) -> KeptBack:
    """Over all classes."""
    right, total = _kept_back_by_class(run)
    return KeptBack(sum(right.values()), sum(total.values()))


def _kept_back_by_class(run: TaughtRun) -> tuple[dict[str, int], dict[str, int]]:
    """Those named rightly and all of them, by name."""
    names, rows = run.kept_back
    right, total = dict[str, int](), dict[str, int]()
    best = run.head.logits(rows).argmax(axis=-1) if names and run.class_names else []
    for name, index in zip(names, best, strict=False):
        total[name] = total.get(name, 0) + 1
        right[name] = right.get(name, 0) + (run.class_names[int(index)] == name)
    return right, total
