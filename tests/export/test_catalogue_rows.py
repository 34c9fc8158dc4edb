"""The catalogue's numbers are those of timm's networks and of the graphs that an export writes."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from edge_zofc.export import catalogue_rows
from edge_zofc.export.catalogue import NAMES, Entry, entry
from edge_zofc.export.catalogue_rows import build, main, measure_entry, shape_of, time_forwards
from edge_zofc.export.shipped import OWN_VIT
from edge_zofc.storage.manifest import ActivationBytes

QUICK = ("package-lite0", OWN_VIT, "mobilenetv3_small_100")
MIB = 1 << 20


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in QUICK)]
)
def test_a_row_is_what_timm_says(name: str) -> None:
    found = shape_of(name, *build(name))
    assert found == {key: value for key, value in asdict(entry(name)).items() if key in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_row_is_measured_again(name: str) -> None:
    """Memory differs between onnxruntime's versions and processors; a plan must not be off by much."""
    found, kept = measure_entry(name), entry(name)
    assert found.weights_bytes == kept.weights_bytes
    for images, adapters in ((1, 1), (4, 5), (16, 5)):
        mine, theirs = (each.sizes.activation_bytes.predict(images, adapters) for each in (found, kept))
        assert mine == pytest.approx(theirs, rel=0.2, abs=2 * MIB)


def test_rows_are_printed_as_the_table_has_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue_rows, "measure_activation_bytes", lambda _graph, _share: MEASURED)
    main([OWN_VIT])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split(",") == list(Entry.__dataclass_fields__)
    kept = asdict(entry(OWN_VIT)) | MEASURED.model_dump()
    assert row.split(",") == [str(value) for value in kept.values()]


MEASURED = ActivationBytes(fixed=1, per_image=2, per_image_and_adapter=3)


def test_a_forward_is_timed_and_told() -> None:
    told: list[str] = []
    found = time_forwards([OWN_VIT], told.append)
    assert 1e-4 < found[OWN_VIT] < 10
    assert told == [
        f"{OWN_VIT}: writing its graph with random weights",
        f"{OWN_VIT}: {1000 * found[OWN_VIT]:.1f} ms a picture",
    ]
