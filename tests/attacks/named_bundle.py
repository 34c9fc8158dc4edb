"""Forged files of a bundle, whose hashes are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from changes import as_json
from named import named
from onnx import TensorProto, helper
from safetensors.numpy import save
from victim import rewrite_manifest

from edge_zofc.storage import bundle, manifest


def _forge_graph(world: Path, nodes: list[onnx.NodeProto], initialisers: list[onnx.TensorProto] | None = None) -> None:
    """A graph with the bundle's inputs and output and other nodes."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, "S", "S"])
    adapters = helper.make_tensor_value_info("adapters", TensorProto.FLOAT, ["K", "P"])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "forged", [images, adapters], [features], initialisers or [])
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (world / "bundle" / manifest.GRAPH).write_bytes(raw)
    rewrite_manifest(world / "bundle", manifest.GRAPH, raw)


@named("new", 5)
def a_graph_of_garbage(world: Path) -> None:
    (world / "bundle" / manifest.GRAPH).write_bytes(b"\x08\x08garbage")
    rewrite_manifest(world / "bundle", manifest.GRAPH, b"\x08\x08garbage")


@named("new", 5)
def a_graph_whose_features_have_another_shape(world: Path) -> None:
    _forge_graph(world, [helper.make_node("Flatten", ["images"], ["features"])])


@named("new", 5)
def a_graph_that_fails_while_it_runs(world: Path) -> None:
    _forge_graph(world, [helper.make_node("MatMul", ["images", "adapters"], ["features"])])


@named("new", 3, 5)
def a_graph_that_asks_for_a_tebibyte(world: Path) -> None:
    size = helper.make_tensor("size", TensorProto.INT64, [1], [1 << 38])
    _forge_graph(world, [helper.make_node("ConstantOfShape", ["size"], ["features"])], [size])


@named("new", 5)
def weights_outside_of_the_bundle(world: Path) -> None:
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../outside/secret.txt")
    _forge_graph(world, [helper.make_node("Add", ["images", "w"], ["features"])], [weight])


def _forge_tensors(world: Path, name: str, raw: bytes) -> None:
    (world / "bundle" / name).write_bytes(raw)
    rewrite_manifest(world / "bundle", name, raw)


@named("new", 5)
def an_adapter_that_is_not_a_number(world: Path) -> None:
    count = bundle.read_bundle(world / "bundle").manifest.adapter.size
    _forge_tensors(world, manifest.ADAPTER, save({"adapter": np.full(count, np.nan, np.float32)}))


@named("new", 5)
def an_adapter_of_the_wrong_type(world: Path) -> None:
    count = bundle.read_bundle(world / "bundle").manifest.adapter.size
    _forge_tensors(world, manifest.ADAPTER, save({"adapter": np.zeros(count, np.float64)}))


@named("new", 5)
def an_adapter_that_says_it_is_huge(world: Path) -> None:
    header = b'{"adapter":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}'
    _forge_tensors(world, manifest.ADAPTER, len(header).to_bytes(8, "little") + header + bytes(4))


def _change_manifest(world: Path, **changes: object) -> None:
    path = world / "bundle" / manifest.MANIFEST
    path.write_bytes(as_json({**json.loads(path.read_text()), **changes}))


@named("new", 3, 5)
def a_manifest_with_an_adapter_of_a_tebibyte(world: Path) -> None:
    layout = json.loads((world / "bundle" / manifest.MANIFEST).read_text())["adapter"]
    layout["pieces"] = [{"name": "down", "shape": [1 << 38], "offset": 0}]
    _change_manifest(world, adapter=layout)


@named("new", 3, 5)
def a_manifest_with_features_of_a_tebibyte(world: Path) -> None:
    _change_manifest(world, feature_size=1 << 38)


@named("new", 5)
def a_manifest_that_names_files_outside(world: Path) -> None:
    files = json.loads((world / "bundle" / manifest.MANIFEST).read_text())["files"]
    files["../outside/secret.txt"] = files.pop("probe.safetensors")
    _change_manifest(world, files=files)


@named("new", 2)
def a_manifest_of_a_later_version(world: Path) -> None:
    _change_manifest(world, format_version=manifest.FORMAT_VERSION + 1)


@named("new", 5)
def a_manifest_nested_a_hundred_thousand_deep(world: Path) -> None:
    (world / "bundle" / manifest.MANIFEST).write_bytes(b"[" * 100_000)
