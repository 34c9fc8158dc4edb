"""A fleet's side of an exchange, with devices that are lists of bytes: no network, no Flower."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fleet_steps import fleet, over
from hypothesis import given
from hypothesis import strategies as st
from shares import made_share

from edge_zofc.engine.predict import open_run
from edge_zofc.fleet.coordinator import MOST_STRIKES, Coordinator, RoundDone
from edge_zofc.fleet.exchange import Answer, Ask, News, Receipt, kind_of, opened, sealed
from edge_zofc.fleet.merging import revoke
from edge_zofc.fleet.sharing import adapter_sha256
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_devices import read_devices
from edge_zofc.storage.share import decode, encode

Device = Callable[[bytes], bytes]
HOSTILE: dict[str, Device] = {
    "nothing": lambda raw: b"",
    "noise": lambda raw: bytes(range(256)) * 9,
    "its own question": lambda raw: raw,
    "another nonce": lambda raw: sealed(Answer(nonce="0" * 32, state="same")),
    "a share of noise": lambda raw: sealed(Answer(nonce=nonce_of(raw), state="share"), b"EZOFCSHR" + bytes(3000)),
    "a state with a body": lambda raw: sealed(Answer(nonce=nonce_of(raw), state="same"), b"x"),
    "a share without one": lambda raw: sealed(Answer(nonce=nonce_of(raw), state="share")),
}


def nonce_of(raw: bytes) -> str:
    return opened(raw, Ask)[0].nonce if kind_of(raw) == "ask" else opened(raw, News)[0].nonce


def share_bytes(bundle: Bundle, name: str, **more: Any) -> bytes:
    size = bundle.manifest.feature_size
    common = {"bundle_identity": bundle.identity, "adapter_sha256": adapter_sha256(bundle), "size": size}
    return encode(made_share(name, **{**common, **more}))


class Honest:
    """A device with one share, which takes what it gets; ``bodies`` are those of the news."""

    def __init__(self, raw: bytes, takes: bool = True) -> None:
        self.raw, self.takes, self.bodies, self.states = raw, takes, list[bytes](), list[str]()

    def __call__(self, message: bytes) -> bytes:
        if kind_of(message) == "news":
            news, body = opened(message, News)
            self.bodies.append(body)
            return sealed(Receipt(nonce=news.nonce, taken=self.takes, reason="" if self.takes else "3 of 9 right"))
        import hashlib

        ask, _ = opened(message, Ask)
        is_held = hashlib.sha256(self.raw).hexdigest() == ask.held
        self.states.append("same" if is_held else "share")
        return sealed(Answer(nonce=ask.nonce, state="same" if is_held else "share"), b"" if is_held else self.raw)


def head_bits(folder: Path) -> tuple[object, ...]:
    run = open_run(folder)
    assert run.head.biases is not None
    return run.class_names, run.head.rows.tobytes(), run.head.biases.tobytes()


def hold(coordinator: Coordinator, devices: Mapping[str, Device], absent: tuple[str, ...] = ()) -> RoundDone:
    return coordinator.round([*devices, *absent], over(devices), 1.0)


@pytest.fixture(scope="module")
def shares(small_bundle: Bundle) -> dict[str, bytes]:
    classes = {"a": (0, 1), "b": (1, 2), "c": (3, 4)}
    return {name: share_bytes(small_bundle, name, classes=found) for name, found in classes.items()}


def test_the_head_and_the_news_are_the_same_in_whatever_order_devices_answer(
    small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path
) -> None:
    heads, news = set(), set()
    for number, order in enumerate(itertools.permutations(shares)):
        devices = {name: Honest(shares[name]) for name in order}
        done = hold(fleet(small_bundle, tmp_path / f"fleet{number}"), devices)
        assert done == RoundDone(("a", "b", "c"), (), ("a", "b", "c"), devices=3, classes=5)
        heads.add(head_bits(tmp_path / f"fleet{number}"))
        news |= {tuple(device.bodies) for device in devices.values()}
    assert len(heads) == len(news) == 1
    (body,) = next(iter(news))
    merged = decode(body)
    assert merged.name == "fleet" and merged.pictures == 3 * 24
    assert merged.class_names == ("cup", "fork", "jar", "pot", "thé")


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_one_sentence_and_a_strike_and_the_others_go_on(
    what: str, small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path
) -> None:
    told = list[str]()
    devices = {"x": HOSTILE[what], "a": Honest(shares["a"]), "b": Honest(shares["b"])}
    coordinator = fleet(small_bundle, tmp_path / "fleet", told)
    done = hold(coordinator, devices)
    assert (done.answered, done.silent, done.up_to_date, done.classes) == (("a", "b"), ("x",), ("a", "b"), 3)
    assert [line for line in told if line.startswith("x: strike 1 of 3: ")] and all(map(str.isprintable, told))
    assert read_devices(tmp_path / "fleet").devices["x"].strikes == 1
    for _ in range(MOST_STRIKES):
        hold(coordinator, devices)
    assert read_devices(tmp_path / "fleet").devices["x"].strikes == MOST_STRIKES, "then it is not asked any more"
    assert hold(fleet(small_bundle, tmp_path / "fleet"), devices).silent == ("x",), "a new server asks again"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "a"}, "The share is one of a, and its sender has the key of x"),
        ({"scale": 100.0}, "the squared length of its features is"),
        ({"bundle_identity": "ef" * 32}, "learnt with another bundle"),
        ({"adapter_sha256": "ef" * 32}, "those of another adapter"),
        ({"normalise": False}, "not normalised alike"),
    ],
)
def test_a_share_that_does_not_fit_is_a_strike_and_changes_nothing(
    changes: dict[str, Any], reason: str, small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path
) -> None:
    told, name = list[str](), changes.pop("name", "x")
    devices = {"x": Honest(share_bytes(small_bundle, name, **changes)), "a": Honest(shares["a"])}
    hold(fleet(small_bundle, tmp_path / "fleet", told), devices)
    hold(fleet(small_bundle, tmp_path / "alone"), {"a": Honest(shares["a"])})
    assert head_bits(tmp_path / "fleet") == head_bits(tmp_path / "alone")
    assert reason in next(line for line in told if line.startswith("x: strike"))
    assert not (tmp_path / "fleet/shares/x.share").exists()


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_of_a_device_escape_as_another_exception(small_bundle: Bundle, raw: bytes, as_body: bool) -> None:
    import tempfile

    def device(message: bytes) -> bytes:
        return sealed(Answer(nonce=nonce_of(message), state="share"), raw) if as_body else raw

    with tempfile.TemporaryDirectory() as folder:
        assert not hold(fleet(small_bundle, Path(folder) / "fleet"), {"x": device}).answered


def test_nothing_travels_twice(small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path) -> None:
    devices = {name: Honest(raw) for name, raw in shares.items()}
    coordinator = fleet(small_bundle, tmp_path / "fleet")
    for _ in range(3):
        hold(coordinator, devices)
    hold(fleet(small_bundle, tmp_path / "fleet"), devices)
    assert all(device.states == ["share", "same", "same", "same"] for device in devices.values())
    assert all(len(device.bodies) == 1 for device in devices.values())
    assert read_devices(tmp_path / "fleet").rounds == 4


def test_a_newer_share_makes_a_new_head_which_all_get(
    small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path
) -> None:
    devices = {name: Honest(raw) for name, raw in shares.items()}
    hold(fleet(small_bundle, tmp_path / "fleet"), devices)
    devices["a"].raw = share_bytes(small_bundle, "a", number=9, classes=(0, 1, 2))
    hold(fleet(small_bundle, tmp_path / "fleet"), devices)
    assert read_devices(tmp_path / "fleet").head == 2
    assert all(len(device.bodies) == 2 for device in devices.values())
    devices["a"].raw = shares["a"]
    hold(fleet(small_bundle, tmp_path / "fleet"), devices)
    assert all(len(device.bodies) == 2 for device in devices.values()), "an older share is not taken"


def test_who_was_silent_or_refused_the_head_gets_the_next_one(
    small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path
) -> None:
    a, b = Honest(shares["a"]), Honest(shares["b"], takes=False)
    told = list[str]()
    coordinator = fleet(small_bundle, tmp_path / "fleet", told)
    done = hold(coordinator, {"a": a, "b": b}, absent=("c",))
    assert (done.silent, done.up_to_date) == (("c",), ("a",))
    assert "b: did not take head 1: 3 of 9 right" in told
    done = hold(coordinator, {"a": a, "b": b, "c": Honest(shares["c"])})
    assert (done.silent, done.up_to_date, done.classes) == ((), ("a", "c"), 5)
    assert len(b.bodies) == 2


def test_a_late_reply_and_a_reply_for_another_device_are_known_for_what_they_are(
    small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path
) -> None:
    coordinator = fleet(small_bundle, tmp_path / "fleet")
    first = coordinator.ask("a")
    late = Honest(shares["a"])(first)
    coordinator.ask("a")
    assert not coordinator.answered("a", late)
    ask = coordinator.ask("b")
    assert not coordinator.answered("a", Honest(shares["a"])(ask))
    assert coordinator.answered("b", Honest(shares["b"])(ask))
    assert not coordinator.answered("b", Honest(shares["b"])(ask)), "the first answer counts"


def test_a_revoked_device_stays_out(small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path) -> None:
    devices = {name: Honest(raw) for name, raw in shares.items()}
    hold(fleet(small_bundle, tmp_path / "fleet"), devices)
    revoke(tmp_path / "fleet", "c")
    done = hold(fleet(small_bundle, tmp_path / "fleet"), devices)
    assert (done.answered, done.devices, done.classes) == (("a", "b"), 2, 3)
    assert decode(devices["a"].bodies[-1]).class_names == ("cup", "fork", "jar")


def test_a_device_without_anything_yet_gets_the_head_and_one_of_another_bundle_does_not(
    small_bundle: Bundle, shares: dict[str, bytes], tmp_path: Path
) -> None:
    class Empty(Honest):
        state = "nothing"

        def __call__(self, message: bytes) -> bytes:
            if kind_of(message) == "news":
                return super().__call__(message)
            return sealed(Answer(nonce=nonce_of(message), state=self.state, reason="not \x1b[31myet"))  # type: ignore[arg-type]

    class Foreign(Empty):
        state = "refused"

    told = list[str]()
    empty, foreign = Empty(b""), Foreign(b"")
    hold(fleet(small_bundle, tmp_path / "fleet", told), {"a": Honest(shares["a"]), "n": empty, "f": foreign})
    assert (len(empty.bodies), len(foreign.bodies)) == (1, 0)
    assert all(map(str.isprintable, told))


def test_before_any_share_there_is_no_head(small_bundle: Bundle, tmp_path: Path) -> None:
    assert hold(fleet(small_bundle, tmp_path / "fleet"), {}) == RoundDone((), (), (), 0, 0)
    about = json.loads((tmp_path / "fleet/about.json").read_text())
    assert about["normalise"] and about["bundle_identity"] == small_bundle.identity
