"""Profiles hold a board's limits, and nothing that a person can write into one ends in a traceback."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.device.profiles import (
    MIB,
    DeviceProfile,
    auto_profile,
    format_bytes,
    load_profile,
    matching_profile,
    parse_bytes,
    profile_names,
)
from edge_zofc.device.system import Board, board
from edge_zofc.errors import InputError

GOOD = """\
name = "mine"
ram_mib = 1000
system_reserve_mib = 200
learning_budget_mib = 800
threads = 2
verified_on_hardware = false

[[providers]]
name = "CPUExecutionProvider"
"""


def write(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refused(name: str) -> str:
    """The message of the InputError, which is one sentence of bounded length."""
    with pytest.raises(InputError) as caught:
        load_profile(name)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 800
    return message


# ---- numbers that are easy to check


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("200MB", 200_000_000),
        ("536870912", 536870912),
        (" 64 mib ", 64 << 20),
        ("1kb", 1000),
        ("1 TiB", 1 << 40),
    ],
)
def test_an_amount_of_memory_is_read_with_its_unit(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MiB",
        "-5MiB",
        "0",
        "0.0001",
        "512M",
        "512 MiBs",
        "1e9",
        "nan",
        "inf",
        "٣MiB",
        "5 000MB",
        "1,5GiB",
        "9" * 5000,
        "99999TiB",
        "1.5.5MB",
        "\x00",
        "512MiB\n512MiB",
        "0x10",
        "5  MiB",
    ],
)
def test_anything_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_bytes(text)
    assert len(str(caught.value)) < 400


def test_bytes_are_shown_in_binary_units() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 512 << 20, 3 << 29, (1 << 30) - 1, 1 << 50)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "512 MiB",
        "1.5 GiB",
        "1 GiB",
        "1024 TiB",
    ]


@given(st.integers(1, 1 << 50))
def test_what_is_shown_can_be_read_back_to_within_its_rounding(count: int) -> None:
    assert abs(parse_bytes(format_bytes(count)) - count) <= max(0.06 * count, 0)


# ---- the built-in profiles


def test_every_board_that_was_promised_is_there() -> None:
    assert set(profile_names()) == {
        *("orin-nano-4gb", "orin-nano-8gb", "orin-nx-8gb", "orin-nx-16gb", "agx-orin-32gb", "agx-orin-64gb"),
        *("agx-thor", "xavier-nx-8gb", "raspberry-pi-5-4gb", "raspberry-pi-5-8gb", "raspberry-pi-4-2gb"),
        *("cpu-512mib", "cpu-1gib", "cpu-2gib", "cpu-4gib"),
    }


@pytest.mark.parametrize("name", profile_names())
def test_a_built_in_profile_carries_its_own_name_ends_on_the_cpu_and_claims_nothing(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.session_providers()[-1] == ("CPUExecutionProvider", {})
    assert not profile.verified_on_hardware
    assert profile.learning_budget_bytes == profile.learning_budget_mib * 2**20


def test_the_arena_limit_reaches_onnxruntime_in_bytes() -> None:
    name, options = load_profile("orin-nano-8gb").session_providers()[0]
    assert name == "CUDAExecutionProvider"
    assert options["gpu_mem_limit"] == str(1024 * MIB)
    assert options["arena_extend_strategy"] == "kSameAsRequested"


def cuda_options(profile: DeviceProfile) -> list[dict[str, str]]:
    return [options for name, options in profile.session_providers() if name == "CUDAExecutionProvider"]


def test_cuda_computes_without_tf32_unless_it_is_asked_for(tmp_path: Path) -> None:
    """With onnxruntime's default, loss differences on a GPU correlated by 0.62 with those of the CPU."""
    own = GOOD.replace('"CPUExecutionProvider"', '"CUDAExecutionProvider"')
    profiles = [*map(load_profile, profile_names()), auto_profile(PC), load_profile(write(tmp_path, own))]
    found = [options for profile in profiles for options in cuda_options(profile)]
    assert len(found) == 10 and all(options["use_tf32"] == "0" for options in found)
    asked = load_profile(write(tmp_path, f'{own}options = {{ use_tf32 = "1" }}\n'))
    assert cuda_options(asked) == [{"use_tf32": "1"}]
    assert cuda_options(load_profile(write(tmp_path, GOOD))) == []


def test_the_arena_of_a_provider_that_does_not_start_is_no_limit() -> None:
    profile = load_profile("orin-nano-8gb")
    assert profile.arena_bytes == profile.with_providers(["CPUExecutionProvider", "CUDAExecutionProvider"]).arena_bytes
    assert profile.arena_bytes == 1024 * MIB
    assert profile.with_providers(["CPUExecutionProvider"]).arena_bytes is None
    assert [provider.name for provider in profile.with_providers([]).providers] == ["CPUExecutionProvider"]


# ---- a profile of one's own


def test_a_file_is_read(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, GOOD))
    assert (profile.name, profile.ram_mib, profile.threads) == ("mine", 1000, 2)


