"""What a run answers to a picture, and what it says of its classes: names, likeness, "unknown"."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from edge_zofc.algorithm.likeness import lookalikes
from edge_zofc.engine.predict import Guess
from edge_zofc.engine.taught_run import TaughtRun
from edge_zofc.errors import InputError


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
    learnt, names = run.knowledge.learnt if run.knowledge is not None else {}, run.class_names
    alike = lookalikes(run.left_out[1])
    taught = Counter(picture.name for picture in run.view.pictures.values() if not picture.test)
    return tuple(
        ClassInfo(
            name=name,
            learnt=learnt.get(name, 0),
            taught=taught[name],
            kept_back=total[name],
            kept_back_right=right[name],
            looks_like=names[alike[index]] if index in alike else None,
        )
        for index, name in enumerate(names)
    )


def kept_back_of(run: TaughtRun) -> KeptBack:
    """Over all classes."""
    right, total = _kept_back_by_class(run)
    return KeptBack(sum(right.values()), sum(total.values()))


def _kept_back_by_class(run: TaughtRun) -> tuple[Counter[str], Counter[str]]:
    """Those named rightly and all of them, by name."""
    names, rows = run.kept_back
    best = run.head.logits(rows).argmax(axis=-1) if names and run.class_names else []
    right = Counter(name for name, index in zip(names, best, strict=False) if run.class_names[int(index)] == name)
    return right, Counter(names)
