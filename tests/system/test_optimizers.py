"""ZO-SGD, ZO-SGD-Sign, ZO-SGD-Conserve and ZO-Adam: one step each by hand and against torch, replayed, resumed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import struct
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_points import KillPoints, killed_and_resumed
from runs import FAST, final_bits, go, without_times
from safetensors.numpy import load_file

from edge_zofc.algorithm.adapter import LATTICE_STEP, Adapter, Optimizer
from edge_zofc.algorithm.directions import direction
from edge_zofc.algorithm.options import make_options, options_from_json
from edge_zofc.device.profiles import load_profile
from edge_zofc.engine.history import read_history, roll_back
from edge_zofc.engine.pictures import TaskPictures
from edge_zofc.engine.plans import Device, make_plan
from edge_zofc.engine.replay import replay_run
from edge_zofc.errors import DamagedFileError, ImageError, InputError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Header, Journal, Kind, Record, read, replay

ALL: tuple[Optimizer, ...] = get_args(Optimizer)
OTHERS = ("sign", "conserve", "adam")
SEED, SIZE = 11, 500
KNOWN = {"sign": "dcd28c29e8c427e9", "conserve": "b842402f3a2cabe8", "adam": "f21118e6281a764b"}


def start(size: int = SIZE) -> np.ndarray:
    return (np.arange(size) - size // 2).astype(np.float32) * np.float32(2.0**-12)


def adapter_of(optimizer: Optimizer, size: int = SIZE, momentum: float = 0.9) -> Adapter:
    return Adapter(start(size), SEED, 1e-3, momentum, optimizer)


# --- one step by hand ------------------------------------------------------------------------------------


def one_step(optimizer: Optimizer, coefficient: float, rate: float) -> tuple[float, Adapter]:
    """theta after one step from 0 along the one direction z = +-1, times z."""
    adapter = Adapter(np.zeros(1, np.float32), seed=0, eps=1e-3, momentum=0.9, optimizer=optimizer)
    adapter.apply(0, np.array([coefficient], np.float32), rate)
    return float(adapter.theta[0] * direction(0, 0, 0, 1)[0]), adapter


def test_one_step_of_each_by_hand() -> None:
    assert one_step("sgd", 0.5, 0.25)[0] == -0.125
    assert one_step("sign", 0.5, 0.25)[0] == -0.25
    assert one_step("sign", -1e-3, 0.25)[0] == 0.25
    moved, adapter = one_step("conserve", 0.5, 0.25)
    assert moved == -0.125
    assert not adapter.velocity.any(), "conserve keeps no momentum"
    # Both moments are divided by what they lack at the first step, so that it goes lr along the sign.
    assert one_step("adam", 0.5, 0.25)[0] == pytest.approx(-0.25, abs=1e-6)


@pytest.mark.parametrize("optimizer", ALL)
def test_what_is_forgotten_between_tasks_is_all_but_theta(optimizer: Optimizer) -> None:
    adapter, fresh = adapter_of(optimizer), adapter_of(optimizer)
    for step in range(5):
        adapter.apply(step, np.array([0.1, -0.2], np.float32), 0.01)
    adapter.reset_velocity()
    fresh.theta[:] = adapter.theta
    for each in (adapter, fresh):
        each.apply(5, np.array([0.3, 0.1], np.float32), 0.01)
    assert adapter.theta.tobytes() == fresh.theta.tobytes()


# --- against others' arithmetic --------------------------------------------------------------------------


def estimates(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coefficients float32 [2] of each step, and the gradient estimate they stand for in float64 [SIZE]."""
    found = []
    for step in range(count):
        coefficients = np.array([0.03, -0.02], np.float32) / np.float32(1 + step % 3)
        exact = [float(c) * direction(SEED, step, q, SIZE).astype(np.float64) for q, c in enumerate(coefficients)]
        found.append((coefficients, np.sum(exact, axis=0)))
    return found


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.01), ("adam", 5e-4)])
def test_thirty_steps_follow_torchs_optimiser_in_float64(optimizer: Optimizer, rate: float) -> None:
    adapter = adapter_of(optimizer)
    parameter = torch.nn.Parameter(torch.from_numpy(start()).double())
    torchs: torch.optim.Optimizer = torch.optim.SGD([parameter], lr=rate, momentum=0.9)
    if optimizer == "adam":
        torchs = torch.optim.Adam([parameter], lr=rate, betas=(0.9, 0.999), eps=1e-8)
    for step, (coefficients, estimate) in enumerate(estimates(30)):
        parameter.grad = torch.from_numpy(estimate)
        torchs.step()
        adapter.apply(step, coefficients, rate)
    moved = np.abs(start() - parameter.detach().numpy())
    assert moved.max() > 1000 * LATTICE_STEP, "the reference must have moved"
    assert np.abs(adapter.theta - parameter.detach().numpy()).max() < 31 * LATTICE_STEP


