"""A fleet's folder: what it holds, what it refuses to hold, and the head that is solved from it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from shares import made_share

from edge_zofc.algorithm.merging import Merging, capped
from edge_zofc.algorithm.naming import solved_head
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.errors import DamagedFileError, InputError, RunLockedError
from edge_zofc.storage.fleet_folder import About, FleetFolder, misfit
from edge_zofc.storage.share import Share, encode

ABOUT = About(
    bundle_identity="ab" * 32, bundle_folder="../bundle", adapter_sha256="cd" * 32, feature_size=6, normalise=True
)


def filled(folder: Path, *shares: Share, about: About = ABOUT) -> FleetFolder:
    fleet = FleetFolder(folder)
    with fleet.locked():
        fleet.write_about(about)
        for share in shares:
            fleet.write_share(share.name, encode(share))
    return fleet


def test_what_is_written_is_read(tmp_path: Path) -> None:
    one, other = made_share("b"), made_share("a", classes=(1, 2))
    fleet = filled(tmp_path / "fleet", one, other)
    assert fleet.is_fleet()
    assert fleet.about() == ABOUT
    assert json.loads((fleet.path / "about.json").read_text())["feature_size"] == 6
    assert fleet.names(ABOUT) == ["a", "b"]
    assert fleet.share("b", ABOUT).number == one.number


def test_the_merged_head_is_that_of_all_statistics(tmp_path: Path) -> None:
    shares = (made_share("b", classes=(3, 0)), made_share("a", classes=(1, 0)))
    merged = filled(tmp_path / "fleet", *shares).merged()
    merging = Merging(6)
    for share in shares:
        merging.add(share.class_names, share.statistics)
    names, statistics = merging.result()
    assert merged.class_names == names == ("cup", "fork", "pot")
    assert merged.head().rows.tobytes() == solved_head(statistics).rows.tobytes()
    assert [(one.name, one.pictures, one.classes) for one in merged.devices] == [
        ("a", 24, {"fork": 12, "cup": 12}),
        ("b", 24, {"pot": 12, "cup": 12}),
    ]


def test_with_a_cap_a_large_device_counts_as_a_multiple_of_the_median(tmp_path: Path) -> None:
    shares = [made_share(name, each=each) for name, each in (("a", 10), ("b", 12), ("c", 400))]
    merged = filled(tmp_path / "fleet", *shares, about=ABOUT.model_copy(update={"cap": 2.0})).merged()
    assert merged.statistics.counts.sum() == 20 + 24 + 48
    merging = Merging(6)
    for share in shares:
        merging.add(share.class_names, capped(share.statistics, 48.0))
    assert merged.statistics.moment.tobytes() == merging.result()[1].moment.tobytes()
    assert merged.devices[2].pictures == 800, "what a device has is told as it is"


def test_a_revoked_device_does_not_count_though_its_file_is_there(tmp_path: Path) -> None:
    """A cut between the two writes of ``revoke`` leaves it."""
    about = ABOUT.model_copy(update={"revoked": ("b",)})
    fleet = filled(tmp_path / "fleet", made_share("a"), made_share("b", classes=(2,)), about=about)
    assert fleet.merged().class_names == ("cup", "fork")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bundle_identity": "ef" * 32}, "another bundle"),
        ({"adapter_sha256": "ef" * 32}, "features are those of another adapter"),
        ({"normalise": False}, "not normalised alike"),
        ({"size": 7}, "have 7 entries, the bundle's 6"),
    ],
)
def test_features_that_do_not_add_up_are_told_apart(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    share = made_share(**changes)  # type: ignore[arg-type]
    assert reason in misfit(share, ABOUT)
    fleet = filled(tmp_path / "fleet", share)
    with pytest.raises(DamagedFileError, match=reason):
        fleet.merged()


def test_a_share_under_another_devices_name_is_refused(tmp_path: Path) -> None:
    fleet = filled(tmp_path / "fleet", made_share("a"))
    fleet.share_path("a").rename(fleet.share_path("b"))
    with pytest.raises(DamagedFileError, match="it is a share of a; take it out with"):
        fleet.merged()


def test_other_files_beside_the_shares_are_left_alone(tmp_path: Path) -> None:
    fleet = filled(tmp_path / "fleet", made_share("a"))
    for name in ("notes.txt", ".share", "b d.share", ".tmp-1-a.share"):
        (fleet.shares / name).write_text("x")
    assert fleet.names(ABOUT) == ["a"]


def test_what_is_no_fleet_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no fleet in .* \(about.json is missing\); start one with"):
        FleetFolder(tmp_path).about()
    with pytest.raises(InputError, match="has no share; add some with"):
        filled(tmp_path / "fleet").merged()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/settings.json").write_text("{}")
    with pytest.raises(InputError, match="is not empty and holds no fleet"), FleetFolder(tmp_path / "mine").locked():
        pass


def test_one_process_at_a_time_changes_a_fleet(tmp_path: Path) -> None:
    fleet = filled(tmp_path / "fleet", made_share("a"))
    refused: list[str] = []

    def also() -> None:
        try:
            with fleet.locked():
                pass
        except RunLockedError as error:
            refused.append(str(error))

    with fleet.locked():
        other = threading.Thread(target=also)
        other.start()
        other.join()
    assert len(refused) == 1


def test_statistics_without_a_head_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = filled(tmp_path / "fleet", made_share("a")).merged()

    def singular(_: Statistics) -> object:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr("edge_zofc.storage.fleet_folder.solved_head", singular)
    with pytest.raises(DamagedFileError, match="have no head"):
        merged.head()
