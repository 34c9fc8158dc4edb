"""Lets a traced gradient compute parts of its forward pass a second time, so that it keeps less of it (checkpointing).

Between two *cuts*, values through which the whole forward pass goes, lies a segment. The backward half of a segment
works on a second computation of it, which starts from its cut. So of the forward pass only the cuts are kept, and the
values of one segment at a time.

A second computation starts from ``cut + 0 * g``, where g is one entry of each value that the backward half has by then
and still needs. So it cannot run before these are there, and onnxruntime does not take both computations for one. The
sum has the cut's own bits, as long as these values are finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.fx import Graph, Node

_aten: Any = torch.ops.aten
_VIEWS = {
    _aten.view.default, _aten.reshape.default, _aten.unsqueeze.default, _aten.squeeze.dims, _aten.expand.default,
    _aten.permute.default, _aten.transpose.int, _aten.slice.Tensor, _aten.select.int, _aten.t.default,
    _aten.alias.default, _aten.detach.default,
}  # fmt: skip
WORTH_BYTES = 16 << 20
"""5 MiB a picture would be saved on EfficientNet-Lite0 at 128 px, 2 on the package's ViT, 66 on a ViT-B/16 at 224."""
_TRIED = 64
"""Limits for the largest segment that are tried."""


def recompute(graph: Graph) -> int:
    """Change ``graph``, whose placeholders are images, adapters and feature gradients; returns the number of cuts.

    0 where that would save less than ``WORTH_BYTES`` a picture, as it takes one more forward pass: the graph is as it
    was then.
    """
    parts = _Parts.of(graph)
    saved, cuts = _best_cuts(parts)
    if saved < WORTH_BYTES:
        return 0
    _Rewriting(graph, parts, cuts).run()
    graph.lint()
    return len(cuts)


@dataclass(frozen=True)
class _Parts:
    """The nodes in their order.

    ``forward`` compute the features from the pictures, ``aside`` what of the forward pass the backward half alone asks
    for, as slopes, and into ``backward`` a gradient flows.
    """

    images: Node
    gradients: Node
    forward: tuple[Node, ...]
    aside: frozenset[Node]
    backward: tuple[Node, ...]

    @classmethod
    def of(cls, graph: Graph) -> _Parts:
        nodes = list(graph.nodes)
        images, _adapters, gradients = (node for node in nodes if node.op == "placeholder")
        of_gradients = _dependants(nodes, gradients)
        of_images = {node for node in _dependants(nodes, images) - of_gradients if _is_made(node)}
        backward = tuple(node for node in nodes if node in of_gradients and node.op != "output")
        forward = tuple(node for node in nodes if node in of_images and node < backward[0])
        return cls(images, gradients, forward, frozenset(of_images) - set(forward), backward)


def in_place_taken_out(graph: Graph) -> None:
    """What overwrote a tensor gives a new one, and no copy is kept of what would have been overwritten."""
    for node in list(graph.nodes):
        if node.target is _aten.copy_.default:
            overwritten, new = node.args[:2]
            overwritten.replace_all_uses_with(new, lambda user, at=node: user > at)
        elif node.target is _aten.clone.default and len(node.args) == 1 and not node.kwargs:
            new = node.args[0]
        else:
            continue
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _dependants(nodes: Iterable[Node], source: Node) -> set[Node]:
    """All that depend on ``source``, itself left out."""
    found = {source}
    for node in nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found - {source}


