"""The export as a whole: a complete bundle or nothing."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from small import picture

from edge_zofc.cli.main import main
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.export import tuning, writer
from edge_zofc.export.adapted import AdapterRequest, adapted, parse_blocks
from edge_zofc.export.adapters import initial_adapter
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.gradient_check import TOLERANCE
from edge_zofc.export.gradient_rules import NoGradientError
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.writer import export_bundle, relative_error
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import (
    FILES,
    GRADIENT_FILES,
    MANIFEST,
    MIN_FIDELITY,
    ActivationBytes,
    AdapterKind,
    Fidelity,
    GradientInfo,
    GradientMemory,
    Precision,
)
from edge_zofc.storage.writing import replace_folder

TINY = {"backbone": "vit_tiny_patch16_224", "random_weights": True, "img_size": 32, "depth": 2, "adapter_blocks": "1"}
TINY_COMMAND = [
    "--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", "32", "--depth", "2", "--no-gradient",
]  # fmt: skip
NUMBERS = ActivationBytes(fixed=1, per_image=2, per_image_and_adapter=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(ExportOptions(tmp_path_factory.mktemp("export") / "bundle", **TINY))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No measuring processes: one test of them is enough."""
    monkeypatch.setattr(writer, "measure_activation_bytes", lambda _graph, _share: NUMBERS)


def test_all_files_of_a_bundle_may_be_read_by_whoever_may_read_one(bundle: Bundle) -> None:
    assert len({path.stat().st_mode & 0o777 for path in bundle.folder.iterdir()}) == 1


def test_an_export_writes_a_bundle_that_the_reader_accepts_and_the_probe_is_computed_again(bundle: Bundle) -> None:
    assert sorted(path.name for path in bundle.folder.iterdir()) == sorted((*FILES, MANIFEST))
    assert [path.name for path in bundle.folder.parent.iterdir()] == ["bundle"]
    manifest = read_bundle(bundle.folder).manifest
    assert (manifest.backbone.name, manifest.backbone.source) == ("vit_tiny_patch16_224", "random")
    assert (manifest.backbone.depth, manifest.adapter.blocks, manifest.image.size) == (2, (1,), 32)
    assert manifest.feature_size == 192
    assert min(manifest.fidelity.one_sided, manifest.fidelity.two_sided) > 0.99
    assert manifest.activation_bytes.predict(1, 1) > 10_000
    assert set(manifest.written_by) >= {"edge-zofc", "torch", "timm", "onnxruntime"}
    probe = bundle.probe()
    found = compute_features(open_session(bundle.graph_path), probe.images, probe.adapters)
    assert relative_error(found, probe.features) < 1e-6
    assert np.array_equal(probe.adapters[0], bundle.initial_adapter())


def test_an_export_with_gradients_adds_two_files_and_is_the_same_bundle(tmp_path: Path, bundle: Bundle) -> None:
    lines: list[str] = []
    found = export_bundle(ExportOptions(tmp_path / "b", gradient=True, **TINY), lines.append)
    assert sorted(path.name for path in found.folder.iterdir()) == sorted((*FILES, *GRADIENT_FILES, MANIFEST))
    manifest = read_bundle(found.folder).manifest
    assert manifest.format_version == 4
    assert manifest.gradient is not None
    assert manifest.gradient.error < TOLERANCE
    assert {(one.prepacking, one.arena) for one in manifest.gradient.memory} == set(product((True, False), repeat=2))
    assert all(one.anonymous > 10_000 for one in manifest.gradient.memory)
    assert found.identity == bundle.identity
    assert any(line.startswith("exact gradients: relative error") for line in lines)


def refuse(folder: Path, *_args: object) -> None:
    (folder / GRADIENT_FILES[0]).write_bytes(b"half of it")
    raise NoGradientError("torch cannot")


@pytest.mark.usefixtures("quick")
def test_without_gradients_by_default_is_told_and_where_they_were_asked_for_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writer, "write_checked_gradient", refuse)
    command = ["export", str(tmp_path / "b"), *TINY_COMMAND[:-1]]
    assert main([*command, "--gradient"]) == 2
    assert "There are no exact gradients: torch cannot; leave out --gradient." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "no exact gradients: torch cannot\n" in shown.err
    assert shown.out.endswith("exact gradients: none\n")
    assert read_bundle(tmp_path / "b").manifest.format_version == 2
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted((*FILES, MANIFEST))


