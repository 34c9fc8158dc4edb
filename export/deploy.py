"""One plain ONNX file of what was learnt: picture in, probabilities out, nothing of edge-zofc needed to run it.

The adapter becomes a constant, the head (cosine or linear) and its softmax a few nodes at the end. How a
picture becomes the input, and the labels, stand in the file's metadata as JSON (keys ``preprocessing``, ``labels``).

The bundle's own graph is rewritten, so neither torch nor timm is loaded. onnxruntime alone can run the file: the
quantised precisions and the fused attention are operators of its own (domain com.microsoft).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_zofc.algorithm.heads import Head, unit
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import WEIGHTS
from edge_zofc.storage.run_folder import refuse_own
from edge_zofc.storage.writing import write_atomic

TOLERANCE = 1e-5
"""Largest difference of a log-probability between the deployed file and the bundle's own graph with the head, as a part
of the logits' size. A logit is a sum in float32 of products that may be thousands: it is exact to a part only."""
_LEAST_PROBABILITY = 1e-30  # smaller ones count as this: float32 ends at 1e-38
_NEVER = -1e29  # a solved head gives classes without pictures the bias -1e30
_MAX_PROTO_BYTES = (1 << 31) - (1 << 20)  # protobuf's limit for one message, less room for the graph itself


class Learnt(NamedTuple):
    """What goes into a file: the head's rows [C, D] belong to ``class_names``; ``adapter`` is float32 [P].

    ``normalise`` False says that the run was learnt on pixels in [0, 1], without mean and standard deviation.
    """

    head: Head
    adapter: np.ndarray
    class_names: Sequence[str]
    bundle: Bundle
    normalise: bool = True


def deploy(
    head: Head, adapter: np.ndarray, class_names: Sequence[str], bundle: Bundle, out_path: Path, normalise: bool = True
) -> None:
    """Write ``out_path``: input ``image`` float32 [N, 3, S, S], output ``probabilities`` float32 [N, C].

    The arguments are those of ``Learnt``. The file replaces one that is there in one step, after it gave the same
    answers as the bundle on the bundle's probe.
    Raises InputError if the parts do not fit each other or the path cannot be written.
    """
    check_place(out_path)
    write_atomic(out_path, float_model(Learnt(head, adapter, class_names, bundle, normalise)))


def check_place(out_path: Path) -> None:
    """Raise InputError if ``out_path`` is a file of a run or a bundle, or lies in no folder."""
    refuse_own(out_path)
    if not out_path.parent.is_dir():
        raise InputError(f"{out_path} cannot be written ({out_path.parent} is no folder); choose another OUT.onnx.")


def float_model(learnt: Learnt) -> bytes:
    """The file's bytes, after they gave the same answers as the bundle on the bundle's probe. Raises InputError."""
    manifest = learnt.bundle.manifest
    _require(learnt.head.rows, (len(learnt.class_names), manifest.feature_size), "the head's rows")
    _require(learnt.adapter, (manifest.adapter.size,), "the adapter")
    weights_bytes = manifest.files[WEIGHTS].bytes
    if weights_bytes > _MAX_PROTO_BYTES:
        raise DoesNotFitError(
            f"The weights have {weights_bytes} bytes, one ONNX file holds {_MAX_PROTO_BYTES}; "
            "export the bundle as w8 or w4."
        )
    model = with_head(network(learnt), learnt)
    _check(model, learnt.bundle, learnt.head, learnt.adapter)
    return model


def _require(values: np.ndarray, shape: tuple[int, ...], what: str) -> None:
    if values.shape != shape or not bool(np.all(np.isfinite(values))) or 0 in shape:
        raise InputError(
            f"The run does not fit the bundle: {what} must be finite numbers of shape {list(shape)}, "
            f"got {list(values.shape)}."
        )


def network(learnt: Learnt) -> onnx.ModelProto:
    """The bundle's graph with the adapter as a constant: ``image`` [N, 3, S, S] to ``features`` [1, N, D]."""
    model = onnx.load(str(learnt.bundle.graph_path))
    _fix_adapter(model.graph, learnt.adapter)
    return model


def with_head(model: onnx.ModelProto, learnt: Learnt) -> bytes:
    """``network``'s graph, to which head, softmax and metadata are added, as the bytes of an ONNX file."""
    _append_head(model.graph, learnt.head)
    helper.set_model_props(model, _metadata(learnt.bundle, learnt.class_names, learnt.normalise))
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _fix_adapter(graph: onnx.GraphProto, adapter: np.ndarray) -> None:
    """Turn the input ``adapters`` into a constant [1, P] and call the other one ``image``."""
    (images,) = (value for value in graph.input if value.name == "images")
    images.name = "image"
    images.type.tensor_type.shape.dim[0].dim_param = "N"
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "images":
                node.input[place] = "image"
    del graph.input[:]
    graph.input.append(images)
    graph.initializer.append(numpy_helper.from_array(adapter[None].astype(np.float32), "adapters"))


