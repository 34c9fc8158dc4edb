"""The command line as a user meets it: every command, its --json, its exit codes, and no traceback."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from small import picture, write_small_bundle, write_small_stream
from typed import run

from edge_zofc.cli import arguments, commands
from edge_zofc.cli.main import main
from edge_zofc.data import folders
from edge_zofc.data import stream as streams
from edge_zofc.engine import gate
from edge_zofc.errors import ArenaFullError
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.bundle import Bundle

COMMANDS = (
    "demo", "export", "split", "backbones", "capture", "live", "plan", "learn", "eval", "predict", "teach",
    "forget", "rename", "undo", "lesson", "deploy", "report", "replay", "history", "rollback", "fleet share",
    "fleet merge", "fleet revoke", "fleet keys", "fleet serve", "fleet join", "fleet status", "fleet simulate",
    "profiles", "doctor", "bench",
)  # fmt: skip
FAST = [
    "--loss", "head", "--epochs", "1", "--batch-size", "8", "--queries", "1",
    "--micro-batch", "4", "--device-profile", "cpu-2gib",
]  # fmt: skip


@pytest.fixture(scope="module")
def learned(small_bundle: Bundle, small_stream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the small stream; read it, do not change it."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run("learn", "--bundle", small_bundle.folder, "--stream", small_stream, "--run", folder, *FAST) == 0
    return folder


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    """The one JSON object that a command prints with --json."""
    capsys.readouterr()
    assert run(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command.split(), "--help") == 0
    assert f"edge-zofc {command}" in capsys.readouterr().out


def test_every_argument_of_every_command_has_a_help_text() -> None:
    assert tuple(arguments.COMMANDS) == COMMANDS
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        arguments.fill(parser, command)
        assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("lern", "edge-zofc: lern is unknown; did you mean learn?"),
        ("xyzzy", "edge-zofc: xyzzy is unknown; see 'edge-zofc --help'."),
        ("learn --lr 0.1", "edge-zofc learn: --lr is unknown; did you mean --adapter-lr or --head-lr?"),
        ("learn --strem=x", "edge-zofc learn: --strem is unknown; did you mean --stream?"),
        ("plan --profile x", "edge-zofc plan: --profile is unknown; did you mean --device-profile?"),
        ("history run --wobble", "edge-zofc history: --wobble is unknown; see 'edge-zofc history --help'."),
        ("fleet mrge", "edge-zofc: fleet mrge is unknown; did you mean fleet merge?"),
        ("flet share", "edge-zofc: flet is unknown; did you mean fleet?"),
        ("fleet merge b s --caps 2", "edge-zofc fleet merge: --caps is unknown; did you mean --cap?"),
        ("lern\x1b[31m", "edge-zofc: lern\\x1b[31m is unknown; see 'edge-zofc --help'."),
    ],
)
def test_an_unknown_name_gets_the_nearest(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words.split(" ")) == 2
    assert capsys.readouterr().err == sentence + "\n"


def test_shortened_options_and_what_stands_after_two_dashes_are_no_unknown_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("learn", "--str", "x", "--bund=nowhere") == 2
    assert run("predict", "nowhere", "--", "--lr") == 2
    assert run("replay", "nowhere", "journal.bin", "--out", "adapter") == 2
    assert "unknown" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("export", "install it with pip install 'edge-zofc[export]'."),
        ("demo", "install it with pip install 'edge-zofc[demo]'."),
        ("bench memory", "pip install 'edge-zofc[demo]'."),
        ("bench accuracy --stream x --out y", "install it with pip install 'edge-zofc[demo]'."),
        ("bench memory --help", ""),
        ("bench accuracy --help", ""),
    ],
)
def test_a_missing_package_is_one_sentence_and_no_hindrance_to_help(words: str, end: str, tmp_path: Path) -> None:
    code = (
        "import sys; from edge_zofc.cli.main import main\n"
        "sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'onnx', 'sklearn', 'matplotlib')))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout == "") == ((2, True) if end else (0, False)), done.stderr
    assert len(done.stderr.splitlines()) == bool(end) and done.stderr.strip().endswith(end)
    assert not list(tmp_path.iterdir())


def test_help_loads_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys; from edge_zofc.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'onnxruntime', 'timm', 'matplotlib'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_learning_and_what_follows_it(
    learned: Path, small_bundle: Bundle, small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((learned / "result.json").read_text())
    evaluation = answer(capsys, "eval", learned, "--stream", small_stream)
    assert evaluation["accuracy"] == result["last_accuracy"]
    history = answer(capsys, "history", learned)
    assert [task["stage_accuracy"] for task in history["tasks"]] == result["stage_accuracy"]  # type: ignore[attr-defined]
    own = [row[-1] for row in result["accuracy_matrix"]]
    assert [task["own_accuracy"] for task in history["tasks"]] == own  # type: ignore[attr-defined]
    assert run("history", learned) == 0
    assert "its own  all seen  adapter  name" in capsys.readouterr().out
    report = answer(capsys, "report", learned, "--out", tmp_path / "page.html")
    assert Path(str(report["report"])).stat().st_size > 10_000
    replayed = answer(capsys, "replay", small_bundle.folder, learned / "journal.bin", "-o", tmp_path / "a.safetensors")
    assert replayed["steps"] == result["steps"]


def test_predict_names_pictures_and_tells_of_the_ones_it_cannot_read(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(0, 5).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    found = answer(capsys, "predict", learned, tmp_path / "good.png", "--top", "3")
    (prediction,) = found["predictions"]  # type: ignore[misc]
    probabilities = [entry["probability"] for entry in prediction["classes"]]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert run("predict", learned, tmp_path / "good.png", tmp_path / "bad.jpg") == 2
    shown = capsys.readouterr().out
    assert "good.png: class0" in shown
    assert "bad.jpg" in shown


def test_deploy_gives_predicts_probabilities(
    learned: Path, small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(3, 5).save(tmp_path / "a.png")
    expected = answer(capsys, "predict", learned, tmp_path / "a.png", "--top", "6")
    assert run("deploy", learned, tmp_path / "out.onnx") == 0
    session = ort.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    image = load_test(tmp_path / "a.png", small_bundle.manifest.image)
    (found,) = session.run(["probabilities"], {"image": image[None]})
    by_name = dict(zip(labels, np.asarray(found)[0], strict=True))
    (prediction,) = expected["predictions"]  # type: ignore[misc]
    for entry in prediction["classes"]:
        assert by_name[entry["class_name"]] == pytest.approx(entry["probability"], abs=1e-5)


def test_deploy_int8_tells_how_many_answers_changed(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, folder = write_small_stream(tmp_path / "stream"), tmp_path / "run"
    assert run("learn", "--bundle", small_bundle.folder, "--stream", stream, "--run", folder, *FAST) == 0
    found = answer(capsys, "deploy", folder, tmp_path / "out.onnx", "--int8")["int8"]["comparison"]  # type: ignore[index]
    assert (found["calibrated"], found["compared"], found["labelled"]) == (48, 24, 24)
    assert run("deploy", folder, tmp_path / "out.onnx", "--int8", "--calibrate", stream / "000_task") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "int8, calibrated on pictures of --calibrate (24)"
    assert lines[2].endswith(" of 24, on test pictures of the run's stream")
    assert lines[3].startswith("right: ")
    assert run("deploy", folder, tmp_path / "out2.onnx", "--calibrate", stream) == 2
    assert "--calibrate belongs to --int8" in capsys.readouterr().err
    assert not (tmp_path / "out2.onnx").exists()


def test_rollback_and_learning_again_end_with_the_same_result(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["learn", "--bundle", small_bundle.folder, "--stream", small_stream, "--run", tmp_path / "run"]
    assert run(*words, *FAST) == 0
    before = answer(capsys, "replay", small_bundle.folder, tmp_path / "run/journal.bin", "-o", tmp_path / "a")
    assert answer(capsys, "rollback", tmp_path / "run", "--to-task", "0")["steps"] == 2
    history = answer(capsys, "history", tmp_path / "run")
    assert (len(history["tasks"]), history["rollbacks_to"]) == (1, [0])  # type: ignore[arg-type]
    assert run(*words) == 0
    after = answer(capsys, "replay", small_bundle.folder, tmp_path / "run/journal.bin", "-o", tmp_path / "b")
    assert before == after
    assert run("rollback", tmp_path / "run", "--to-task", "9") == 2


def test_the_history_tells_at_each_tasks_end_what_the_adapter_won_until_it_rests(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter((False, True))
    monkeypatch.setattr(gate, "is_worse", lambda first, second: next(ends))
    stream = write_small_stream(tmp_path / "stream", tasks=3, classes=4, alike=True)
    words = ["--steps", "6", "--batch-size", "8", "--queries", "2", "--adapter-lr", "0.05"]
    folders = ["--bundle", small_bundle.folder, "--stream", stream, "--run", tmp_path / "run"]
    assert run("learn", *folders, *words, "--device-profile", "cpu-2gib") == 0
    gates = [task["adapter"] for task in answer(capsys, "history", tmp_path / "run")["tasks"]]  # type: ignore[attr-defined]
    won = 100 * (gates[0]["right_moved"] - gates[0]["right_frozen"]) / gates[0]["held_out"]
    assert run("history", tmp_path / "run") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert [row[8:-1] for row in rows] == [[f"{won:+.1f}"], ["rests"], []]


@pytest.mark.parametrize(
    ("patched", "word", "sentence"), [("crowding", "stays", "stayed"), ("NO_GUIDE", "rests", "rests")]
)
def test_history_and_summary_say_that_the_adapter_was_not_to_move(
    small_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    patched: str,
    word: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(gate, patched, {"crowding": lambda sums, counts: 0.5, "NO_GUIDE": 1.0}[patched])
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=4, alike=True)
    words = ["--steps", "6", "--batch-size", "8", "--queries", "2", "--device-profile", "cpu-2gib"]
    assert run("learn", "--bundle", small_bundle.folder, "--stream", stream, "--run", tmp_path / "run", *words) == 0
    assert f"Adapter: It {sentence} at its start: " in " ".join(capsys.readouterr().out.split())
    assert run("history", tmp_path / "run") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == [word, "000_task"]


def test_plan_prints_its_items_and_code_3_when_nothing_fits(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--bundle", small_bundle.folder, "--device-profile", "cpu-2gib") == 0
    shown = capsys.readouterr().out
    assert "predicted peak" in shown
    assert "weights" in shown
    assert run("plan", "--bundle", small_bundle.folder, "--memory-budget", "20MiB") == 3
    assert "above the budget of 20" in capsys.readouterr().err


def test_plan_answers_before_an_export(
    small_stream: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("plan", "--backbone", "package-lite0", "--stream", small_stream, "--device-profile", "cpu-2gib") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("package-lite0 at 128 px in fp32, before an export: its activations")
    assert "catalogue, an estimate until an export measures" in " ".join(" ".join(lines).split())
    assert not [line for line in lines if len(line) > 80]
    found = answer(capsys, "plan", "--backbone", "package-lite0", "--stream", small_stream)
    assert (found["backbone"], found["time"]) == ("package-lite0", None)
    assert found["disk_bytes"] > 1_000_000  # type: ignore[operator]


def test_plan_for_larger_pictures_takes_memory_by_their_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "--backbone", "package-lite0", "--micro-batch", "4", "--parallel-queries", "1")
    plain, large = answer(capsys, *words), answer(capsys, *words, "--img-size", "256")
    assert (plain["img_size"], large["img_size"]) == (128, 256)

    def activations(found: dict[str, object]) -> int:
        [item] = [item for item in found["items"] if item["name"] == "activations"]  # type: ignore[attr-defined]
        return int(item["anonymous_bytes"])

    assert activations(large) == pytest.approx(4 * activations(plain), rel=0.01)
    assert run(*words, "--img-size", "256") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("package-lite0 at 256 px in fp32, before an export")
    assert "scaled with the pixels from 128 px" in told


@pytest.mark.parametrize(("name", "told"), [("resnet18", False), ("vit_tiny_patch16_224", True)])
def test_smaller_weights_are_advised_where_there_are_linear_layers(
    name: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--backbone", name, "--memory-budget", "40MiB") == 3
    assert ("--precision w8" in capsys.readouterr().err) is told


def test_plan_for_a_backbone_is_that_for_a_bundle_of_the_same_sizes(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, words = small_bundle.manifest.sizes, ("plan", "--device-profile", "cpu-2gib")
    monkeypatch.setattr("edge_zofc.cli.plan_text.entry", lambda _name: SimpleNamespace(sizes=sizes, side=0))
    before = answer(capsys, *words, "--backbone", "any")
    assert before | {"backbone": None} == answer(capsys, *words, "--bundle", small_bundle.folder)


def test_backbones_fit_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("backbones") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if len(line) > 80]
    assert [line.split()[0] for line in lines if line].count("vit_small_patch14_dinov2") == 2
    assert lines[-1] == "--measure adds the forward time on this machine."
    found = answer(capsys, "backbones", "package-vit")["backbones"]
    assert [(each["name"], each["forward_seconds"]) for each in found] == [("package-vit", None)]  # type: ignore[attr-defined]


def test_backbones_measure_the_names_that_are_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pytest.importorskip("edge_zofc.export.catalogue_rows")
    monkeypatch.setattr(rows, "time_forwards", lambda names, _tell: dict.fromkeys(names, 0.0123))
    assert run("backbones", "resnet18", "package-vit", "--measure") == 0
    told = capsys.readouterr().out
    costs = told.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in costs] == ["name", "resnet18", "package-vit"]
    assert all(line.endswith("12.3") for line in costs[1:])
    assert "measured here" in told


def test_plan_times_the_forwards_that_the_stream_takes(
    small_bundle: Bundle, small_stream: Path, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAULTS C5: the run that was learnt took no more image-forwards than were planned."""
    words = ["plan", "--bundle", small_bundle.folder, "--stream", small_stream, *FAST]
    time = answer(capsys, *words)["time"]
    assert isinstance(time, dict)
    result = json.loads((learned / "result.json").read_text())
    took = sum(result[f"{name}forward_passes"] for name in ("", "evaluation_", "floor_"))
    assert took <= time["image_forwards"] <= 1.5 * took
    cost = result["last_learn"]
    assert cost["predicted_image_forwards"] == time["image_forwards"]
    assert cost["image_forwards"] == took
    assert cost["predicted_seconds"] > 0
    assert run("report", learned, "--out", tmp_path / "page.html") == 0
    assert f"{took:,} image-forwards; at most " in capsys.readouterr().out
    assert time["seconds"] == time["image_forwards"] * time["seconds_a_forward"] > 0
    assert time["gradient_passes"] == 0
    assert run(*words) == 0
    shown = capsys.readouterr().out
    assert f"  {time['image_forwards']}          0 " in shown
    assert "forward passes alone (spsa)" in shown