def test_a_path_with_a_separator_is_a_file_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "board").write_text(GOOD)
    assert load_profile(f"{tmp_path}/board").name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("ram_mib = 1000", "ram_mib = 0", "ram_mib"),
        ("ram_mib = 1000", "ram_mib = -5", "ram_mib"),
        ("ram_mib = 1000", "ram_mib = nan", "ram_mib"),
        ("ram_mib = 1000", "ram_mib = inf", "ram_mib"),
        ("ram_mib = 1000", "ram_mib = 1e3", "ram_mib"),
        ("ram_mib = 1000", "ram_mib = true", "ram_mib"),
        ("ram_mib = 1000", 'ram_mib = "1000"', "ram_mib"),
        ("ram_mib = 1000", "ram_mib = 1979-05-27", "ram_mib"),
        ("ram_mib = 1000", "ram_mib = " + "9" * 400, "ram_mib"),
        ("ram_mib = 1000", "ram_mib = " + "9" * 9999, "TOML"),
        ("ram_mib = 1000", "ram_mb = 1000", "ram_m"),
        ("learning_budget_mib = 800", "learning_budget_mib = 801", "above ram_mib 1000"),
        ("learning_budget_mib = 800", "learning_budget_mib = 0", "learning_budget_mib"),
        ("threads = 2", "threads = 0", "threads"),
        ("threads = 2", "threads = 2\nextra = 1", "extra"),
        ("threads = 2", "threads = ", "line 5"),
        ('"CPUExecutionProvider"', '"cpu"', "providers.0.name"),
        ('"CPUExecutionProvider"', '"CPUExecutionProvider"\noptions = {gpu_mem_limit = "5"}', "gpu_mem_limit_mib"),
        ('"CPUExecutionProvider"', '"CPUExecutionProvider"\noptions = {device_id = 0}', "device_id"),
        ('[[providers]]\nname = "CPUExecutionProvider"', "providers = []", "providers"),
        ('[[providers]]\nname = "CPUExecutionProvider"', "providers = 5", "providers"),
        ('name = "mine"', 'name = ""', "name"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, old: str, new: str, word: str) -> None:
    assert old in GOOD
    assert word in refused(write(tmp_path, GOOD.replace(old, new)))


def test_the_same_provider_twice_is_refused(tmp_path: Path) -> None:
    text = GOOD + '[[providers]]\nname = "CPUExecutionProvider"\n'
    assert "twice" in refused(write(tmp_path, text))


def test_an_arena_beyond_what_is_reserved_for_the_accelerator_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("= 800", "= 500\naccelerator_shares_ram = true\naccelerator_reserve_mib = 300")
    text += '[[providers]]\nname = "CUDAExecutionProvider"\ngpu_mem_limit_mib = 301\n'
    assert "301" in refused(write(tmp_path, text))


# ---- attacks


def test_an_unknown_name_lists_the_names_and_the_nearest() -> None:
    message = refused("orin-nano")
    assert "did you mean orin-nano-" in message
    assert all(name in message for name in profile_names())


@pytest.mark.parametrize("name", ["", "\0", "x" * 10_000, "\0.toml", "/" + "x" * 5000, "missing.toml", "AUTO", "..\\x"])
def test_a_hostile_name_is_refused(name: str) -> None:
    refused(name)


@pytest.mark.parametrize("content", [b"\x7fELF\0\xff\xfe" * 50, b"a = " + b"[" * 30_000, b"\xef\xbb\xbf[", b""])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(write(tmp_path, content))


def test_a_pipe_a_device_and_a_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for name in (tmp_path / "pipe.toml", tmp_path / "folder.toml", "/dev/zero"):
        assert "plain file" in refused(str(name))


def test_a_gigabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert "larger than" in refused(str(path))


@given(st.binary(max_size=400))
def test_no_content_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_profile(str(path))


# ---- auto, on boards that only exist in a folder

PI = Board("Raspberry Pi 5 Model B Rev 1.0", "aarch64", 4, 8089 * MIB, 7000 * MIB, None)
PC = Board("", "x86_64", 8, 16_000 * MIB, 8_000 * MIB, None)


def test_auto_takes_no_more_threads_than_the_quota_keeps_busy() -> None:
    """FAULTS B9."""
    assert auto_profile(replace(PC, cgroup_cpus=1.5)).threads == 2
    assert auto_profile(PC).threads == 8


def test_auto_learns_in_three_quarters_of_what_is_available() -> None:
    assert auto_profile(PC).learning_budget_mib == 6000
    assert auto_profile(PC).ram_mib == 16_000


def test_auto_obeys_a_smaller_cgroup_limit() -> None:
    assert auto_profile(replace(PC, cgroup_limit_bytes=100 * MIB)).learning_budget_mib == 90


def test_auto_knows_a_board_by_its_device_tree_and_ram() -> None:
    assert auto_profile(PI).description.startswith("Raspberry Pi 5")
    assert [name for name, _ in auto_profile(PI).session_providers()] == ["CPUExecutionProvider"]
    small = matching_profile(replace(PI, mem_total_bytes=3990 * MIB))
    assert small is not None
    assert small.name == "raspberry-pi-5-4gb"


def test_auto_keeps_room_for_an_accelerator_that_shares_the_ram_or_leaves_it_out() -> None:
    nano = Board("NVIDIA Jetson Orin Nano Developer Kit", "aarch64", 6, 7475 * MIB, 6758 * MIB, None)
    profile = auto_profile(nano)
    assert profile.providers[0].name == "CUDAExecutionProvider"
    assert profile.learning_budget_mib == 6758 * 3 // 4 - profile.accelerator_reserve_mib
    crowded = auto_profile(replace(nano, mem_available_bytes=2000 * MIB))
    assert [provider.name for provider in crowded.providers] == ["CPUExecutionProvider"]
    assert crowded.learning_budget_mib == 1500


@settings(max_examples=25)
@given(st.integers(0, 1 << 42), st.integers(0, 1 << 42), st.integers(1, 1 << 62) | st.none(), st.booleans())
def test_auto_always_makes_a_valid_profile(total: int, available: int, limit: int | None, jetson: bool) -> None:
    model = "NVIDIA Jetson AGX Thor Developer Kit" if jetson else ""
    profile = auto_profile(Board(model, "any", 4, total, available, limit))
    assert profile.learning_budget_mib >= 1


def test_auto_runs_here() -> None:
    assert load_profile("auto").learning_budget_bytes < board().mem_total_bytes
