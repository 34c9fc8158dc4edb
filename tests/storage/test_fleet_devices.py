"""What passed between a fleet and its devices, kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_zofc.errors import DamagedFileError
from edge_zofc.storage.fleet_devices import Devices, Known, read_devices, write_devices


def test_what_was_written_is_read_and_nothing_where_there_is_none(tmp_path: Path) -> None:
    assert read_devices(tmp_path) == Devices()
    known = Known(share=2**64 - 1, received=1.5, seen=2.5, strikes=1, told="x", head=3, bytes_in=4, bytes_out=5)
    devices = Devices(rounds=2, head=3, head_sha256="ab" * 32, devices={"d7": known})
    write_devices(tmp_path, devices)
    assert read_devices(tmp_path) == devices


@pytest.mark.parametrize("text", ["", "{}x", '{"rounds": -1}', '{"devices": {"../x": {}}}', '{"more": 1}'])
def test_a_damaged_file_is_one_sentence_with_a_way_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text(text)
    with pytest.raises(DamagedFileError, match=r"is damaged at .*; remove it, and counting starts anew"):
        read_devices(tmp_path)
