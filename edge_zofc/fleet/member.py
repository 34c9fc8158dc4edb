"""A device's side of an exchange: it gives the newest share of its run and takes the fleet's head; bytes in, bytes out.

What the fleet gave lies in ``RUN/fleet``, a fleet's folder with one share, that of all devices. ``edge-zofc predict
RUN/fleet`` names pictures by it, also without a network. The run itself stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.engine.own_pictures import learnt_streams
from edge_zofc.engine.predict import TrainedRun, open_merged, open_run, run_bundle
from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError, quoted
from edge_zofc.fleet.canary import MARGIN, Tried, try_on
from edge_zofc.fleet.exchange import MOST_REASON, Answer, Ask, News, Receipt, kind_of, opened, sealed
from edge_zofc.fleet.following import Following
from edge_zofc.fleet.moving import KINDS as PIECES
from edge_zofc.fleet.moving import SHARE_NAME, Facts, Mover
from edge_zofc.fleet.sharing import MIN_PICTURES, Sharing, adapter_sha256, share_of
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import MOVED, About, Device, FleetFolder, Merged, misfit
from edge_zofc.storage.fleet_journal import JOURNAL, adapter_digest
from edge_zofc.storage.reading import is_there
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings, folder_place
from edge_zofc.storage.share import decode, encode

FOLDER = "fleet"
"""Where a run keeps what its fleet gave it."""


@dataclass
class Member:
    """The run in ``run`` as the device ``name`` of a fleet; ``tell`` gets a sentence for each exchange.

    ``margin``: see ``canary``. ``refusal`` is set where this run can be in no such fleet, ``has_news`` counts heads
    that were looked at.
    """

    run: Path
    name: str
    tell: Callable[[str], None]
    min_pictures: int = MIN_PICTURES
    bundle_folder: Path | None = None
    margin: float = MARGIN
    refusal: InputError | None = None
    has_news: int = 0

    def __post_init__(self) -> None:
        facts = Facts(self.run, self.name, self.tell, self.fleet, self.min_pictures, self.bundle_folder)
        self._mover = Mover(facts)

    def close(self) -> None:
        """Give the memory of what was measured back."""
        self._mover.close()

    @property
    def fleet(self) -> FleetFolder:
        """What the fleet gave."""
        return FleetFolder(self.run / FOLDER)

    def check(self) -> None:
        """Raise InputError or DamagedFileError where there is no such run, or its bundle is not found."""
        self._bundle()

    def sharing(self) -> Sharing:
        """What would be shared now. Raises as ``share_of``."""
        return share_of(self.run, self.name, self.min_pictures, self.bundle_folder)

    def reply(self, raw: bytes) -> bytes:
        """The reply to a message of the fleet. Raises InputError or DamagedFileError for anything else."""
        kind = kind_of(raw)
        if kind in ("ask", "renew"):  # the run may have learnt since
            self._mover.close()
        if kind == "ask":
            ask, _ = opened(raw, Ask)
            return self._answer(ask)
        if kind == "news":
            news, body = opened(raw, News)
            return sealed(self._receipt(news, body))
        if kind in ("compare", *PIECES):
            return self._mover.reply(kind, raw)
        raise DamagedFileError(f"The fleet sent {quoted(kind)}, no question; both sides need the same edge-zofc.")

    def _answer(self, ask: Ask) -> bytes:
        reason = self._reason_against(ask)
        if reason:
            self.refusal = InputError(
                f"The run in {self.run} cannot join this fleet: {reason}; learn with the fleet's bundle."
            )
            self.tell(f"asked, refused: {reason}")
            return sealed(Answer(nonce=ask.nonce, state="refused", reason=reason))
        try:
            share = self.sharing().share
            raw = encode(share)
        except (InputError, DamagedFileError) as error:  # nothing yet, or a run that cannot be read right now
            self.tell(f"asked, nothing to share: {error}")
            # The sentence names folders of this device; the fleet learns that there is nothing, no more.
            return sealed(Answer(nonce=ask.nonce, state="nothing", reason="It has nothing to share yet."))
        if hashlib.sha256(raw).hexdigest() == ask.held:
            self.tell(f"asked, share {share.number} is there already")
            return sealed(Answer(nonce=ask.nonce, state="same"))
        classes = f"{len(share.class_names)} classes, {share.pictures} pictures, {len(raw)} bytes"
        self.tell(f"asked, share {share.number} given: {classes}")
        return sealed(Answer(nonce=ask.nonce, state="share"), raw)

    def _reason_against(self, ask: Ask) -> str:
        settings = self._settings()
        own, fleets = settings.bundle_identity, ask.bundle_identity
        if own != fleets:
            return f"it was learnt with another bundle (its identity is {own[:12]}..., the fleet's {fleets[:12]}...)"
        bundle = self._bundle()
        if (adapter_sha256(bundle), bundle.manifest.feature_size) != (ask.adapter_sha256, ask.feature_size):
            return "its adapter's start is another one"
        if settings.options.normalise != ask.normalise:
            return "its pictures and the fleet's are not normalised alike (--normalise)"
        return ""

    def _receipt(self, news: News, body: bytes) -> Receipt:
        self.has_news += 1
        try:
            if self.fleet.is_fleet() and self.fleet.in_force().share_bytes(SHARE_NAME) == body:
                self.tell(f"head {news.number}: it is in {self.fleet.path} already")
                return Receipt(nonce=news.nonce, taken=True)
            merged, bundle, theta = self._checked(body)
            tried = self._tried(open_merged(merged, bundle, theta))
            what = f"head {news.number} of {news.devices} devices, {len(merged.class_names)} classes"
            if tried.is_worse(self.margin):
                reason = f"{tried}, more than the {100 * self.margin:g} % that it may lose and more than chance"
                self.tell(f"{what}: not taken, {reason}")
                return Receipt(nonce=news.nonce, taken=False, reason=reason)
            self._keep(merged.about, body)
        except EdgeZofcError as error:
            self.tell(f"news, not taken: {error}")
            return Receipt(nonce=news.nonce, taken=False, reason=str(error)[:MOST_REASON])
        self.tell(f"{what}: taken into {self.fleet.path}, {tried}")
        return Receipt(nonce=news.nonce, taken=True, reason=str(tried))

    def _checked(self, body: bytes) -> tuple[Merged, Bundle, np.ndarray]:
        """The news as a fleet would have it, and its adapter float32 [P]: the start, or what the journal comes to.

        Raises InputError or DamagedFileError where it does not fit this run.
        """
        bundle, share = self._bundle(), decode(body, "The fleet's news")
        theta = bundle.initial_adapter()
        if share.adapter_sha256 != adapter_digest(theta) and is_there(self.fleet.path / JOURNAL):
            theta = Following(self.fleet.path, bundle).adapter()[0].theta
        about = About(
            bundle_identity=bundle.identity,
            bundle_folder=folder_place(self.fleet.path, bundle.folder),
            adapter_sha256=adapter_digest(theta),
            feature_size=bundle.manifest.feature_size,
            normalise=self._settings().options.normalise,
        )
        reason = misfit(share, about)
        if share.name != SHARE_NAME or reason:
            raise InputError(f"The fleet's news does not fit this run: {reason or 'it is one device alone'}.")
        return Merged(about, (Device.of(share),), share.class_names, share.statistics), bundle, theta

    def _tried(self, new: TrainedRun) -> Tried:
        """The new head beside the last one of the fleet, else the run's own."""
        streams = learnt_streams(self.run)
        if not streams:
            return Tried(0, 0, 0, 0)
        return try_on(self._old(new.bundle.folder), new, streams, self.tell)

    def _old(self, bundle_folder: Path) -> TrainedRun:
        if self.fleet.is_fleet():
            try:
                return open_run(self.fleet.path, bundle_folder)
            except DamagedFileError as error:  # the new head takes its place
                self.tell(f"The fleet's last head is not used: {error}")
        return open_run(self.run, bundle_folder)

    def _keep(self, about: About, body: bytes) -> None:
        """Put the fleet's share in its place; with the moved adapter's it is that folder which is in force then."""
        start, moved = adapter_sha256(self._bundle()), FleetFolder(self.fleet.path / MOVED)
        with self.fleet.locked():
            self.fleet.write_about(about.model_copy(update={"adapter_sha256": start}))
            if about.adapter_sha256 != start:
                with moved.locked():
                    moved.write_share(SHARE_NAME, body)
                    moved.write_about(about)
                return
            self.fleet.write_share(SHARE_NAME, body)
            if moved.is_fleet():  # of a fleet that was there before
                moved.end()

    def _settings(self) -> Settings:
        return RunFolder(self.run).settings()

    def _bundle(self) -> Bundle:
        return run_bundle(RunFolder(self.run), self._settings(), self.bundle_folder)
