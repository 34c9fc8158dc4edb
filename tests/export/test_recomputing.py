"""A gradient that computes its forward pass a second time has the same bits, and keeps less of it."""

from __future__ import annotations

from itertools import chain, combinations, pairwise
from pathlib import Path

import pytest
import torch
from cnns import loaded, pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vit import tiny_film, tiny_model
from torch import Tensor, nn
from torch.fx import Graph, Node

from edge_zofc.export import gradient_graph, recomputing
from edge_zofc.export.adapted import Adapted, AdapterRequest, adapted
from edge_zofc.export.fidelity import moved_adapter
from edge_zofc.export.gradient_check import TOLERANCE, gradient_errors
from edge_zofc.export.gradient_graph import write_gradient_graph
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.vit import AdapterViT
from edge_zofc.storage.manifest import GRADIENT_GRAPH


def of_timm(name: str) -> Adapted:
    return adapted(loaded(name, 64), AdapterRequest(), pictures(2, 64))


def model_named(name: str) -> Adapted:
    made: Adapted = (
        {"film": tiny_film, "bottleneck": tiny_model}[name]() if name in ("film", "bottleneck") else of_timm(name)
    )
    return made


def traced(model: Adapted, monkeypatch: pytest.MonkeyPatch, worth: int) -> tuple[torch.fx.GraphModule, int]:
    """The graph, and how many cuts it has."""
    found = list[int]()

    def counted(graph: Graph) -> int:
        found.append(recomputing.recompute(graph))
        return found[-1]

    monkeypatch.setattr(recomputing, "WORTH_BYTES", worth)
    monkeypatch.setattr(gradient_graph, "recompute", counted)
    module, _ = gradient_graph._traced(model)
    return module, found[0]


def inputs(model: Adapted) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    images = torch.randn(2, 3, model.image_side, model.image_side)
    return images, torch.from_numpy(moved_adapter(model)[None]), torch.randn(2, model.feature_size)


@pytest.mark.parametrize("name", ["film", "bottleneck", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_the_gradient_has_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_named(name)
    plain, none = traced(model, monkeypatch, 1 << 60)
    again, cuts = traced(model, monkeypatch, 0)
    assert (none, cuts > 0) == (0, True)
    feed = inputs(model)
    assert torch.equal(again(*feed), plain(*feed))
    assert torch.allclose(plain(*feed), gradient_graph.vjp(model, *feed), rtol=1e-3, atol=1e-5)


def kept_bytes(graph: Graph) -> int:
    """The most that is alive at once where the nodes run in their order, in the traced sizes."""
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    last = {used: place for place, node in enumerate(nodes) if reads(node) for used in node.all_input_nodes}
    alive, most = dict[Node, int](), 0
    for place, node in enumerate(nodes):
        alive[node] = recomputing._bytes(node) if "val" in node.meta else 0
        most = max(most, sum(alive.values()))
        for used in [used for used in alive if last.get(used, -1) <= place]:
            del alive[used]
    return most


def reads(node: Node) -> bool:
    """More than a size, which is told by the pictures' number."""
    return node.target is not torch.ops.aten.sym_size.int


def test_a_deep_network_keeps_less_and_reads_of_the_first_pass_its_cuts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the last segment, which has just been computed."""
    model = of_timm("vit_tiny_patch16_224")
    (plain, _), (again, cuts) = traced(model, monkeypatch, 1 << 60), traced(model, monkeypatch, 0)
    assert cuts >= 3
    assert kept_bytes(again.graph) < 0.7 * kept_bytes(plain.graph)
    forward = recomputing._Parts.of(again.graph).forward
    others = [node for node in again.graph.nodes if node not in set(forward) and reads(node)]
    read = {used for node in others for used in node.all_input_nodes}
    assert 0 < len(read & set(forward[: len(forward) // 2])) <= cuts


def test_where_little_is_kept_the_graph_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_film()
    assert traced(model, monkeypatch, recomputing.WORTH_BYTES)[1] == 0


def test_onnxruntime_computes_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputing, "WORTH_BYTES", 0)
    model = tiny_model()
    assert isinstance(model, AdapterViT)
    write_graph(model, "fp32", tmp_path)
    write_gradient_graph(model, tmp_path)
    errors = gradient_errors(tmp_path / GRADIENT_GRAPH, model, pictures(3, model.image_side))
    assert errors.max() < TOLERANCE


def test_what_overwrote_a_tensor_gives_a_new_one() -> None:
    def chained(x: Tensor) -> Tensor:
        y = x * 2.0
        before = y + 0.0
        nn.functional.relu_(y)
        return y + before

    module = torch.fx.experimental.proxy_tensor.make_fx(chained)(torch.ones(3))
    recomputing.in_place_taken_out(module.graph)
    module.recompile()
    assert not any(node.target is torch.ops.aten.copy_.default for node in module.graph.nodes)
    x = torch.tensor([-1.0, 0.5, 2.0])
    assert torch.equal(module(x), chained(x.clone()))


Candidates = list[tuple[int, int, int]]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6), st.integers(0, 9), st.integers(0, 30))
def test_no_other_cuts_take_less(steps: list[tuple[int, int]], rest: int, limit: int) -> None:
    kept, candidates = 0, Candidates()
    for place, (more, size) in enumerate(steps):
        kept += more
        candidates.append((place, kept, size))
    total = kept + rest

    def fits(chosen: tuple[tuple[int, int, int], ...]) -> bool:
        ends = [0, *(found[1] for found in chosen), total]
        return all(after - before <= limit for before, after in pairwise(ends))

    every = chain.from_iterable(combinations(candidates, count) for count in range(len(candidates) + 1))
    sums = [sum(size for _, _, size in chosen) for chosen in every if fits(chosen)]
    found = recomputing._cheapest_cuts(candidates, total, limit)
    assert (found is None) == (not sums)
    if found is not None:
        sizes = {place: size for place, _, size in candidates}
        assert found[0] == sum(sizes[place] for place in found[1]) == min(sums)
