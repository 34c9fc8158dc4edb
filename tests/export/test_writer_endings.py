"""An export that fails or is ended leaves the old bundle or none."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from exports import TINY, TINY_COMMAND

from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.export import writer
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.writer import export_bundle
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.writing import replace_folder


@pytest.mark.parametrize("part", ["write_graph", "measure_fidelity", "measure_activation_bytes", "write_manifest"])
def test_a_failing_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, part, fail)
    with pytest.raises(DoesNotFitError, match="No space left on device"):
        export_bundle(ExportOptions(tmp_path / "b", **TINY))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_an_interrupted_replacement_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ExportOptions(tmp_path / "b", **TINY)
    old = export_bundle(options)
    with pytest.raises(InputError, match=r"holds a bundle already.*--force"):
        export_bundle(options)

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writer, "write_manifest", interrupt)
        export_bundle(replace(options, force=True, seed=1))
    assert read_bundle(tmp_path / "b").identity == old.identity
    assert export_bundle(replace(options, force=True, seed=1)).identity != old.identity
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("part", ["load_backbone", "write_graph", "measure_fidelity", "write_manifest"])
def test_a_terminated_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(writer, part, lambda *_args, **_options: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        export_bundle(ExportOptions(tmp_path / "b", **TINY))
    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("quick")
def test_a_sigterm_while_the_bundle_gets_its_name_waits_until_it_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(tmp_path / "b", **TINY)
    old = export_bundle(options)

    def interrupted(made: Path, target: Path) -> None:
        signal.raise_signal(signal.SIGTERM)
        replace_folder(made, target)

    monkeypatch.setattr(writer, "replace_folder", interrupted)
    with pytest.raises(SystemExit):
        export_bundle(replace(options, force=True, seed=1))
    assert read_bundle(tmp_path / "b").identity != old.identity
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_process_leaves_the_old_bundle_and_no_other_process(
    tmp_path: Path, small_bundle: Bundle, number: signal.Signals
) -> None:
    """FAULTS C9: SIGHUP is a closed terminal."""
    out = tmp_path / "b"
    shutil.copytree(small_bundle.folder, out)
    command = ["export", str(out), "--force", *TINY_COMMAND]
    # Tests that were started with nohup ignore SIGHUP, and so would the child.
    hear = partial(signal.signal, number, signal.SIG_DFL)
    process = psutil.Popen([sys.executable, "-m", "edge_zofc", *command], stderr=subprocess.DEVNULL, preexec_fn=hear)
    while process.poll() is None and not any(tmp_path.glob(".b.*.partial")):
        time.sleep(0.01)
    while process.poll() is None and not process.children():
        time.sleep(0.01)
    measuring = process.children()
    assert measuring
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert not any(child.is_running() for child in measuring)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert read_bundle(out).identity == small_bundle.identity
