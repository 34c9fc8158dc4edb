"""Devices of a fleet that takes steps, without pictures: what they measure is a number of their name and the step."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from shares import made_share

from edge_zofc.algorithm.adapter import lattice_eps
from edge_zofc.algorithm.directions import BALANCED
from edge_zofc.engine.replay import replay_run
from edge_zofc.errors import InputError
from edge_zofc.fleet.coordinator import Coordinator
from edge_zofc.fleet.exchange import (
    Answer,
    Ask,
    Compare,
    Compared,
    Follow,
    Followed,
    Measure,
    Measured,
    News,
    Receipt,
    Renew,
    kind_of,
    opened,
    sealed,
)
from edge_zofc.fleet.following import Following
from edge_zofc.fleet.sharing import adapter_sha256
from edge_zofc.fleet.stepping import Plan, Steps
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_journal import adapter_digest
from edge_zofc.storage.journal import Header
from edge_zofc.storage.share import encode


def fleet_header(bundle: Bundle, **changes: Any) -> Header:
    """Of a fleet's journal with two queries a step: a header of 108 bytes and records of 32."""
    given = {
        "seed": 7, "bundle_identity": bundle.identity, "adapter_size": bundle.manifest.adapter.size,
        "eps": lattice_eps(2e-3), "momentum": 0.9, "queries": 2, "directions": BALANCED, "optimizer": "adam",
    }  # fmt: skip
    return Header(**{**given, **changes})


Device = Callable[[bytes], bytes]


class Walker:
    """An honest device with one share, which follows the fleet's journal in ``folder``; ``votes`` of 2 pictures."""

    def __init__(self, bundle: Bundle, name: str, folder: Path, classes: tuple[int, ...] = (0, 1)) -> None:
        self.bundle, self.name, self.classes = bundle, name, classes
        self.following, self.bodies, self.votes = Following(folder, bundle), list[bytes](), (1, 1)

    def share(self, adapter: str) -> bytes:
        size = self.bundle.manifest.feature_size
        facts = {"bundle_identity": self.bundle.identity, "adapter_sha256": adapter, "size": size}
        return encode(made_share(self.name, self.classes, **facts))

    def digest(self) -> str:
        """Of the adapter that its journal comes to."""
        return adapter_digest(self.following.adapter()[0].theta)

    def __call__(self, raw: bytes) -> bytes:
        kind = kind_of(raw)
        if kind == "ask":
            ask, _ = opened(raw, Ask)
            return self.answer(ask.nonce, ask.held, self.share(adapter_sha256(self.bundle)))
        if kind == "news":
            news, body = opened(raw, News)
            self.bodies.append(body)
            return sealed(Receipt(nonce=news.nonce, taken=True))
        if kind == "compare":
            compare, _ = opened(raw, Compare)
            rest, moved = self.votes
            votes = {"total": 2, "right_rest": rest, "right_moved": moved}
            both = min(rest, moved)
            only = {"only_rest": rest - both, "only_moved": moved - both}
            return sealed(Compared(nonce=compare.nonce, state="compared", **votes, **only))
        piece, body = opened(raw, {"follow": Follow, "measure": Measure, "renew": Renew}[kind])
        held = self.following.take(piece, body)
        if held is not None or isinstance(piece, Follow):
            return sealed(Followed(nonce=piece.nonce, held=piece.offset + len(body) if held is None else held))
        if isinstance(piece, Renew):
            return self.answer(piece.nonce, piece.held, self.share(self.digest()))
        assert isinstance(piece, Measure)
        return self.measured(piece)

    def measured(self, ask: Measure) -> bytes:
        """Values that depend on the step and the adapter of before."""
        digest = hashlib.sha256(f"{self.name} {ask.step} {self.digest()}".encode()).digest()
        _, header = self.following.adapter()
        count = header.adapter_size if header.is_dense else header.queries
        values = np.resize(np.frombuffer(digest, np.int8), count).astype("<f4") / np.float32(128)
        facts = {"step": ask.step, "pictures": 4, "loss": 1.0}
        return sealed(Measured(nonce=ask.nonce, state="measured", **facts), values.tobytes())

    def answer(self, nonce: str, held: str | None, raw: bytes) -> bytes:
        is_held = hashlib.sha256(raw).hexdigest() == held
        return sealed(Answer(nonce=nonce, state="same" if is_held else "share"), b"" if is_held else raw)


def walkers(bundle: Bundle, home: Path, count: int = 4) -> dict[str, Walker]:
    """Devices a, b, ... of which each has a class of its own beside one that all have."""
    return {name: Walker(bundle, name, home / name, (0, 1 + i % 4)) for i, name in enumerate("abcdefghij"[:count])}


def over(devices: Mapping[str, Device]) -> Any:
    """An exchange with devices in this order; those that are not there are silent."""

    def exchange(messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
        for name, device in devices.items():
            if name in messages:
                yield name, device(messages[name])

    return exchange


def fleet(bundle: Bundle, folder: Path, told: list[str] | None = None) -> Coordinator:
    """A coordinator whose clock stands still."""
    return Coordinator(folder, bundle.folder, (told if told is not None else []).append, clock=lambda: 1000.0)


def coefficients_of(raw: bytes) -> np.ndarray:
    """What a device measured, float32 [n]."""
    reply, body = opened(raw, Measured)
    if reply.state != "measured":
        raise InputError("nothing was measured")
    return np.frombuffer(body, "<f4")


def with_values(raw: bytes, *values: float) -> bytes:
    """The same reply with other values."""
    reply, _ = opened(raw, Measured)
    return sealed(reply, struct.pack(f"<{len(values)}f", *values))


def begun(bundle: Bundle, folder: Path, devices: Mapping[str, Any], plan: Plan, told: list[str] | None = None) -> Steps:
    """A fleet with one head, which all devices have."""
    coordinator = fleet(bundle, folder, told)
    assert coordinator.round(devices, over(devices), 1.0).classes
    return Steps(coordinator, plan)


def all_steps(steps: Steps, devices: Mapping[str, Any]) -> None:
    """All of a plan."""
    while steps.are_left:
        assert steps.step(devices, over(devices))


def replayed_digest(bundle: Bundle, folder: Path) -> str:
    """SHA-256 of the adapter that an ordinary replay makes of a fleet's journal."""
    return replay_run(bundle.folder, folder / "journal.bin", folder.parent / "replayed", None, None).sha256
