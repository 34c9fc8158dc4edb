"""CNNs of every family keep the contract of a bundle: images and adapters in, features of K adapters out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from cnns import loaded, model_of, pictures

from edge_zofc.errors import InputError
from edge_zofc.export.adapted import AdapterRequest, adapted
from edge_zofc.export.adapters import initial_adapter
from edge_zofc.export.cnn import AdapterCnn, blocks_of, channel_spreads, check_supported
from edge_zofc.export.precision import dequantised_weights
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.traced_graph import write_traced_graph
from edge_zofc.export.writer import relative_error
from edge_zofc.storage.manifest import GRAPH, WEIGHTS, AdapterKind, Precision

NAMES = {"efficientnet_lite0": 16, "mobilenetv3_small_050": 12, "resnet10t": 4, "regnety_002": 13, "convnext_atto": 12}
MORE_NAMES = {
    "efficientnet_b0": 16,
    "mobilenetv2_050": 17,
    "mobilenetv4_conv_small_035": 17,
    "regnetx_002": 13,
    "convnextv2_atto": 12,
}
"""timm's names, each with its number of blocks."""


def moved(model: AdapterCnn, count: int) -> np.ndarray:
    random = np.random.default_rng(5)
    return (initial_adapter(model.layout, 1) + 0.1 * random.standard_normal((count, model.layout.size))).astype(
        np.float32
    )


def by_torch(model: AdapterCnn, images: np.ndarray, adapters: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(images), torch.from_numpy(adapters)).numpy())


@pytest.mark.parametrize(
    ("name", "depth"), [*NAMES.items(), *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_NAMES.items())]
)
def test_a_family_keeps_the_contract(tmp_path: Path, name: str, depth: int) -> None:
    backbone = loaded(name)
    assert backbone.info.depth == depth
    with torch.no_grad():
        plain = backbone.model(torch.from_numpy(pictures(3))).numpy()
    model = adapted(backbone, AdapterRequest(), pictures(2))
    assert isinstance(model, AdapterCnn)
    assert (model.layout.kind, model.layout.blocks) == ("film", tuple(range(depth)))
    write_traced_graph(model, "fp32", tmp_path)
    session = open_session(tmp_path / GRAPH, threads=1)
    start = initial_adapter(model.layout, 0)
    assert relative_error(compute_features(session, pictures(3), start[None])[0], plain) < 1e-4  # the identity
    adapters = moved(model, 3)
    for count in (1, 5):
        together = compute_features(session, pictures(count), adapters)
        assert together.shape == (3, count, backbone.width)
        assert relative_error(together, by_torch(model, pictures(count), adapters)) < 1e-4
        apart = [compute_features(session, pictures(count), adapters[k : k + 1])[0] for k in range(3)]
        assert relative_error(together, np.stack(apart)) < 1e-6
        assert relative_error(together[0], together[1]) > 1e-3


@pytest.mark.parametrize("kind", ["film", "bottleneck"])
def test_everything_before_the_first_adapter_runs_once_a_picture(kind: AdapterKind) -> None:
    model = model_of("resnet10t", AdapterRequest(kind, blocks="1,3", rank=4 if kind == "bottleneck" else None))
    seen: list[int] = []
    for block in blocks_of(model.network).values():
        inner = block if not hasattr(block, "block") else block.block
        inner.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    by_torch(model, pictures(2), moved(model, 3))
    assert seen == [2, 2, 6, 6]


def test_a_film_scales_and_shifts_what_leaves_a_block_in_units_of_the_channels_spread() -> None:
    network = loaded("resnet10t").model
    images = torch.from_numpy(pictures(2))
    spreads = channel_spreads(network, pictures(2))
    model = model_of("resnet10t", AdapterRequest("film", "3"))
    theta = torch.from_numpy(moved(model, 1))
    scale, shift = theta[0].split(len(spreads[3]))
    with torch.no_grad():
        x = network.forward_features(images)
        wanted = (x * (1 + scale[:, None, None]) + (shift * spreads[3])[:, None, None]).mean(dim=(2, 3))
        found = model(images, theta)[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_bottleneck_is_1x1_down_gelu_and_1x1_up_of_the_spread_free_output() -> None:
    network = loaded("resnet10t").model
    images = torch.from_numpy(pictures(2))
    spread = channel_spreads(network, pictures(2))[3][:, None, None]
    model = model_of("resnet10t", AdapterRequest("bottleneck", "3", rank=4, scale=0.5))
    theta = torch.from_numpy(moved(model, 1))
    width = len(spread)
    down, down_bias, up, up_bias = theta[0].split([4 * width, 4, 4 * width, width])
    conv = torch.nn.functional.conv2d
    with torch.no_grad():
        x = network.forward_features(images)
        hidden = torch.nn.functional.gelu(conv(x / spread, down.reshape(4, width, 1, 1), down_bias))
        wanted = (x + 0.5 * spread * conv(hidden, up.reshape(width, 4, 1, 1), up_bias)).mean(dim=(2, 3))
        found = model(images, theta)[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_traced_bottleneck_gives_torchs_features(tmp_path: Path) -> None:
    model = model_of("mobilenetv3_small_050", AdapterRequest("bottleneck"))
    assert model.layout.rank == 8
    write_traced_graph(model, "fp32", tmp_path)
    found = compute_features(open_session(tmp_path / GRAPH), pictures(2), moved(model, 2))
    assert relative_error(found, by_torch(model, pictures(2), moved(model, 2))) < 1e-4


@pytest.mark.parametrize(("precision", "tolerance"), [("w8", 1e-4), ("w4", 1e-4), ("int8", 0.5), ("fp16", 2e-2)])
def test_matrix_products_of_a_convnext_are_quantised(tmp_path: Path, precision: Precision, tolerance: float) -> None:
    model = model_of("test_convnext", AdapterRequest(blocks="0"), 32)
    images = pictures(2, 32)
    write_traced_graph(model, precision, tmp_path)
    found = compute_features(open_session(tmp_path / GRAPH), images, moved(model, 2))
    reference = dequantised_weights(model, precision)
    assert isinstance(reference, AdapterCnn)
    assert relative_error(found, by_torch(reference, images, moved(model, 2))) < tolerance
    assert relative_error(found, by_torch(model, images, moved(model, 2))) > 1e-5


def test_convolutions_alone_have_nothing_to_quantise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="convolutions alone; choose fp32"):
        write_traced_graph(model_of("resnet10t"), "w8", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_same_network_gives_the_same_files(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_traced_graph(model_of("resnet10t"), "fp32", tmp_path / name)
        files.append([(tmp_path / name / file).read_bytes() for file in (GRAPH, WEIGHTS)])
    assert files[0] == files[1]
    assert b".py" not in files[0][0]  # nothing of the exporter's notes, which name places on this machine


def test_what_is_no_chain_of_blocks_is_one_sentence() -> None:
    with pytest.raises(InputError, match="is a VGG, which is not supported; supported are EfficientNet"):
        check_supported(timm.create_model("vgg11", num_classes=0))
