"""benchmarks/soak.py: what it says of a short run on the small bundle."""

from __future__ import annotations

from pathlib import Path

from edge_zofc.benchmarks.soak import SAMPLE_STEPS, soak

from edge_zofc.bundle import Bundle


def test_a_short_soak_compares_counts_and_measures(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    found = soak(small_bundle, small_stream, tmp_path / "run", steps=600, batch_size=8, queries=1)
    assert found["steps"] == 600
    assert found["journal_bytes"] == 108 + 28 * (600 + 2 * 3)
    assert found["replays_to_the_same_bits"] and found["compared_with_replay"] == 1
    assert found["handles_grew_by"] == 0
    assert found["learning_over_replay"] > 1
    assert found["steps"] // SAMPLE_STEPS == 12
