"""First order in torch, a process of its own: the steps of ``learn --estimator exact`` with gradients of torch.

``python -m edge_zofc.benchmarks.costs.estimator_torch REQUEST`` prints one JSON object. Loss, adapter, batches,
pictures, crops and optimizer are the runtime's, and the head is solved at the end as there. So what differs is who
computes the gradient. onnxruntime is not imported.

As in the runtime freed blocks go back to the kernel at once, from 4 MiB on, or from 64 KiB on with one picture at a
time, which is thriftier and slower. Memory is counted from the moment when the model stands: what loading it took
before is reported apart.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.directions import episode
from edge_zofc.algorithm.episodes import Prototypes, held_out
from edge_zofc.algorithm.heads import solve
from edge_zofc.algorithm.options import make_options
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.device.memory_limit import LARGE_BYTES, SMALL_BYTES, give_freed_memory_back
from edge_zofc.device.system import PeakSampler, Usage, mib, usage
from edge_zofc.inference.transforms import MILD_CROP_SCALE, load_test, load_train
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import Manifest

PLAIN_PICTURES = 16
"""In one forward pass without a gradient, at most."""
PROBE_PICTURES = 4
"""Those that a channel's spread is measured on, as at export."""
_RESET_PEAK = "5"  # proc(5), clear_refs


@dataclass(frozen=True)
class TorchRequest:
    """``micro_batch`` pictures a backward pass, 0: the whole batch. ``checkpoint``: blocks are computed again there."""

    bundle: str
    stream: str
    micro_batch: int
    checkpoint: bool
    batch_size: int
    steps: int
    threads: int
    seed: int = 1993

    @property
    def pictures_a_run(self) -> int:
        """In one forward pass with a gradient."""
        return self.micro_batch or self.batch_size


class FirstOrder:
    """Learns the first task of a stream. ``features`` maps pictures [n, 3, S, S] and the adapter [P] to [n, D]."""

    def __init__(self, request: TorchRequest, bundle: Bundle, features: Callable[[Any, Any], Any]) -> None:
        import torch

        changes = {"estimator": "exact", "batch_size": request.batch_size, "seed": request.seed}
        self.request, self.options, self.features = request, make_options("edge", changes), features
        self.image, self.width = bundle.manifest.image, bundle.manifest.feature_size
        stream = read_stream(Path(request.stream))
        self.samples = list_samples(stream, stream.tasks[0], "train")
        self.labels = np.array([sample.class_id for sample in self.samples])
        self.fit = np.flatnonzero(~held_out(self.labels))
        self.adapter = torch.from_numpy(np.array(bundle.initial_adapter())).requires_grad_()
        self.optimiser = torch.optim.Adam([self.adapter], lr=self.options.adapter_lr)
        self.prototypes = Prototypes.of(self._statistics(self.fit))

    def step(self, number: int) -> float:
        """One step of the adapter; returns the batch's mean loss before it."""
        import torch

        drawn = episode(self.labels[self.fit], self.request.batch_size, self.request.seed, 0, number)
        picked, size = self.fit[drawn], self.request.pictures_a_run
        self.optimiser.zero_grad(set_to_none=True)
        found, loss = [], 0.0
        for start in range(0, len(picked), size):
            some = picked[start : start + size]
            features, share = self.features(self._crops(some, number), self.adapter), len(some) / len(picked)
            plain, labels = features.detach().numpy(), self.labels[some]
            features.backward(torch.from_numpy(self.prototypes.gradients(plain, labels) * np.float32(share)))
            loss += share * float(self.prototypes.losses(plain[None], labels)[0])
            found.append(plain)
            # Otherwise the graph is alive during the forward pass of the next micro-batch.
            del features
        self.optimiser.step()
        self.prototypes.absorb(np.concatenate(found), self.labels[picked])
        return loss

    def finish(self) -> None:
        """Solve the head under the adapter as it is, as ``learn`` does at a task's end."""
        solve(self._statistics(np.arange(len(self.samples))))

    def _crops(self, picked: np.ndarray, visit: int) -> Any:
        import torch

        normalise = self.options.normalise
        keys = [(self.request.seed, 0, visit, int(index)) for index in picked]
        pictures = [
            load_train(self.samples[key[3]].path, self.image, key, normalise=normalise, scale=MILD_CROP_SCALE)
            for key in keys
        ]
        return torch.from_numpy(np.stack(pictures))

    def _statistics(self, positions: np.ndarray) -> Statistics:
        import torch

        found = Statistics.empty(int(self.labels.max()) + 1, self.width)
        size = min(self.request.pictures_a_run, PLAIN_PICTURES)
        with torch.no_grad():
            for start in range(0, len(positions), size):
                some = positions[start : start + size]
                paths = [self.samples[index].path for index in some]
                pictures = np.stack([load_test(path, self.image, normalise=self.options.normalise) for path in paths])
                features = self.features(torch.from_numpy(pictures), self.adapter)
                found.add(features.numpy(), self.labels[some])
        return found


