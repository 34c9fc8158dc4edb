"""The graph of gradients gives what torch's autograd gives, for any number of pictures, in standard operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cnns import loaded, pictures
from onnx import numpy_helper
from onnxruntime import InferenceSession
from tiny_vit import tiny_film, tiny_model
from torch import Tensor, nn

from edge_zofc.export import gradient_graph
from edge_zofc.export.adapted import Adapted, AdapterRequest, adapted
from edge_zofc.export.adapters import bottleneck_layout, film_layout
from edge_zofc.export.cnn import AdapterCnn
from edge_zofc.export.fidelity import moved_adapter
from edge_zofc.export.gradient_check import KINK_TOLERANCE, TOLERANCE, gradient_errors
from edge_zofc.export.gradient_graph import OUTPUT, vjp, write_gradient_graph
from edge_zofc.export.gradient_rules import NoGradientError
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.onnx_writer import digest_of, stored_tensors
from edge_zofc.export.precision import dequantised_weights
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.writer import write_forward_graph
from edge_zofc.storage.manifest import GRADIENT_GRAPH, GRADIENT_WEIGHTS, GRAPH, WEIGHTS, AdapterKind

SMOOTH = {"convnext_atto": 64, "convnextv2_atto": 64, "vit_tiny_patch16_224": 64, "efficientnet_b0": 64}
"""timm's names, whose activations have no kinks, and the side of their pictures."""
WITH_KINKS = {
    "efficientnet_lite0": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "mobilenetv4_conv_small": 64,
    "resnet10t": 64,  # whose shortcuts pool
    "resnet18": 64,
    "resnet50": 64,
    "regnety_004": 64,
}
KINDS: tuple[AdapterKind, ...] = ("film", "bottleneck")


def of_timm(name: str, kind: AdapterKind, side: int) -> Adapted:
    return adapted(loaded(name, side), AdapterRequest(kind), pictures(2, side))


def written(folder: Path, model: Adapted) -> Path:
    """The folder with both graphs of the model."""
    write_forward_graph(model, "fp32", folder)
    write_gradient_graph(model, folder)
    return folder


class _Block(nn.Sequential):
    """One block, as its name is none of a chain's."""


class _Chain(nn.Module):
    """Blocks of four channels at 32 pixels and their mean: what ``AdapterCnn`` takes."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x).mean(dim=(2, 3))
        return found


def chained(*blocks: nn.Module, kind: AdapterKind = "film") -> AdapterCnn:
    """A convolution and the blocks, each with an adapter behind it."""
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 4, 2, stride=2)
    widths = dict.fromkeys(range(len(blocks) + 1), 4)
    layout = film_layout(widths) if kind == "film" else bottleneck_layout(widths, 3, 0.1)
    network = _Chain(stem, *blocks)
    return AdapterCnn(network, layout, [torch.ones(4)] * (len(blocks) + 1), 32, 4)


def bottlenecks() -> AdapterCnn:
    """Behind an inverted residual and a ConvNeXt's products, in small."""
    products = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 80), nn.GELU(), nn.Linear(80, 16))
    return chained(
        _Block(nn.Conv2d(4, 80, 1), nn.SiLU(), nn.Conv2d(80, 80, 3, 1, 1, groups=80), nn.SiLU(), nn.Conv2d(80, 4, 1)),
        _Block(products, nn.Conv2d(4, 4, 3, 2, 1)),
        kind="bottleneck",
    )


SMALL: dict[str, Callable[[], Adapted]] = {
    "vit bottleneck": lambda: tiny_model(blocks=(0, 1), depth=2),
    "vit film": lambda: tiny_film(blocks=(1,), depth=2, global_pool="avg", class_token=False),
    "cnn bottleneck": bottlenecks,
}


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Adapted]:
    """A smooth network of each kind and the folder with its graphs; read them, do not change them."""
    model = SMALL[request.param]()
    return written(tmp_path_factory.mktemp("gradient"), model), model


def gradient(folder: Path, model: Adapted, count: int, seed: int = 1) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The graph's answer in float64, and what it was asked on the way back."""
    asked = np.random.default_rng(seed).standard_normal((count, model.feature_size)).astype(np.float32)
    feed = {
        "gradient_images": pictures(count, model.image_side),
        "adapters": moved_adapter(model)[None],
        "feature_gradients": asked,
    }
    return went_back(open_session(folder / GRADIENT_GRAPH, threads=1), feed), feed