@pytest.mark.usefixtures("quick")
def test_by_default_a_bundle_in_fp32_has_gradients_and_its_text_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def give(folder: Path, *_args: object) -> GradientInfo:
        asked.append(folder)
        for name in GRADIENT_FILES:
            (folder / name).write_bytes(b"x")
        ways = (GradientMemory(prepacking=True, arena=True, anonymous=1, file=1) for _ in range(4))
        return GradientInfo(error=1e-6, memory=tuple(ways))

    monkeypatch.setattr(writer, "write_checked_gradient", give)
    assert main(["export", str(tmp_path / "a"), *TINY_COMMAND[:-1]]) == 0
    assert capsys.readouterr().out.endswith("exact gradients: relative error 1.0e-06\n")
    assert main(["export", str(tmp_path / "b"), *TINY_COMMAND[:-1], "--precision", "int8"]) == 0
    assert capsys.readouterr().out.endswith("exact gradients: none\n")
    assert main(["export", str(tmp_path / "c"), *TINY_COMMAND]) == 0
    assert len(asked) == 1


def test_gradients_in_a_precision_that_has_none_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--gradient is for --precision fp32.*, got int8; leave one of the two out"):
        export_bundle(ExportOptions(tmp_path / "b", backbone="none", precision="int8", gradient=True))


def pictures_by_class(folder: Path) -> Path:
    """Eight classes of four pictures."""
    for number in range(8):
        place = folder / "train" / f"class{number}"
        place.mkdir(parents=True)
        for index in range(4):
            picture(number, index).save(place / f"{index}.png")
    return folder


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_a_tuned_start_is_the_bundles_own_and_its_probe_and_fidelity_are_measured_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Bundle, precision: Precision
) -> None:
    monkeypatch.setattr(tuning, "best_strength", max)
    asked = []
    measure = writer.measure_fidelity

    def noted(*args: Any, **options: Any) -> Fidelity:
        asked.append(options["start"])
        return measure(*args, **options)

    monkeypatch.setattr(writer, "measure_fidelity", noted)
    folder = pictures_by_class(tmp_path / "pictures")
    found = export_bundle(
        ExportOptions(tmp_path / "b", tune=[folder], tune_steps=1, seed=3, precision=precision, **TINY)
    )
    start, told = found.initial_adapter(), read_bundle(found.folder).manifest.tuning
    assert found.manifest.format_version == 5
    assert told is not None
    assert (told.classes, told.held_back, told.pictures, told.steps, told.seed) == (6, 2, 18, 1, 3)
    assert 2e-3 < np.abs(start - initial_adapter(found.manifest.adapter, 3)).max() < 4e-3
    probe = found.probe()
    assert np.array_equal(probe.adapters[0], start)
    assert 0 < np.abs(probe.adapters[1] - start).max() <= 0.021
    assert np.array_equal(asked[0], start)
    assert found.identity != bundle.identity


def test_a_tuning_that_does_not_win_ends_in_a_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At rate 0 the tuned start is the untuned one."""
    monkeypatch.setitem(tuning.RATES, "bottleneck", 0.0)
    folder = pictures_by_class(tmp_path / "pictures")
    assert main(["export", str(tmp_path / "b"), *TINY_COMMAND, "--tune", str(folder), "--tune-steps", "1"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "The tuned start is refused and nothing is written, for it does not win at any strength" in told
    assert "(+0.0 points, 95 % interval +0.0 to +0.0, 8 pictures)" in told
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.usefixtures("quick")
def test_the_command_takes_folders_in_any_number_and_tells_what_they_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning, "best_strength", max)
    one, other = pictures_by_class(tmp_path / "one"), pictures_by_class(tmp_path / "other")
    command = ["export", str(tmp_path / "b"), *TINY_COMMAND, "--tune-steps", "1"]
    assert main([*command, "--tune", str(one), str(one), "--tune", str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tuning"]
    assert (found["pictures"], found["seed"]) == (6 * 6, 1993)
    assert main([*command, "--tune", str(one), "--force"]) == 0
    assert re.search(
        r"\ntuned on 6 classes, strength 1; 2 classes held back: \d+\.\d% -> .* 8 pictures\); all: .*\)$",
        capsys.readouterr().out.rstrip(),
    )


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("precision", ["w8", "w4", "int8", "fp16"])
def test_every_precision_writes_a_bundle_with_its_fidelity(tmp_path: Path, precision: Precision) -> None:
    lines: list[str] = []
    found = export_bundle(ExportOptions(tmp_path / "b", precision=precision, **TINY), lines.append)
    assert found.manifest.precision == precision
    if precision in ("w8", "w4"):
        assert found.manifest.fidelity.one_sided > MIN_FIDELITY
    assert any(line.startswith("fidelity over 64 directions") for line in lines)


@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_the_same_export_twice_is_the_same_bundle_whatever_the_threads_and_the_memory_measured(
    tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS B3: with resized positions, too."""
    options = ExportOptions(tmp_path / "a", backbone="package-vit", precision=precision, depth=2, img_size=128)
    numbers = iter(ActivationBytes(fixed=n, per_image=2, per_image_and_adapter=3) for n in (1, 2))
    monkeypatch.setattr(writer, "measure_activation_bytes", lambda _graph, _share: next(numbers))
    before = torch.get_num_threads()
    found = []
    try:
        for threads, name in ((1, "a"), (3, "b")):
            torch.set_num_threads(threads)
            monkeypatch.setattr(writer, "__version__", name)
            found.append(export_bundle(replace(options, out=tmp_path / name)))
    finally:
        torch.set_num_threads(before)
    assert found[0].manifest != found[1].manifest
    assert found[0].manifest.files == found[1].manifest.files
    assert found[0].identity == found[1].identity


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


