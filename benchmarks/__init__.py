"""Method comparison and cost measurements; ``edge-zofc bench NAME`` runs them.

    tables, process, streams, chart_style  what all of them use
    methods                    the methods that are compared, one paper a file
    costs                      bench memory, speed, soak, growth, estimators
    accuracy                   bench accuracy, backbones, unknown
    questions                  bench questions

A folder imports from those above it only, and costs does not import methods.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Sequence

from edge_zofc.errors import InputError

NAMES = {
    "memory": ("costs.memory", "peak memory of learning and of first order, each variant in its own process"),
    "speed": ("costs.speed", "seconds a step against first order and SPSA in torch"),
    "accuracy": ("accuracy.run", "every method on a stream: accuracy, forgetting, cost"),
    "backbones": ("accuracy.backbones", "accuracy, time and memory of several backbones, and their chart"),
    "questions": ("questions.run", "the paper's own questions (a) to (g), each with a table and a sentence"),
    "soak": ("costs.soak", "thousands of steps, watched for what grows, leaks or drifts; replaying against training"),
    "growth": ("costs.growth", "processor time and disk of long runs, beside those of an earlier version"),
    "estimators": ("costs.estimators", "inference, SPSA, exact gradients, torch: memory, seconds, gains"),
    "unknown": ("accuracy.unknown", "how well likeness and other scores tell what was never shown"),
    "streams": ("streams.downloads", "turn CIFAR, ImageNet-R, DomainNet or CORe50, as downloaded, into a stream"),
}
"""Name -> the module with its ``add_arguments`` and ``main``, and what it does. These modules import nothing heavy."""
WORKSTATION = ("matplotlib", "onnx", "timm", "torch")
"""Packages that all but the next need."""
ON_A_DEVICE = ("soak", "streams")


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one benchmark with its own arguments; returns the exit code. Raises InputError."""
    place, description = NAMES[name]
    module = importlib.import_module(f"edge_zofc.benchmarks.{place}")
    parser = argparse.ArgumentParser(
        prog=f"edge-zofc bench {name}", description=description[0].upper() + description[1:] + "."
    )
    module.add_arguments(parser)
    options = parser.parse_args(arguments)
    missing = [package for package in WORKSTATION if importlib.util.find_spec(package) is None]
    if missing and name not in ON_A_DEVICE:
        raise InputError(
            f"This benchmark needs the package {missing[0]}; install all that benchmarks use with "
            "pip install 'edge-zofc[demo]'."
        )
    code: int = module.main(options)
    return code
