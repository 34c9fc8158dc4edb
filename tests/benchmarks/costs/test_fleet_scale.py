"""Messages of a fleet that grows: rows of real encoders, times devices."""

from __future__ import annotations

import pytest

from edge_zofc.benchmarks.costs.fleet_scale import a_share, main, measure
from edge_zofc.storage.share import decode, encode


def test_bytes_are_those_of_a_share_times_the_devices() -> None:
    few, many = (measure(16, devices, repeats=1) for devices in (10, 20_000))
    assert few["share_kb"] == many["share_kb"] == len(encode(a_share(16))) / 1000
    assert many["up_gb"] == pytest.approx(2000 * few["up_gb"])
    assert few["up_gb"] > 10 * few["share_kb"] / 1e6 and few["down_gb"] > 10 * few["news_kb"] / 1e6
    assert few["gateway_gb"] is None
    assert many["gateway_gb"] == pytest.approx(2 * len(encode(a_share(16, 100, 10_000))) / 1e9)
    assert many["news_kb"] > few["news_kb"], "integers of more devices are longer"


def test_a_share_of_many_devices_is_theirs_together() -> None:
    one, many = (decode(encode(a_share(16, 3, times))) for times in (1, 50))
    assert many.pictures == 50 * one.pictures and (many.statistics.moment == 50 * one.statistics.moment).all()


def test_the_table_has_a_row_for_each_size_and_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sizes", "8", "16", "--devices", "5", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:3]] for line in lines[2:]] == [
        ["8", "5"], ["8", "7"], ["16", "5"], ["16", "7"],
    ]  # fmt: skip
