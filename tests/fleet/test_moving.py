"""Devices whose fleet moves the adapter, with real runs and pictures; the fleet is a coordinator and a list."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import go
from small import write_small_bundle, write_small_stream

from edge_zofc.engine.own_pictures import OwnPictures
from edge_zofc.engine.predict import evaluate, open_backbone, open_run
from edge_zofc.engine.replay import replay_run
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.fleet import judging
from edge_zofc.fleet.coordinator import Coordinator
from edge_zofc.fleet.exchange import Compare, Compared, Measure, Measured, opened, sealed
from edge_zofc.fleet.measuring import Measuring
from edge_zofc.fleet.member import Member
from edge_zofc.fleet.sharing import learnt_of, share_of
from edge_zofc.fleet.stepping import Estimator, Plan, Steps
from edge_zofc.learner import Learner
from edge_zofc.storage.fleet_folder import FleetFolder
from edge_zofc.storage.settings import Placement
from edge_zofc.storage.share import decode, encode

NAMES = ("d0", "d1", "d2")
ALL = tuple(f"class{n:02d}" for n in range(6))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with gradients and three runs of two classes each, of ten pictures; read them, do not change them."""
    home = tmp_path_factory.mktemp("moving")
    bundle = write_small_bundle(home / "bundle", gradient=True)
    stream = write_small_stream(home / "stream", tasks=3, train=10, alike=True)
    for number in range(3):
        shutil.copytree(stream / f"{number:03d}_task", home / f"stream{number}" / "000_task")
        go(bundle, home / f"stream{number}", home / f"run{number}", changes={"adapter": "off"})
    return home