def _is_value(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _is_made(node: Node) -> bool:
    """Whether it is computed: a tensor, or several."""
    return node.op == "call_function" and (_is_value(node) or isinstance(node.meta.get("val"), (tuple, list)))


def _bytes(node: Node) -> int:
    """What a node's value takes; 0 for a view of another, and for several, which are taken out one by one."""
    if node.target in _VIEWS or not _is_value(node):
        return 0
    value = node.meta["val"]
    return math.prod(map(_traced, value.shape)) * int(value.element_size())


def _viewed(node: Node) -> Node:
    """What a node is a view of, itself if it is none."""
    while node.target in _VIEWS:
        node = node.all_input_nodes[0]
    return node


def _traced(size: Any) -> int:
    """A size as it was while the graph was traced."""
    return size if isinstance(size, int) else int(size.node.hint)


def _candidates(parts: _Parts) -> list[int]:
    """Positions in ``parts.forward`` after which a single value is all that the rest of the forward pass needs."""
    known = set(parts.forward)
    last_use = {node: place for place, node in enumerate(parts.forward)}
    for place, node in enumerate(parts.forward):
        for used in node.all_input_nodes:
            if used in known:
                last_use[used] = place
    found, furthest = [], 0
    for place, node in enumerate(parts.forward):
        if furthest <= place and last_use[node] > place:
            found.append(place)
        furthest = max(furthest, last_use[node])
    return found


def _best_cuts(parts: _Parts) -> tuple[int, list[Node]]:
    """The bytes a picture that are saved at best, and the cuts by which.

    Kept are all cuts, and what the backward half asks for of the largest segment.
    """
    asked = {_viewed(used) for node in (*parts.backward, *parts.aside) for used in node.all_input_nodes}
    kept = list(accumulate(_bytes(node) if node in asked else 0 for node in parts.forward))
    candidates = [(place, kept[place], _bytes(_viewed(parts.forward[place]))) for place in _candidates(parts)]
    best, chosen = kept[-1], list[int]()
    for part in range(1, _TRIED):
        limit = kept[-1] * part // _TRIED
        found = _cheapest_cuts(candidates, kept[-1], limit)
        if found is not None and found[0] + limit < best:
            best, chosen = found[0] + limit, found[1]
    return (kept[-1] - best) // _traced(parts.images.meta["val"].shape[0]), [parts.forward[place] for place in chosen]


def _cheapest_cuts(candidates: Sequence[tuple[int, int, int]], total: int, limit: int) -> tuple[int, list[int]] | None:
    """The bytes and the places of the cuts that together take the least, with no segment above ``limit``.

    A candidate is its place, what is kept up to there, and its own bytes; ``total`` is kept in all. None if there are
    no such cuts.
    """
    ways: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]  # bytes of the cuts, kept up to the last one, places
    for place, kept, size in candidates:
        before = [way for way in ways if kept - way[1] <= limit]
        if before:
            bytes_, _, places = min(before)
            ways.append((bytes_ + size, kept, (*places, place)))
    ends = [way for way in ways if total - way[1] <= limit]
    if not ends:
        return None
    bytes_, _, places = min(ends)
    return bytes_, list(places)


class _Rewriting:
    """Makes the backward half work on a second computation of each segment, but for the last one."""

    def __init__(self, graph: Graph, parts: _Parts, cuts: list[Node]) -> None:
        self.graph, self.parts = graph, parts
        self.starts = [parts.images, *cuts]
        self.segment = dict[Node, int]()
        """Of each node that is done again."""
        self.second = dict[Node, Node]()
        self.begun = dict[int, Node]()
        self.passed = [parts.gradients]
        """Where the backward half is: its nodes since a segment was begun the last time."""
        number = 0
        for node in parts.forward:
            if node in cuts:
                number += 1
            elif number < len(cuts):
                self.segment[node] = number
        for node in graph.nodes:
            if node in parts.aside:
                numbers = [self.segment[used] for used in node.all_input_nodes if used in self.segment]
                if numbers:
                    self.segment[node] = max(numbers)

    def run(self) -> None:
        """Change the graph."""
        for node in self.parts.backward:
            with self.graph.inserting_before(node):
                for used in node.all_input_nodes:
                    if used in self.segment:
                        node.replace_input_with(used, self._done_again(used, node))
            self.passed.append(node)
        self.graph.eliminate_dead_code()

    def _done_again(self, node: Node, user: Node) -> Node:
        if node not in self.second:
            number = self.segment[node]
            inputs = {used: self._done_again(used, user) for used in node.all_input_nodes if used in self.segment}
            start = self.starts[number]
            if start in node.all_input_nodes:
                inputs[start] = self._begun(number, user)
            self.second[node] = self.graph.node_copy(node, lambda used: inputs.get(used, used))
        return self.second[node]

    def _begun(self, number: int, user: Node) -> Node:
        """The start of segment ``number``, not before all is done whose result comes after ``user`` or in it."""
        if number not in self.begun:
            call = self.graph.call_function
            done = [node for node in self.passed if _is_value(node) and any(each >= user for each in node.users)]
            flat = [call(_aten.reshape.default, (node, [-1])) for node in done]
            entries = call(_aten.cat.default, ([call(_aten.slice.Tensor, (each, 0, 0, 1)) for each in flat],))
            nothing = call(_aten.mul.Tensor, (call(_aten.sum.dim_IntList, (entries, [0])), 0.0))
            self.begun[number] = call(_aten.add.Tensor, (self.starts[number], nothing))
            self.passed.clear()
        return self.begun[number]
