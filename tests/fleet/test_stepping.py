"""Steps of a fleet whose devices are functions of bytes: whatever is lost, late or doubled, all end in equal bits."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_steps import all_steps, begun, coefficients_of, fleet, over, replayed_digest, walkers, with_values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_zofc.fleet.exchange import Measure, Measured, kind_of, opened, sealed
from edge_zofc.fleet.stepping import Plan, Steps
from edge_zofc.storage.bundle import Bundle


@pytest.mark.parametrize("how", ["trimmed", "median", "mean"])
def test_after_the_steps_all_adapters_are_one_and_a_replay_rebuilds_it(
    how: Any, small_bundle: Bundle, tmp_path: Path
) -> None:
    devices = walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(5, aggregate=how))
    all_steps(steps, devices)
    steps.fleet.follow(devices, over(devices), 1.0)
    digests = {device.digest() for device in devices.values()}
    assert digests == {replayed_digest(small_bundle, tmp_path / "fleet")}
    assert len({device.following.path.read_bytes() for device in devices.values()}) == 1
    events = [json.loads(line) for line in (tmp_path / "fleet/events.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events] == ["round", *["step"] * 5]
    assert events[1]["answered"] == ["a", "b", "c", "d"] and events[1]["pictures"] == 16


def test_the_order_of_answers_is_nothing(small_bundle: Bundle, tmp_path: Path) -> None:
    journals, first = set(), b""
    for number, order in enumerate(("abcd", "dcba", "bdac")):
        devices = {name: walkers(small_bundle, tmp_path / str(number))[name] for name in order}
        steps = begun(small_bundle, tmp_path / f"fleet{number}", devices, Plan(3))
        journal = steps.begin()
        # Seeds are random: from the same seed all bits are equal.
        if number:
            (tmp_path / f"fleet{number}/journal.bin").write_bytes(first)
            steps.fleet.journal = journal.find(tmp_path / f"fleet{number}")
        else:
            first = journal.raw
        all_steps(steps, devices)
        journals.add((tmp_path / f"fleet{number}/journal.bin").read_bytes())
    assert len(journals) == 1


Fate = st.sampled_from(["answers", "lost", "late", "twice", "forgets", "restart"])


LATE_ON_RECORDS = [("answers", "answers", "late"), ("answers", "answers", "lost"), ("answers", "answers", "late")]
"""That of c in the third round says that it lacks records, and comes a round too late."""


@settings(max_examples=8)
@example(LATE_ON_RECORDS, ["a", "b", "c"])
@given(st.lists(st.tuples(Fate, Fate, Fate), min_size=1, max_size=5), st.permutations(["a", "b", "c"]))
def test_losses_late_and_doubled_messages_and_restarts_end_in_equal_adapters(
    small_bundle: Bundle, fates: list[tuple[str, str, str]], order: list[str]
) -> None:
    """FLEET sections 5 and 8: a round for each tuple, a fate for each device."""
    with tempfile.TemporaryDirectory() as home:
        devices = walkers(small_bundle, Path(home), 3)
        steps = begun(small_bundle, Path(home) / "fleet", devices, Plan(4, quorum=0.3))
        kept: list[tuple[str, bytes]] = []
        for fate in [*fates, *[("answers",) * 3] * 5]:
            of = dict(zip("abc", fate, strict=True))
            if "restart" in fate:
                steps = Steps(fleet(small_bundle, Path(home) / "fleet"), steps.plan)

            def exchange(messages: Mapping[str, bytes], _: float, of: dict[str, str] = of) -> Iterator[Any]:
                yield from kept
                kept.clear()
                for name in order:
                    if name not in messages or of[name] == "lost":
                        continue
                    if of[name] == "forgets":
                        shutil.rmtree(devices[name].following.path.parent, ignore_errors=True)
                    reply = devices[name](messages[name])
                    if of[name] == "late":
                        kept.append((name, reply))
                        continue
                    yield name, reply
                    if of[name] == "twice":
                        yield name, reply

            if steps.are_left:
                steps.step(devices, exchange)
        assert not steps.are_left
        for _ in range(2):
            steps.fleet.follow(devices, over(devices), 1.0)
        assert {one.digest() for one in devices.values()} == {replayed_digest(small_bundle, Path(home) / "fleet")}
        assert not any(known.strikes for known in steps.fleet.ledger.known.values()), "all devices are honest"


def test_a_step_closes_without_who_died_and_the_device_replays_when_it_comes_back(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    devices = walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(4))
    steps.step(devices, over(devices))
    alive = {name: device for name, device in devices.items() if name != "b"}
    for _ in range(2):
        assert steps.step(devices, over(alive)), "three of four are enough"
    assert steps.step(devices, over(devices))
    steps.fleet.follow(devices, over(devices), 1.0)
    assert len({one.digest() for one in devices.values()}) == 1


def test_too_few_devices_take_no_step(small_bundle: Bundle, tmp_path: Path) -> None:
    devices, told = walkers(small_bundle, tmp_path), list[str]()
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(2, quorum=0.75), told)
    before = steps.begin().raw
    assert not steps.step(devices, over({"a": devices["a"], "c": devices["c"]}))
    assert not steps.step([], over({}))
    assert steps.begin().raw == before and told[-2].endswith("2 of 4 devices measured; too few, so it is not taken")
    assert steps.step(devices, over({name: devices[name] for name in "abc"}))


def test_a_step_ends_when_enough_have_answered(small_bundle: Bundle, tmp_path: Path) -> None:
    devices = walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(1, close_at=0.5))
    assert steps.step(devices, over(devices))
    events = (tmp_path / "fleet/events.jsonl").read_text().splitlines()
    assert json.loads(events[-1])["answered"] == ["a", "b"]


def test_a_sample_changes_with_the_step(small_bundle: Bundle, tmp_path: Path) -> None:
    devices = walkers(small_bundle, tmp_path, 8)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(6, sample=2))
    all_steps(steps, devices)
    asked = [json.loads(line)["answered"] for line in (tmp_path / "fleet/events.jsonl").read_text().splitlines()[1:]]
    assert all(len(names) == 2 for names in asked) and len({tuple(names) for names in asked}) > 2


HOSTILE = {
    "nothing": lambda raw: b"",
    "noise": lambda raw: bytes(range(256)) * 9,
    "NaN": lambda raw: with_values(raw, *[float("nan")] * 8),
    "infinity": lambda raw: with_values(raw, *[float("inf")] * 8),
    "more than any honest value": lambda raw: with_values(raw, *[1e30] * 8),
    "too few values": lambda raw: with_values(raw, 1.0),
    "too many values": lambda raw: with_values(raw, *[1.0] * 9),
    "another step": lambda raw: sealed(
        opened(raw, Measured)[0].model_copy(update={"step": 7}), coefficients_of(raw).tobytes()
    ),
    "nothing with values": lambda raw: sealed(
        opened(raw, Measured)[0].model_copy(update={"state": "nothing"}), coefficients_of(raw).tobytes()
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_honest_device_sends_is_a_strike_and_the_others_go_on(
    what: str, small_bundle: Bundle, tmp_path: Path
) -> None:
    devices = walkers(small_bundle, tmp_path)
    told = list[str]()
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(5), told)

    class Liar:
        def __call__(self, raw: bytes) -> bytes:
            reply = devices["d"](raw)
            return HOSTILE[what](reply) if kind_of(raw) == "measure" else reply  # type: ignore[no-untyped-call]

    mixed = {**{name: devices[name] for name in "abc"}, "d": Liar()}
    for _ in range(5):
        assert steps.step(mixed, over(mixed))
    assert [line for line in told if line.startswith("d: strike 1 of 3: ")] and all(map(str.isprintable, told))
    assert steps.fleet.ledger.known["d"].strikes == 3, "then it is not asked any more"
    honest = json.loads((tmp_path / "fleet/events.jsonl").read_text().splitlines()[-1])
    assert honest["answered"] == ["a", "b", "c"] and honest["silent"] == []


def test_one_device_alone_that_sends_the_most_it_may_breaks_nothing(small_bundle: Bundle, tmp_path: Path) -> None:
    """Sums and squares of what one step applies are finite, in a replay too, where warnings are errors."""
    devices = walkers(small_bundle, tmp_path, 1)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(3))
    devices["a"].measured, honest = (lambda ask: with_values(honest(ask), *[1e15] * 8)), devices["a"].measured  # type: ignore[method-assign]
    all_steps(steps, devices)
    assert replayed_digest(small_bundle, tmp_path / "fleet")


@pytest.mark.parametrize("how", ["trimmed", "median", "mean"])
def test_a_huge_value_moves_the_adapter_no_further_than_three_honest_ones(
    how: Any, small_bundle: Bundle, tmp_path: Path
) -> None:
    """FLEET section 5: coefficients far off are bounded; those of 1e30 are a strike."""
    devices = walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(1, aggregate=how))
    honest = list[np.ndarray]()

    def exchange(messages: Mapping[str, bytes], _: float) -> Iterator[tuple[str, bytes]]:
        for name in "abc":
            reply = devices[name](messages[name])
            honest.append(np.abs(coefficients_of(reply)))
            yield name, reply
        yield "d", with_values(devices["d"](messages["d"]), *[1e14] * 8)

    assert steps.step(devices, exchange)
    event = json.loads((tmp_path / "fleet/events.jsonl").read_text().splitlines()[-1])
    assert "d" in event["bounded"] and steps.fleet.ledger.known["d"].strikes == 0
    assert event["norm"] <= 3 * np.max(honest) * np.sqrt(8)


def test_a_server_that_died_after_it_journalled_goes_on_with_the_next_step(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    """FLEET section 5: killed between journal and broadcast. The devices get the record with the next step."""
    devices = walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(3))
    steps.step(devices, over(devices))
    raw = (tmp_path / "fleet/journal.bin").read_bytes()
    again = Steps(fleet(small_bundle, tmp_path / "fleet"), Plan(3))
    assert again.begin().raw == raw and again.begin().steps == 1
    asked = list[int]()

    def exchange(messages: Mapping[str, bytes], _: float) -> Iterator[tuple[str, bytes]]:
        for name, message in messages.items():
            asked.append(opened(message, Measure)[0].step)
            yield name, devices[name](message)

    assert again.step(devices, exchange) and set(asked) == {1}


def test_a_late_joiner_gets_all_records(small_bundle: Bundle, tmp_path: Path) -> None:
    devices = walkers(small_bundle, tmp_path)
    first = {name: devices[name] for name in "abc"}
    steps = begun(small_bundle, tmp_path / "fleet", first, Plan(4))
    for _ in range(3):
        steps.step(devices, over(devices))
    assert not devices["d"].following.path.exists(), "it has no head yet, so it is not asked"
    steps.fleet.round(devices, over(devices), 1.0)
    assert steps.step(devices, over(devices))
    steps.fleet.follow(devices, over(devices), 1.0)
    assert len({one.digest() for one in devices.values()}) == 1