@dataclass
class World:
    """A fleet of the three runs in ``home``, copies of those that were learnt."""

    home: Path
    told: list[str]
    members: dict[str, Member]
    fleet: Coordinator

    def exchange(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
        for name, raw in messages.items():
            yield name, self.members[name].reply(raw)

    def round(self) -> tuple[str, ...]:
        return self.fleet.round(NAMES, self.exchange, 1.0).up_to_date

    def walk(self, plan: Plan) -> Steps:
        """All steps of a plan."""
        steps = Steps(self.fleet, plan)
        while steps.are_left:
            assert steps.step(NAMES, self.exchange), self.told
        return steps

    def judge(self, steps: Steps) -> bool:
        return steps.judge(NAMES, self.exchange, 1.0)


@pytest.fixture
def world(learnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The seed of a fleet's steps is random: its verdict must not be."""
    monkeypatch.setattr(judging, "is_worse", lambda only_rest, only_moved: False)
    for path in learnt.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    told = list[str]()
    members = {name: Member(tmp_path / f"run{name[1]}", name, told.append, margin=1.0) for name in NAMES}
    yield World(tmp_path, told, members, Coordinator(tmp_path / "fleet", tmp_path / "bundle", told.append))
    for one in members.values():
        one.close()


def snapshot(run: Path) -> dict[str, bytes]:
    """The files of a run that are not of its fleet."""
    return {
        str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file() and "fleet" not in path.parts
    }


@pytest.mark.parametrize("estimator", ["spsa", "exact"])
def test_all_end_with_one_adapter_and_one_head_and_the_runs_stay_as_they_are(
    estimator: Estimator, world: World
) -> None:
    before = [snapshot(world.home / f"run{n}") for n in range(3)]
    assert world.round() == NAMES
    steps = world.walk(Plan(3, estimator, pictures=6))
    assert world.judge(steps), world.told
    steps.fleet.follow(NAMES, world.exchange, 1.0)
    assert world.round() == NAMES == world.round()
    folders = [world.home / "fleet", *(world.home / f"run{n}/fleet" for n in range(3))]
    opened_runs = [open_run(folder) for folder in folders]
    assert len({one.adapter.tobytes() for one in opened_runs}) == 1
    assert len({one.head.rows.tobytes() for one in opened_runs}) == 1
    assert {one.class_names for one in opened_runs} == {ALL}
    assert len({(folder / "journal.bin").read_bytes() for folder in folders}) == 1
    digests = {
        replay_run(world.home / "bundle", folder / "journal.bin", world.home / "out", None, None) for folder in folders
    }
    assert len(digests) == 1 and digests.pop().steps == 3
    assert [snapshot(world.home / f"run{n}") for n in range(3)] == before


def test_what_a_fleet_knows_under_the_moved_adapter_is_used(world: World) -> None:
    world.round()
    steps = world.walk(Plan(3, "exact", pictures=6))
    at_rest = open_run(world.home / "fleet")
    assert world.judge(steps)
    world.round()
    assert FleetFolder(world.home / "fleet").in_force().path.name == "moved"
    run = open_run(world.home / "run0/fleet")
    assert run.adapter.tobytes() != at_rest.adapter.tobytes()
    backbone = open_backbone(run, 1)
    assert evaluate(run, backbone, world.home / "stream", print).unknown_classes == ()
    backbone.close()
    with Learner.open(world.home / "run0/fleet") as learner:
        path = next((world.home / "stream0/000_task/test/class00").iterdir())
        assert learner.predict(path).guesses[0].class_name in ALL


def test_the_moved_head_is_that_of_one_collector_over_all_pictures(world: World) -> None:
    world.round()
    world.judge(world.walk(Plan(2, "exact", pictures=6)))
    world.round()
    run = open_run(world.home / "fleet")
    found = learnt_of(world.home / "run0")
    paths, labels = list[Path](), list[int]()
    for number, name in enumerate(ALL):
        some = sorted((world.home / f"stream/{number // 2:03d}_task/train/{name}").iterdir())
        paths += some
        labels += [number] * len(some)
    one = Measuring(
        found.bundle, Placement.simple(4), True, OwnPictures(ALL, tuple(paths), np.array(labels, np.int64)), print
    )
    names, whole = one.statistics(run.adapter, 1)
    one.close()
    assert names == ALL
    for part in ("sums", "counts", "moment"):
        assert np.array_equal(getattr(whole, part), getattr(run.statistics, part)), part


def test_a_device_whose_pictures_are_gone_says_so_and_the_fleet_rests(world: World) -> None:
    world.round()
    shutil.rmtree(world.home / "stream2")
    steps = world.walk(Plan(1, pictures=4))
    assert any("step 0: not measured" in line for line in world.told)
    assert world.judge(steps)
    assert "The pictures of task 000_task are gone." in world.told
    assert world.told[-1].startswith("the adapter rests: its pictures are gone, so that these would be lost: class04")
    assert world.round() == NAMES and open_run(world.home / "fleet").class_names == ALL


def test_a_class_with_too_few_pictures_left_is_not_shared_again(world: World) -> None:
    world.round()
    for path in list((world.home / "stream0/000_task/train/class01").iterdir())[:3]:
        path.unlink()
    steps = world.walk(Plan(1, pictures=4))
    assert world.judge(steps)
    assert any("Fewer than 8 pictures are left of: class01." in line for line in world.told)
    assert world.told[-1].endswith("would be lost: class01")


def test_a_picture_that_cannot_be_read_is_told_once_and_left_out(world: World) -> None:
    world.round()
    for path in (world.home / "stream0/000_task/train/class00").iterdir():
        path.write_bytes(b"no picture")
    world.walk(Plan(3, pictures=8))
    left = [line for line in world.told if line.startswith("Left out:")]
    assert left and len(left) == len(set(left))


def test_a_device_without_the_fleets_head_measures_nothing(world: World) -> None:
    world.round()
    shutil.rmtree(world.home / "run1/fleet")
    steps = world.walk(Plan(1, pictures=4))
    assert steps.fleet.ledger.known["d1"].strikes == 0
    assert any(line == "step 0: not measured: There is no head of the fleet yet." for line in world.told)


def test_a_share_under_the_moved_adapter_is_made_once(world: World) -> None:
    world.round()
    steps = world.walk(Plan(1, pictures=4))
    world.judge(steps)
    own = world.home / "run0/fleet/own.share"
    raw, share = own.read_bytes(), decode(own.read_bytes())
    assert (
        share.class_names == ("class00", "class01") and share.number == share_of(world.home / "run0", "d0").share.number
    )
    world.told.clear()
    again = Member(world.home / "run0", "d0", world.told.append, margin=1.0)
    theta = open_run(world.home / "fleet").adapter
    (world.home / "stream0").rename(world.home / "elsewhere")
    assert again._mover._own_share(theta) == raw, "no picture is looked at"
    own.write_bytes(b"noise")
    with pytest.raises(InputError, match="enough pictures"):
        Member(world.home / "run0", "d0", world.told.append)._mover._own_share(theta)


def test_heads_are_not_judged_by_what_is_not_the_newest(world: World) -> None:
    world.round()
    steps = world.walk(Plan(1, pictures=4))
    journal = steps.begin()
    world.judge(steps)
    body = encode(decode((world.home / "run0/fleet/own.share").read_bytes()))
    ask = Compare(nonce="ab" * 16, own="cd" * 32, rest="ef" * 32)
    reply, _ = opened(world.members["d0"].reply(sealed(ask, body)), Compared)
    assert (reply.state, reply.total, reply.reason) == ("nothing", 0, "It cannot judge now.")
    assert "is not the newest" in world.told[-1] and journal.steps == 1


def test_messages_of_nobody_end_in_a_sentence(world: World) -> None:
    piece: dict[str, Any] = {"nonce": "ab" * 16, "offset": 0, "records": 3, "chain": "0" * 16}
    raw = sealed(Measure(**piece, step=0, pictures=4, seconds=1.0), b"noise")
    with pytest.raises(DamagedFileError, match="does not fit its own chain"):
        world.members["d0"].reply(raw)
    far = sealed(Measure(**{**piece, "offset": 500}, step=0, pictures=4, seconds=1.0))
    assert b'"kind":"followed"' in world.members["d0"].reply(far)
    with pytest.raises(DamagedFileError, match="no question"):
        world.members["d0"].reply(sealed(Measured(nonce="ab" * 16, state="nothing", step=0)))
