"""What becomes of a fleet's adapter after its last step, by devices that are functions of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fleet_steps import Walker, all_steps, begun, fleet, over, replayed_digest, walkers

from edge_zofc.engine.predict import open_run
from edge_zofc.errors import InputError
from edge_zofc.fleet.coordinator import Coordinator
from edge_zofc.fleet.exchange import Answer, sealed
from edge_zofc.fleet.merging import merge, revoke
from edge_zofc.fleet.stepping import Plan, Steps
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_devices import read_devices
from edge_zofc.storage.fleet_folder import FleetFolder


def judged(steps: Steps, devices: Mapping[str, Any]) -> bool:
    return steps.judge(devices, over(devices), 1.0)


@pytest.mark.parametrize(("rest", "moved", "keeps"), [(1, 1, True), (0, 2, True), (2, 0, False), (2, 1, False)])
def test_the_devices_judge_the_moved_adapter(
    rest: int, moved: int, keeps: bool, small_bundle: Bundle, tmp_path: Path
) -> None:
    devices, told = walkers(small_bundle, tmp_path), list[str]()
    for device in devices.values():
        device.votes = rest, moved
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(2), told)
    all_steps(steps, devices)
    before = open_run(tmp_path / "fleet")
    assert judged(steps, devices) and not steps.are_due
    steps.fleet.follow(devices, over(devices), 1.0)
    done = steps.fleet.round(devices, over(devices), 1.0)
    after = open_run(tmp_path / "fleet")
    assert (done.up_to_date, after.class_names) == (("a", "b", "c", "d"), before.class_names)
    assert (after.adapter.tobytes() != before.adapter.tobytes()) == keeps
    assert [len(device.bodies) for device in devices.values()] == [2 if keeps else 1] * 4
    digest = replayed_digest(small_bundle, tmp_path / "fleet")
    assert {device.digest() for device in devices.values()} == {digest}
    assert (FleetFolder(tmp_path / "fleet").in_force().path.name, (tmp_path / "fleet/renewed").exists()) == (
        "moved" if keeps else "fleet", False,
    )  # fmt: skip
    assert any(f"held-out pictures are right with it, {4 * rest} without" in line for line in told)
    again = fleet(small_bundle, tmp_path / "fleet")
    assert not Steps(again, Plan(9)).are_due and again.round(devices, over(devices), 1.0).up_to_date


def test_it_waits_for_a_device_whose_classes_nobody_else_has_and_rests_where_they_are_gone(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    devices, told = walkers(small_bundle, tmp_path), list[str]()
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(1), told)
    all_steps(steps, devices)
    alive = {name: devices[name] for name in "abc"}
    assert not judged(steps, alive) and "waits for d" in told[-1]
    assert FleetFolder(tmp_path / "fleet").in_force().path.name == "fleet"

    class Gone(Walker):
        def answer(self, nonce: str, held: str | None, raw: bytes) -> bytes:
            return sealed(Answer(nonce=nonce, state="nothing", reason="Its pictures are gone."))

    gone = {**alive, "d": Gone(small_bundle, "d", tmp_path / "d", (0, 4))}
    assert judged(steps, gone)
    assert told[-1] == "the adapter rests: its pictures are gone, so that these would be lost: thé"
    assert open_run(tmp_path / "fleet").class_names == ("cup", "fork", "jar", "pot", "thé")


def test_a_server_that_died_before_it_wrote_the_verdict_out_does_so(small_bundle: Bundle, tmp_path: Path) -> None:
    devices = walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(1))
    all_steps(steps, devices)
    steps.fleet.settle = lambda journal: None  # type: ignore[method-assign]
    assert judged(steps, devices)
    assert FleetFolder(tmp_path / "fleet").in_force().path.name == "fleet"
    fleet(small_bundle, tmp_path / "fleet")
    assert FleetFolder(tmp_path / "fleet").in_force().path.name == "moved"


def test_a_revoked_device_is_out_of_the_moved_head_too(small_bundle: Bundle, tmp_path: Path) -> None:
    devices = walkers(small_bundle, tmp_path)
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(1))
    all_steps(steps, devices)
    judged(steps, devices)
    assert revoke(tmp_path / "fleet", "d")
    assert open_run(tmp_path / "fleet").class_names == ("cup", "fork", "jar", "pot")
    assert fleet(small_bundle, tmp_path / "fleet").round(devices, over(devices), 1.0).devices == 3
    assert revoke(tmp_path / "fleet", "d", undo=True) is False
    assert fleet(small_bundle, tmp_path / "fleet").round(devices, over(devices), 1.0).devices == 4


def test_what_does_not_go_together_is_told(small_bundle: Bundle, tmp_path: Path) -> None:
    devices = walkers(small_bundle, tmp_path)
    capped = Coordinator(tmp_path / "capped", small_bundle.folder, print, cap=2.0)
    with pytest.raises(InputError, match="give --cap 0 with --steps"):
        Steps(capped, Plan(3))
    assert not Steps(capped, Plan()).are_due
    with pytest.raises(InputError, match="no graph for exact gradients that this version reads; give --estimator spsa"):
        Steps(fleet(small_bundle, tmp_path / "fleet"), Plan(3, "exact"))
    steps = begun(small_bundle, tmp_path / "fleet", devices, Plan(1))
    all_steps(steps, devices)
    judged(steps, devices)
    (tmp_path / "a.share").write_bytes(b"x")
    with pytest.raises(InputError, match="has moved"):
        merge(small_bundle.folder, [tmp_path / "a.share"], tmp_path / "fleet")
    assert read_devices(tmp_path / "fleet").devices["a"].strikes == 0
