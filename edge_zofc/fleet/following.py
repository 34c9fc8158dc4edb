"""A device's copy of its fleet's journal, and the adapter that it comes to."""

from __future__ import annotations

from pathlib import Path

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.errors import DamagedFileError
from edge_zofc.fleet.exchange import Piece
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_journal import JOURNAL, MAX_JOURNAL_BYTES, chain_of, fresh_adapter, replayed
from edge_zofc.storage.journal import Header
from edge_zofc.storage.journal_format import HEADER_BYTES, decode_header
from edge_zofc.storage.reading import is_there, read_bounded
from edge_zofc.storage.writing import DISK, append_at, make_folder, write_atomic


class Following:
    """The journal in the folder ``fleet`` of a device's run, which need not be there yet."""

    def __init__(self, fleet: Path, bundle: Bundle) -> None:
        self.path, self._bundle = fleet / JOURNAL, bundle

    def take(self, piece: Piece, body: bytes) -> int | None:
        """Add the fleet's records. Returns None where the journal is then the fleet's, else the bytes that are held.

        Raises InputError for the journal of another bundle, DamagedFileError for none.
        """
        old = self._raw()
        if piece.offset > len(old):
            return len(old)
        whole = old[: piece.offset] + body
        if len(whole) > MAX_JOURNAL_BYTES:
            raise DamagedFileError(f"The fleet's journal has {len(whole)} bytes, the limit is {MAX_JOURNAL_BYTES}.")
        if (piece.records, piece.chain) != self._chain(whole):
            if piece.offset == 0:
                raise DamagedFileError("The fleet's journal does not fit its own chain.")
            DISK.unlink(self.path)  # a record of ours was another one: from the start
            return 0
        fresh_adapter(self._bundle, decode_header(whole[:HEADER_BYTES], Path("The fleet's journal")))
        make_folder(self.path.parent)
        if whole.startswith(old) and old:
            append_at(self.path, whole[len(old) :], len(old))
        elif whole != old:
            write_atomic(self.path, whole)
        return None

    def adapter(self) -> tuple[Adapter, Header]:
        """What the journal ends in. Raises as ``replayed``."""
        return replayed(self._bundle, self.path)

    def _raw(self) -> bytes:
        return read_bounded(self.path, MAX_JOURNAL_BYTES) if is_there(self.path) else b""

    def _chain(self, raw: bytes) -> tuple[int, str]:
        try:
            return chain_of(raw)
        except DamagedFileError:  # the piece, or what lies here
            return -1, ""