def _append_head(graph: onnx.GraphProto, head: Head) -> None:
    squeezed = ("Squeeze", ["features", "head.zero"], "head.features")
    constants = {"head.zero": np.array([0], np.int64)}
    if head.biases is not None:
        rows, biases = _centred(head.rows, head.biases)
        constants |= {
            "head.rows": np.ascontiguousarray(rows.T.astype(np.float32)),
            "head.biases": biases.astype(np.float32),
        }
        steps: list[tuple[str, list[str], str]] = [
            squeezed,
            ("MatMul", ["head.features", "head.rows"], "head.products"),
            ("Add", ["head.products", "head.biases"], "head.logits"),
        ]
    else:
        constants |= {
            "head.last": np.array([-1], np.int64),
            "head.tiny": np.array(1e-12, np.float32),
            "head.rows": np.ascontiguousarray(unit(head.rows).T),
            "head.sigma": np.array(head.sigma[0], np.float32),
        }
        steps = [
            squeezed,
            ("ReduceL2", ["head.features", "head.last"], "head.lengths"),
            ("Max", ["head.lengths", "head.tiny"], "head.floored"),
            ("Div", ["head.features", "head.floored"], "head.unit"),
            ("MatMul", ["head.unit", "head.rows"], "head.cosines"),
            ("Mul", ["head.cosines", "head.sigma"], "head.logits"),
        ]
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    for operator, inputs, output in steps:
        graph.node.append(helper.make_node(operator, inputs, [output], name=output))
    graph.node.append(helper.make_node("Softmax", ["head.logits"], ["probabilities"], name="probabilities", axis=-1))
    del graph.output[:]
    shape: list[str | int | None] = ["N", len(head.rows)]
    graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape))


def _centred(rows: np.ndarray, biases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows float64 [C, D] and biases float64 [C] of a linear head, less their means over the classes.

    All logits of a picture fall by the same number, so that its probabilities stay, and the logits of a solved head
    lose most of their size, which float32 would spend its digits on. Classes without pictures keep their bias.
    """
    rows, biases, seen = rows.astype(np.float64), biases.astype(np.float64), biases > _NEVER
    if not seen.any():
        return rows, biases
    return rows - rows[seen].mean(axis=0), np.where(seen, biases - biases[seen].mean(), biases)


def _metadata(bundle: Bundle, class_names: Sequence[str], normalise: bool) -> dict[str, str]:
    spec = bundle.manifest.image
    preprocessing = {
        "size": spec.size,
        "resize_short_side": int(spec.size / spec.crop_fraction),
        "crop": "centre",
        "crop_fraction": spec.crop_fraction,
        "interpolation": spec.interpolation,
        "colour": "RGB",
        "layout": "NCHW",
        "scale": 1 / 255,
        "mean": list(spec.mean) if normalise else [0.0, 0.0, 0.0],
        "std": list(spec.std) if normalise else [1.0, 1.0, 1.0],
    }
    return {
        "labels": json.dumps(list(class_names), ensure_ascii=False),
        "preprocessing": json.dumps(preprocessing),
        "backbone": bundle.manifest.backbone.name,
        "bundle_identity": bundle.identity,
    }


def _check(model: bytes, bundle: Bundle, head: Head, adapter: np.ndarray) -> None:
    images = bundle.probe().images
    adapters = adapter[None].astype(np.float32)
    features = compute_features(open_session(bundle.graph_path), images, adapters)[0].astype(np.float64)
    logits, size = _exact_logits(head, features)
    (found,) = open_session(model).run(["probabilities"], {"image": images})
    wanted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    wanted /= wanted.sum(axis=-1, keepdims=True)
    logs = [np.log(np.maximum(values, _LEAST_PROBABILITY)) for values in (found.astype(np.float64), wanted)]
    difference, allowed = float(np.max(np.abs(logs[0] - logs[1]))), TOLERANCE * (1.0 + size)
    if not difference <= allowed:
        raise InputError(
            f"The deployed file differs from the run by {difference:.2g} in a log-probability, above {allowed:.2g}; "
            "nothing was written. Check the bundle with 'edge-zofc doctor --bundle FOLDER'."
        )


def _exact_logits(head: Head, features: np.ndarray) -> tuple[np.ndarray, float]:
    """Logits float64 [B, C] for features float64 [B, D], and what bounds the size of their products."""
    if head.biases is None:
        sigma = float(head.sigma[0])
        return sigma * (unit(features) @ unit(head.rows.astype(np.float64)).T), abs(sigma)
    rows, biases = _centred(head.rows, head.biases)
    seen = biases > _NEVER
    lengths = np.linalg.norm(rows[seen], axis=1)
    longest = float(np.linalg.norm(features, axis=1).max())
    size = float(np.max(longest * lengths + np.abs(biases[seen]), initial=0.0))
    return features @ head.rows.astype(np.float64).T + head.biases.astype(np.float64), size
