"""The ONNX graph computes what the torch model computes, once where it can, in every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tiny_vit import tiny_film, tiny_model

from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.precision import EXPORT_TOLERANCE, dequantised_weights
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.vit import AdapterViT
from edge_zofc.export.writer import relative_error
from edge_zofc.storage.manifest import GRAPH, WEIGHTS, Precision

ARCHITECTURES = [
    ("vit_tiny_patch16_224", {}),
    ("vit_base_patch16_clip_224", {"qkv_bias": False}),
    ("deit3_small_patch16_224", {"no_embed_class": True, "init_values": 0.3}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 42, "init_values": 0.7}),
    ("vit_base_patch16_siglip_gap_224", {}),
    ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    ("vit_base_patch32_siglip_gap_256", {}),
]


def inputs(model: AdapterViT, images: int = 2, adapters: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    side = model.timm_model.patch_embed.img_size[0]
    pictures = random.standard_normal((images, 3, side, side)).astype(np.float32)
    return pictures, (0.1 * random.standard_normal((adapters, model.layout.size))).astype(np.float32)


def by_torch(model: AdapterViT, images: np.ndarray, adapters: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(images), torch.from_numpy(adapters)).numpy())


@pytest.mark.parametrize(("name", "changes"), ARCHITECTURES)
def test_the_graph_gives_torchs_features_for_every_kind_of_vit(
    tmp_path: Path, name: str, changes: dict[str, object]
) -> None:
    model = tiny_model(name, **changes)
    write_graph(model, "fp32", tmp_path)
    images, adapters = inputs(model)
    found = compute_features(open_session(tmp_path / GRAPH), images, adapters)
    assert found.shape == (3, 2, 48)
    assert relative_error(found, by_torch(model, images, adapters)) < 1e-5


@pytest.mark.parametrize("blocks", [(0, 1, 2), (1,), (2,)])
@pytest.mark.parametrize(("name", "changes"), ARCHITECTURES)
def test_films_after_the_norms_give_torchs_features_for_every_kind_of_vit(
    tmp_path: Path, name: str, changes: dict[str, object], blocks: tuple[int, ...]
) -> None:
    model = tiny_film(name, blocks, **changes)
    write_graph(model, "fp32", tmp_path)
    images, adapters = inputs(model)
    found = compute_features(open_session(tmp_path / GRAPH), images, adapters)
    assert relative_error(found, by_torch(model, images, adapters)) < 1e-5
    assert relative_error(found[0], found[1]) > 1e-3


@pytest.mark.parametrize("precision", ["w8", "w4", "int8", "fp16"])
def test_a_precision_gives_the_features_of_its_own_dequantised_weights(tmp_path: Path, precision: Precision) -> None:
    model = tiny_model()
    write_graph(model, precision, tmp_path)
    images, adapters = inputs(model)
    found = compute_features(open_session(tmp_path / GRAPH), images, adapters)
    assert found.dtype == np.float32
    wanted = by_torch(dequantised_weights(model, precision), images, adapters)
    assert relative_error(found, wanted) < EXPORT_TOLERANCE[precision]
    # It is that precision's own network, not the float32 one.
    assert relative_error(found, by_torch(model, images, adapters)) > 1e-4


@pytest.mark.parametrize("precision", ["fp32", "w8", "w4"])
def test_three_adapters_in_one_run_give_the_bits_of_three_runs(tmp_path: Path, precision: Precision) -> None:
    model = tiny_model(blocks=(0, 2))
    write_graph(model, precision, tmp_path)
    session = open_session(tmp_path / GRAPH)
    images, adapters = inputs(model, images=3)
    together = compute_features(session, images, adapters)
    apart = np.concatenate([compute_features(session, images, adapters[k : k + 1]) for k in range(3)])
    assert np.array_equal(together, apart)
    assert not np.array_equal(together[0], together[1])


def test_rows_become_k_times_b_only_from_the_first_adapters_output_on(tmp_path: Path) -> None:
    model = tiny_model(blocks=(1, 2))
    write_graph(model, "fp32", tmp_path)
    graph = onnx.load(str(tmp_path / GRAPH))
    names = ["blocks.0.mlp.fc1", "blocks.1.mlp.fc2", "blocks.1.adapter.rows", "blocks.2.norm1"]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    images, adapters = inputs(model, images=2, adapters=3)
    rows = [len(value) for value in session.run(names, {"images": images, "adapters": adapters})]
    tokens = 5  # 2 x 2 patches and the class token
    assert rows == [2 * tokens, 2 * tokens, 3 * 2 * tokens, 3 * 2 * tokens]


@pytest.mark.parametrize(("pooling", "rows"), [("token", 1), ("avg", 5)])
@pytest.mark.parametrize("blocks", [(0,), (1, 2), (2,)])
def test_the_last_block_computes_no_token_that_is_not_read(
    tmp_path: Path, pooling: str, rows: int, blocks: tuple[int, ...]
) -> None:
    model = tiny_model(blocks=blocks, global_pool=pooling)
    write_graph(model, "fp32", tmp_path)
    graph = onnx.load(str(tmp_path / GRAPH))
    graph.graph.output.append(onnx.ValueInfoProto(name="blocks.2.mlp.fc1"))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    images, adapters = inputs(model, images=2, adapters=3)
    found, hidden = session.run(None, {"images": images, "adapters": adapters})
    assert len(hidden) == rows * 2 * (1 if blocks == (2,) else 3)
    assert relative_error(found, by_torch(model, images, adapters)) < 1e-5


def test_the_graph_has_the_contracts_names_types_and_free_sizes(tmp_path: Path) -> None:
    model = tiny_model()
    write_graph(model, "fp32", tmp_path)
    session = open_session(tmp_path / GRAPH)
    described = [(v.name, v.type, v.shape) for v in (*session.get_inputs(), *session.get_outputs())]
    assert described == [
        ("images", "tensor(float)", ["B", 3, 32, 32]),
        ("adapters", "tensor(float)", ["K", model.layout.size]),
        ("features", "tensor(float)", ["K", "B", 48]),
    ]


def test_a_block_is_fused_operators_and_shapes_are_read_once(tmp_path: Path) -> None:
    write_graph(tiny_model(blocks=(0,)), "fp32", tmp_path)
    nodes = onnx.load(str(tmp_path / GRAPH), load_external_data=False).graph.node
    second = [node.op_type for node in nodes if node.output[0].startswith("blocks.1.")]
    assert second == [
        "LayerNormalization", "Gemm", "Reshape", "Split", "MultiHeadAttention", "Reshape", "Gemm", "Add",
        "LayerNormalization", "Gemm", "Gelu", "Gemm", "Add",
    ]  # fmt: skip
    assert sum(node.op_type == "Shape" for node in nodes) == 2


def test_two_exports_of_the_same_model_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_graph(tiny_model(), "w8", tmp_path / name)
    for name in (GRAPH, WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
