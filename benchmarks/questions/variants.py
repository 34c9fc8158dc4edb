"""What ``bench questions`` compares: cells of ``bench accuracy``, each with settings of its own.

The stream is thinned to a few pictures a class, as links, so that all questions together take about half an hour on one
idle core. Accuracies on so few pictures are coarse, and the loss is the finer measure. Within a question every variant
sees the same pictures in the same order.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.accuracy.cell_store import run_cell
from edge_zofc.benchmarks.process import edge_zofc
from edge_zofc.benchmarks.streams.links import link_samples
from edge_zofc.benchmarks.tables import Columns
from edge_zofc.data.stream import PARTS, Sample, list_samples, read_stream
from edge_zofc.errors import InputError
from edge_zofc.export.shipped import OWN_VIT

COLUMNS: Columns = {
    "arm": ("arm", ""),
    "average_accuracy": ("Average", ".1%"),
    "last_accuracy": ("Last", ".1%"),
    "forgetting": ("Forgetting", ".1%"),
    "first_loss": ("loss, first epoch", ".4f"),
    "last_loss": ("loss, last epoch", ".4f"),
    "forward_passes": ("image-forwards", ",.0f"),
    "seconds": ("seconds", ".0f"),
}
"""``first_loss`` and ``last_loss`` are the means over the tasks of the training loss in their first and last epoch."""

PAPER_STEP = 0.01
"""How far a step of the paper goes in L2: on a ViT-B the clip at 1.0 nearly always acts, and the rate is 0.01."""
ALWAYS_CLIPS = 1e-3
"""A clip below the norm of every estimate here, which is 0.01 or more (LOG.md)."""


@dataclass(frozen=True)
class QuestionVariant:
    """One row of a table.

    ``learn`` holds options of ``learn``, which come after those that all variants of zo-fc share. ``export`` holds
    those of the bundle; () is the default bundle. ``epochs`` 0: as many as the command says. ``lr_factor`` multiplies
    every rate of a method in torch.
    """

    name: str
    method: str = "zo-fc"
    learn: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    epochs: int = 0
    preset: str = "edge"
    cell: str = ""
    """The name of a variant with the same settings, whose cell this one shows too."""
    is_plain: bool = False
    """The method's own rates, as its paper or the preset has them, instead of the adapter rate shared here."""
    is_normalised: bool = False
    """Every step of the zeroth-order parameters is ``PAPER_STEP`` long, whatever the estimate's norm (torch only)."""
    lr_factor: float = 1.0


@dataclass(frozen=True)
class Bench:
    """Where the variants run and what they share."""

    out: Path
    stream: Path
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    adapter_lr: float

    def rows(self, variants: Sequence[QuestionVariant]) -> list[dict[str, Any]]:
        """A row for each variant, means over the seeds. Raises InputError that names a variant that failed."""
        return [self._row(variant) for variant in variants]

    def bundle(self, export: tuple[str, ...] = ()) -> Path:
        """The package's ViT exported with these options, once."""
        folder = self.out / "bundles" / ("-".join(word.lstrip("-") for word in export) or "default")
        if not (folder / "bundle.json").exists():
            edge_zofc("export", folder, "--backbone", OWN_VIT, *export)
        return folder

    def _row(self, variant: QuestionVariant) -> dict[str, Any]:
        cells = [self._cell(variant, seed) for seed in self.seeds]
        row: dict[str, Any] = {"arm": variant.name, "seeds": len(cells)}
        for key in ("average_accuracy", "last_accuracy", "forgetting", "forward_passes", "seconds"):
            values = [cell[key] for cell in cells if cell[key] is not None]
            row[key] = statistics.fmean(values) if values else None
        trained = [losses for cell in cells for losses in cell["losses"] if losses]
        row["first_loss"] = statistics.fmean(losses[0] for losses in trained) if trained else None
        row["last_loss"] = statistics.fmean(losses[-1] for losses in trained) if trained else None
        row["parameters"] = max(cells[0]["trainable_parameters"])
        return row

    def _cell(self, variant: QuestionVariant, seed: int) -> dict[str, Any]:
        name = f"{variant.cell or variant.name}-seed{seed}".replace(" ", "-").replace("/", "-")
        if not run_cell(name, self._request(variant, seed, name), self.out):
            raise InputError(f"The arm {variant.name} failed; its words are in {self.out / 'logs' / name}.txt.")
        found: dict[str, Any] = json.loads((self.out / "cells" / f"{name}.json").read_text(encoding="utf-8"))
        return found

    def _request(self, variant: QuestionVariant, seed: int, name: str) -> dict[str, Any]:
        work, is_runtime = self.out / "work" / name, variant.method == "zo-fc"
        work.mkdir(parents=True, exist_ok=True)
        shared = ["--head", "cosine", "--batch-size", self.batch_size, "--adapter-lr", self.adapter_lr]
        rate = None if variant.is_plain or is_runtime else self.adapter_lr
        if variant.is_normalised:
            rate = PAPER_STEP / ALWAYS_CLIPS
        return {
            "method": variant.method,
            "seed": seed,
            "stream": str(self.stream),
            "bundle": str(self.bundle(variant.export)),
            "backbone": OWN_VIT,
            "checkpoint": None,
            "img_size": None,
            "preset": variant.preset,
            "epochs": variant.epochs or self.epochs,
            "epoch_factor": 1,
            "search": 1,
            "threads": 1,
            "work": str(work),
            # A budget without room for torch, whose import would be a good part of so short a run.
            "learn_options": ["--memory-budget", "400MiB", *map(str, shared), *variant.learn],
            "adapter_lr": rate,
            "batch_size": None if is_runtime else self.batch_size,
            "clip_norm": ALWAYS_CLIPS if variant.is_normalised else None,
            "lr_factor": variant.lr_factor,
        }


def thinned(stream_root: Path, out: Path, train: int, test: int) -> Path:
    """Write ``out``, the stream with at most ``train`` and ``test`` pictures of a class, spread evenly, as links.

    An ``out`` that is there is left as it is. Raises InputError.
    """
    if out.exists():
        return out
    stream = read_stream(stream_root)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for task in stream.tasks:
        for part, most in zip(PARTS, (train, test), strict=True):
            by_class: dict[int, list[Sample]] = {}
            for sample in list_samples(stream, task, part):
                by_class.setdefault(sample.class_id, []).append(sample)
            for samples in by_class.values():
                kept = min(most, len(samples))
                chosen = [samples[index * len(samples) // kept] for index in range(kept)]
                link_samples(stream, chosen, partial / task.name / part)
    partial.rename(out)
    return out
