"""A device's side of an exchange, with a fleet that is bytes: no network, no Flower."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shares import made_share
from small import write_small_bundle

from edge_zofc.engine.predict import open_run
from edge_zofc.errors import EdgeZofcError
from edge_zofc.fleet.coordinator import Coordinator, RoundDone
from edge_zofc.fleet.exchange import Answer, Ask, News, Receipt, opened, sealed
from edge_zofc.fleet.member import Member
from edge_zofc.fleet.sharing import adapter_sha256, share_of
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.share import Share, encode

NONCE = "ab" * 16


def member(run: Path, bundle: Bundle, name: str = "d0", **more: Any) -> tuple[Member, list[str]]:
    told = list[str]()
    return Member(run, name, told.append, bundle_folder=bundle.folder, **more), told


def ask(bundle: Bundle, **changes: Any) -> bytes:
    given = {
        "nonce": NONCE,
        "bundle_identity": bundle.identity,
        "adapter_sha256": adapter_sha256(bundle),
        "feature_size": bundle.manifest.feature_size,
        "normalise": True,
        "held": None,
    }
    return sealed(Ask(**{**given, **changes}))


def news_of(share: Share, number: int = 1) -> bytes:
    return sealed(News(nonce=NONCE, number=number, devices=3), encode(replace(share, name="fleet")))


def receipt(raw: bytes) -> Receipt:
    found, body = opened(raw, Receipt)
    assert not body and found.nonce == NONCE
    return found


def test_after_one_round_every_device_names_all_classes(small_bundle: Bundle, runs: list[Path], tmp_path: Path) -> None:
    members = {f"d{n}": member(run, small_bundle, f"d{n}")[0] for n, run in enumerate(runs)}
    coordinator = Coordinator(tmp_path / "fleet", small_bundle.folder, print)
    names = ("d0", "d1", "d2")
    done = coordinator.round(
        names, lambda messages, deadline: [(name, members[name].reply(raw)) for name, raw in messages.items()], 1.0
    )
    assert done == RoundDone(names, (), names, devices=3, classes=6)
    heads = []
    for folder in (tmp_path / "fleet", *(run / "fleet" for run in runs)):
        found = open_run(folder, small_bundle.folder)
        assert found.class_names == tuple(f"class{n:02d}" for n in range(6)) and found.head.biases is not None
        heads.append((found.head.rows.tobytes(), found.head.biases.tobytes()))
    assert len(set(heads)) == 1, "one head, to the bit"
    assert [open_run(run).class_names for run in runs] == [
        ("class00", "class01"), ("class02", "class03"), ("class04", "class05"),
    ]  # fmt: skip


def test_an_answer_is_the_share_as_a_file_has_it_and_nothing_where_it_is_held(
    small_bundle: Bundle, runs: list[Path]
) -> None:
    one, told = member(runs[0], small_bundle)
    raw = encode(share_of(runs[0], "d0").share)
    assert opened(one.reply(ask(small_bundle)), Answer) == (Answer(nonce=NONCE, state="share"), raw)
    held = hashlib.sha256(raw).hexdigest()
    assert opened(one.reply(ask(small_bundle, held=held)), Answer) == (Answer(nonce=NONCE, state="same"), b"")
    assert len(told) == 2 and one.refusal is None


def test_a_run_without_enough_pictures_says_so_without_naming_a_folder(small_bundle: Bundle, runs: list[Path]) -> None:
    one, told = member(runs[0], small_bundle, min_pictures=9)
    answer, body = opened(one.reply(ask(small_bundle)), Answer)
    assert (answer.state, body, answer.reason) == ("nothing", b"", "It has nothing to share yet.")
    assert "9 pictures or more" in told[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bundle_identity": "ef" * 32}, "learnt with another bundle"),
        ({"adapter_sha256": "ef" * 32}, "its adapter's start is another one"),
        ({"feature_size": 7}, "its adapter's start is another one"),
        ({"normalise": False}, "not normalised alike"),
    ],
)
def test_a_fleet_of_another_kind_is_refused_with_the_reason(
    changes: dict[str, Any], reason: str, small_bundle: Bundle, runs: list[Path]
) -> None:
    one, _ = member(runs[0], small_bundle)
    answer, body = opened(one.reply(ask(small_bundle, **changes)), Answer)
    assert (answer.state, body) == ("refused", b"") and reason in answer.reason
    assert one.refusal is not None and reason in str(one.refusal) and one.refusal.exit_code == 2


def test_a_head_that_loses_the_devices_own_pictures_is_not_taken(small_bundle: Bundle, runs: list[Path]) -> None:
    """The names of two classes changed places."""
    one, told = member(runs[0], small_bundle)
    share = share_of(runs[0], "d0").share
    bad = receipt(one.reply(news_of(replace(share, class_names=share.class_names[::-1]))))
    assert not bad.taken and bad.reason.startswith("0 of 8 held-back pictures right, 8 before, more than the 10 %")
    assert not (runs[0] / "fleet").exists()
    assert receipt(one.reply(news_of(share))).taken and (runs[0] / "fleet").exists()
    before = sorted((path.name, path.read_bytes()) for path in (runs[0] / "fleet/shares").iterdir())
    assert not receipt(one.reply(news_of(replace(share, class_names=share.class_names[::-1]), 2))).taken
    assert before == sorted((path.name, path.read_bytes()) for path in (runs[0] / "fleet/shares").iterdir())
    assert receipt(member(runs[0], small_bundle, margin=1.0)[0].reply(news_of(bad_of(share), 2))).taken
    assert "not taken" in told[0] and one.has_news == 3


def bad_of(share: Share) -> Share:
    return replace(share, class_names=share.class_names[::-1])


def test_without_pictures_of_its_own_a_head_is_taken(small_bundle: Bundle, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "run0", tmp_path / "run")
    one, _ = member(tmp_path / "run", small_bundle)
    found = receipt(one.reply(news_of(bad_of(share_of(tmp_path / "run", "d0", 8, small_bundle.folder).share))))
    assert found.taken and found.reason == "no picture held back to try it on"


def test_a_head_that_is_there_is_not_tried_again(small_bundle: Bundle, runs: list[Path]) -> None:
    one, told = member(runs[0], small_bundle)
    share = share_of(runs[0], "d0").share
    assert receipt(one.reply(news_of(share))).reason
    assert receipt(one.reply(news_of(share))) == Receipt(nonce=NONCE, taken=True)
    assert told[-1].endswith("already")


def test_a_damaged_last_head_gives_way_to_a_new_one(small_bundle: Bundle, runs: list[Path]) -> None:
    one, told = member(runs[0], small_bundle)
    share = share_of(runs[0], "d0").share
    one.reply(news_of(share))
    (runs[0] / "fleet/shares/fleet.share").write_bytes(b"EZOFCSHR")
    assert receipt(one.reply(news_of(share, 2))).taken
    assert open_run(runs[0] / "fleet", small_bundle.folder).class_names == ("class00", "class01")
    assert any("last head is not used" in line for line in told)


def test_news_that_do_not_fit_are_not_taken(small_bundle: Bundle, runs: list[Path]) -> None:
    one, _ = member(runs[0], small_bundle)
    share = share_of(runs[0], "d0").share
    other = {"bundle_identity": "ef" * 32}
    for raw, reason in (
        (sealed(News(nonce=NONCE, number=1, devices=3)), "is no whole share"),
        (sealed(News(nonce=NONCE, number=1, devices=3), bytes(99)), "is no whole share"),
        (sealed(News(nonce=NONCE, number=1, devices=3), encode(share)), "it is one device alone"),
        (news_of(made_share(size=small_bundle.manifest.feature_size, **other)), "another bundle"),
    ):
        found = receipt(one.reply(raw))
        assert not found.taken and reason in found.reason
    assert not (runs[0] / "fleet").exists()


@pytest.mark.parametrize("raw", [b"", bytes(40), sealed(Answer(nonce=NONCE, state="same"))])
def test_other_messages_end_in_a_sentence(raw: bytes, small_bundle: Bundle, runs: list[Path]) -> None:
    with pytest.raises(EdgeZofcError, match=r"[.]$"):
        member(runs[0], small_bundle)[0].reply(raw)


def test_a_run_of_another_bundle_is_refused_before_its_share_is_looked_at(
    small_bundle: Bundle, runs: list[Path], tmp_path: Path
) -> None:
    other = write_small_bundle(tmp_path / "other", "w8")
    one, _ = member(runs[0], small_bundle)
    answer, _ = opened(one.reply(ask(other)), Answer)
    assert answer.state == "refused" and other.identity[:12] in answer.reason


def test_a_bundle_that_is_not_found_is_told_before_anything_is_asked(runs: list[Path], tmp_path: Path) -> None:
    settings = json.loads((runs[0] / "settings.json").read_text())
    (runs[0] / "settings.json").write_text(json.dumps({**settings, "bundle_folder": str(tmp_path / "gone")}))
    with pytest.raises(EdgeZofcError, match="say where it is with --bundle"):
        Member(runs[0], "d0", print).check()
    with pytest.raises(EdgeZofcError, match="There is no run in"):
        Member(tmp_path / "nowhere", "d0", print).check()


def test_a_run_with_its_bundle_can_be_asked(small_bundle: Bundle, runs: list[Path]) -> None:
    member(runs[0], small_bundle)[0].check()
