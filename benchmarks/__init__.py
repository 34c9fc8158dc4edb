"""Method comparison and cost measurements; ``edge-zofc bench`` runs them. See README.md here."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

NAMES = {
    "memory": ("costs.memory", "peak memory of learning and of first order, every arm in its own process"),
    "speed": ("costs.speed", "seconds a step against first order and SPSA in torch"),
    "accuracy": ("accuracy.run", "every method on a stream: accuracy, forgetting, cost"),
    "questions": ("questions.run", "the paper's own questions (a) to (g), each with a table and a sentence"),
    "soak": (
        "costs.soak",
        "thousands of steps, watched for what grows, leaks or drifts; replaying against training",
    ),
    "streams": (
        "streams.downloads",
        "turn CIFAR, ImageNet-R, DomainNet or CORe50, as downloaded, into a stream",
    ),
}


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one benchmark with its own arguments; returns the exit code."""
    place, description = NAMES[name]
    module = importlib.import_module(f"edge_zofc.benchmarks.{place}")
    parser = argparse.ArgumentParser(
        prog=f"edge-zofc bench {name}", description=description[0].upper() + description[1:] + "."
    )
    module.add_arguments(parser)
    code: int = module.main(parser.parse_args(arguments))
    return code
