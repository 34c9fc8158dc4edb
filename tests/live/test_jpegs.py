"""Pictures out of a stream of bytes: whole ones, in order, whatever lies between them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jpegs import PLAIN, THUMBNAIL_AT, with_thumbnail
from pictures import encoded, noise

from edge_zofc.errors import InputError
from edge_zofc.live.jpegs import MAX_PICTURE_BYTES, MAX_RUBBISH_BYTES, Splitter, is_picture

# SOI, a comment of one byte, a scan header for one colour, coded data with FF00 and a restart marker, EOI.
SMALLEST = bytes.fromhex("ffd8 fffe0003aa ffda0008010100003f00 11ff0022ffd033 ffd9")
KINDS = [
    with_thumbnail(1),
    with_thumbnail(2, progressive=True),
    with_thumbnail(3, restart_marker_blocks=1),
    PLAIN,
    SMALLEST,
    SMALLEST[:-2] + b"\xff\xff\xff\xd9",  # bytes may fill the space before a marker
]
THUMBNAILS = [encoded(noise(16, 16, number + 100), "JPEG") for number in range(4)]
TAIL = [with_thumbnail(0)] * 80


@pytest.mark.parametrize("picture", KINDS)
def test_a_picture_ends_at_its_own_end_and_not_at_its_thumbnails(picture: bytes) -> None:
    assert Splitter().feed(picture) == [picture]
    assert is_picture(picture)
    assert not is_picture(picture[:-1])


@given(st.lists(st.sampled_from(KINDS), max_size=6), st.lists(st.integers(1, 700), min_size=1, max_size=30))
def test_pictures_come_out_as_they_went_in_however_the_pipe_cuts_them(pictures: list[bytes], sizes: list[int]) -> None:
    stream, splitter, found, at = b"".join(pictures), Splitter(), list[bytes](), 0
    while at < len(stream):
        size = sizes[at % len(sizes)]
        found += splitter.feed(stream[at : at + size])
        at += size
    assert found == pictures
    assert splitter.rubbish_bytes == 0


@given(st.lists(st.binary(max_size=50).filter(lambda text: b"\xff" not in text), min_size=4, max_size=4))
def test_text_and_padding_between_pictures_are_dropped(between: list[bytes]) -> None:
    pictures = [with_thumbnail(number) for number in range(3)]
    stream = between[0] + b"".join(picture + text for picture, text in zip(pictures, between[1:], strict=True))
    assert Splitter().feed(stream) == pictures


@given(st.data())
def test_after_a_cut_the_pictures_go_on_and_a_thumbnail_is_never_one(data: st.DataObject) -> None:
    first, torn = with_thumbnail(1), data.draw(st.sampled_from(KINDS[:3]))
    start = data.draw(st.integers(1, len(torn) - 1))
    end = data.draw(st.integers(start, len(torn)))
    # A torn length of a segment may reach 64 KiB far.
    found = Splitter().feed(first + torn[:start] + torn[end:] + b"".join(TAIL))
    assert found[0] == first
    assert found[-1] == TAIL[-1]
    assert not set(found) & set(THUMBNAILS)


def test_a_cut_in_a_segment_costs_the_next_picture_and_shows_no_thumbnail() -> None:
    pictures = [with_thumbnail(number) for number in range(5)]
    # 100 bytes are missing before the thumbnail, so the segment seems to end 100 bytes deep in the next picture's.
    segment = int.from_bytes(pictures[0][4:6], "big") + 4
    torn = pictures[0][:100] + pictures[0][200:segment]
    assert Splitter().feed(torn + b"".join(pictures[1:])) == pictures[2:]


def test_a_stream_that_begins_within_a_picture_shows_no_thumbnail() -> None:
    pictures = [with_thumbnail(number) for number in range(4)]
    for start in (1, 2, *range(THUMBNAIL_AT + 20, len(pictures[0]))):  # the space before the thumbnail is no sign
        found = Splitter().feed(pictures[0][start:] + b"".join(pictures[1:]))
        assert found in (pictures[1:], pictures[2:])


def test_a_camera_that_leaves_rubbish_behind_each_picture_still_shows_every_second() -> None:
    pictures = [with_thumbnail(number) for number in range(4)]
    assert Splitter().feed(b"".join(picture + b"\xff\x00old" for picture in pictures)) == pictures[::2]


def test_a_torn_picture_costs_one_more() -> None:
    pictures = [with_thumbnail(number) for number in range(4)]
    for end in range(PLAIN.index(b"\xff\xda") + 14, len(PLAIN)):
        assert Splitter().feed(PLAIN[:end] + b"".join(pictures)) in (pictures[1:], pictures[2:])


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff\xd8\xff\xd9",  # nothing between
        b"\xff\xd8\xff\xe0\x00\x01\xff\xd9",  # a length that does not hold itself
        b"\xff\xd8\xff\xe0\x00\x04ab\x00\xff\xd9",  # a segment ends where no marker begins
        b"\xff\xd8\xff\xd0\xff\xd9",  # a restart marker outside of a scan
        b"\xff\xd8\xff\x00\xff\xd9",
        b"\xff\xd8\xff\xda\x00\x09\0\0\0\0\0\0\0\xff\xd9",  # a scan header of a length that there is not
        b"\x89PNG\r\n\x1a\n",
        b"",
    ],
)
def test_what_only_looks_like_a_picture_is_none(wrong: bytes) -> None:
    assert not is_picture(wrong)
    assert Splitter().feed(wrong * 3) == []


def test_bytes_behind_the_end_do_not_spoil_a_picture() -> None:
    assert is_picture(PLAIN + b"a telephone writes its model here")


@pytest.mark.parametrize("rubbish", [bytes(1 << 16), b"\xff" * (1 << 16), b"\xff\xd8\xff\xe0" * (1 << 14)])
def test_a_stream_without_pictures_ends_in_a_sentence(rubbish: bytes) -> None:
    splitter, started = Splitter(), time.monotonic()
    with pytest.raises(InputError, match="8 MiB came without a JPEG picture"):
        for _ in range(2 * MAX_RUBBISH_BYTES // len(rubbish)):
            assert splitter.feed(rubbish) == []
            assert len(splitter._buffer) <= MAX_PICTURE_BYTES + len(rubbish)
    assert time.monotonic() - started < 60  # a search that tries every length would take hours


def test_a_picture_above_the_limit_is_dropped_and_the_next_ones_are_found() -> None:
    huge = SMALLEST[:-2] + bytes(MAX_PICTURE_BYTES) + b"\xff\xd9"
    splitter = Splitter()
    assert [splitter.feed(huge), splitter.feed(PLAIN * 2), splitter.feed(PLAIN)][2] == [PLAIN]
    assert Splitter().feed(huge + PLAIN) == [PLAIN]
    fits = SMALLEST[:-2] + bytes(MAX_PICTURE_BYTES - len(SMALLEST)) + b"\xff\xd9"
    assert Splitter().feed(fits) == [fits]
