"""JPEG pictures out of a stream of bytes, found by walking their markers.

A picture may hold a thumbnail with an end marker (FFD9) of its own, so the first FFD9 after a start is not the end.
The walk follows ITU-T T.81, annex B: segments with a length, and after SOS the coded data, in which FF is followed by
00, by a restart marker or by the next real marker. Nothing is decoded here.

Whatever does not belong to a picture is dropped, and the walk goes on at the next start marker. Behind a torn picture
that may be the start of a thumbnail, so the first picture after such a place is dropped, too.
"""

from __future__ import annotations

import re

from edge_zofc.errors import InputError

MAX_PICTURE_BYTES = 4 << 20
MAX_RUBBISH_BYTES = 2 * MAX_PICTURE_BYTES
"""How much may come without one picture in it before the stream counts as none of pictures."""

_START = b"\xff\xd8\xff"
# Neither repeats a byte, so that a search takes linear time whatever comes.
_MARKER = re.compile(rb"\xff([^\xff])", re.DOTALL)
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_NO_SEGMENT = frozenset((0x00, *range(0xD0, 0xD8)))
"""What may follow FF in coded data alone."""
_SCAN_HEADERS = (8, 10, 12, 14)
"""Their lengths with 1 to 4 colours."""


class _Walk:
    """The walk through one picture that begins at byte 0 of a growing buffer."""

    def __init__(self) -> None:
        self.at, self._in_scan, self._has_scan = 2, False, False
        self.end: int | None = None
        self.is_broken = False

    def go_on(self, data: bytearray) -> bool:
        """Walk as far as ``data`` reaches; whether the picture has ended or is broken."""
        while self.end is None and not self.is_broken and self.at < len(data):
            if not self._in_scan and data[self.at] != 0xFF:
                self.is_broken = True
                break
            found = (_MARKER_IN_SCAN if self._in_scan else _MARKER).search(data, self.at)
            if found is None:
                # The last byte may be the first half of a marker; those before it are done with.
                self.at = max(self.at, len(data) - 1)
                break
            if not self._step(data, found.start(), data[found.end() - 1], found.end()):
                break
        return self.end is not None or self.is_broken

    def _step(self, data: bytearray, start: int, marker: int, after: int) -> bool:
        """Take one marker; False if its length has not arrived yet."""
        if marker == _EOI and self._has_scan:
            self.end = self.at = after
        elif marker == _SOI:
            self.at, self.is_broken = start, True
        elif marker == _EOI or marker in _NO_SEGMENT:
            self.at, self.is_broken = after, True
        elif marker == _TEM:
            self.at = after
        else:
            if len(data) < after + 2:
                self.at = start
                return False
            length = data[after] << 8 | data[after + 1]
            self._in_scan = marker == _SOS
            self._has_scan |= self._in_scan
            self.is_broken = length not in _SCAN_HEADERS if self._in_scan else length < 2
            self.at = after if self.is_broken else after + length
        return True


def is_picture(data: bytes) -> bool:
    """Whether ``data`` begins with one whole JPEG by its markers; cameras and telephones put more behind it."""
    walk = _Walk()
    return data.startswith(_START) and walk.go_on(bytearray(data)) and walk.end is not None


class Splitter:
    """Cuts a stream of bytes into JPEG pictures.

    ``feed`` takes what arrived and returns the pictures that it completed, in order. It keeps at most
    ``MAX_PICTURE_BYTES`` and what one call brought; a longer picture is dropped. It raises InputError after
    ``MAX_RUBBISH_BYTES`` without a picture.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._walk: _Walk | None = None
        self._doubtful = False  # the next picture may be a thumbnail
        self._doubted = False  # one was dropped for it, so that the next one is none
        self.rubbish_bytes = 0
        """Bytes dropped since the last picture."""

    def feed(self, data: bytes) -> list[bytes]:
        """The pictures that ``data`` completes."""
        self._buffer += data
        pictures: list[bytes] = []
        while self._walk is not None or self._find_start():
            walk = self._walk = self._walk or _Walk()
            done = walk.go_on(self._buffer)
            size = walk.end or len(self._buffer)
            if done and walk.end is None:
                self._drop(walk.at, doubtful=True)
            elif size > MAX_PICTURE_BYTES:
                self._drop(size, doubtful=walk.end is None)
            elif not done:
                break
            elif self._doubtful:
                self._drop(size, doubtful=False)
                self._doubted = True
            else:
                pictures.append(bytes(self._buffer[:size]))
                del self._buffer[:size]
                self._walk, self._doubted, self.rubbish_bytes = None, False, 0
        if self.rubbish_bytes > MAX_RUBBISH_BYTES:
            raise InputError(f"{self.rubbish_bytes >> 20} MiB came without a JPEG picture in them.")
        return pictures

    def _find_start(self) -> bool:
        """Drop what comes before the next start marker; whether there is one."""
        place = self._buffer.find(_START)
        kept = place if place >= 0 else max(len(self._buffer) - 2, 0)
        # Text and padding between pictures have no FF. What has may be a picture without its start, and what comes next
        # its thumbnail. Its rest has no start, so that one doubt is enough.
        self._doubtful |= not self._doubted and self._buffer.find(0xFF, 0, kept) >= 0
        self.rubbish_bytes += kept
        del self._buffer[:kept]
        return place >= 0

    def _drop(self, count: int, *, doubtful: bool) -> None:
        self.rubbish_bytes += count
        del self._buffer[:count]
        self._walk, self._doubtful = None, doubtful
