"""An allocation may fail anywhere: what was begun is put back, done again with less, and ends in the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import FAST, final_bits, go

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.heads import Head
from edge_zofc.engine import evaluation, loop
from edge_zofc.engine.state import RunState
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import ArenaFullError, DoesNotFitError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> Callable[[], int]:
    """Let the given call of a function raise MemoryError after it did its work; returns a counter of the calls."""
    real, calls = getattr(owner, name), []

    def function(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        found = real(*arguments, **more)
        if len(calls) == call:
            raise MemoryError("injected")
        return found

    monkeypatch.setattr(owner, name, function)
    return lambda: len(calls)


PLACES = [
    (Head, "losses", 3, "lda"),
    (Head, "losses", 3, "cosine"),
    (Adapter, "gradient", 1, "cosine"),  # of the norm
    (Adapter, "gradient", 2, "cosine"),  # of the step itself
    (Adapter, "apply", 2, "lda"),
    (Adapter, "perturb", 1, "lda"),
    (Adapter, "perturb", 2, "lda"),  # the one that restores theta
    (RunState, "add_classes", 2, "lda"),
    (RunState, "begin_optimiser", 1, "cosine"),
    (loop, "solve", 1, "lda"),
    (loop, "solve", 2, "lda"),
    (evaluation, "count_right", 2, "lda"),
    (Trainer, "count_step", 3, "lda"),
]


@pytest.fixture(scope="module")
def undisturbed(
    small_bundle: Bundle, small_stream: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The run with a head, learnt once with memory enough."""
    kept: dict[str, Path] = {}

    def run(head: str) -> Path:
        if head not in kept:
            kept[head] = tmp_path_factory.mktemp(head) / "run"
            go(small_bundle, small_stream, kept[head], changes={**FAST, "head": head}, parallel_queries=1)
        return kept[head]

    return run


@pytest.mark.parametrize(
    ("owner", "name", "call", "head"), PLACES, ids=[f"{place[1]}-{place[2]}-{place[3]}" for place in PLACES]
)
def test_memory_that_runs_out_anywhere_leaves_the_bits_of_a_run_that_had_enough(
    small_bundle: Bundle,
    small_stream: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Callable[[str], Path],
    owner: Any,
    name: str,
    call: int,
    head: str,
) -> None:
    whole, run = undisturbed(head), tmp_path / "run"
    calls = fail_once(monkeypatch, owner, name, call)
    result = go(small_bundle, small_stream, run, changes={**FAST, "head": head}, parallel_queries=1)
    assert calls() > call
    assert (result["completed"], result["micro_batch"]) == (True, 2)
    assert final_bits(run) == final_bits(whole)
    assert (run / "journal.bin").read_bytes() == (whole / "journal.bin").read_bytes()


def test_a_session_that_cannot_be_opened_again_is_halved_further(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    go(small_bundle, small_stream, whole)
    real = Backbone.__init__

    def open_only_large_or_single(self: Backbone, bundle: Bundle, placement: Placement, *more: Any) -> None:
        if placement.micro_batch == 2:
            raise MemoryError("injected")
        real(self, bundle, placement, *more)

    monkeypatch.setattr(Backbone, "__init__", open_only_large_or_single)
    fail_once(monkeypatch, Head, "losses", 2)
    result = go(small_bundle, small_stream, run)
    assert (result["completed"], result["micro_batch"]) == (True, 1)
    # A solved head's sums are added up picture by picture now, which rounds otherwise; its losses steer the adapter.
    one, other = (np.frombuffer(final_bits(path)[0], np.float32) for path in (run, whole))
    assert np.abs(one - small_bundle.initial_adapter()).max() > 1e-3
    assert np.allclose(one, other, rtol=0, atol=1e-4)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [e["to"] for e in events if e["event"] == "micro_batch_halved"] == [2, 1]


@pytest.mark.parametrize(
    ("kind", "way_out"),
    [
        (ArenaFullError, "give a device profile with a larger gpu_mem_limit_mib, or"),
        (MemoryError, "a larger --memory-b"),
    ],
)
def test_where_nothing_is_left_to_halve_the_way_out_is_that_of_the_memory_that_ran_out(
    small_bundle: Bundle,
    small_stream: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[MemoryError],
    way_out: str,
) -> None:
    def fails(*_: object) -> None:
        raise kind("the arena is full")

    monkeypatch.setattr(Backbone, "features", fails)
    with pytest.raises(DoesNotFitError, match=f"at a time .the arena is full.; the state is saved: .*{way_out}"):
        go(small_bundle, small_stream, tmp_path / "run")


def test_the_arena_is_the_last_thing_given_up() -> None:
    options: Placement | None = Placement.simple(4, 5)
    seen = []
    while options is not None:
        seen.append((options.micro_batch, options.parallel_queries, options.arena))
        options = options.smaller()
    assert seen == [(4, 5, True), (2, 5, True), (1, 5, True), (1, 1, True), (1, 1, False)]