def test_plan_lists_train_pictures_twice(
    small_bundle: Bundle, small_stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS C5: once to read the stream, once to count and to choose what is timed. The stream has 6 such folders."""
    listed = Counter[str]()

    def scan(folder: Path) -> Any:
        listed[str(folder)] += folder.parent.name == "train"
        return real(folder)

    real = folders.scan
    for module in (folders, streams):
        monkeypatch.setattr(module, "scan", scan)
    assert run("plan", "--bundle", small_bundle.folder, "--stream", small_stream, *FAST) == 0
    assert sorted(listed[name] for name in listed if listed[name]) == [2] * 6


def test_split_profiles_and_doctor(small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        place = tmp_path / "pictures" / f"class{number}"
        place.mkdir(parents=True)
        for index in range(4):
            picture(number, index).save(place / f"{index}.png")
    words = ["split", tmp_path / "pictures", tmp_path / "stream", "--classes-per-task"]
    assert answer(capsys, *words, "2")["tasks"] == 2
    assert run(*words, "2") == 2
    assert run("split", tmp_path / "pictures", tmp_path / "other", "--classes-per-task", "two") == 2
    assert len(answer(capsys, "profiles")["profiles"]) >= 15  # type: ignore[arg-type]
    assert run("profiles", "orin-nano-8gb") == 0
    assert "verified_on_hardware = False" in capsys.readouterr().out
    assert run("profiles", "no-such-board") == 2
    capsys.readouterr()
    assert run("profiles") == 0
    listed = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert listed["name"][3] == "verified" and listed["orin-nano-8gb"][5] == "no"
    run("doctor")
    assert "CPUExecutionProvider" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["learn", "--stream", "nowhere"], 2, "There is no bundle in bundle"),
        (["report", "nowhere"], 2, "nowhere"),
        (["predict", "nowhere", "a.jpg"], 2, "There is no run in nowhere or run"),
        (["eval", "nowhere", "--stream", "x"], 2, "There is no run in nowhere"),
        (["history", "nowhere"], 2, "There is no run in nowhere"),
        (["rollback", "nowhere", "--to-task", "0"], 2, "There is no run in nowhere"),
        (["replay", "nowhere", "j", "-o", "a"], 2, "There is no bundle in nowhere"),
        (["export", "--backbone", "swin_tiny_patch4_window7_224", "--random-weights"], 2, "VisionTransformer"),
        (["split", "nowhere", "out", "--classes-per-task", "2"], 2, "nowhere"),
        (["plan", "--memory-budget", "lots"], 2, "There is no bundle"),
        (["plan", "--backbone", "resnet81"], 2, "'resnet81'; the nearest are resnet18"),
        (["plan", "--backbone", "resnet18", "--bundle", "b"], 2, "two things to plan for; give one"),
        (["plan", "--img-size", "224"], 2, "--img-size 224 belongs to --backbone"),
        (["plan", "--backbone", "resnet18", "--img-size", "4"], 2, "8 to 1024 pixels, got 4"),
        (["plan", "--backbone", "resnet50", "--memory-budget", "90MiB"], 3, "above the budget of 90"),
        (["backbones", "resnet18", "resnet81"], 2, "'resnet81'; the nearest are resnet18"),
        (["doctor", "--bundle", "nowhere"], 2, "There is no bundle in nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    words: list[str], code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*words) == code
    shown = capsys.readouterr().err
    assert sentence in shown
    assert "Traceback" not in shown
    assert json_error(words, capsys)["exit_code"] == code


def json_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What the same command prints with --json."""
    run(*words, "--json")
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_a_damaged_bundle_ends_with_code_5(
    small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    weights = bundle.folder / "backbone.onnx.data"
    raw = bytearray(weights.read_bytes())
    raw[100] ^= 1
    weights.write_bytes(raw)
    assert run("learn", "--bundle", bundle.folder, "--stream", small_stream, "--run", tmp_path / "run") == 5
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_number(
    number: signal.Signals, small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    words = ["learn", "--bundle", small_bundle.folder, "--stream", small_stream, "--run", tmp_path / "run", *FAST]
    words[words.index("--epochs") + 1] = "5000"
    script = "import sys; from edge_zofc.cli.main import main; sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen([sys.executable, "-c", script, *map(str, words)], stderr=subprocess.PIPE, text=True)
    events = tmp_path / "run" / "events.jsonl"
    for _ in range(1200):
        if events.exists() and '"step"' in events.read_text():
            break
        time.sleep(0.05)
    os.kill(child.pid, number)
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert "--resume" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("8 bytes"), "Memory ran out (8 bytes); give a larger budget."),
        (
            ArenaFullError("it is full"),
            "Memory ran out: it is full; give a device profile with a larger gpu_mem_limit_mib.",
        ),
    ],
)
def test_memory_that_runs_out_ends_with_code_3_and_its_way_out(
    error: MemoryError, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise error

    monkeypatch.setattr(commands, "profiles", fails)
    assert main(["profiles"]) == 3
    assert capsys.readouterr().err == f"edge-zofc: {told}\n"


def test_a_budget_without_a_unit_is_not_taken_for_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """FAULTS C9."""
    assert run("learn", "--stream", "nowhere", "--memory-budget", "512") == 2
    assert capsys.readouterr().err == "edge-zofc: --memory-budget 512 is 512 bytes; write the unit, such as 512MiB.\n"


def test_predict_takes_folders_and_the_default_run(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS C9: what is no picture is counted, and a link back to the folder is not followed for ever."""
    deep = tmp_path / "photos" / "deep"
    deep.mkdir(parents=True)
    picture(0, 0).save(deep / "a.png")
    picture(1, 0).save(tmp_path / "photos" / "b.png")
    (deep / "notes.txt").write_text("")
    (deep / "back").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(learned)
    named = answer(capsys, "predict", learned, "photos")["predictions"]
    assert [Path(entry["image"]).name for entry in named] == ["b.png", "a.png"]  # type: ignore[attr-defined]
    assert answer(capsys, "predict", "photos")["predictions"] == named
    assert run("predict", "photos") == 0
    assert "notes.txt" in capsys.readouterr().err
    Path("empty").mkdir()
    assert run("predict", "empty") == 2
    assert "empty is a folder without a picture" in capsys.readouterr().err
    assert run("predict", "run") == 2
    assert "No picture is named" in capsys.readouterr().err