def went_back(session: InferenceSession, feed: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = session.run([OUTPUT], {"images": feed["gradient_images"][:0], **feed})
    return np.asarray(found, np.float64)


def error_of(folder: Path, model: Adapted, count: int) -> float:
    found, feed = gradient(folder, model, count)
    assert found.shape == (model.layout.size,)
    wanted = vjp(model, *map(torch.from_numpy, feed.values())).double().numpy()
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_graph_gives_autograds_gradient_for_any_number_of_pictures(small: tuple[Path, Adapted], count: int) -> None:
    assert error_of(*small, count) < 1e-5


def test_the_gradient_of_two_pictures_is_the_sum_of_theirs(small: tuple[Path, Adapted]) -> None:
    folder, model = small
    both, feed = gradient(folder, model, 2)
    session = open_session(folder / GRADIENT_GRAPH, threads=1)
    parts = [
        went_back(session, {name: values[-1:] if index else values[:1] for name, values in feed.items()})
        for index in range(2)
    ]
    np.testing.assert_allclose(np.sum(parts, axis=0), both, atol=1e-4 * np.abs(both).max())


def test_the_graph_follows_the_finite_differences_of_the_first_one(small: tuple[Path, Adapted]) -> None:
    folder, model = small
    found, feed = gradient(folder, model, 2)
    session, theta = open_session(folder / GRAPH, threads=1), feed["adapters"]
    direction = np.random.default_rng(8).choice([-1.0, 1.0], theta.shape).astype(np.float32)
    direction *= np.sign(found).astype(np.float32)  # so that the slope is no small difference of large numbers
    eps = np.float32(2.0**-9)
    ends = np.concatenate([theta + eps * direction, theta - eps * direction])
    features = compute_features(session, feed["gradient_images"], ends).astype(np.float64)
    plus, minus = (features * feed["feature_gradients"]).sum(axis=(1, 2))
    assert float(direction[0] @ found) == pytest.approx((plus - minus) / (2 * float(eps)), rel=1e-2)


def way_back(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the forward graph does not have."""
    return [node for node in graph.node if not node.name.startswith("forward.")]


def test_only_standard_operators_are_used(small: tuple[Path, Adapted]) -> None:
    graph = onnx.load(small[0] / GRADIENT_GRAPH, load_external_data=False).graph
    assert {node.domain for node in way_back(graph)} == {""}
    assert [value.name for value in graph.input] == ["images", "gradient_images", "adapters", "feature_gradients"]


@pytest.mark.parametrize("count", [1, 3])
def test_the_way_forward_gives_the_first_graphs_bits(small: tuple[Path, Adapted], count: int) -> None:
    folder, model = small
    feed = {"images": pictures(count, model.image_side), "adapters": moved_adapter(model)[None]}
    wanted = open_session(folder / GRAPH, threads=1).run(None, feed)[0]
    none = {"gradient_images": feed["images"][:0], "feature_gradients": wanted[0, :0]}
    found = open_session(folder / GRADIENT_GRAPH, threads=1).run(["features"], feed | none)[0]
    assert found.tobytes() == wanted.tobytes()


def test_no_weight_is_there_twice(small: tuple[Path, Adapted]) -> None:
    """onnxruntime packs each initializer once."""
    tensors = onnx.load(small[0] / GRADIENT_GRAPH).graph.initializer
    large = [(tuple(t.dims), numpy_helper.to_array(t).tobytes()) for t in tensors if np.prod(t.dims) > 1000]
    assert large
    assert len(set(large)) == len(large)


def places(graph: Path) -> set[str]:
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def test_the_second_weights_file_holds_nothing_that_the_first_one_holds(small: tuple[Path, Adapted]) -> None:
    folder, _ = small
    first, second = stored_tensors(folder / GRAPH), stored_tensors(folder / GRADIENT_GRAPH)
    own = {digest for digest, stored in second.items() if stored.location == GRADIENT_WEIGHTS}
    shared = {digest for digest, stored in second.items() if stored.location == WEIGHTS}
    assert not own & first.keys()
    assert len(shared) >= 0.7 * len(first)
    assert all(first[digest] == second[digest] for digest in shared)


def test_no_matrix_is_stored_turned_round_and_as_it_is(small: tuple[Path, Adapted]) -> None:
    """A Gemm reads either."""
    model = onnx.load(small[0] / GRADIENT_GRAPH)
    matrices = [values for t in model.graph.initializer if (values := numpy_helper.to_array(t)).ndim == 2]
    digests = {digest_of(np.ascontiguousarray(each)) for each in matrices if each.size > 1000}
    turned = {digest_of(np.ascontiguousarray(each.T)) for each in matrices if each.size > 1000 and 1 not in each.shape}
    assert digests
    assert not digests & turned


def test_the_same_network_gives_the_same_files(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        folder = written(tmp_path / name, chained(nn.Conv2d(4, 4, 16)))
        files.append([(folder / file).read_bytes() for file in (GRADIENT_GRAPH, GRADIENT_WEIGHTS)])
    assert files[0] == files[1]
    assert b".py" not in files[0][0]  # nothing of the exporter's notes, which name places on this machine


@pytest.fixture(scope="module", params=["w8", pytest.param("w4", marks=pytest.mark.slow)])
def quantised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Adapted]:
    """A ViT of another width than a block's, with the numbers of the precision, and the folder with its graphs."""
    folder, precision = tmp_path_factory.mktemp("quantised"), request.param
    model = dequantised_weights(tiny_model(blocks=(0,), depth=2), precision)
    write_graph(tiny_model(blocks=(0,), depth=2), precision, folder)
    write_gradient_graph(model, folder, precision)
    return folder, model


@pytest.mark.parametrize("count", [1, 3])
def test_the_gradient_of_quantised_weights_is_autograds_with_the_same_numbers(
    quantised: tuple[Path, Adapted], count: int
) -> None:
    assert error_of(*quantised, count) < 1e-5
    assert error_of(quantised[0], tiny_model(blocks=(0,), depth=2), count) > 1e-3


def test_quantised_weights_are_read_from_the_first_file_and_expanded_when_they_are_used(
    quantised: tuple[Path, Adapted],
) -> None:
    """Of what depends on no input onnxruntime may keep a float copy, and computes all of it at the start."""
    folder, _ = quantised
    graph = onnx.load(folder / GRADIENT_GRAPH, load_external_data=False).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    expanded = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert len(expanded) == 4  # of the second block: the first one's adapter stands beside its MLP
    for node in expanded:
        codes, scales, _zeros = node.input
        assert scales not in constants
        assert constants[codes].dims[0] in (48, 144, 192)
    products = [node for node in way_back(graph) if node.op_type == "MatMulNBits"]
    assert len(products) == 8
    of_first = set(stored_tensors(folder / GRAPH))
    of_second = {digest for digest, at in stored_tensors(folder / GRADIENT_GRAPH).items() if at.location == WEIGHTS}
    assert len(of_second) > 0.6 * len(of_first)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "side"), SMOOTH.items())
