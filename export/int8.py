"""The deployed file in static int8, for inference alone: smaller, and faster where the processor has 8-bit products.

onnxruntime.quantization rounds weights to int8, one scale a channel, and the activations of convolutions and matrix
products to uint8 between the least and the largest value seen on the calibration pictures. Everything else, the head
and the softmax among it, computes in float32. The answers are compared with the float file's before anything is
written; the comparison stands in the file's metadata (key ``int8``).

x86 processors without VNNI add pairs of 8-bit products in 16 bits, which may overflow, so that their answers may
differ more. Weights of 7 bits would avoid it, and change twice as many answers (benchmarks/results/COSTS.md).
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from edge_zofc.errors import EdgeZofcError, InputError, printable
from edge_zofc.export.calibration import UNKNOWN, Labelled, Pictures
from edge_zofc.export.deploy import Learnt, check_place, float_model, network, with_head
from edge_zofc.export.quiet import quiet
from edge_zofc.export.session import open_session
from edge_zofc.signals import exit_on_sigterm
from edge_zofc.storage.writing import write_atomic

OPERATORS = ("Conv", "MatMul", "Gemm", "Clip", "Relu")
"""What is computed in 8 bits. Clip and Relu become part of the product before them."""
MAX_CHANGED = 0.25
"""Largest part of the compared pictures that may get another answer."""
ROUNDS = 15
"""Of timing, after one that is left out."""


@dataclass(frozen=True)
class Comparison:
    """The int8 file beside the float file. ``changed`` of the ``compared`` pictures get another answer.

    The right answers are counted over the ``labelled`` pictures, whose class is known.
    """

    calibrated_on: str
    calibrated: int
    compared_on: str
    compared: int
    changed: int
    labelled: int
    float_right: int
    int8_right: int


@dataclass(frozen=True)
class Int8File:
    """What was written. Milliseconds are the median of one picture on one thread of this machine."""

    comparison: Comparison
    float_bytes: int
    int8_bytes: int
    float_milliseconds: float
    int8_milliseconds: float


def deploy_int8(learnt: Learnt, out_path: Path, calibration: Pictures, compared: Pictures) -> Int8File:
    """Write ``out_path`` as ``deploy`` does, in int8. Both kinds of file take the same input and give the same output.

    Raises InputError if the bundle is not fp32, if onnxruntime cannot quantise its graph, or if more than MAX_CHANGED
    of the pictures get another answer; then nothing is written. Else as ``deploy``.
    """
    check_place(out_path)
    precision = learnt.bundle.manifest.precision
    if precision != "fp32":
        raise InputError(f"--int8 takes a bundle in fp32, and this one is {precision}; deploy it without --int8.")
    in_float, pictures = float_model(learnt), list(calibration.read())
    in_int8 = with_head(_quantised(network(learnt), pictures), learnt)
    found = _compared(in_float, in_int8, compared)
    comparison = Comparison(calibration.source, len(pictures), compared.source, *found)
    _require_alike(comparison)
    model = _noted(in_int8, comparison)
    times = _milliseconds(in_float, model, pictures[0].image)
    write_atomic(out_path, model)
    return Int8File(comparison, len(in_float), len(model), *times)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """One picture at a time, so that memory does not grow with their number."""

    def __init__(self, pictures: Iterator[Labelled]) -> None:
        self._pictures = pictures

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self._pictures, None)
        return None if found is None else {"image": found.image}


def _quantised(model: onnx.ModelProto, pictures: list[Labelled]) -> onnx.ModelProto:
    """``network``'s graph in 8 bits. Its files lie in a folder that is gone afterwards, also after SIGTERM.

    The quantiser tells of single channels, hundreds of them; what counts is compared after it.
    """
    with exit_on_sigterm(), quiet(), tempfile.TemporaryDirectory(prefix="edge-zofc-int8-") as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            _prepare(model, prepared)
            quantize_static(
                prepared,
                made,
                _Reader(iter(pictures)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return onnx.load(str(made))
        except (OSError, MemoryError, EdgeZofcError):
            raise
        except Exception as error:
            # The quantiser and onnx raise whatever they meet: ValueError, AssertionError, errors of their own.
            raise InputError(
                f"onnxruntime cannot quantise this network to int8 ({printable(str(error))}); deploy it without --int8."
            ) from error


def _prepare(model: onnx.ModelProto, path: Path) -> None:
    """Write the graph as the quantiser wants it: what is constant, the adapter too, is computed before the rounding."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # for any processor
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    prepared = _typed(onnx.load(str(path)))
    add_pre_process_metadata(prepared)
    onnx.save(prepared, str(path))


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """With a type for what onnxruntime's own operators give, which onnx cannot infer and the quantiser asks for."""
    known = {value.name for value in model.graph.value_info}
    for node in model.graph.node:
        for name in node.output if node.domain == "com.microsoft" else ():
            if name and name not in known:
                model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model


def _compared(in_float: bytes, in_int8: bytes, pictures: Pictures) -> tuple[int, int, int, int, int]:
    """Pictures compared, answers that changed, pictures with a label, right answers of float, and of int8."""
    sessions, names, labels = (open_session(in_float), open_session(in_int8)), list[list[int]](), list[int]()
    for image, class_id in pictures.read():
        found = [session.run(["probabilities"], {"image": image})[0][0] for session in sessions]
        if not np.isfinite(found[1]).all():
            raise InputError("The int8 file gives no finite probabilities; nothing was written. Deploy without --int8.")
        names.append([int(values.argmax()) for values in found])
        labels.append(class_id)
    answers, truth = np.array(names, np.int64).reshape(-1, 2), np.array(labels, np.int64)
    right = (answers == truth[:, None]).sum(axis=0)
    changed, labelled = (answers[:, 0] != answers[:, 1]).sum(), (truth != UNKNOWN).sum()
    return len(truth), int(changed), int(labelled), int(right[0]), int(right[1])


def _require_alike(found: Comparison) -> None:
    if not found.compared:
        raise InputError(f"None of {found.compared_on} can be read, so int8 cannot be checked; nothing was written.")
    if found.changed > MAX_CHANGED * found.compared:
        raise InputError(
            f"In int8 {found.changed} of {found.compared} pictures ({found.compared_on}) get another answer, above "
            f"{MAX_CHANGED:.0%}; nothing was written. Deploy without --int8, or give pictures like the camera's with "
            "--calibrate FOLDER."
        )


def _noted(model: bytes, comparison: Comparison) -> bytes:
    """The model with the comparison in its metadata."""
    noted = onnx.load_model_from_string(model)
    noted.metadata_props.add(key="int8", value=json.dumps(asdict(comparison)))
    serialised: bytes = noted.SerializeToString(deterministic=True)
    return serialised


def _milliseconds(in_float: bytes, in_int8: bytes, image: np.ndarray) -> tuple[float, float]:
    """The median time of ``image``, run in turn by the float file and by the int8 file."""
    sessions = (open_session(in_float, threads=1), open_session(in_int8, threads=1))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(1 + ROUNDS):
        for session, found in zip(sessions, times, strict=True):
            started = time.perf_counter()
            session.run(["probabilities"], {"image": image})
            if number:
                found.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[0]), 1e3 * statistics.median(times[1])
