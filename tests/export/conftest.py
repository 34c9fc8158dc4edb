"""Shared by the tests of the export as a whole."""

from __future__ import annotations

import pytest
from exports import TINY

from edge_zofc.export import writer
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.writer import export_bundle
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import ActivationBytes

NUMBERS = ActivationBytes(fixed=1, per_image=2, per_image_and_adapter=3)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(ExportOptions(tmp_path_factory.mktemp("export") / "bundle", **TINY))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No measuring processes: one test of them is enough."""
    monkeypatch.setattr(writer, "measure_activation_bytes", lambda _graph: NUMBERS)