def network_of(manifest: Manifest, checkpoint: bool) -> Callable[[Any, Any], Any]:
    """The bundle's network in torch, from pictures and an adapter to features.

    Weights that no package has are random: they cost the same.
    """
    from edge_zofc.benchmarks.costs.vit_in_torch import vit_features
    from edge_zofc.export.adapted import AdapterRequest, adapted
    from edge_zofc.export.backbones import BackboneRequest, load_backbone
    from edge_zofc.export.probe_pictures import probe_pictures
    from edge_zofc.export.shipped import SHIPPED
    from edge_zofc.export.vit import AdapterViT

    info, layout = manifest.backbone, manifest.adapter
    names = {shipped.name: name for name, shipped in SHIPPED.items()}
    is_random = info.name not in names
    request = BackboneRequest(
        names.get(info.name, info.name), random_weights=is_random, img_size=manifest.image.size,
        depth=info.depth if info.pooling == "token" else None,
    )  # fmt: skip
    loaded = load_backbone(request)
    blocks = ",".join(map(str, layout.blocks))
    asked = AdapterRequest(layout.kind, blocks, layout.rank or None, layout.scale)
    model = adapted(loaded, asked, probe_pictures(loaded.image, PROBE_PICTURES))
    if isinstance(model, AdapterViT):
        return lambda images, adapter: vit_features(model, images, adapter, checkpoint)
    return cnn_features(model, checkpoint)


def cnn_features(model: Any, checkpoint: bool) -> Callable[[Any, Any], Any]:
    """Of an AdapterCnn. ``checkpoint``: its adapted blocks, which are changed, are computed again."""
    from torch import nn
    from torch.utils.checkpoint import checkpoint as recompute

    from edge_zofc.export.adapters import cut
    from edge_zofc.export.cnn import blocks_of

    class Recomputed(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Any) -> Any:
            return recompute(self.block, x, use_reentrant=False)

    if checkpoint:
        names = list(blocks_of(model.network))
        for index in model.layout.blocks:
            model.network.set_submodule(names[index], Recomputed(model.network.get_submodule(names[index])))

    def features(images: Any, adapter: Any) -> Any:
        # Not by the model's own forward, which forgets the adapter before the backward pass asks for it again.
        model._present.pieces, model._present.pictures = cut(adapter[None], model.layout), len(images)
        return model.network(images).reshape(len(images), -1)

    return features


def measure(request: TorchRequest) -> dict[str, Any]:
    """Do the steps; memory in MiB, seconds and loss of each step."""
    base = _imported(request)
    give_freed_memory_back(SMALL_BYTES if request.micro_batch == 1 else LARGE_BYTES)
    bundle = read_bundle(Path(request.bundle))
    features = network_of(bundle.manifest, request.checkpoint)
    loading = PeakSampler().peak()
    with contextlib.suppress(OSError):  # elsewhere than on Linux the peak is that of the samples alone
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    seconds, losses = [], []
    with PeakSampler() as sampler:
        learner = FirstOrder(request, bundle, features)
        for number in range(request.steps):
            started = time.perf_counter()
            losses.append(learner.step(number))
            seconds.append(time.perf_counter() - started)
        learner.finish()
        peak = sampler.peak()
    return {
        **_told(peak),
        "base_mib": mib(base.rss_bytes),
        "loading_peak_mib": mib(loading.rss_bytes),
        "step_seconds": seconds,
        "losses": losses,
        "steps": request.steps,
    }


def _imported(request: TorchRequest) -> Usage:
    """What the process has resident with torch, timm and a first backward pass."""
    import timm  # noqa: F401
    import torch

    from edge_zofc.benchmarks.costs.child import first_backward

    first_backward(request.threads)
    torch.manual_seed(request.seed)
    return usage()


def _told(peak: Usage) -> dict[str, float | None]:
    return {
        "peak_rss_mib": mib(peak.rss_bytes),
        "peak_anonymous_mib": mib(peak.anonymous_bytes),
        "peak_file_mib": mib(peak.file_bytes),
    }


def request_of(request: TorchRequest) -> str:
    """What ``main`` reads."""
    return json.dumps(asdict(request))


def main(arguments: Sequence[str]) -> None:
    """Measure what was asked; print it."""
    sys.stdout.write(json.dumps(measure(TorchRequest(**json.loads(arguments[0])))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
