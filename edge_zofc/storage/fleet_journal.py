"""The journal of a fleet's steps: an ordinary one (``journal.py``), whose bytes travel to the devices as they are.

A CRC tells damage, not forgery. A chain of 8 bytes tells whether two journals are one up to the same record:

    of the header alone   the first 8 bytes of SHA-256(header)
    after a record        the first 8 bytes of SHA-256(chain before it || record)

It begins with a task, whose steps are the fleet's. Its end says that the fleet has judged the moved adapter, and a rest
before it that the adapter goes back to its start.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage import journal
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Header, Journal, Kind, Record
from edge_zofc.storage.journal_format import HEADER_BYTES, decode_header
from edge_zofc.storage.reading import is_there, read_bounded

JOURNAL = "journal.bin"
MAX_JOURNAL_BYTES = 1 << 28
CHAIN_BYTES = 8


def fresh_adapter(bundle: Bundle, header: Header, where: str = "The fleet's journal") -> Adapter:
    """The adapter that a journal with this header begins with. Raises InputError where it is another bundle's."""
    bundle = bundle.with_identity(header.bundle_identity)
    if header.bundle_identity != bundle.identity:
        raise InputError(
            f"{where} belongs to another bundle than {bundle.folder} (its identity: "
            f"{header.bundle_identity[:12]}..., here {bundle.identity[:12]}...); give the one it was learnt with."
        )
    scales = bundle.scales(header.directions)
    return Adapter(bundle.initial_adapter(), header.seed, header.eps, header.momentum, header.optimizer, scales)


def replayed(bundle: Bundle, path: Path) -> tuple[Adapter, Header]:
    """The adapter that the journal at ``path`` ends in. Raises as ``fresh_adapter`` and ``journal.replay``."""
    header, _ = journal.read(path)
    adapter = fresh_adapter(bundle, header, str(path))
    journal.replay(path, adapter)
    return adapter, header


def adapter_digest(theta: np.ndarray) -> str:
    """The SHA-256 of an adapter float32 [P], 64 hex digits."""
    return hashlib.sha256(theta.astype("<f4").tobytes()).hexdigest()


def chain_of(raw: bytes) -> tuple[int, str]:
    """How many whole records the bytes of a journal hold, and the chain after the last, 16 hex digits.

    Raises DamagedFileError where they are not a journal of whole records, InputError for a newer one.
    """
    where = Path("The fleet's journal")
    size = decode_header(raw[:HEADER_BYTES], where).record_bytes
    records, rest = divmod(len(raw) - HEADER_BYTES, size)
    if rest:
        raise DamagedFileError(f"{where} ends within a record.")
    chain = hashlib.sha256(raw[:HEADER_BYTES]).digest()[:CHAIN_BYTES]
    for start in range(HEADER_BYTES, len(raw), size):
        chain = hashlib.sha256(chain + raw[start : start + size]).digest()[:CHAIN_BYTES]
    return records, chain.hex()


def steps_of(folder: Path) -> tuple[int, str]:
    """How many steps the fleet in ``folder`` took, and what its adapter does: "rests", "moves" or "has moved".

    Raises as ``journal.read``. Nothing is changed, as by ``FleetJournal``.
    """
    records = journal.read(folder / JOURNAL)[1] if is_there(folder / JOURNAL) else ()
    kinds = [record.kind for record in records]
    verdict = "rests" if Kind.REST in kinds or not kinds else "has moved" if Kind.TASK_END in kinds else "moves"
    return kinds.count(Kind.STEP), verdict


class FleetJournal:
    """The journal in a fleet's folder, at the coordinator. Each record is on the disk when ``append`` returns.

    ``raw``: its bytes; ``records`` and ``chain`` as of ``chain_of``; ``steps``: how many were taken; ``is_over``: the
    fleet has judged what came of them; ``rests``: to no good. Raises as ``journal.read``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._look()

    @classmethod
    def find(cls, folder: Path) -> FleetJournal | None:
        """That of a fleet that took steps, else None."""
        return cls(folder) if is_there(folder / JOURNAL) else None

    @classmethod
    def begin(cls, folder: Path, header: Header) -> FleetJournal:
        """A new one. Raises as ``Journal.create``."""
        Journal.create(folder / JOURNAL, header).close()
        return cls(folder)

    def append(self, *records: Record) -> None:
        """Add records. Raises as ``Journal.append``."""
        with Journal.open_for_append(self.path) as found:
            for record in records:
                found.append(record)
        self._look()

    def _look(self) -> None:
        with Journal.open_for_append(self.path) as found:  # a torn last record is cut off
            self.header, self.steps = found.header, found.next_step
        self.raw = read_bounded(self.path, MAX_JOURNAL_BYTES)
        self.records, self.chain = chain_of(self.raw)
        kinds = [record.kind for record in journal.read(self.path)[1]]
        self.is_over, self.rests = Kind.TASK_END in kinds, Kind.REST in kinds
