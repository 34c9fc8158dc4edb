"""The arms that ``bench questions`` compares: each a cell of ``bench accuracy`` with settings of its own.

What may surprise: the stream is thinned to a few pictures a class, as links, so that all questions together take about
half an hour of one idle core. Accuracies on so few pictures are coarse; the loss is the finer measure, and within a
question every arm sees the same pictures in the same order.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.accuracy.run import run_request
from edge_zofc.benchmarks.costs.tables import Columns
from edge_zofc.data.stream import PARTS, list_samples, read_stream
from edge_zofc.errors import InputError

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
"""A clip below every estimate's norm here (0.01 and more, LOG.md)."""


@dataclass(frozen=True)
class Arm:
    """One row of a table. ``learn`` holds options of ``learn`` that come after those all arms of zo-fc share,
    ``export`` those of the bundle (() is the default one); ``epochs`` 0: as many as the command says.
    """

    name: str
    method: str = "zo-fc"
    learn: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    epochs: int = 0
    preset: str = "edge"
    cell: str = ""
    """The name of an arm with the same settings, whose cell this one shows too."""
    is_plain: bool = False
    """The method's own rates, as its paper or the preset has them, instead of the adapter rate shared here."""
    is_normalised: bool = False
    """Every step of the zeroth-order parameters ``PAPER_STEP`` long, whatever the estimate's norm (in torch alone)."""
    lr_factor: float = 1.0
    """What multiplies every rate of a method in torch."""


@dataclass(frozen=True)
class Bench:
    """Where the arms run and what they share."""

    out: Path
    stream: Path
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    adapter_lr: float

    def rows(self, arms: Sequence[Arm]) -> list[dict[str, Any]]:
        """A row for each arm, means over the seeds. Raises InputError that names an arm that failed."""
        return [self._row(arm) for arm in arms]

    def bundle(self, export: tuple[str, ...] = ()) -> Path:
        """The package's ViT exported with these options, once."""
        from edge_zofc.benchmarks.accuracy.runtime_cell import edge_zofc

        folder = self.out / "bundles" / ("-".join(word.lstrip("-") for word in export) or "default")
        if not (folder / "bundle.json").exists():
            edge_zofc(["export", str(folder), *export], self.out / "work")
        return folder

    def fidelities(
        self, precision: str, epsilons: Sequence[str], export: tuple[str, ...]
    ) -> list[dict[str, float]]:
        """One- and two-sided fidelity of a bundle at each eps, on its own probe pictures; measured once."""
        folder, kept = self.bundle(export), self.out / "cells" / f"fidelity-{precision}.json"
        if not kept.exists():
            from safetensors.numpy import load_file

            from edge_zofc.algorithm.adapter import lattice_eps
            from edge_zofc.export.backbones import load_backbone
            from edge_zofc.export.fidelity import measure_fidelity, open_session
            from edge_zofc.export.precision import dequantised_weights
            from edge_zofc.export.vit import AdapterViT
            from edge_zofc.export.writer import FIDELITY_PICTURES
            from edge_zofc.storage.bundle import GRAPH, PROBE, read_bundle

            manifest = read_bundle(folder).manifest
            reference = dequantised_weights(
                AdapterViT(load_backbone().model, manifest.adapter), manifest.precision
            )
            images = load_file(folder / PROBE)["images"][:FIDELITY_PICTURES]
            session = open_session(folder / GRAPH, threads=1)
            found = [
                measure_fidelity(session, reference, images, lattice_eps(float(eps))) for eps in epsilons
            ]
            text = json.dumps([{"one_sided": one.one_sided, "two_sided": one.two_sided} for one in found])
            kept.write_text(text + "\n", encoding="utf-8")
        values: list[dict[str, float]] = json.loads(kept.read_text(encoding="utf-8"))
        return values

    def _row(self, arm: Arm) -> dict[str, Any]:
        cells = [self._cell(arm, seed) for seed in self.seeds]
        row: dict[str, Any] = {"arm": arm.name, "seeds": len(cells)}
        for key in ("average_accuracy", "last_accuracy", "forgetting", "forward_passes", "seconds"):
            values = [cell[key] for cell in cells if cell[key] is not None]
            row[key] = statistics.fmean(values) if values else None
        trained = [losses for cell in cells for losses in cell["losses"] if losses]
        row["first_loss"] = statistics.fmean(losses[0] for losses in trained) if trained else None
        row["last_loss"] = statistics.fmean(losses[-1] for losses in trained) if trained else None
        row["parameters"] = max(cells[0]["trainable_parameters"])
        return row

    def _cell(self, arm: Arm, seed: int) -> dict[str, Any]:
        name = f"{arm.cell or arm.name}-seed{seed}".replace(" ", "-").replace("/", "-")
        if not run_request(name, self._request(arm, seed, name), self.out):
            raise InputError(f"The arm {arm.name} failed; its words are in {self.out / 'logs' / name}.txt.")
        found: dict[str, Any] = json.loads((self.out / "cells" / f"{name}.json").read_text(encoding="utf-8"))
        return found

    def _request(self, arm: Arm, seed: int, name: str) -> dict[str, Any]:
        work = self.out / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        shared = [
            "--head",
            "cosine",
            "--batch-size",
            str(self.batch_size),
            "--adapter-lr",
            str(self.adapter_lr),
        ]
        rate = None if arm.is_plain or arm.method == "zo-fc" else self.adapter_lr
        if arm.is_normalised:
            rate = PAPER_STEP / ALWAYS_CLIPS
        return {
            "method": arm.method, "seed": seed, "stream": str(self.stream), "bundle": str(self.bundle(arm.export)),
            "backbone": None, "checkpoint": None, "img_size": None, "preset": arm.preset,
            "epochs": arm.epochs or self.epochs, "epoch_factor": 1, "search": 1, "threads": 1, "work": str(work),
            # A budget without room for torch: its import would be a good part of so short a run.
            "learn_options": ["--memory-budget", "400MiB", *shared, *arm.learn],
            "adapter_lr": rate, "batch_size": None if arm.method == "zo-fc" else self.batch_size,
            "clip_norm": ALWAYS_CLIPS if arm.is_normalised else None, "lr_factor": arm.lr_factor,
        }  # fmt: skip


def thinned(stream_root: Path, out: Path, train: int, test: int) -> Path:
    """Write ``out``, the stream with at most ``train`` and ``test`` pictures of a class, spread evenly, as links.

    An ``out`` that is there is left as it is. Raises InputError.
    """
    if out.exists():
        return out
    stream = read_stream(stream_root)
    partial = out.with_name(out.name + ".partial")
    for task in stream.tasks:
        for part, most in zip(PARTS, (train, test), strict=True):
            by_class: dict[int, list[Path]] = {}
            for sample in list_samples(stream, task, part):
                by_class.setdefault(sample.class_id, []).append(sample.path)
            for class_id, paths in by_class.items():
                folder = partial / task.name / part / stream.class_names[class_id]
                folder.mkdir(parents=True, exist_ok=True)
                kept = min(most, len(paths))
                for index in range(kept):
                    path = paths[index * len(paths) // kept]
                    link = folder / path.name
                    link.unlink(missing_ok=True)
                    link.symlink_to(path.resolve())
    partial.rename(out)
    return out
