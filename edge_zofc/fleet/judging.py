"""What becomes of a fleet's adapter after its last step.

Each device gives a share under the moved adapter, and the fleet merges these beside those at rest. Each device then
names its held-out pictures with both heads, as ``engine/gate.py`` does for one run. The moved adapter is in force then,
unless it is worse by more than a standard error in the sum, or classes would be lost whose pictures are gone.

Until then the fleet's head is that at rest. The verdict stands in the journal, and is final.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from edge_zofc.algorithm.episodes import HELD_OUT
from edge_zofc.algorithm.paired import is_worse
from edge_zofc.errors import DamagedFileError, EdgeZofcError, printable
from edge_zofc.fleet.coordinator import Coordinator, Exchange, share_of_all
from edge_zofc.fleet.exchange import MOST_REASON, Compare, Compared, opened, sealed
from edge_zofc.storage.fleet_folder import RENEWED, FleetFolder, Merged
from edge_zofc.storage.fleet_journal import FleetJournal, adapter_digest, replayed
from edge_zofc.storage.journal import Kind, Record
from edge_zofc.storage.share import encode


class Judge:
    """Of a fleet whose steps are all taken. ``quorum``: the fraction of the asked devices that must judge."""

    def __init__(self, coordinator: Coordinator, journal: FleetJournal, quorum: float) -> None:
        self._fleet, self._journal, self._quorum = coordinator, journal, quorum
        self._renewed = FleetFolder(coordinator.folder / RENEWED)
        self._without = set[str]()

    def judge(self, present: Iterable[str], exchange: Exchange, deadline: float) -> bool:
        """Go as far as devices that are there let it; returns whether the verdict is there."""
        fleet, present = self._fleet, list(present)
        if self._journal.rests:  # the server died before it could write the end
            return self._decide(False, "as was found before")
        self._renew(present, exchange, deadline)
        about = self._renewed.about()
        with_share = self._renewed.names(about)
        rest = fleet.fleet.merged()
        known = {name for device in with_share for name in self._renewed.share(device, about).class_names}
        lost = sorted(set(rest.class_names) - known)
        waiting = sorted({one.name for one in rest.devices} - {*with_share, *self._without})
        if lost and waiting:
            fleet.tell(f"the moved adapter waits for {', '.join(waiting)}, for classes that no other device has")
            return False
        if lost:
            few = printable(", ".join(lost), MOST_REASON)
            return self._decide(False, f"its pictures are gone, so that these would be lost: {few}")
        return self._ask(rest, self._renewed.merged(), present, exchange, deadline)

    def _renew(self, present: list[str], exchange: Exchange, deadline: float) -> None:
        """Ask the devices of the fleet for their shares under the moved adapter."""
        fleet = self._fleet
        about = fleet.fleet.about()
        theta = replayed(fleet.bundle, self._journal.path)[0].theta
        with self._renewed.locked():
            self._renewed.write_about(about.model_copy(update={"adapter_sha256": adapter_digest(theta)}))
        members = set(fleet.fleet.names(about))
        asks = {n: fleet.renew(n, self._renewed) for n in fleet.ledger.asked(present) if n in members}
        for name, raw in exchange(asks, deadline) if asks else ():
            if fleet.answered(name, raw, self._renewed) and self._renewed.share_bytes(name) is None:
                self._without.add(name)

    def _ask(self, rest: Merged, moved: Merged, present: list[str], exchange: Exchange, deadline: float) -> bool:
        """Let devices judge both heads."""
        fleet, head = self._fleet, self._fleet.ledger.devices.head
        at_rest = hashlib.sha256(encode(share_of_all(rest, head))).hexdigest()
        body, numbers = encode(share_of_all(moved, head + 1)), {one.name: one.number for one in rest.devices}
        pictures = {one.name: one.pictures for one in moved.devices if numbers.get(one.name) == one.number}
        messages, votes = dict[str, bytes](), dict[str, Compared]()
        for name in fleet.ledger.asked(present):
            if name in pictures and fleet.ledger.known[name].head == head:
                own = hashlib.sha256(self._renewed.share_bytes(name) or b"").hexdigest()
                compare = Compare(nonce=fleet.ledger.nonce(name), own=own, rest=at_rest)
                messages[name] = fleet.ledger.sent(name, sealed(compare, body))
        for name, raw in exchange(messages, deadline) if messages else ():
            vote = self._vote(name, raw, pictures[name])
            if vote is not None:
                votes[name] = vote
        if not any(vote.total for vote in votes.values()) or len(votes) < self._quorum * len(messages):
            fleet.tell(f"the moved adapter is not judged yet: {len(votes)} of {len(messages)} devices could")
            return False
        names = ("total", "right_rest", "right_moved", "only_rest", "only_moved")
        sums = {what: sum(getattr(vote, what) for vote in votes.values()) for what in names}
        text = "{right_moved} of {total} held-out pictures are right with it, {right_rest} without".format(**sums)
        return self._decide(not is_worse(sums["only_rest"], sums["only_moved"]), text, **sums)

    def _vote(self, name: str, raw: bytes, pictures: int) -> Compared | None:
        ledger = self._fleet.ledger
        ledger.got(name, raw)
        try:
            if self._fleet.lacks(name, raw):
                return None
            vote, body = opened(raw, Compared)
            ledger.check_nonce(name, vote.nonce)
            if body or vote.total > pictures // HELD_OUT:
                raise DamagedFileError(f"A device of {pictures} pictures judged {vote.total}.")
        except EdgeZofcError as error:
            ledger.strike(name, str(error))
            return None
        ledger.forgive(name)
        if vote.state == "nothing":
            self._fleet.tell(f"{name}: {printable(vote.reason, MOST_REASON)}")
        return vote if vote.state == "compared" else None

    def _decide(self, keeps: bool, text: str, **sums: int) -> bool:
        steps = self._journal.steps
        kinds = (Kind.TASK_END,) if keeps else (Kind.REST, Kind.TASK_END)
        self._journal.append(*(Record(kind, 0, steps) for kind in kinds))
        self._fleet.settle(self._journal)
        self._fleet.log("judged", keeps=keeps, reason=text, **sums)
        self._fleet.tell(f"the adapter {'has moved' if keeps else 'rests'}: {text}")
        return True
