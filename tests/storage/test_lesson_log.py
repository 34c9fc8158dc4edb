"""lesson_log.py: the format by literal bytes, torn and damaged lines, power cuts."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from power_cut import RecordingFiles, disks_after_cut, lay_out

from edge_zofc.errors import DamagedFileError
from edge_zofc.storage.lesson_log import Base, Entry, LessonFolder, LessonLog, counting, gestures, suffix_of

TEACH = Entry(kind="teach", name="mug", files=("000001.jpg",))


def written(folder: Path) -> LessonFolder:
    place = LessonFolder(folder)
    log = LessonLog(place)
    assert log.keep(1, b"\xff\xd8\xff one") == "000001.jpg"
    log.append(TEACH)
    log.append(Entry(kind="rename", name="mug", to="cup", classes=("mug",)))
    log.close()
    return place


def test_a_log_is_these_bytes(tmp_path: Path) -> None:
    place = written(tmp_path)
    assert place.log.read_bytes() == (
        b'e8707d72 {"format_version":1}\n'
        b'156eb5dd {"kind":"teach","name":"mug","files":["000001.jpg"]}\n'
        b'd0100fb6 {"kind":"rename","name":"mug","to":"cup","classes":["mug"]}\n'
    )
    assert (tmp_path / "lesson" / "pictures" / "000001.jpg").read_bytes() == b"\xff\xd8\xff one"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    place = written(tmp_path)
    base, entries, size_bytes = place.read()
    assert (base, len(entries), entries[0]) == (Base(), 2, TEACH)
    assert size_bytes == place.log.stat().st_size


def test_a_torn_last_line_counts_for_nothing_and_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    place = written(tmp_path)
    whole = place.log.read_bytes()
    for length in range(len(whole) - 1, len(whole) - 40, -1):
        place.log.write_bytes(whole[:length])
        assert len(place.read()[1]) == 1
    log = LessonLog(place)
    log.append(Entry(kind="undo"))
    log.close()
    assert [entry.kind for entry in place.read()[1]] == ["teach", "undo"]


def test_every_changed_byte_of_a_line_that_is_not_the_last_is_an_error(tmp_path: Path) -> None:
    place = written(tmp_path)
    whole = place.log.read_bytes()
    first_two = whole[: whole.index(b"\n", whole.index(b"\n") + 1)]
    for at in range(len(first_two)):
        place.log.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedFileError, match="damaged"):
            place.read()


@pytest.mark.parametrize(
    "text",
    [b'{"kind":"teach","files":["../x.jpg"]}', b'{"kind":"dance"}', b'{"kind":"move","serials":[-1]}', b'{"a":1}'],
)
def test_a_line_that_says_something_else_is_one_sentence(tmp_path: Path, text: bytes) -> None:
    place = written(tmp_path)
    with place.log.open("ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(text), text))
    with pytest.raises(DamagedFileError, match="is no lesson"):
        place.read()


def test_what_was_taken_back_does_not_count() -> None:
    undo, forget = Entry(kind="undo"), Entry(kind="forget", name="mug")
    assert counting([undo, TEACH, forget, undo, undo, undo, forget]) == [forget]


def test_a_new_base_stands_in_place_of_all_lines(tmp_path: Path) -> None:
    log = LessonLog(written(tmp_path))
    log.begin(Base(next_serial=2, aliases={"mug": "cup"}))
    log.append(Entry(kind="undo"))
    log.close()
    base, entries, _ = LessonFolder(tmp_path).read()
    assert (base.next_serial, base.aliases, len(entries)) == (2, {"mug": "cup"}, 1)


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (b"\xff\xd8\xff", "jpg"),
        (b"\x89PNG\r\n", "png"),
        (b"RIFF1234WEBP", "webp"),
        (b"1234ftypavif", "avif"),
        (b"", "jpg"),
    ],
)
def test_a_picture_is_called_after_what_it_is(data: bytes, suffix: str) -> None:
    assert suffix_of(data) == suffix


def test_a_power_cut_anywhere_leaves_each_picture_that_was_promised(tmp_path: Path) -> None:
    """Every prefix of the disk calls, and all that a cut may leave of each."""
    files = RecordingFiles(tmp_path / "a")
    (tmp_path / "a").mkdir()
    log = LessonLog(LessonFolder(tmp_path / "a"), files)
    promised = [len(files.log)]
    for serial in (1, 2):
        name = log.keep(serial, b"\xff\xd8\xff" + bytes([serial]) * 5)
        log.append(Entry(kind="teach", name="mug", files=(name,)))
        promised.append(len(files.log))
    log.close()
    outcomes = 0
    for number, (done, disk) in enumerate(disks_after_cut(files.log)):
        place = LessonFolder(lay_out(disk, tmp_path / str(number)))
        entries = place.read()[1]
        assert len(entries) >= sum(length <= done for length in promised[1:])
        for entry in entries:
            assert (place.pictures / entry.files[0]).read_bytes().startswith(b"\xff\xd8\xff")
            assert len((place.pictures / entry.files[0]).read_bytes()) == 8
        outcomes += 1
    assert outcomes > 100


def test_a_burst_that_goes_on_is_one_gesture_unless_something_came_between() -> None:
    on = Entry(kind="teach", name="mug", files=("000002.jpg",), burst=1)
    other = Entry(kind="teach", name="cup", files=("000003.jpg",))
    assert gestures([TEACH, on, on]) == [[TEACH, on, on]]
    assert gestures([TEACH, other, on, on]) == [[TEACH], [other], [on, on]]
    assert counting([TEACH, on, on, other, Entry(kind="undo"), Entry(kind="undo")]) == []
