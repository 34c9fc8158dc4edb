"""``plan --fleet``: who can join over the network, and who should go by files."""

from __future__ import annotations

import json

import pytest
from typed import run

from edge_zofc.cli import fleet_text
from edge_zofc.cli.fleet_text import _verdict
from edge_zofc.device.fleet_plan import JoinedPlan
from edge_zofc.device.memory_items import PlanItem
from edge_zofc.storage.bundle import Bundle

MIB = 1 << 20


@pytest.mark.parametrize(
    ("room", "verdict", "words"),
    [
        (500, "both", "learn and be joined over the network at once"),
        (450, "thrifty", "if it learns with --memory-budget 250MiB"),
        (399, "in turn", "while it does not learn. Or let its share go as a file"),
        (199, "files", "It cannot be joined over the network: let its share go as a file ('edge-zofc fleet share')"),
    ],
)
def test_what_fits_decides(room: int, verdict: str, words: str) -> None:
    """Learning takes 300 MiB, 200 where it must; a joined device 200."""
    found, sentence = _verdict(300 * MIB, 200 * MIB, 200 * MIB, room * MIB)
    assert found == verdict and words in sentence


def test_a_plan_tells_of_the_fleet_where_it_is_asked(small_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "--bundle", small_bundle.folder, "--memory-budget", "1GiB")
    assert run(*words, "--fleet") == 0
    told = capsys.readouterr().out
    words_told = " ".join(told.split())
    assert "fleet join: predicted peak, while" in words_told and "(Python and libraries" in words_told
    assert "the same in a fleet that takes no steps (serve --steps 0)" in words_told
    assert "go up once a task" in words_told
    assert run(*words, "--fleet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fleet"]["verdict"] == "both" and found["fleet"]["room_bytes"] == 1 << 30
    assert found["fleet"]["together_bytes"] == found["peak_bytes"] + found["fleet"]["joined_peak_bytes"]
    without = found["fleet"]["without_steps"]
    assert without["verdict"] == "both" and without["joined_peak_bytes"] < found["fleet"]["joined_peak_bytes"]
    assert found["fleet"]["joined_peak_moment"].startswith("while ")
    assert run(*words) == 0
    assert "fleet" not in capsys.readouterr().out
    assert run(*words, "--json") == 0
    assert "fleet" not in json.loads(capsys.readouterr().out)


def test_steps_that_do_not_fit_are_told_apart(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with room for a fleet without steps alone is not sent away from every fleet."""

    def joined(*_: object) -> JoinedPlan:
        return JoinedPlan((PlanItem("all", 2 << 30, 0, ""),), "while it is judged", 1 << 20, 5, 6)

    monkeypatch.setattr(fleet_text, "joined_plan", joined)
    words = ("plan", "--bundle", small_bundle.folder, "--memory-budget", "1GiB", "--fleet")
    assert run(*words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "In a fleet that may take steps: It cannot be joined over the network" in told
    assert "In one that takes none: This device can learn and be joined over the network at once." in told


def test_without_a_budget_both_may_take_what_the_profile_leaves(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--bundle", small_bundle.folder, "--device-profile", "cpu-2gib", "--fleet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["budget_bytes"] < found["fleet"]["room_bytes"] < 2 << 30


def test_a_cosine_head_is_in_no_fleet(small_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--bundle", small_bundle.folder, "--fleet", "--preset", "paper", "--memory-budget", "2GiB") == 0
    assert "learn with --head lda to be in one" in capsys.readouterr().out