def test_a_smooth_backbone_of_timm_keeps_the_contract(tmp_path: Path, name: str, side: int, kind: AdapterKind) -> None:
    model = of_timm(name, kind, side)
    written(tmp_path, model)
    assert max(error_of(tmp_path, model, count) for count in (1, 2, 3)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "side"), WITH_KINKS.items())
def test_a_backbone_with_kinks_keeps_the_contract(tmp_path: Path, name: str, side: int, kind: AdapterKind) -> None:
    model = of_timm(name, kind, side)
    errors = gradient_errors(written(tmp_path, model) / GRADIENT_GRAPH, model, pictures(8, side))
    assert errors.min() < TOLERANCE
    assert np.median(errors) < 10 * TOLERANCE
    assert errors.max() < KINK_TOLERANCE
    assert max(error_of(tmp_path, model, count) for count in (2, 3)) < KINK_TOLERANCE


def test_pooling_and_activations_with_kinks_are_followed(tmp_path: Path) -> None:
    """16, 8, 4, 2 (the odd row and column left out), 1 pixels a side."""
    model = chained(
        _Block(nn.AvgPool2d(2), nn.ReLU6()),
        _Block(nn.Conv2d(4, 4, 2), nn.AvgPool2d(3, ceil_mode=True), nn.Hardswish()),
        _Block(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.ReLU()),
    )
    errors = gradient_errors(written(tmp_path, model) / GRADIENT_GRAPH, model, pictures(4, 32))
    assert errors.max() < 1e-5


def test_what_is_not_written_is_one_clause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for layer, sentence in (
        (nn.AvgPool2d(3, 1, 1), "this backbone has pooling whose gradient is not written"),
        (nn.ConvTranspose2d(4, 4, 3), "this backbone has a convolution whose gradient is not written"),
        (nn.AdaptiveMaxPool2d(4), r"torch cannot export this backbone's gradient \(\w+\)"),
    ):
        with pytest.raises(NoGradientError, match=f"^{sentence}$"):
            write_gradient_graph(chained(layer), tmp_path)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(gradient_graph, "_traced", _no_memory)
    with pytest.raises(MemoryError):  # says nothing of the backbone
        write_gradient_graph(chained(), tmp_path)


def _no_memory(_model: Adapted) -> None:
    raise MemoryError
