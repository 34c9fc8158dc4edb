"""Method comparison and cost measurements; ``edge-zofc bench`` runs them. See README.md here."""

from __future__ import annotations

import argparse
import importlib

_BENCHMARKS = {
    "memory": ("memory", "peak memory of learning and of first order, every arm in its own process"),
    "speed": ("speed", "seconds a step against first order and SPSA in torch"),
    "accuracy": ("accuracy", "every method on a stream: accuracy, forgetting, cost"),
}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add ``memory``, ``speed`` and ``accuracy`` to ``edge-zofc bench``."""
    commands = parser.add_subparsers(metavar="BENCHMARK", required=True)
    for name, (module_name, text) in _BENCHMARKS.items():
        module = importlib.import_module(f"edge_zofc.benchmarks.{module_name}")
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        module.add_arguments(sub)
        sub.set_defaults(benchmark=module.main)
