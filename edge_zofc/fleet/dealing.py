"""What a simulated fleet is like: who has which pictures, who attacks, who comes late, and who is silent in a round.

Everything follows from ``Wanted`` and its seed, so that each process that works on a fleet can tell it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_zofc.errors import InputError, quoted
from edge_zofc.fleet.canary import MARGIN
from edge_zofc.fleet.sharing import MIN_PICTURES

MOST_DEVICES, MOST_ROUNDS = 2000, 1000
ATTACKS = ("labels", "sums", "huge", "bundle", "noise", "old")
"""Pictures of one class under another's name and 100 times as many; sums + 1e9; a moment of the largest integers; a
share of another bundle; bytes that are none; the first answer again, in each round."""
_SPLITS = "write 'classes:K' for K classes a device, or 'dirichlet:A' for mixed ones, A from 0.01 to 100"
Fate = Literal["in time", "slow", "silent"]


@dataclass(frozen=True)
class Wanted:
    """A fleet to simulate. ``drop``, ``slow``: chance of a device and round; ``hostile``, ``late``: parts of all
    devices. A device learns its pictures in ``tasks`` equal parts, one a round. The rest: see ``Member``, ``About``.
    """

    devices: int = 100
    rounds: int = 5
    split: str = "classes:2"
    tasks: int = 1
    drop: float = 0.0
    slow: float = 0.0
    hostile: float = 0.0
    attack: str = "all"
    late: float = 0.0
    min_pictures: int = MIN_PICTURES
    margin: float = MARGIN
    cap: float | None = None
    seed: int = 1993

    def check(self) -> None:
        """Raise InputError for what no fleet can be like."""
        for name, value, most in (("devices", self.devices, MOST_DEVICES), ("rounds", self.rounds, MOST_ROUNDS)):
            if value > most:
                raise InputError(f"--{name} is {value}, the limit is {most}; give fewer.")
        for name in ("drop", "slow", "hostile", "late", "margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name} is {getattr(self, name):g}; give a fraction from 0 to 1.")
        if self.drop + self.slow > 1:
            raise InputError(f"--drop {self.drop:g} and --slow {self.slow:g} are more than 1 together; give less.")
        split_of(self.split)

    def name(self, number: int) -> str:
        """What a device is called; names are in the order of numbers."""
        return f"d{number:0{len(str(self.devices - 1))}d}"

    def fate(self, number: int, round_number: int) -> Fate:
        """What befalls a device in a round."""
        drawn = np.random.default_rng([self.seed, 3, round_number, number]).random()
        return "silent" if drawn < self.drop else "slow" if drawn < self.drop + self.slow else "in time"


def split_of(text: str) -> tuple[str, float]:
    """``classes`` and how many a device has, or ``dirichlet`` and its parameter. Raises InputError."""
    kind, _, raw = text.partition(":")
    try:
        value = float(raw or {"classes": "2", "dirichlet": "0.3"}[kind])
        fits = value >= 1 and value == int(value) if kind == "classes" else 0.01 <= value <= 100
    except (KeyError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise InputError(f"--split is {quoted(text)}; {_SPLITS}.")
    return kind, value


def portions(wanted: Wanted, classes: int) -> np.ndarray:
    """Which part of a class's pictures a device has, float64 [devices, C]; columns sum to 1.

    Raises InputError where the devices cannot hold all classes.
    """
    (kind, value), generator = split_of(wanted.split), np.random.default_rng([wanted.seed, 1])
    if kind == "dirichlet":
        return np.asarray(generator.dirichlet(np.full(wanted.devices, value), size=classes).T)
    each = int(value)
    if not classes <= wanted.devices * each or each > classes:
        raise InputError(
            f"{wanted.devices} devices of {each} classes cannot hold {classes} classes; change --devices or --split."
        )
    found, deck = np.zeros((wanted.devices, classes)), list[int]()
    for row in found:
        for _ in range(each):
            card = next((card for card in deck if not row[card]), None)
            if card is None:  # the deck is over, or holds nothing but what the device has
                deck += generator.permutation(classes).tolist()
                card = next(card for card in deck if not row[card])
            deck.remove(card)
            row[card] = 1
    return np.asarray(found / found.sum(axis=0))


def deal(labels: np.ndarray, parts: np.ndarray, seed: Sequence[int]) -> list[np.ndarray]:
    """Positions int64 [n] of each device's pictures in ``labels`` int64 [N], shuffled; ``parts`` as ``portions``."""
    generator, found = np.random.default_rng(seed), [list[int]() for _ in parts]
    for class_id in range(parts.shape[1]):
        places = generator.permutation(np.flatnonzero(labels == class_id))
        ends = np.rint(np.cumsum(parts[:, class_id]) * len(places)).astype(np.int64)
        for own, taken in zip(found, np.split(places, ends[:-1]), strict=True):
            own += taken.tolist()
    return [generator.permutation(np.array(own, np.int64)) for own in found]


def attackers(wanted: Wanted) -> dict[int, str]:
    """The hostile devices and what each of them does."""
    generator = np.random.default_rng([wanted.seed, 2])
    numbers = generator.permutation(wanted.devices)[: round(wanted.hostile * wanted.devices)]
    kinds = ATTACKS if wanted.attack == "all" else (wanted.attack,)
    return {int(number): kinds[place % len(kinds)] for place, number in enumerate(numbers)}


def first_rounds(wanted: Wanted) -> list[int]:
    """The round, from 1, in which each device joins."""
    generator = np.random.default_rng([wanted.seed, 4])
    found = [1] * wanted.devices
    if wanted.rounds > 1:
        for number in generator.permutation(wanted.devices)[: round(wanted.late * wanted.devices)]:
            found[number] = int(generator.integers(2, wanted.rounds + 1))
    return found
