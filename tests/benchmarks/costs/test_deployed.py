"""benchmarks/costs/deployed.py: the same pictures, the same rounds, and answers that are counted against float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small import write_small_stream

from edge_zofc.benchmarks.costs import deployed
from edge_zofc.cli.main import main as edge_zofc
from edge_zofc.export.calibration import Labelled
from edge_zofc.storage.bundle import Bundle

FAST = ["--epochs", "1", "--batch-size", "8", "--queries", "1", "--micro-batch", "4", "--device-profile", "cpu-2gib"]


def write_sign(path: Path, threshold: float) -> None:
    """Class 1 where the picture is above ``threshold``, else class 0."""
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Sub", ["image", "threshold"], ["above"]),
                helper.make_node("Sub", ["threshold", "image"], ["below"]),
                helper.make_node("Concat", ["below", "above"], ["probabilities"], axis=1),
            ],
            "sign",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
            [numpy_helper.from_array(np.float32([[threshold]]), "threshold")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, str(path))


def test_what_got_wrong_and_right_is_counted_by_picture(tmp_path: Path) -> None:
    values, truth = (0.1, 0.3, 0.4, 0.6), (0, 1, 0, 1)
    pictures = [Labelled(np.float32([[value]]), number) for value, number in zip(values, truth, strict=True)]
    write_sign(tmp_path / "a.onnx", 0.5)  # names 0 0 0 1
    write_sign(tmp_path / "b.onnx", 0.2)  # names 0 1 1 1
    first, second = deployed.answers({"a": tmp_path / "a.onnx", "b": tmp_path / "b.onnx"}, pictures)
    assert [first[key] for key in ("right", "pictures", "changed", "lost", "won")] == [3, 4, 0, 0, 0]
    assert [second[key] for key in ("right", "pictures", "changed", "lost", "won")] == [3, 4, 2, 1, 1]


def test_the_script_measures_a_run(small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream, run = write_small_stream(tmp_path / "stream"), tmp_path / "run"
    words = ["learn", "--bundle", small_bundle.folder, "--stream", stream, "--run", run, *FAST]
    assert edge_zofc([str(word) for word in words]) == 0
    assert deployed.main([str(run), "--rounds", "2", "--out", str(tmp_path / "out")]) == 0
    assert "float32 / int8" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out/deployed.json").read_text())["rows"]
    assert [row["file"] for row in rows] == [deployed.FLOAT, deployed.INT8, deployed.INT8_PROBE]
    assert all(row["pictures"] == 24 for row in rows)
    speeds = json.loads((tmp_path / "out/deployed-speed.json").read_text())["rows"]
    assert [(row["threads"], row["micro_batch"]) for row in speeds] == [(1, 1), (1, 8), (2, 1), (2, 8)]
