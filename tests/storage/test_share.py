"""A share's bytes literally, what comes back, and what is refused."""

from __future__ import annotations

import struct
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from shares import made_share

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.share import Share, decode, encode

LITERAL = bytes.fromhex(
    "455a4f4643534852"  # EZOFCSHR
    "0100 01 02 04 02 0200 02000000 0500000000000000"  # version, normalised, W, V, name's length, D, C, number
    + "ab" * 32
    + "cd" * 32
    + "6437"  # d7
    "0300 637570 02000000"  # cup, 2 pictures
    "0400 7468c3a9 01000000"  # thé, 1 picture
    "0020 0020 0008 00f0"  # sums (2, 2) and (0.5, -1) in units of 2^-12
    "00004002 00008001 00000005"  # moment 2.25, 1.5, 5 in units of 2^-24
    "95beb7df"
)


def literal_share() -> Share:
    statistics = Statistics.empty(2, 2)
    statistics.add(np.array([[1, 2], [1, 0], [0.5, -1]], np.float32), np.array([0, 0, 1]))
    return Share("d7", 5, "ab" * 32, "cd" * 32, True, ("cup", "thé"), statistics)


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def changed(offset: int, new: bytes) -> bytes:
    """The literal share with other bytes at a place, and a checksum that fits."""
    return sealed(LITERAL[:offset] + new + LITERAL[offset + len(new) : -4])


def assert_same(found: Share, wanted: Share) -> None:
    for field in ("sums", "counts", "moment"):
        assert getattr(found.statistics, field).tobytes() == getattr(wanted.statistics, field).tobytes()
    assert replace(found, statistics=wanted.statistics) == wanted


def test_the_bytes_are_those_of_the_format() -> None:
    assert encode(literal_share()) == LITERAL
    assert_same(decode(LITERAL), literal_share())


@pytest.mark.parametrize("size", [1, 3, 63, 64, 65, 130])
def test_what_is_encoded_comes_back_to_the_bit(size: int) -> None:
    share = made_share(size=size, classes=(3, 0, 4), number=2**40)
    assert_same(decode(encode(share)), share)


def test_integers_take_five_bytes_in_place_of_a_floats_eight() -> None:
    size = 256
    assert len(encode(made_share(size=size, each=60))) < 5.2 * size * (size + 1) / 2


def test_a_name_is_written_in_nfc() -> None:
    decomposed = unicodedata.normalize("NFD", "thé")
    assert decomposed != "thé"
    assert decode(encode(replace(literal_share(), class_names=("cup", decomposed)))).class_names == ("cup", "thé")


def test_a_newer_format_asks_for_an_update() -> None:
    with pytest.raises(InputError, match="format version 2, this edge-zofc reads 1; update it"):
        decode(changed(8, b"\2"))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "does not begin as one"),
        (LITERAL[:-1], "checksum does not fit"),
        (LITERAL + b"\0", "checksum does not fit"),
        (changed(8, b"\0"), "header holds what no share has"),
        (changed(10, b"\2"), "header holds what no share has"),
        (changed(11, b"\0"), "header holds what no share has"),
        (changed(12, b"\x08"), "header holds what no share has"),
        (changed(13, b"\0"), "device has no proper name"),
        (changed(92, b"/"), "device has no proper name"),
        (changed(92, b"\xff"), "codec can't decode"),
        (changed(14, b"\0\0"), "2 classes of 0 features"),
        (changed(14, b"\xff\xff"), "2 classes of 65535 features"),
        (changed(14, b"\3"), "bytes do not fit its 2 classes of 3 features"),
        (changed(16, b"\xff\xff\xff\xff"), "4294967295 classes of 2 features"),
        (changed(16, b"\0"), "0 classes of 2 features"),
        (changed(16, b"\xff"), "it ends too early"),
        (changed(94, b"\xff\xff"), "it ends too early"),
        (changed(96, b"\x1bup"), "is no name of a class"),
        (changed(106, b"\xff"), "codec can't decode"),
        (changed(99, b"\0"), "a class has no pictures"),
        (changed(113, b"\xff\x7f"), "smaller than its class means make it"),
        (changed(121, b"\0\0\0\0"), "smaller than its class means make it"),
        (changed(125, b"\xff\xff\xff\x7f"), "larger than the diagonal allows"),
    ],
)
def test_what_is_no_share_is_refused_in_one_sentence(raw: bytes, reason: str) -> None:
    with pytest.raises(DamagedFileError, match=r"^/x/d7.share is no whole share: .*; copy it again") as error:
        decode(raw, "/x/d7.share")
    assert reason in str(error.value)


def beyond(sums: float = 0.0, diagonal: float = 0.0, entry: float = 0.0) -> Callable[[Statistics], Statistics]:
    """Statistics with so much added to a sum, to the diagonal and to an entry beside it."""

    def change(found: Statistics) -> Statistics:
        moment = symmetric.unpack(found.moment, 6)
        moment[0, 0] += diagonal
        moment[0, 1] += entry
        moment[1, 0] += entry
        more = found.sums.copy()
        more[0, 0] += sums
        return Statistics(more, found.counts, symmetric.pack(moment))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (beyond(sums=1e9), "the mean of a class is beyond the bound of 1024"),
        (beyond(diagonal=2.0**30), "its second moment is beyond the bound"),
        (beyond(diagonal=-1e4), "smaller than its class means make it"),
        (beyond(sums=5e2), "smaller than its class means make it"),
        (beyond(entry=1e5), "larger than the diagonal allows"),
        (lambda found: Statistics(found.sums, found.counts * 0, found.moment), "a class has no pictures"),
    ],
)
def test_statistics_that_no_pictures_have_are_not_written(
    change: Callable[[Statistics], Statistics], reason: str
) -> None:
    share = made_share()
    with pytest.raises(DamagedFileError, match=reason):
        encode(replace(share, statistics=change(share.statistics)))


@pytest.mark.parametrize(
    "names", [("cup", "cup"), ("cup", ""), ("cup", "a\nb"), ("cup", "\u202eevil"), ("cup", "x" * 1025)]
)
def test_names_that_no_class_has_are_not_written(names: tuple[str, str]) -> None:
    with pytest.raises(DamagedFileError, match="a class"):
        encode(replace(literal_share(), class_names=names))


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "x" * 65, "näme", "a b"])
def test_a_device_has_a_name_that_a_file_can_have(name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a device"):
        encode(replace(literal_share(), name=name))
