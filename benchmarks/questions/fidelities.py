"""One- and two-sided fidelity of a bundle at several eps, on its own probe pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import load_file

from edge_zofc.algorithm.adapter import lattice_eps
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.fidelity import measure_fidelity
from edge_zofc.export.precision import dequantised_weights
from edge_zofc.export.session import open_session
from edge_zofc.export.shipped import OWN_VIT
from edge_zofc.export.vit import AdapterViT
from edge_zofc.export.writer import FIDELITY_PICTURES
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.manifest import GRAPH, PROBE


def measure_fidelities(folder: Path, epsilons: Sequence[str]) -> list[dict[str, float]]:
    """{"one_sided", "two_sided"} for each eps, of a bundle of the package's ViT."""
    manifest = read_bundle(folder).manifest
    model = AdapterViT(load_backbone(BackboneRequest(OWN_VIT)).model, manifest.adapter)
    reference = dequantised_weights(model, manifest.precision)
    images = load_file(folder / PROBE)["images"][:FIDELITY_PICTURES]
    session = open_session(folder / GRAPH, threads=1)
    found = [measure_fidelity(session, reference, images, lattice_eps(float(eps))) for eps in epsilons]
    return [{"one_sided": one.one_sided, "two_sided": one.two_sided} for one in found]
