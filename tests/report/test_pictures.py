"""Thumbnails: bounded, without what a file holds besides pixels, and missing ones are one line."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_result, make_run, make_stream
from pages import Page, page_of
from PIL import Image

from edge_zofc.cli.main import main
from edge_zofc.errors import ImageError, InputError
from edge_zofc.report.pictures import MOST_PAIRS, MOST_THUMBNAILS, SIDE, thumbnail
from edge_zofc.report.summary import write_report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two tasks of two classes beside its stream."""
    written(tmp_path, make_result(2))
    return tmp_path / "run"


def written(folder: Path, result: dict[str, Any]) -> None:
    make_stream(folder / "stream", result)
    make_run(folder / "run", 1)
    (folder / "run/result.json").write_text(json.dumps({**result, "stream_folder": "../stream"}))


def images(page: Page) -> list[dict[str, str | None]]:
    return [attributes for tag, attributes in page.tags if tag == "img"]


def test_every_class_and_every_confused_pair_has_its_pictures(run: Path) -> None:
    page = page_of(run)
    pairs = len(json.loads((run / "result.json").read_text())["confusion"])
    assert len(images(page)) == 4 * 3 + min(pairs, MOST_PAIRS) * (3 + 1)
    assert {one["alt"] for one in images(page)} == {f"digit {k}" for k in range(4)}
    assert "no longer" not in page.text
    data = (images(page)[0]["src"] or "").removeprefix("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("JPEG", (SIDE, SIDE))


def test_a_page_of_a_hundred_classes_stays_a_sensible_page(tmp_path: Path) -> None:
    """Of noise, which compresses worst."""
    result = make_result(50)
    written(tmp_path, result)
    path = write_report(tmp_path / "run")
    page = Page(path.read_text(encoding="utf-8"))
    assert 100 <= len(images(page)) <= MOST_THUMBNAILS + MOST_PAIRS
    assert path.stat().st_size < 4_000_000


def test_pictures_can_be_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--no-pictures"]) == 0
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert images(page) == [] and "Pictures were left out (--no-pictures)." in page.text
    assert "Most confused" in page.text and "digit 3" in page.text
    assert "data:image/jpeg" not in (run / "report.html").read_text(encoding="utf-8")


def test_a_stream_that_moved_is_named(run: Path) -> None:
    (run.parent / "stream").rename(run.parent / "elsewhere")
    page = page_of(run)
    assert images(page) == [] and page.text.count("no longer where they were learnt from") == 1
    moved = write_report(run, stream=run.parent / "elsewhere").read_text(encoding="utf-8")
    assert len(images(Page(moved))) > 12
    with pytest.raises(InputError, match="no stream in"):
        write_report(run, stream=run.parent / "nowhere")


def test_deleted_pictures_are_counted_in_one_line_and_the_page_stays_whole(run: Path) -> None:
    stream = run.parent / "stream"
    for path in stream.glob("*/train"):
        shutil.rmtree(path)  # test pictures take their place
    assert "no longer" not in page_of(run).text
    for path in stream.glob("000_pair/test/digit 0/*"):
        path.write_bytes(b"")
    text = page_of(run).text
    assert text.count("no longer in the stream or cannot be read, so the page shows no picture of 1 class and") == 1
    assert "Most confused" in text and "What it cost" in text
    shutil.rmtree(stream)
    stream.write_text("a file")
    assert "no longer where they were learnt from" in page_of(run).text


def test_a_stream_whose_name_is_too_long_is_one_that_is_gone(tmp_path: Path) -> None:
    make_run(tmp_path, 2, stream_folder="x" * 5000)
    assert "no longer where they were learnt from" in page_of(tmp_path).text


def test_a_result_that_names_no_stream_says_how_to_name_one(tmp_path: Path) -> None:
    make_run(tmp_path, 2)
    assert "name it with --stream to show pictures" in page_of(tmp_path).text


def test_place_time_and_comment_of_a_picture_do_not_go_into_the_page(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "my kitchen"
    picture = Image.new("RGB", (200, 100), "red")
    picture.save(tmp_path / "a.jpg", exif=exif, comment=b"my garden")
    assert b"my kitchen" in (tmp_path / "a.jpg").read_bytes()
    raw = base64.b64decode(thumbnail(tmp_path / "a.jpg").split(",")[1])
    assert b"kitchen" not in raw and b"garden" not in raw and b"Exif" not in raw
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    with pytest.raises(ImageError):
        thumbnail(tmp_path / "b.jpg")
