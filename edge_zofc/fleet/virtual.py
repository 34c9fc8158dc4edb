"""Devices that are not there: a ``Member`` answers for each, from statistics of the features that were dealt to it.

Messages are those of real devices, by their code. What a device must keep from one message to the next lies in a file,
so that any process may speak for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.naming import solved_head
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.predict import TrainedRun
from edge_zofc.errors import InputError
from edge_zofc.fleet.canary import Tried, among
from edge_zofc.fleet.exchange import Answer, Ask, kind_of, opened, sealed
from edge_zofc.fleet.member import Member
from edge_zofc.fleet.sharing import Sharing, adapter_sha256
from edge_zofc.fleet.world import World
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import About
from edge_zofc.storage.settings import Settings
from edge_zofc.storage.share import Share, packed

_MANY = 100
"""How many times its pictures a device with wrong labels claims."""


class VirtualMember(Member):
    """The device ``number`` in a round."""

    def __init__(self, world: World, number: int, round_number: int) -> None:
        name, wanted = world.wanted.name(number), world.wanted
        super().__init__(world.home / name, name, lambda sentence: None, wanted.min_pictures, margin=wanted.margin)
        self.world, self.number, self.round = world, number, round_number
        self._new: TrainedRun | None = None

    def sharing(self) -> Sharing:
        """Raises InputError where no class has pictures enough."""
        names, statistics = self.world.statistics(self.world.seen(self.number, self.round))
        few = {name: int(n) for name, n in zip(names, statistics.counts, strict=True) if n < self.min_pictures}
        kept = [i for i, name in enumerate(self.world.class_names) if name in names and name not in few]
        places = [place for place in self.world.seen(self.number, self.round) if self.world.train.labels[place] in kept]
        if not places:
            raise InputError(f"No class has {self.min_pictures} pictures or more, so there is nothing to share.")
        names, statistics = self.world.statistics(np.array(places, np.int64))
        return Sharing(self._share(names, statistics), few, 0)

    def _share(self, names: tuple[str, ...], statistics: Statistics) -> Share:
        bundle, settings = self.world.bundle, self.world.settings
        return Share(
            name=self.name,
            number=self.world.tasks_done(self.number, self.round),
            bundle_identity=bundle.identity,
            adapter_sha256=adapter_sha256(bundle),
            normalise=settings.options.normalise,
            class_names=names,
            statistics=statistics,
        )

    def _tried(self, new: TrainedRun) -> Tried:
        self._new, old = new, self._last()
        if old is None:
            return Tried(0, 0, 0, 0)
        both = [name for name in old[0] if name in new.class_names]
        own = [place for place in self.world.dealt[1][self.number] if self._is_of(place, both)]
        heads = (among(head, names, both) for names, head in (old, (new.class_names, new.head)))
        return Tried.of(*(self.world.are_right(head, both, np.array(own, np.int64)) for head in heads))

    def _is_of(self, place: int, names: Sequence[str]) -> bool:
        return self.world.class_names[self.world.test.labels[place]] in names

    def _last(self) -> tuple[tuple[str, ...], Head] | None:
        """The last head that it took, else its own; None before it has learnt anything."""
        try:
            with np.load(self._file("npz")) as found:
                return tuple(found["names"].tolist()), Head(found["rows"], found["sigma"], found["biases"])
        except FileNotFoundError:
            names, statistics = self.world.statistics(self.world.seen(self.number, self.round))
            return (names, solved_head(statistics)) if names else None

    def _keep(self, about: About, body: bytes) -> None:
        if self._new is not None:
            names, head = np.array(self._new.class_names), self._new.head
            np.savez(self._file("npz"), names=names, rows=head.rows, sigma=head.sigma, biases=np.asarray(head.biases))

    def _file(self, ending: str) -> Path:
        return self.world.home / f"{self.name}.{ending}"

    def _settings(self) -> Settings:
        return self.world.settings

    def _bundle(self) -> Bundle:
        return self.world.bundle


class HostileMember(VirtualMember):
    """A device with a key that answers as ``attack`` says; see ``dealing.ATTACKS``."""

    @property
    def attack(self) -> str:
        """One of ATTACKS."""
        return self.world.attackers[self.number]

    def reply(self, raw: bytes) -> bytes:
        """What it sends in the place of an honest answer; news it takes as the others do."""
        honest = super().reply(raw)
        places = self.world.seen(self.number, self.round)
        if kind_of(raw) != "ask" or not len(places):
            return honest
        if self.attack == "noise":
            return np.random.default_rng([self.number, self.round]).bytes(max(len(honest), 1000))
        if self.attack == "old":
            return self._first(honest)
        ask, _ = opened(raw, Ask)
        body = packed(self._forged(self._share(*self.world.statistics(places))))
        is_held = hashlib.sha256(body).hexdigest() == ask.held
        return sealed(Answer(nonce=ask.nonce, state="same" if is_held else "share"), b"" if is_held else body)

    def _first(self, honest: bytes) -> bytes:
        file = self._file("first")
        try:
            return file.read_bytes()
        except FileNotFoundError:
            file.write_bytes(honest)
            return honest

    def _forged(self, share: Share) -> Share:
        sums, counts, moment = share.statistics.sums, share.statistics.counts, share.statistics.moment
        if self.attack == "bundle":
            return replace(share, bundle_identity=hashlib.sha256(share.name.encode()).hexdigest())
        if self.attack == "labels":
            names, all_names = share.class_names, self.world.class_names
            turned = tuple(all_names[(all_names.index(name) + 1) % len(all_names)] for name in names)
            many = Statistics(_MANY * sums, _MANY * counts, _MANY * moment)
            return replace(share, class_names=turned, statistics=many)
        if self.attack == "sums":
            return replace(share, statistics=Statistics(sums + 1e9, counts, moment))
        return replace(share, statistics=Statistics(sums, counts, np.full_like(moment, 2.0**30)))


def virtual(world: World, number: int, round_number: int) -> VirtualMember:
    """A device in a round."""
    return (HostileMember if number in world.attackers else VirtualMember)(world, number, round_number)
