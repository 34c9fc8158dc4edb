"""A device's side of a fleet whose adapter moves; bytes in, bytes out. The run itself stays as it is.

Beside the fleet's head (``member.py``) ``RUN/fleet`` then holds the fleet's ``journal.bin``, and ``own.share``: what
this run knows under the moved adapter, which takes a pass over all its pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_zofc.engine.own_pictures import own_pictures
from edge_zofc.engine.predict import run_bundle
from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError
from edge_zofc.fleet.exchange import (
    Answer,
    Compare,
    Compared,
    Follow,
    Followed,
    Measure,
    Measured,
    Renew,
    opened,
    sealed,
)
from edge_zofc.fleet.following import Following
from edge_zofc.fleet.measuring import Measuring
from edge_zofc.fleet.sharing import MIN_PICTURES, Sharing, learnt_of, share_of
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import OWN, FleetFolder
from edge_zofc.storage.fleet_journal import adapter_digest
from edge_zofc.storage.reading import is_there, read_bounded
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.share import MAX_SHARE_BYTES, Share, decode, encode
from edge_zofc.storage.writing import make_folder, write_atomic

SHARE_NAME = "fleet"
"""The device that a share of all devices names."""


@dataclass(frozen=True)
class Facts:
    """The run of a device ``name``, and what it has of its ``fleet``; see ``Member``."""

    run: Path
    name: str
    tell: Callable[[str], None]
    fleet: FleetFolder
    min_pictures: int = MIN_PICTURES
    bundle_folder: Path | None = None


KINDS: dict[str, type[Follow | Measure | Renew]] = {"follow": Follow, "measure": Measure, "renew": Renew}
"""Messages with a piece of the journal."""


class Mover:
    """Replies to these messages, and to Compare; sessions stay open between them until ``close``."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._measuring: Measuring | None = None
        self._sharing: Sharing | None = None
        self._merged: tuple[str, Share] | None = None
        self._bundle: Bundle | None = None
        self._made: bytes | None = None

    def close(self) -> None:
        """Give memory back, and look at the run anew at the next message."""
        if self._measuring is not None:
            self._measuring.close()
        self._measuring = self._sharing = self._merged = None

    def reply(self, kind: str, raw: bytes) -> bytes:
        """The reply to a message of this kind. Raises InputError or DamagedFileError for anything else."""
        if kind == "compare":
            compare, body = opened(raw, Compare)
            return sealed(self._compared(compare, body))
        piece, body = opened(raw, KINDS[kind])
        held = self._following().take(piece, body)
        if held is not None:
            self._facts.tell(f"asked, more of the journal is needed than from byte {piece.offset} on")
            return sealed(Followed(nonce=piece.nonce, held=held))
        if isinstance(piece, Measure):
            return self._measured(piece)
        if isinstance(piece, Renew):
            return self._renewed(piece)
        return sealed(Followed(nonce=piece.nonce, held=piece.offset + len(body)))

    def _following(self) -> Following:
        return Following(self._facts.fleet.path, self.bundle)

    @property
    def bundle(self) -> Bundle:
        """The run's, read and verified once."""
        if self._bundle is None:
            folder = RunFolder(self._facts.run)
            self._bundle = run_bundle(folder, folder.settings(), self._facts.bundle_folder)
        return self._bundle

    def _measured(self, ask: Measure) -> bytes:
        try:
            adapter, header = self._following().adapter()
            found = self._measure().estimate(self._rest(), adapter, header, ask.step, ask.pictures)
        except EdgeZofcError as error:
            self._facts.tell(f"step {ask.step}: not measured: {error}")
            # The sentence may name folders of this device.
            return sealed(Measured(nonce=ask.nonce, state="nothing", step=ask.step, reason="It cannot measure now."))
        self._facts.tell(f"step {ask.step}: measured on {found.pictures} pictures, loss {found.loss:.3f}")
        facts = {"step": ask.step, "pictures": found.pictures, "loss": found.loss}
        return sealed(Measured(nonce=ask.nonce, state="measured", **facts), found.values.astype("<f4").tobytes())

    def _renewed(self, ask: Renew) -> bytes:
        try:
            raw = self._own_share(self._following().adapter()[0].theta)
        except EdgeZofcError as error:
            self._facts.tell(f"asked for a share under the moved adapter, nothing to share: {error}")
            return sealed(Answer(nonce=ask.nonce, state="nothing", reason="It has no share under the moved adapter."))
        if hashlib.sha256(raw).hexdigest() == ask.held:
            return sealed(Answer(nonce=ask.nonce, state="same"))
        self._facts.tell(f"asked, share under the moved adapter given: {len(raw)} bytes")
        return sealed(Answer(nonce=ask.nonce, state="share"), raw)

    def _own_share(self, theta: np.ndarray) -> bytes:
        """The newest share under ``theta`` float32 [P]; made once. Raises InputError where no pictures are left."""
        own, path, digest = self._own().share, self._facts.fleet.path / OWN, adapter_digest(theta)
        if self._made is None and is_there(path):
            with suppress(EdgeZofcError):
                self._made = read_bounded(path, MAX_SHARE_BYTES)
        with suppress(DamagedFileError):
            kept = None if self._made is None else decode(self._made)
            if kept and (kept.number, kept.adapter_sha256, kept.name) == (own.number, digest, own.name):
                return self._made or b""
        names, statistics = self._measure().statistics(theta, self._facts.min_pictures)
        self._made = encode(replace(own, adapter_sha256=digest, class_names=names, statistics=statistics))
        make_folder(path.parent)
        write_atomic(path, self._made)
        return self._made

    def _compared(self, ask: Compare, body: bytes) -> Compared:
        nothing = Compared(nonce=ask.nonce, state="nothing")
        try:
            start, theta, moved = (
                self.bundle.initial_adapter(),
                self._following().adapter()[0].theta,
                decode(body, "The fleet's share"),
            )
            own, rest = read_bounded(self._facts.fleet.path / OWN, MAX_SHARE_BYTES), self._rest_bytes()
            if [hashlib.sha256(raw).hexdigest() for raw in (own, rest)] != [ask.own, ask.rest]:
                raise InputError("What the fleet has of this device is not the newest.")
            if moved.adapter_sha256 != adapter_digest(theta) or decode(own).number != self._own().share.number:
                raise InputError("The fleet's share is of another adapter, or the run has learnt since.")
            right = self._measure().compare(self._rest(), moved, (start, theta))
        except EdgeZofcError as error:
            self._facts.tell(f"the moved adapter is not judged here: {error}")
            return nothing.model_copy(update={"reason": "It cannot judge now."})
        rest_right, moved_right = right
        self._facts.tell(
            f"{len(rest_right)} held-out pictures: {moved_right.sum()} right under the moved adapter, "
            f"{rest_right.sum()} at rest"
        )
        return Compared(
            nonce=ask.nonce,
            state="compared",
            total=len(rest_right),
            right_rest=int(rest_right.sum()),
            right_moved=int(moved_right.sum()),
            only_rest=int((rest_right & ~moved_right).sum()),
            only_moved=int((moved_right & ~rest_right).sum()),
        )

    def _own(self) -> Sharing:
        if self._sharing is None:
            facts = self._facts
            self._sharing = share_of(facts.run, facts.name, facts.min_pictures, facts.bundle_folder)
        return self._sharing

    def _measure(self) -> Measuring:
        if self._measuring is None:
            facts, names = self._facts, self._own().share.class_names
            found = learnt_of(facts.run, facts.bundle_folder)
            pictures = own_pictures(facts.run, found.state, found.view, names, facts.tell)
            placement = RunFolder(facts.run).settings().execution
            self._measuring = Measuring(found.bundle, placement, found.normalise, pictures, facts.tell)
        return self._measuring

    def _rest_bytes(self) -> bytes:
        """The fleet's head at rest. Raises InputError where it has none yet."""
        raw = self._facts.fleet.share_bytes(SHARE_NAME)
        if raw is None:
            raise InputError("There is no head of the fleet yet.")
        return raw

    def _rest(self) -> Share:
        raw = self._rest_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        if self._merged is None or self._merged[0] != digest:
            self._merged = digest, decode(raw, "The fleet's head")
        return self._merged[1]
