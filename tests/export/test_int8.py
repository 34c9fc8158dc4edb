"""An int8 file answers nearly as the float file does, says how nearly, and is not written where it does not."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small import picture, write_small_bundle

from edge_zofc.algorithm.heads import Head
from edge_zofc.errors import InputError
from edge_zofc.export import int8 as int8_module
from edge_zofc.export.calibration import Labelled, Pictures
from edge_zofc.export.deploy import Learnt, float_model
from edge_zofc.export.int8 import deploy_int8
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.bundle import Bundle

CLASSES, CHANNELS = 6, 32
NAMES = [f"class{number}" for number in range(CLASSES)]


def write_small_cnn(path: Path, adapter_size: int) -> None:
    """Convolution, ReLU, depthwise convolution, a scale for each channel from the adapters, ReLU, mean over pixels."""
    random = np.random.default_rng(11)
    constants = {
        "first": random.normal(0, 0.3, (CHANNELS, 3, 3, 3)).astype(np.float32),
        "bias": random.normal(0, 0.3, CHANNELS).astype(np.float32),
        "depthwise": random.normal(0, 0.4, (CHANNELS, 1, 3, 3)).astype(np.float32),
        "zero": np.int64([0]),
        "channels": np.int64([CHANNELS]),
        "axes": np.int64([1]),
        "pixels": np.int64([2, 3]),
        "scale_shape": np.int64([-1, CHANNELS, 1, 1]),
        "first_axis": np.int64([0]),
    }
    nodes = [
        helper.make_node("Conv", ["images", "first", "bias"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], group=CHANNELS),
        helper.make_node("Slice", ["adapters", "zero", "channels", "axes"], ["parts"]),
        helper.make_node("Reshape", ["parts", "scale_shape"], ["scales"]),
        helper.make_node("Exp", ["scales"], ["factors"]),
        helper.make_node("Mul", ["c", "factors"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("ReduceMean", ["e", "pixels"], ["means"], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "first_axis"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, 32, 32]),
            helper.make_tensor_value_info("adapters", TensorProto.FLOAT, ["K", adapter_size]),
        ],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["K", "B", CHANNELS])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))


def inputs(bundle: Bundle, folder: Path, first: int, count: int) -> list[Labelled]:
    """``count`` pictures of each class, those with the numbers from ``first`` on."""
    found = []
    for number in range(CLASSES):
        for index in range(first, first + count):
            picture(number, index).save(folder / "picture.png")
            image = load_test(folder / "picture.png", bundle.manifest.image)
            found.append(Labelled(image[None], number))
    (folder / "picture.png").unlink()
    return found


def learnt_from(bundle: Bundle, pictures: Sequence[Labelled]) -> Learnt:
    """With a cosine head of class means, which names most pictures rightly."""
    adapter = bundle.initial_adapter()
    images = np.concatenate([each.image for each in pictures])
    features = compute_features(open_session(bundle.graph_path), images, adapter[None])[0]
    truth = np.array([each.class_id for each in pictures])
    centred = features - features.mean(axis=0)
    rows = np.stack([centred[truth == number].mean(axis=0) for number in range(CLASSES)]).astype(np.float32)
    biases = (-rows @ features.mean(axis=0)).astype(np.float32)
    return Learnt(Head(50 * rows, np.ones(1, np.float32), 50 * biases), adapter, NAMES, bundle)


def given(pictures: Sequence[Labelled], source: str = "these") -> Pictures:
    return Pictures(source, lambda: iter(pictures))


@pytest.fixture(scope="module")
def cnn(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small bundle with a convolutional graph in the place of its own."""
    folder = tmp_path_factory.mktemp("cnn") / "bundle"
    shutil.copytree(small_bundle.folder, folder)
    found = replace(small_bundle, folder=folder)
    write_small_cnn(found.graph_path, small_bundle.manifest.adapter.size)
    return found


@pytest.fixture(scope="module")
def pictures(cnn: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Labelled], list[Labelled]]:
    """Forty-eight to learn and calibrate on, and sixty others."""
    folder = tmp_path_factory.mktemp("pictures")
    return inputs(cnn, folder, 0, 8), inputs(cnn, folder, 100, 10)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def named(model: Path | bytes, pictures: Sequence[Labelled]) -> np.ndarray:
    session = open_session(model)
    found = [session.run(["probabilities"], {"image": each.image})[0] for each in pictures]
    np.testing.assert_allclose(np.concatenate(found).sum(axis=1), 1, atol=1e-5)
    return np.concatenate(found).argmax(axis=1)


def test_the_int8_file_says_what_the_comparison_found(
    cnn: Bundle, pictures: tuple[list[Labelled], list[Labelled]], tmp_path: Path, scratch: Path
) -> None:
    learnt = learnt_from(cnn, pictures[0])
    written = deploy_int8(learnt, tmp_path / "out.onnx", given(pictures[0], "learnt"), given(pictures[1], "others"))
    found, truth = written.comparison, np.array([each.class_id for each in pictures[1]])
    in_float, in_int8 = named(float_model(learnt), pictures[1]), named(tmp_path / "out.onnx", pictures[1])
    assert (found.calibrated_on, found.calibrated, found.compared_on) == ("learnt", 48, "others")
    assert (found.compared, found.labelled) == (60, 60)
    assert found.changed == (in_float != in_int8).sum() < 15
    assert (found.float_right, found.int8_right) == ((in_float == truth).sum(), (in_int8 == truth).sum())
    assert found.float_right > 40
    assert written.int8_bytes == (tmp_path / "out.onnx").stat().st_size
    assert min(written.float_milliseconds, written.int8_milliseconds) > 0
    metadata = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "out.onnx")).metadata_props}
    assert set(metadata) == {"labels", "preprocessing", "backbone", "bundle_identity", "int8"}
    assert json.loads(metadata["int8"]) == asdict(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "scratch"]
    assert list(scratch.iterdir()) == []


