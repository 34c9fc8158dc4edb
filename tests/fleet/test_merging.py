"""Shares become a fleet: the same head as one process that saw all, newest shares alone, and what is refused."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from runs import go
from shares import made_share, write_share
from small import write_small_bundle, write_small_stream

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.predict import TrainedRun, evaluate, open_backbone, open_run
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.fleet.merging import merge, revoke
from edge_zofc.fleet.sharing import adapter_sha256, share_of
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import FleetFolder
from edge_zofc.storage.share import encode


def head_bits(run: TrainedRun) -> tuple[object, ...]:
    assert run.head.biases is not None
    return run.class_names, run.head.rows.tobytes(), run.head.biases.tobytes()


def fates(done: object) -> list[tuple[str, int, str]]:
    return [(one.device.name, one.device.number, fate) for one, fate in done.fates]  # type: ignore[attr-defined]


def test_three_devices_together_are_one_that_saw_everything(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=3, classes=2)
    go(small_bundle, stream, tmp_path / "whole", changes={"adapter": "off"})
    paths = []
    for number in range(3):
        own, run = tmp_path / f"stream{number}", tmp_path / f"run{number}"
        shutil.copytree(stream / f"{number:03d}_task", own / "000_task")
        go(small_bundle, own, run, changes={"adapter": "off"})
        paths.append(tmp_path / f"d{number}.share")
        paths[-1].write_bytes(encode(share_of(run, f"d{number}").share))
    whole = open_run(tmp_path / "whole")
    for number, order in enumerate(itertools.permutations(paths)):
        merge(small_bundle.folder, order, tmp_path / f"fleet{number}")
        assert head_bits(open_run(tmp_path / f"fleet{number}")) == head_bits(whole)
    for path in paths:  # one after the other
        merge(small_bundle.folder, [path], tmp_path / "fleet")
    together = open_run(tmp_path / "fleet")
    assert head_bits(together) == head_bits(whole)
    found = evaluate(together, open_backbone(together, 1), stream, print)
    assert found == evaluate(whole, open_backbone(whole, 1), stream, print)
    alone = evaluate(trained := open_run(tmp_path / "run0"), open_backbone(trained, 1), stream, print)
    assert (len(found.unknown_classes), len(alone.unknown_classes)) == (0, 4)


def test_the_newest_share_of_a_device_counts_in_whatever_order_they_come(small_bundle: Bundle, tmp_path: Path) -> None:
    old = write_share(tmp_path, small_bundle, "a", number=3)
    new = write_share(tmp_path, small_bundle, "a", number=5, classes=(1, 2), seed=1)
    for number, order in enumerate(itertools.permutations((old, new))):
        done = merge(small_bundle.folder, order, tmp_path / f"fleet{number}")
        assert sorted(fates(done)) == [("a", 3, "older, not taken"), ("a", 5, "new")]
        assert done.merged.class_names == ("fork", "jar")
    fleet = tmp_path / "fleet"
    assert fates(merge(small_bundle.folder, [old], fleet)) == [("a", 3, "new")]
    assert fates(merge(small_bundle.folder, [old], fleet)) == [("a", 3, "the same")]
    assert fates(merge(small_bundle.folder, [new], fleet)) == [("a", 5, "replaced")]
    assert fates(merge(small_bundle.folder, [old], fleet)) == [("a", 3, "older, not taken")]
    assert head_bits(open_run(fleet)) == head_bits(open_run(tmp_path / "fleet0"))


def test_a_share_that_is_given_twice_is_the_same(small_bundle: Bundle, tmp_path: Path) -> None:
    path = write_share(tmp_path, small_bundle, "a")
    copy = shutil.copyfile(path, tmp_path / "copy.share")
    assert fates(merge(small_bundle.folder, [path, copy], tmp_path / "fleet")) == [
        ("a", 4, "new"),
        ("a", 4, "the same"),
    ]


def test_a_good_share_replaces_a_damaged_one(small_bundle: Bundle, tmp_path: Path) -> None:
    path = write_share(tmp_path, small_bundle, "a")
    merge(small_bundle.folder, [path], tmp_path / "fleet")
    held = FleetFolder(tmp_path / "fleet").share_path("a")
    held.write_bytes(held.read_bytes()[:-1])
    assert fates(merge(small_bundle.folder, [path], tmp_path / "fleet")) == [("a", 4, "replaced")]


def test_a_revoked_device_leaves_no_bit_and_stays_out(small_bundle: Bundle, tmp_path: Path) -> None:
    a, b = (write_share(tmp_path, small_bundle, name, classes=c) for name, c in (("a", (0, 1)), ("b", (1, 2))))
    merge(small_bundle.folder, [a], tmp_path / "alone")
    merge(small_bundle.folder, [a, b], tmp_path / "fleet")
    assert revoke(tmp_path / "fleet", "b")
    assert head_bits(open_run(tmp_path / "fleet")) == head_bits(open_run(tmp_path / "alone"))
    done = merge(small_bundle.folder, [a, b], tmp_path / "fleet")
    assert fates(done) == [("a", 4, "the same"), ("b", 4, "revoked, not taken")]
    assert not revoke(tmp_path / "fleet", "b", undo=True)
    assert fates(merge(small_bundle.folder, [b], tmp_path / "fleet")) == [("b", 4, "new")]
    with pytest.raises(InputError, match="has no share of c; it has those of: a, b"):
        revoke(tmp_path / "fleet", "c")
    with pytest.raises(InputError, match="a is not revoked in "):
        revoke(tmp_path / "fleet", "a", undo=True)


def test_the_cap_stays_until_another_one_is_given(small_bundle: Bundle, tmp_path: Path) -> None:
    fleet = FleetFolder(tmp_path / "fleet")
    paths = [write_share(tmp_path, small_bundle, name, each=n) for name, n in (("a", 10), ("b", 12), ("c", 400))]
    assert merge(small_bundle.folder, paths, fleet.path).merged.statistics.counts.sum() == 844
    assert merge(small_bundle.folder, paths, fleet.path, cap=2).merged.statistics.counts.sum() == 92
    assert merge(small_bundle.folder, paths[:1], fleet.path).merged.about.cap == 2
    assert merge(small_bundle.folder, paths[:1], fleet.path, cap=0).merged.statistics.counts.sum() == 844
    for cap in (0.5, -1.0, float("nan"), 1e9):
        with pytest.raises(InputError, match="--cap is"):
            merge(small_bundle.folder, paths, fleet.path, cap=cap)


def test_shares_of_another_bundle_or_adapter_are_refused_before_anything_is_made(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    good = write_share(tmp_path, small_bundle, "a")
    for name, changes, reason in (
        ("b", {"bundle_identity": "ef" * 32}, "learnt with another bundle"),
        ("c", {"adapter_sha256": "ef" * 32}, "features are those of another adapter"),
        ("d", {"normalise": False}, "not normalised alike"),
    ):
        bad = write_share(tmp_path, small_bundle, name, **changes)
        with pytest.raises(InputError, match=f"of the device {name} cannot join this fleet: .*{reason}"):
            merge(small_bundle.folder, [good, bad], tmp_path / "fleet")
    assert not (tmp_path / "fleet").exists()


def test_a_fleet_stays_with_its_bundle(small_bundle: Bundle, tmp_path: Path) -> None:
    merge(small_bundle.folder, [write_share(tmp_path, small_bundle, "a")], tmp_path / "fleet")
    other = write_small_bundle(tmp_path / "other", "w8")
    with pytest.raises(InputError, match="is of another bundle than"):
        merge(other.folder, [write_share(tmp_path, other, "b")], tmp_path / "fleet")


def test_two_devices_of_one_name_are_noticed(small_bundle: Bundle, tmp_path: Path) -> None:
    other = write_share(tmp_path, small_bundle, "a", seed=1).rename(tmp_path / "other.share")
    one = write_share(tmp_path, small_bundle, "a")
    newer = write_share(tmp_path, small_bundle, "a", number=6)
    for paths in itertools.permutations((one, other, newer)):
        with pytest.raises(InputError, match="differ, and both are share 4 of a; give each device a name of its own"):
            merge(small_bundle.folder, paths, tmp_path / "fleet")


def test_a_second_moment_that_no_pictures_have_is_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    """It passes every bound on single entries."""
    size = small_bundle.manifest.feature_size
    share = made_share(size=size, bundle_identity=small_bundle.identity, adapter_sha256=adapter_sha256(small_bundle))
    moment = symmetric.unpack(share.statistics.moment, size)
    lengths = 0.9 * moment.diagonal() ** 0.5
    for i, j, sign in ((0, 1, 1), (1, 2, 1), (0, 2, -1)):
        moment[i, j] = moment[j, i] = round(sign * lengths[i] * lengths[j])
    found = Statistics(share.statistics.sums, share.statistics.counts, symmetric.pack(moment))
    path = tmp_path / "a.share"
    path.write_bytes(encode(replace(share, statistics=found)))
    with pytest.raises(DamagedFileError, match="no pictures have such a second moment"):
        merge(small_bundle.folder, [path], tmp_path / "fleet")


def test_features_of_a_length_that_no_picture_has_are_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    """They would be most of the scatter that all classes share."""
    path = write_share(tmp_path, small_bundle, "a", scale=100.0)
    with pytest.raises(DamagedFileError, match=r"the squared length of its features is .* allow"):
        merge(small_bundle.folder, [path], tmp_path / "fleet")


def test_classes_that_differ_in_case_alone_are_told(small_bundle: Bundle, tmp_path: Path) -> None:
    a = write_share(tmp_path, small_bundle, "a", class_names=("Bolt", "nut"))
    b = write_share(tmp_path, small_bundle, "b", class_names=("bolt", "nut"))
    done = merge(small_bundle.folder, [a, b], tmp_path / "fleet")
    assert done.merged.class_names == ("Bolt", "bolt", "nut")
    assert len(done.notes) == 1 and "Bolt and bolt" in done.notes[0]
