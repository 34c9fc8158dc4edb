"""The page and the summary of a fleet."""

from __future__ import annotations

from pathlib import Path

import pytest
from shares import write_share

from edge_zofc.errors import InputError
from edge_zofc.fleet.merging import merge, revoke
from edge_zofc.report.fleet import fleet_data, fleet_summary, write_fleet_report
from edge_zofc.storage.bundle import Bundle


@pytest.fixture
def fleet(small_bundle: Bundle, tmp_path: Path) -> Path:
    """Two devices, one of which has a class with a name that is markup; a third is revoked."""
    paths = [write_share(tmp_path, small_bundle, name, classes=c) for name, c in (("a", (0, 1)), ("c", (2,)))]
    paths.append(write_share(tmp_path, small_bundle, "b", class_names=("cup", "<b>bold</b>")))
    merge(small_bundle.folder, paths, tmp_path / "fleet", cap=2)
    revoke(tmp_path / "fleet", "c")
    return tmp_path / "fleet"


def test_the_page_shows_devices_and_classes_as_plain_text(fleet: Path) -> None:
    path, merged = write_fleet_report(fleet)
    page = path.read_text()
    assert path == fleet / "report.html"
    assert "edge-zofc: the fleet in fleet/</title>" in page and "the fleet fleet" not in page
    assert "<h1>2 devices, 3 classes, 48 pictures</h1>" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>" not in page
    assert "Revoked: c." in page and "2 times the median" in page
    assert page.count("<tr>") == 2 + 2 + 3
    assert merged.class_names == ("<b>bold</b>", "cup", "fork")


def test_the_summary_and_the_data_say_the_same(fleet: Path) -> None:
    _, merged = write_fleet_report(fleet)
    rows = [" ".join(line.split()) for line in fleet_summary(merged).splitlines()]
    assert rows[0] == "2 devices, 3 classes, 48 pictures"
    assert "a 4 24 2: cup, fork" in rows
    assert "cup 24 2: a, b" in rows and "fork 12 a" in rows
    data = fleet_data(merged)
    assert [device["name"] for device in data["devices"]] == ["a", "b"]
    assert data["classes"][1] == {"name": "cup", "pictures": 24, "devices": ["a", "b"]}
    assert (data["cap"], data["revoked"]) == (2.0, ["c"])


def test_a_page_does_not_replace_what_a_fleet_is_made_of(fleet: Path) -> None:
    for place in ("about.json", "lock", "shares/a.share"):
        with pytest.raises(InputError, match="is part of the fleet in"):
            write_fleet_report(fleet, fleet / place)
