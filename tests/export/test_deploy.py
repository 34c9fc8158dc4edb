"""A deployed file says what the run says, and how to use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edge_zofc.algorithm.heads import Head, solve
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.errors import EdgeZofcError, InputError
from edge_zofc.export import deploy as deploy_module
from edge_zofc.export.deploy import deploy
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.storage.bundle import Bundle


def some_head(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    rows = random.standard_normal((3, bundle.manifest.feature_size)).astype(np.float32)
    return rows, (bundle.initial_adapter() + np.float32(0.01)).astype(np.float32)


def cosine(rows: np.ndarray, sigma: float = 1.0) -> Head:
    return Head(rows, np.float32([sigma]))


@pytest.mark.parametrize("biases", [None, [0.5, -1.0, 0.25]])
def test_a_deployed_file_gives_the_heads_probabilities_and_says_how_to_use_it(
    small_bundle: Bundle, tmp_path: Path, biases: list[float] | None
) -> None:
    rows, adapter = some_head(small_bundle)
    head = cosine(rows, 7.5)
    head.biases = None if biases is None else np.float32(biases)
    path = tmp_path / "out.onnx"
    deploy(head, adapter, ["cat", "dog", "Käfer"], small_bundle, path)
    assert [found.name for found in tmp_path.iterdir()] == ["out.onnx"]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(v.name, v.shape) for v in session.get_inputs()] == [("image", ["N", 3, 32, 32])]
    images = small_bundle.probe().images[:3]
    (found,) = session.run(["probabilities"], {"image": images})
    features = compute_features(open_session(small_bundle.graph_path), images, adapter[None])[0]
    np.testing.assert_allclose(found, head.probabilities(features), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == ["cat", "dog", "Käfer"]
    assert json.loads(metadata["preprocessing"])["size"] == 32
    deploy(head, adapter, ["cat", "dog", "Käfer"], small_bundle, path, normalise=False)
    raw = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert json.loads(raw["preprocessing"])["mean"] == [0.0, 0.0, 0.0]
    assert not any(tensor.external_data for tensor in onnx.load(str(path)).graph.initializer)


def test_a_link_planted_at_the_temporary_name_is_not_followed(small_bundle: Bundle, tmp_path: Path) -> None:
    """FAULTS B9: the name is known beforehand, and so is where a link of it would lead."""
    rows, adapter = some_head(small_bundle)
    victim, out = tmp_path / "victim", tmp_path / "out.onnx"
    victim.write_text("precious")
    (tmp_path / f".tmp-{os.getpid()}-out.onnx").symlink_to(victim)
    with pytest.raises(EdgeZofcError):
        deploy(cosine(rows), adapter, ["cat", "dog", "Käfer"], small_bundle, out)
    assert victim.read_text() == "precious"
    assert not out.exists()
    deploy(cosine(rows), adapter, ["cat", "dog", "Käfer"], small_bundle, out)  # the link is gone
    assert out.stat().st_size > 1000
    assert victim.read_text() == "precious"


def exact_probabilities(head: Head, features: np.ndarray) -> np.ndarray:
    """Of a linear head, in float64 throughout."""
    logits = features.astype(np.float64) @ head.rows.T.astype(np.float64) + head.biases
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def big_head(bundle: Bundle, size: float) -> tuple[Head, np.ndarray, np.ndarray]:
    """A linear head whose logits are about ``size`` for every class, an adapter, and features of the probe [n, D]."""
    rows, adapter = some_head(bundle)
    images = bundle.probe().images
    features = compute_features(open_session(bundle.graph_path), images, adapter[None])[0]
    common = features.mean(axis=0)
    common *= np.float32(size / (common @ common))
    # No probability is near 0 or 1, where a difference of logits would not be seen.
    head = cosine((rows / 10 + common).astype(np.float32))
    head.biases = np.float32([0.5 - size / 4, -size / 4, -1e30])
    return head, adapter, features


@pytest.mark.parametrize("size", [10.0, -5892.0, 1e5])
def test_a_solved_heads_logits_of_thousands_are_deployed(small_bundle: Bundle, tmp_path: Path, size: float) -> None:
    """FAULTS C4: float32 keeps three digits after the point of -5892; a class without pictures is never named."""
    head, adapter, features = big_head(small_bundle, size)
    deploy(head, adapter, ["a", "b", "c"], small_bundle, tmp_path / "out.onnx")
    session = ort.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"image": small_bundle.probe().images})
    np.testing.assert_allclose(found, exact_probabilities(head, features), atol=1e-5)
    assert np.all(found[:, 2] == 0)


@pytest.mark.parametrize("copies", [1, 20])
def test_heads_solved_from_few_and_from_equal_pictures_are_deployed(
    small_bundle: Bundle, tmp_path: Path, copies: int
) -> None:
    """FAULTS C4: the logits are those that the solver gives, far from zero and from each other."""
    random = np.random.default_rng(5)
    means = 40 + random.standard_normal((12, small_bundle.manifest.feature_size))
    features = (means[:, None] + 1e-3 * random.standard_normal((12, 4, means.shape[1]))).astype(np.float32)
    sums = Statistics.empty(12, means.shape[1])
    sums.add(np.repeat(features.reshape(48, -1), copies, axis=0), np.repeat(np.arange(12), 4 * copies))
    head = Head(*solve(sums)[:1], np.ones(1, np.float32), solve(sums)[1])
    assert np.abs(head.biases).max() > 1e3
    deploy(head, small_bundle.initial_adapter(), [str(n) for n in range(12)], small_bundle, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").exists()


def test_two_classes_that_change_places_are_refused_at_any_size(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS C4: the tolerance that fits large logits still finds a wrong head."""
    head, adapter, _ = big_head(small_bundle, -5892.0)
    right = deploy_module._append_head

    def swapped(graph: onnx.GraphProto, head: Head) -> None:
        right(graph, Head(head.rows[[1, 0, 2]], head.sigma, head.biases))

    monkeypatch.setattr(deploy_module, "_append_head", swapped)
    with pytest.raises(InputError, match=r"differs from the run by .* in a log-probability"):
        deploy(head, adapter, ["a", "b", "c"], small_bundle, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_deploying_loads_neither_torch_nor_timm() -> None:
    code = "import sys, edge_zofc.export.deploy; print({'torch', 'timm', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_run_of_another_bundle_is_not_deployed(small_bundle: Bundle, tmp_path: Path) -> None:
    rows, adapter = some_head(small_bundle)
    for bad_rows, bad_adapter, names in (
        (rows[:, :5], adapter, ["a", "b", "c"]),
        (rows, adapter[:-1], ["a", "b", "c"]),
        (rows, adapter, ["a", "b"]),
        (rows[:0], adapter, []),
        (rows * np.float32("nan"), adapter, ["a", "b", "c"]),
    ):
        with pytest.raises(InputError, match="does not fit the bundle"):
            deploy(cosine(bad_rows), bad_adapter, names, small_bundle, tmp_path / "out.onnx")
    with pytest.raises(InputError, match="cannot be written"):
        deploy(cosine(rows), adapter, ["a", "b", "c"], small_bundle, tmp_path / "none" / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_deployed_file_that_says_something_else_is_not_kept(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, adapter = some_head(small_bundle)
    monkeypatch.setattr(deploy_module, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="nothing was written"):
        deploy(cosine(rows), adapter, ["a", "b", "c"], small_bundle, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []
