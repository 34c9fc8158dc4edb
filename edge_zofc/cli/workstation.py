"""The commands of the workstation, which need more than the runtime's packages; as ``commands.py`` otherwise."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
from dataclasses import asdict, fields

from edge_zofc.cli.answer import answer, need, terminal_width
from edge_zofc.errors import InputError

log = logging.getLogger("edge_zofc")


def demo(options: argparse.Namespace) -> int:
    """The whole road on what ships in the package: export, learn, report."""
    from edge_zofc.cli.demo import run_demo

    need("timm", "onnx", "sklearn")
    return answer(options, run_demo(options.folder, options.seed))


def export(options: argparse.Namespace) -> int:
    """Write a bundle: a frozen network with a small adapter as ONNX."""
    from edge_zofc.export.options import ExportOptions
    from edge_zofc.export.tuning_gain import described
    from edge_zofc.export.writer import export_bundle

    given = vars(options)
    asked = {field.name: given[field.name] for field in fields(ExportOptions) if field.name in given}
    bundle = export_bundle(ExportOptions(**asked), log.info)
    manifest, fidelity, gradient = bundle.manifest, bundle.manifest.fidelity, bundle.manifest.gradient
    text = (
        f"{bundle.folder}: {manifest.backbone.name} at {manifest.image.size} px, {manifest.precision}, "
        f"{manifest.adapter.size} adapter parameters, {manifest.adapter.kind} on {len(manifest.adapter.blocks)} of "
        f"{manifest.backbone.depth} blocks\n"
        f"fidelity at eps {fidelity.eps:.4g}: one-sided {fidelity.one_sided:.3f}, "
        f"two-sided {fidelity.two_sided:.3f} ({fidelity.directions} directions)\n"
        + ("exact gradients: none" if gradient is None else f"exact gradients: relative error {gradient.error:.1e}")
    )
    if (tuning := manifest.tuning) is not None:
        text += (
            f"\ntuned on {tuning.classes} classes, strength {tuning.strength:g}; {tuning.held_back} classes held back: "
            f"{described(tuning.on_held_back)}; all: {described(tuning.on_all)}"
        )
    data = {"bundle": str(bundle.folder), "identity": bundle.identity, **manifest.model_dump(mode="json")}
    return answer(options, data, text)


def backbones(options: argparse.Namespace) -> int:
    """List the backbones that were tried: sizes, memory while learning, weights, licence."""
    from edge_zofc.cli.backbones_text import backbones_text
    from edge_zofc.export.catalogue import NAMES, described, entry

    found = [entry(name) for name in options.names or NAMES]
    seconds: dict[str, float] = {}
    if options.measure:
        from edge_zofc.export.catalogue_rows import time_forwards

        seconds = time_forwards([each.name for each in found], log.info)
    rows = [described(each, seconds.get(each.name)) for each in found]
    return answer(options, {"backbones": rows}, backbones_text(rows, terminal_width()))


def deploy(options: argparse.Namespace) -> int:
    """Write what a run has learnt as one plain ONNX file."""
    from edge_zofc.engine.predict import open_run
    from edge_zofc.export.deploy import Learnt
    from edge_zofc.export.deploy import deploy as write

    if options.calibrate and not options.int8:
        raise InputError("--calibrate belongs to --int8; give both or neither.")
    run = open_run(options.run, options.bundle)
    learnt, lines, more = Learnt(run.head, run.adapter, run.class_names, run.bundle, run.normalise), list[str](), {}
    if options.int8:
        from edge_zofc.cli.int8_text import int8_lines
        from edge_zofc.export.calibration import choose
        from edge_zofc.export.int8 import deploy_int8

        written = deploy_int8(learnt, options.out, *choose(options.run, learnt, options.calibrate, log.info))
        lines, more = int8_lines(written), {"int8": asdict(written)}
    else:
        write(*learnt[:4], options.out, normalise=run.normalise)
    size_mib = options.out.stat().st_size / 2**20
    data = {"out": str(options.out), "classes": list(run.class_names), "mib": round(size_mib, 2), **more}
    return answer(
        options, data, "\n".join([f"{options.out}: {len(run.class_names)} classes, {size_mib:.1f} MiB", *lines])
    )


def bench(options: argparse.Namespace) -> int:
    """Measure memory, speed or accuracy side by side."""
    if options.name in ("accuracy", "backbones", "questions") and not {"-h", "--help"} & set(options.rest):
        need("timm", "sklearn")  # its cells are processes of their own, each of which would fail in its log
    # By name, as the benchmarks stand above the commands.
    code: int = importlib.import_module("edge_zofc.benchmarks").run(options.name, options.rest)
    return code