def test_the_command_takes_mean_and_std_and_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FAULTS C7."""
    command = [
        "export",
        str(tmp_path / "b"),
        "--backbone",
        "package-vit",
        "--depth",
        "2",
        "--mean",
        "0.4,0.5,0.6",
        "--std",
        "0.2,0.2,0.25",
        "--no-gradient",
    ]
    assert main(command) == 0
    image = read_bundle(tmp_path / "b").manifest.image
    assert (image.mean, image.std) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.25))
    assert "mean 0.4,0.5,0.6 and std 0.2,0.2,0.25" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "c"), "--mean", "0.4"])
    assert "'0.4' is not three numbers R,G,B" in capsys.readouterr().err


def test_a_graph_that_differs_from_torch_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        writer, "compute_features", lambda _s, images, adapters: np.ones((len(adapters), len(images), 192))
    )
    with pytest.raises(InputError, match=r"differs from torch by .* above the 1e-04 allowed for fp32"):
        export_bundle(ExportOptions(tmp_path / "b", **TINY))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "holiday.jpg").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name, sentence in (("file", "not a folder"), ("folder", "other things in it"), ("link", "not a folder")):
        with pytest.raises(InputError, match=sentence):
            export_bundle(ExportOptions(tmp_path / name, force=True))
    with pytest.raises(InputError, match="at least 64 directions"):
        export_bundle(ExportOptions(tmp_path / "b", directions=3))


@pytest.mark.parametrize(
    ("text", "depth", "blocks"),
    [("0-4", 12, (0, 1, 2, 3, 4)), ("7-11", 12, (7, 8, 9, 10, 11)), ("5,0, 3", 12, (0, 3, 5)),
     ("0-1,3", 4, (0, 1, 3))],
)  # fmt: skip
def test_adapter_blocks_are_ranges_and_numbers(text: str, depth: int, blocks: tuple[int, ...]) -> None:
    assert parse_blocks(text, depth) == blocks


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "look like"), ("a-b", "look like"), ("1-", "look like"), ("-1", "look like"), ("0,,1", "look like"),
     ("3-12", "blocks 0 to 11"), ("4-2", "blocks 0 to 11"), ("1,1", "twice"), ("0-2,2", "twice"), ("²", "look like"),
     ("0-99999999999", "look like")],
)  # fmt: skip
def test_adapter_blocks_that_make_no_sense_get_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_blocks(text, 12)


@pytest.mark.parametrize(
    ("kind", "depth", "blocks"), [(None, 7, (0, 1, 2, 3, 4)), (None, 2, (0, 1)), ("film", 6, (0, 1, 2, 3, 4, 5))]
)
def test_without_blocks_a_vit_gets_bottlenecks_on_the_first_five_and_films_on_all(
    kind: AdapterKind | None, depth: int, blocks: tuple[int, ...]
) -> None:
    loaded = load_backbone(BackboneRequest("vit_tiny_patch16_224", random_weights=True, img_size=32, depth=depth))
    model = adapted(loaded, AdapterRequest(kind), np.zeros((1, 3, 32, 32), np.float32))
    assert (model.layout.kind, model.layout.blocks) == (kind or "bottleneck", blocks)


@pytest.mark.parametrize(("rank", "scale", "sentence"), [(0, 0.1, "rank"), (9999, 0.1, "rank"), (1, 0.0, "scale")])
def test_an_adapter_that_cannot_be_gets_one_sentence(tmp_path: Path, rank: int, scale: float, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        export_bundle(ExportOptions(tmp_path / "b", rank=rank, scale=scale, **TINY))


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be written at .*file/b"):
        export_bundle(ExportOptions(tmp_path / "file" / "b", **TINY))
