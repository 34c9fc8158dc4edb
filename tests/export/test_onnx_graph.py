"""The ONNX graph computes what the torch model computes, once where it can, in every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_zofc.export.fidelity import correlation, measure_fidelity, open_session, run
from edge_zofc.export.measure import fit
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.precision import (
    EXPORT_TOLERANCE,
    dequantised_weights,
    quantise_blocks,
    quantise_columns,
)
from edge_zofc.export.vit import AdapterViT, adapter_layout
from edge_zofc.export.writer import relative_error
from edge_zofc.storage.bundle import GRAPH, WEIGHTS, Precision

TINY = {"img_size": 32, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
ARCHITECTURES = [
    ("vit_tiny_patch16_224", {}),
    ("vit_base_patch16_clip_224", {"qkv_bias": False}),
    ("deit3_small_patch16_224", {"no_embed_class": True, "init_values": 0.3}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 42, "init_values": 0.7}),
    ("vit_base_patch16_siglip_gap_224", {}),
    ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    ("vit_base_patch32_siglip_gap_256", {}),
]


def tiny_model(
    name: str = "vit_tiny_patch16_224", blocks: tuple[int, ...] = (1, 2), **changes: object
) -> AdapterViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        vit = timm.create_model(name, **{**TINY, **changes})
        for parameter in vit.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return AdapterViT(vit, adapter_layout(48, blocks, 3, 0.1))


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
    found = run(open_session(tmp_path / GRAPH), images, adapters)
    assert found.shape == (3, 2, 48)
    assert relative_error(found, by_torch(model, images, adapters)) < 1e-5


@pytest.mark.parametrize("precision", ["w8", "w4", "int8", "fp16"])
def test_a_precision_gives_the_features_of_its_own_dequantised_weights(
    tmp_path: Path, precision: Precision
) -> None:
    model = tiny_model()
    write_graph(model, precision, tmp_path)
    images, adapters = inputs(model)
    found = run(open_session(tmp_path / GRAPH), images, adapters)
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
    together = run(session, images, adapters)
    apart = np.concatenate([run(session, images, adapters[k : k + 1]) for k in range(3)])
    assert np.array_equal(together, apart)
    assert not np.array_equal(together[0], together[1])


def test_rows_become_k_times_b_only_where_the_first_adapter_has_spoken(tmp_path: Path) -> None:
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


def test_weights_lie_outside_the_graph_on_page_boundaries(tmp_path: Path) -> None:
    write_graph(tiny_model(), "fp32", tmp_path)
    tensors = onnx.load(str(tmp_path / GRAPH), load_external_data=False).graph.initializer
    outside = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in tensors
        if tensor.external_data
    ]
    assert {entry["location"] for entry in outside} == {WEIGHTS}
    assert all(int(entry["offset"]) % 4096 == 0 for entry in outside)
    inside = sum(tensor.ByteSize() for tensor in tensors if not tensor.external_data)
    assert inside < 40_000 < (tmp_path / WEIGHTS).stat().st_size


def test_two_exports_of_the_same_model_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_graph(tiny_model(), "w8", tmp_path / name)
    for name in (GRAPH, WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_eight_bits_hold_minus_128_to_127_steps_exactly() -> None:
    weight = np.array([[-128.0, 127.0, 0.0, 1.0] + [5.0] * 60], dtype=np.float32)
    blocks = quantise_blocks(weight, "w8")
    assert blocks.scales == np.float32([[1.0]])
    assert blocks.packed[0, 0, :4].tolist() == [0, 255, 128, 129]
    assert np.array_equal(blocks.dequantised(), weight)


def test_four_bits_are_packed_low_nibble_first() -> None:
    weight = np.array([[-8.0, 7.0, 0.0, 1.0] + [0.0] * 28], dtype=np.float32)
    blocks = quantise_blocks(weight, "w4")
    assert blocks.packed[0, 0, :2].tolist() == [0xF0, 0x98]
    assert np.array_equal(blocks.dequantised(), weight)


WEIGHTS_2D = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 150)), elements=st.floats(-8, 8, width=16)
)


@settings(max_examples=40, deadline=None)
@given(weight=WEIGHTS_2D)
def test_a_quantised_weight_is_at_most_one_step_away(weight: np.ndarray) -> None:
    for precision in ("w8", "w4"):
        blocks = quantise_blocks(weight, precision)
        steps = np.repeat(np.abs(blocks.scales), blocks.block_size, axis=1)[:, : weight.shape[1]]
        assert blocks.dequantised().shape == weight.shape
        assert np.all(np.abs(blocks.dequantised() - weight) <= 1.001 * steps)
    columns = quantise_columns(weight)
    assert np.all(np.abs(columns.dequantised() - weight) <= 0.51 * columns.scales[:, None])
    assert np.abs(columns.codes).max() <= 63


def test_the_fp32_graph_can_be_trained_through_and_int8_is_measured_as_worse(tmp_path: Path) -> None:
    model = tiny_model()
    images, _ = inputs(model, images=4)
    found = {}
    for precision in ("fp32", "w8", "int8"):
        (tmp_path / precision).mkdir()
        write_graph(model, precision, tmp_path / precision)
        session = open_session(tmp_path / precision / GRAPH)
        found[precision] = measure_fidelity(session, dequantised_weights(model, precision), images)
    assert found["fp32"].directions == 64
    assert min(found["fp32"].one_sided, found["fp32"].two_sided) > 0.99
    assert min(found["w8"].one_sided, found["w8"].two_sided) > 0.99
    assert found["int8"].one_sided < 0.9


def test_fidelity_notices_a_gradient_of_another_network(tmp_path: Path) -> None:
    model, other = tiny_model(), tiny_model()
    torch.nn.init.normal_(
        other.timm_model.blocks[2].mlp.fc2.weight, generator=torch.Generator().manual_seed(1)
    )
    write_graph(model, "fp32", tmp_path)
    images, _ = inputs(model, images=4)
    assert measure_fidelity(open_session(tmp_path / GRAPH), other, images).two_sided < 0.9


def test_the_correlation_of_a_constant_is_zero_and_of_a_multiple_is_one() -> None:
    ramp = np.arange(5.0)
    assert correlation(ramp, 3 * ramp + 1) == pytest.approx(1.0)
    assert correlation(ramp, -ramp) == pytest.approx(-1.0)
    assert correlation(ramp, np.ones(5)) == 0.0
    assert correlation(ramp, np.full(5, np.nan)) == 0.0


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_memory_fit_lies_on_or_above_every_point(noise: float) -> None:
    random = np.random.default_rng(2)
    truth = [(b, k, 2**20 * (3 + b * (1 + 2 * k))) for b in (1, 2, 4) for k in (1, 3)]
    points = [(b, k, int(value * (1 + noise * random.uniform(-1, 1)))) for b, k, value in truth]
    fitted = fit(points)
    for images, adapters, measured in points:
        predicted = fitted.predict(images, adapters)
        assert measured <= predicted <= measured * (1.01 + 4 * noise) + 64 * 4096