def test_thirty_steps_of_sign_follow_numpy_in_float64() -> None:
    adapter, theta, velocity = adapter_of("sign"), start().astype(np.float64), np.zeros(SIZE)
    for step, (coefficients, estimate) in enumerate(estimates(30)):
        velocity = 0.9 * velocity + np.sign(estimate)
        theta = theta - 1e-4 * velocity
        adapter.apply(step, coefficients, 1e-4)
    assert np.abs(theta - start()).max() > 100 * LATTICE_STEP
    assert np.abs(adapter.theta - theta).max() < 31 * LATTICE_STEP


def test_a_candidate_of_conserve_is_where_its_step_ends() -> None:
    adapter, (coefficients, estimate) = adapter_of("conserve"), estimates(1)[0]
    for sign in (1, -1):
        other = adapter.candidate(0, sign * coefficients, 0.01)
        assert np.abs(other - (start() - sign * 0.01 * estimate)).max() <= LATTICE_STEP
        stepped = adapter_of("conserve")
        stepped.apply(0, sign * coefficients, 0.01)
        assert stepped.theta.tobytes() == other.tobytes()
    assert adapter.theta.tobytes() == start().tobytes(), "looking moves nothing"


def test_a_hundred_updates_give_the_known_bits() -> None:
    """The hashes were computed on x86-64; every 64-bit machine with IEEE 754 float32 must give them."""
    found = {}
    for optimizer in OTHERS:
        adapter = Adapter(start(), seed=1993, eps=1e-3, momentum=0.9, optimizer=optimizer)
        for step in range(100):
            coefficients = np.array([0.01, -0.02, 0.03, -0.04], np.float32) / np.float32(1 + step % 7)
            adapter.apply(step, coefficients, 1e-3)
        found[optimizer] = hashlib.sha256(adapter.theta.astype("<f4").tobytes()).hexdigest()[:16]
    assert found == KNOWN


