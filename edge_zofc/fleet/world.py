"""The pictures of a simulated fleet, as features, and which device has which of them.

Each picture goes through the backbone once, under the adapter's start, which is what devices share (``sharing.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.naming import named
from edge_zofc.algorithm.options import PRESETS
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.fleet.dealing import Wanted, attackers, deal, first_rounds, portions
from edge_zofc.fleet.sharing import adapter_sha256
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.fleet_folder import About
from edge_zofc.storage.settings import Settings

WORLD = "world.json"


@dataclass(frozen=True)
class Looked:
    """Features float32 [n, D] of pictures and their classes int64 [n]."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class World:
    """All pictures and all devices of a simulation; ``home`` is a folder for what devices keep."""

    home: Path
    wanted: Wanted
    bundle: Bundle
    class_names: tuple[str, ...]
    train: Looked
    test: Looked

    def keep(self) -> None:
        """Write it into ``home``, for other processes."""
        facts = {"wanted": asdict(self.wanted), "bundle": str(self.bundle.folder), "class_names": self.class_names}
        (self.home / WORLD).write_text(json.dumps(facts))
        for name, part in (("train", self.train), ("test", self.test)):
            np.save(self.home / f"{name}.npy", part.features)
            np.save(self.home / f"{name}-labels.npy", part.labels)

    @classmethod
    def read(cls, home: Path) -> World:
        """What ``keep`` wrote; features stay on the disk until they are asked for."""
        facts = json.loads((home / WORLD).read_text())
        train, test = (
            Looked(np.load(home / f"{name}.npy", mmap_mode="r"), np.load(home / f"{name}-labels.npy"))
            for name in ("train", "test")
        )
        bundle = read_bundle(Path(facts["bundle"]))
        return cls(home, Wanted(**facts["wanted"]), bundle, tuple(facts["class_names"]), train, test)

    @cached_property
    def dealt(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Positions of each device's training and test pictures. Raises as ``portions``."""
        parts, seed = portions(self.wanted, len(self.class_names)), self.wanted.seed
        return deal(self.train.labels, parts, (seed, 5)), deal(self.test.labels, parts, (seed, 6))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each device by its name."""
        return {self.wanted.name(number): number for number in range(self.wanted.devices)}

    @cached_property
    def attackers(self) -> dict[int, str]:
        """See ``dealing.attackers``."""
        return attackers(self.wanted)

    @cached_property
    def first_rounds(self) -> list[int]:
        """See ``dealing.first_rounds``."""
        return first_rounds(self.wanted)

    @cached_property
    def settings(self) -> Settings:
        """Those of a run on each device."""
        return About(
            bundle_identity=self.bundle.identity,
            bundle_folder=str(self.bundle.folder),
            adapter_sha256=adapter_sha256(self.bundle),
            feature_size=self.bundle.manifest.feature_size,
            normalise=PRESETS["edge"].normalise,
        ).settings()

    def seen(self, number: int, round_number: int) -> np.ndarray:
        """Positions of the training pictures that a device has learnt by a round."""
        own, tasks = self.dealt[0][number], self.wanted.tasks
        return own[: len(own) * self.tasks_done(number, round_number) // tasks]

    def tasks_done(self, number: int, round_number: int) -> int:
        """How many of its tasks a device has learnt by a round."""
        return max(0, min(round_number - self.first_rounds[number] + 1, self.wanted.tasks))

    def statistics(self, places: np.ndarray) -> tuple[tuple[str, ...], Statistics]:
        """What a device knows that learnt these training pictures: its classes, and their statistics."""
        ids, labels = np.unique(self.train.labels[places], return_inverse=True)
        found = Statistics.empty(len(ids), self.train.features.shape[1])
        found.add(self.train.features[places], labels.astype(np.int64))
        return tuple(self.class_names[i] for i in ids), found

    def right(self, head: Head, names: Sequence[str]) -> int:
        """How many of all test pictures a head with these classes names rightly."""
        return int(self.are_right(head, names, np.arange(len(self.test.labels))).sum())

    def are_right(self, head: Head, names: Sequence[str], places: np.ndarray) -> np.ndarray:
        """Which test pictures at ``places`` int64 [n] a head with these classes names rightly, bool [n]."""
        if not len(names) or not len(places):
            return np.zeros(len(places), bool)
        ids = np.array([self.class_names.index(name) for name in names], np.int64)
        return np.asarray(ids[named(head, self.test.features[places])] == self.test.labels[places])
