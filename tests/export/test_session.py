"""A graph is opened and run in one way, from its file or from its bytes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_zofc.export.onnx_writer import IR_VERSION, OPSET
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.storage.bundle import Bundle


@pytest.mark.parametrize("threads", [0, 1])
def test_features_are_float32_k_times_b_times_d(small_bundle: Bundle, threads: int) -> None:
    probe = small_bundle.probe()
    session = open_session(small_bundle.graph_path, threads)
    found = compute_features(session, probe.images, probe.adapters)
    assert (found.shape, found.dtype) == ((2, 2, 32), np.float32)
    assert session.get_session_options().intra_op_num_threads == threads


def test_a_graph_is_opened_from_its_bytes_too() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(
        helper.make_graph([node], "identity", [value], [output]),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    (found,) = open_session(model.SerializeToString()).run(None, {"x": np.float32([7])})
    assert found.tolist() == [7]