# --- replay ----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=2), st.floats(0, 0.5, width=32)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("optimizer", ALL)
@settings(max_examples=25, deadline=None)
@given(steps=STEPS, second_task=st.booleans(), momentum=st.sampled_from([0.0, 0.5, 0.9]))
def test_replay_equals_what_was_learnt(
    tmp_path_factory: pytest.TempPathFactory,
    optimizer: Optimizer,
    steps: list[tuple[list[float], float]],
    second_task: bool,
    momentum: float,
) -> None:
    live = adapter_of(optimizer, 70, momentum)
    path = tmp_path_factory.mktemp("replay") / "journal.bin"
    header = Header(SEED, "ab" * 32, 70, live.eps, live.momentum, 2, optimizer=optimizer)
    with Journal.create(path, header) as journal:
        journal.append(Record(Kind.TASK_START, 0, 0))
        for step, (coefficients, rate) in enumerate(steps):
            record = Record(Kind.STEP, int(second_task and step > len(steps) // 2), step, rate, tuple(coefficients))
            if record.task == 1 and journal.records == step + 1:
                journal.append(Record(Kind.TASK_END, 0, step))
                journal.append(Record(Kind.TASK_START, 1, step))
                live.reset_velocity()
            journal.append(record)
            live.apply(step, np.array(record.coefficients, np.float32), record.learning_rate)
    found, _ = read(path)
    assert found == header
    again = Adapter(start(70), found.seed, found.eps, found.momentum, found.optimizer)
    assert replay(path, again) == len(steps)
    assert again.theta.tobytes() == live.theta.tobytes()
    for name, array in live.moments().items():
        assert again.moments()[name].tobytes() == array.tobytes(), name
    units = live.theta.astype(np.float64) / LATTICE_STEP
    assert np.array_equal(units, np.rint(units)), "every update ends on the lattice"


def test_sgd_is_written_as_version_1_and_the_others_name_themselves_in_version_2(tmp_path: Path) -> None:
    for optimizer in ALL:
        path = tmp_path / optimizer
        Journal.create(path, Header(7, "ab" * 32, 3, 0.25, 0.5, 2, optimizer=optimizer)).close()
        raw = path.read_bytes()
        assert len(raw) == 108
        assert raw[8:10] == (b"\x01\x00" if optimizer == "sgd" else b"\x02\x00")
        name = b"" if optimizer == "sgd" else optimizer.encode()
        assert raw[72:104] == b"philox4x64-10/1".ljust(24, b"\0") + name.ljust(8, b"\0")
        assert read(path)[0].optimizer == optimizer


@pytest.mark.parametrize("name", [b"lion", b"sgd", b"", b"adam\0\0\0x"])
def test_a_header_with_a_name_that_version_2_does_not_have_is_damaged(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / "j"
    Journal.create(path, Header(7, "ab" * 32, 3, 0.25, 0.5, 2, optimizer="adam")).close()
    raw = bytearray(path.read_bytes())
    raw[96:104] = name.ljust(8, b"\0")
    raw[104:108] = struct.pack("<I", zlib.crc32(raw[:104]))
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError, match=r"optimizer|version"):
        read(path)


# --- whole runs ------------------------------------------------------------------------------------------


def changes(optimizer: Optimizer, head: str = "cosine") -> dict[str, object]:
    rate = 0.002 if optimizer == "conserve" else 1e-3
    return {**FAST, "optimizer": optimizer, "head": head, "adapter_lr": rate}


def moments_of(run: Path) -> dict[str, bytes]:
    found = checkpoint.load_latest(run / "state")
    assert found is not None
    return {name: found.snapshot.arrays[name].tobytes() for name in found.snapshot.arrays}


@pytest.mark.parametrize("head", ["cosine", "lda"])
@pytest.mark.parametrize("optimizer", OTHERS)
def test_a_run_stopped_in_a_task_goes_on_to_the_same_bits_and_replays(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, optimizer: Optimizer, head: str
) -> None:
    wanted = changes(optimizer, head)
    whole = go(small_bundle, small_stream, tmp_path / "whole", changes=wanted)
    assert (whole["optimizer"], whole["options"]["optimizer"]) == (optimizer, optimizer)
    go(small_bundle, small_stream, tmp_path / "run", changes=wanted, max_steps=6)
    resumed = go(small_bundle, small_stream, tmp_path / "run", changes={}, resume=True, parallel_queries=1)
    assert moments_of(tmp_path / "run") == moments_of(tmp_path / "whole")
    expected = {**without_times(whole), "parallel_queries": 1}
    assert without_times(resumed) == expected
    replay_run(small_bundle.folder, tmp_path / "run/journal.bin", tmp_path / "a.safetensors", None, None)
    theta = load_file(tmp_path / "a.safetensors")["adapter"]
    assert theta.tobytes() == final_bits(tmp_path / "run")[0]
    assert not np.array_equal(theta, small_bundle.initial_adapter())
    assert read_history(tmp_path / "run")["optimizer"] == optimizer


@pytest.mark.parametrize("optimizer", OTHERS)
def test_a_rollback_and_the_same_tasks_again_end_with_the_same_bits(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, optimizer: Optimizer
) -> None:
    go(small_bundle, small_stream, tmp_path / "run", changes=changes(optimizer))
    before = moments_of(tmp_path / "run")
    roll_back(tmp_path / "run", 0)
    go(small_bundle, small_stream, tmp_path / "run", changes={})
    assert moments_of(tmp_path / "run") == before
    replay_run(small_bundle.folder, tmp_path / "run/journal.bin", tmp_path / "a.safetensors", None, None)
    assert load_file(tmp_path / "a.safetensors")["adapter"].tobytes() == final_bits(tmp_path / "run")[0]


@pytest.mark.parametrize("optimizer", OTHERS)
def test_a_run_killed_at_an_instant_goes_on_to_the_same_bits(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, optimizer: Optimizer
) -> None:
    short = {**changes(optimizer), "epochs": 1, "queries": 1}

    def learn(run: Path) -> None:
        go(small_bundle, small_stream, run, changes=short)

    with pytest.MonkeyPatch.context() as patch:
        points = KillPoints(patch)
        learn(tmp_path / "whole")
    assert points.count > 100
    for at, run in killed_and_resumed(learn, tmp_path, range(40, points.count, points.count // 6)):
        assert moments_of(run) == moments_of(tmp_path / "whole"), f"killed at touch {at}"
        assert (run / "journal.bin").read_bytes() == (tmp_path / "whole/journal.bin").read_bytes()


# --- conserve --------------------------------------------------------------------------------------------


def journalled(run: Path) -> list[tuple[float, ...]]:
    return [r.coefficients for r in read(run / "journal.bin")[1] if r.kind is Kind.STEP]


def test_conserve_looks_at_two_more_points_and_stays_where_both_are_worse(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    wanted = {**changes("conserve", "lda"), "adapter_lr": 5.0}
    found = go(small_bundle, small_stream, tmp_path / "run", changes=wanted)
    # As sgd (tests/engine/test_loop.py), and two more passes of each picture a step.
    assert found["forward_passes"] == 2 * 3 * 16 + 12 * (3 + 2) * 8
    kept = journalled(tmp_path / "run")
    assert any(not any(step) for step in kept), "so long a step makes most batches worse"
    assert all(struct.pack("<f", value) != b"\0\0\0\x80" for step in kept for value in step)


def test_conserve_never_ends_a_step_with_a_larger_loss(small_bundle: Bundle, tmp_path: Path) -> None:
    """One task, one batch that is the whole task, no head steps: the loss of each step starts where the last ended."""
    from small import write_small_stream

    losses: list[float] = []
    go(
        small_bundle,
        write_small_stream(tmp_path / "stream", tasks=1),
        tmp_path / "run",
        on_step=lambda session, loss: losses.append(loss),
        changes={**changes("conserve"), "epochs": 8, "head_epochs": 0, "batch_size": 16, "adapter_lr": 0.5},
    )
    assert len(losses) == 8
    assert all(later <= earlier + 1e-7 for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


def test_a_signal_in_the_second_look_forgets_the_head_step_too(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(small_bundle, small_stream, tmp_path / "whole", changes=changes("conserve"))
    real, looks = Adapter.candidate, []

    def look(self: Adapter, *arguments: object) -> np.ndarray:
        looks.append(1)
        if len(looks) == 5:  # the third step's first candidate
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Adapter, "candidate", look)
    part = go(small_bundle, small_stream, tmp_path / "run", changes=changes("conserve"))
    assert (part["stopped"], part["steps"]) == ("SIGTERM", 2)
    go(small_bundle, small_stream, tmp_path / "run", changes={})
    assert moments_of(tmp_path / "run") == moments_of(tmp_path / "whole")


def test_memory_that_runs_out_in_the_second_look_repeats_the_step(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(small_bundle, small_stream, tmp_path / "whole", changes=changes("conserve"), micro_batch=2)
    real, looks = Adapter.candidate, []

    def look(self: Adapter, *arguments: object) -> np.ndarray:
        looks.append(1)
        if len(looks) == 1:
            raise MemoryError("made up")
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Adapter, "candidate", look)
    go(small_bundle, small_stream, tmp_path / "run", changes=changes("conserve"), micro_batch=4)
    assert journalled(tmp_path / "run") == journalled(tmp_path / "whole")


def test_a_picture_lost_before_the_second_look_counts_on_no_side(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TaskPictures.loader
    calls: list[int] = []

    def loader(self: TaskPictures, picked: object) -> object:
        calls.append(1)
        load, is_second_look = real(self, picked), len(calls) == 2  # type: ignore[arg-type]

        def lose(index: int, out: np.ndarray) -> None:
            if is_second_look and index == 3:
                raise ImageError("it is gone.")
            load(index, out)

        return lose

    monkeypatch.setattr(TaskPictures, "loader", loader)
    found = go(small_bundle, small_stream, tmp_path / "run", changes=changes("conserve"))
    assert found["skipped_images"] == 1
    assert "it is gone." in (tmp_path / "run/events.jsonl").read_text()


# --- options ---------------------------------------------------------------------------------------------


def test_a_run_that_does_not_name_its_optimizer_is_of_sgd(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    go(small_bundle, small_stream, tmp_path / "whole")
    go(small_bundle, small_stream, run, max_steps=3)
    kept = json.loads((run / "settings.json").read_text())
    del kept["options"]["optimizer"]
    (run / "settings.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="optimizer: sgd -> adam"):
        go(small_bundle, small_stream, run, changes={"optimizer": "adam"})
    go(small_bundle, small_stream, run, resume=True)
    assert final_bits(run) == final_bits(tmp_path / "whole")


def test_each_optimizer_starts_at_a_learning_rate_of_its_own() -> None:
    rates = {name: make_options("edge", {"optimizer": name}).adapter_lr for name in ALL}
    assert rates == {"sgd": 0.01, "sign": 5e-5, "conserve": 0.01, "adam": 2e-3}  # edge has Adam
    assert make_options("paper", {"optimizer": "adam"}).adapter_lr == 5e-4
    assert make_options("edge", {"optimizer": "sign", "adapter_lr": 0.5}).adapter_lr == 0.5
    with pytest.raises(InputError, match="optimizer is 'lion', it must be sgd or sign or conserve or adam"):
        make_options("edge", {"optimizer": "lion"})
    named = asdict(make_options("edge", {"optimizer": "adam"}))
    assert options_from_json(named).optimizer == "adam"


def test_the_plan_counts_the_vectors_that_an_optimizer_adds(small_bundle: Bundle) -> None:
    profile, peaks = load_profile("cpu-2gib"), {}
    for name in ALL:
        plan = make_plan(small_bundle.manifest.sizes, make_options("edge", {"optimizer": name}), Device(profile))
        peaks[name] = next(item.anonymous_bytes for item in plan.items if item.name == "adapter")
    size = 4 * small_bundle.manifest.adapter.size
    assert {name: (peak - peaks["sgd"]) // size for name, peak in peaks.items()} == {
        "sgd": 0, "sign": 0, "conserve": 4, "adam": 3,
    }  # fmt: skip