def test_convolutions_are_in_8_bits_by_channel_and_the_head_is_in_float(
    cnn: Bundle, pictures: tuple[list[Labelled], list[Labelled]], tmp_path: Path
) -> None:
    learnt = learnt_from(cnn, pictures[0])
    deploy_int8(learnt, tmp_path / "out.onnx", given(pictures[0]), given(pictures[1]))
    model = onnx.load(str(tmp_path / "out.onnx"))
    plain = onnx.load_model_from_string(float_model(learnt))
    assert [value.name for value in model.graph.input] == [value.name for value in plain.graph.input] == ["image"]
    assert model.graph.output == plain.graph.output
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        weight = makers[node.input[1]]
        assert weight.op_type == makers[node.input[0]].op_type == "DequantizeLinear"
        assert values[weight.input[0]].dtype == np.int8
        assert values[weight.input[1]].shape == (CHANNELS,)
    for name, wanted in {each.name: numpy_helper.to_array(each) for each in plain.graph.initializer}.items():
        if name.startswith("head."):
            np.testing.assert_array_equal(values[name], wanted)
    (product,) = (node for node in model.graph.node if node.output[0] == "head.products")
    assert product.op_type == "MatMul"
    assert makers["features"].op_type == "Unsqueeze"


def test_a_vit_is_quantised_too(small_bundle: Bundle, tmp_path: Path) -> None:
    """onnx knows no type of the fused attention's output, and the quantiser asks for one."""
    learning = inputs(small_bundle, tmp_path, 0, 8)
    written = deploy_int8(learnt_from(small_bundle, learning), tmp_path / "v.onnx", given(learning), given(learning))
    assert written.comparison.changed <= 12
    operators = [node.op_type for node in onnx.load(str(tmp_path / "v.onnx")).graph.node]
    assert operators.count("QuantizeLinear") > 8
    assert "MultiHeadAttention" in operators


def test_a_file_with_other_answers_is_not_written(
    cnn: Bundle, pictures: tuple[list[Labelled], list[Labelled]], tmp_path: Path, scratch: Path
) -> None:
    """Calibrated on nearly grey pictures, all activations of real ones are cut off."""
    grey = given([Labelled(each.image * np.float32(1e-3), each.class_id) for each in pictures[0]])
    (tmp_path / "out.onnx").write_bytes(b"an older file")
    with pytest.raises(
        InputError, match=r"In int8 \d+ of 60 pictures \(these\) get another answer, above 25%; nothing"
    ):
        deploy_int8(learnt_from(cnn, pictures[0]), tmp_path / "out.onnx", grey, given(pictures[1]))
    assert (tmp_path / "out.onnx").read_bytes() == b"an older file"
    assert list(scratch.iterdir()) == []


def test_nothing_to_compare_on_is_refused(
    cnn: Bundle, pictures: tuple[list[Labelled], list[Labelled]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="so int8 cannot be checked"):
        deploy_int8(learnt_from(cnn, pictures[0]), tmp_path / "out.onnx", given(pictures[0]), given([]))
    assert list(tmp_path.iterdir()) == []


def test_what_the_quantiser_cannot_do_is_one_sentence_and_leaves_nothing(
    cnn: Bundle,
    pictures: tuple[list[Labelled], list[Labelled]],
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(source: Path, target: Path, *_: object, **__: object) -> None:
        assert source.exists()
        target.write_bytes(b"half")
        raise AssertionError("no such node")

    monkeypatch.setattr(int8_module, "quantize_static", fails)
    with pytest.raises(InputError, match=r"cannot quantise this network to int8 \(no such node\); deploy it without"):
        deploy_int8(learnt_from(cnn, pictures[0]), tmp_path / "out.onnx", given(pictures[0]), given(pictures[1]))
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch"]


def test_sigterm_leaves_nothing_behind(
    cnn: Bundle,
    pictures: tuple[list[Labelled], list[Labelled]],
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8_module, "quantize_static", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        deploy_int8(learnt_from(cnn, pictures[0]), tmp_path / "out.onnx", given(pictures[0]), given(pictures[1]))
    assert list(scratch.iterdir()) == []


def test_a_bundle_that_is_quantised_already_is_refused(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", "w8")
    learning = inputs(bundle, tmp_path, 0, 1)
    with pytest.raises(InputError, match="--int8 takes a bundle in fp32, and this one is w8"):
        deploy_int8(learnt_from(bundle, learning), tmp_path / "out.onnx", given(learning), given(learning))
    assert not (tmp_path / "out.onnx").exists()


def test_the_quantisers_own_talk_is_not_heard(
    cnn: Bundle,
    pictures: tuple[list[Labelled], list[Labelled]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It tells of each channel and asks for preparations that were made; afterwards others are heard again."""
    caplog.set_level(logging.INFO)
    quantise = int8_module.quantize_static

    def talks(*words: object, **more: object) -> None:
        logging.warning("consider something")
        quantise(*words, **more)

    monkeypatch.setattr(int8_module, "quantize_static", talks)
    deploy_int8(learnt_from(cnn, pictures[0]), tmp_path / "out.onnx", given(pictures[0]), given(pictures[1]))
    assert caplog.messages == []
    logging.info("heard")
    assert caplog.messages == ["heard"]
