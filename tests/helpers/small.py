"""A bundle and a stream small enough to learn on in a second: 32 pixels, two blocks of width 32, 6 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.numpy import save

from edge_zofc.algorithm.adapter import LATTICE_STEP, Adapter
from edge_zofc.export.adapters import adapter_layout, film_layout, initial_adapter
from edge_zofc.export.gradient_graph import write_gradient_graph
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.vit import FILM_PLACES, AdapterViT
from edge_zofc.storage import bundle, manifest

SIDE, WIDTH, DEPTH = 32, 32, 2
PICTURES = np.random.default_rng(5).normal(size=(7, 3, SIDE, SIDE)).astype(np.float32)
"""Inputs of the graph; read them, do not change them."""


def small_model(blocks: tuple[int, ...] = (0, 1), rank: int = 2, film: bool = False) -> AdapterViT:
    """An untrained ViT with adapters, the same at every call; torch's global random state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        vit = timm.create_model(
            "vit_tiny_patch16_224",
            pretrained=False,
            num_classes=0,
            img_size=SIDE,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=2,
        )
        # timm starts weights at 0.02, with which every picture has almost the same feature.
        for parameter in vit.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    films = film_layout(dict.fromkeys(blocks, WIDTH), FILM_PLACES)
    return AdapterViT(vit, films if film else adapter_layout(WIDTH, blocks, rank, 0.1))


def write_small_bundle(
    folder: Path,
    precision: bundle.Precision = "fp32",
    fidelity: float = 0.99,
    gradient: bool = False,
    film: bool = False,
) -> bundle.Bundle:
    """A bundle around ``small_model``. Its fidelity and activation bytes are made up; export measures them."""
    folder.mkdir(parents=True)
    model = small_model(film=film)
    write_graph(model, precision, folder)
    if gradient:
        write_gradient_graph(model, folder)
    start = initial_adapter(model.layout, seed=1)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    moved = np.stack([start, start + np.float32(2.0**-6)])
    # A run that a test made before may have raised torch's threads, and more threads round differently.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        features = model(torch.from_numpy(images), torch.from_numpy(moved)).numpy()
    torch.set_num_threads(threads)
    (folder / manifest.ADAPTER).write_bytes(save({"adapter": start}))
    # safetensors stores the bytes of a strided array in the wrong order without a word.
    probe = {"images": images, "adapters": moved, "features": features}
    (folder / manifest.PROBE).write_bytes(save({name: np.ascontiguousarray(values) for name, values in probe.items()}))
    files = {
        name: manifest.FileEntry(bytes=(folder / name).stat().st_size, sha256=bundle.sha256_of(folder / name))
        for name in (manifest.FILES + manifest.GRADIENT_FILES if gradient else manifest.FILES)
    }
    activations = manifest.ActivationBytes(fixed=1 << 20, per_image=1 << 18, per_image_and_adapter=1 << 18)
    written = manifest.Manifest(
        format_version=manifest.BOTH_WAYS_VERSION if gradient else 2,
        written_by={"edge-zofc": "test"},
        backbone=manifest.BackboneInfo(
            name="small", source="random", weights_sha256="0" * 64, depth=DEPTH, pooling="token"
        ),
        image=manifest.ImageSpec(
            size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_fraction=1.0
        ),
        adapter=model.layout,
        feature_size=WIDTH,
        precision=precision,
        fidelity=manifest.Fidelity(eps=LATTICE_STEP * 4194, directions=64, one_sided=fidelity, two_sided=fidelity),
        activation_bytes=activations,
        gradient=_made_up_gradient() if gradient else None,
        files=files,
    )
    manifest.write_manifest(folder, written)
    return bundle.read_bundle(folder)


def _made_up_gradient() -> manifest.GradientInfo:
    ways = [(prepacking, arena) for prepacking in (True, False) for arena in (True, False)]
    memory = [
        manifest.GradientMemory(prepacking=p, arena=a, anonymous=(2 + 2 * p) << 20, file=1 << 20, run=(4 + 4 * a) << 20)
        for p, a in ways
    ]
    return manifest.GradientInfo(error=1e-6, memory=tuple(memory))


def moved(plain: bundle.Bundle) -> Adapter:
    """An adapter with nonzero entries everywhere: the initial one hides half of its gradient."""
    start = plain.initial_adapter()
    steps = np.random.default_rng(2).integers(-(2**16), 2**16, start.size)
    return Adapter(start + steps.astype(np.float32) * np.float32(2.0**-22), seed=3, eps=1e-3, momentum=0.9)


def picture(class_number: int, index: int, side: int = 40) -> Image.Image:
    """A striped picture whose colour and stripes tell its class, with noise from ``index``."""
    generator = np.random.default_rng(1000 * class_number + index)
    y, x = np.mgrid[0:side, 0:side]
    phase = generator.uniform(0, 6)
    wave = np.sin((x if class_number % 2 else y) * (0.2 + 0.15 * (class_number // 2)) + phase)
    colour = np.array([60 + 30 * class_number, 220 - 30 * class_number, 90 + 70 * (class_number % 3)])
    pixels = colour * (0.6 + 0.4 * wave[..., None]) + generator.normal(0, 12, (side, side, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_small_stream(
    folder: Path, tasks: int = 3, classes: int = 2, train: int = 8, test: int = 4, alike: bool = False
) -> Path:
    """``tasks`` tasks of ``classes`` classes: class00, class01, ...

    ``alike``: every class has pictures of six looks. Classes that are easily told apart have a loss of exactly 0 under
    the closed-form head, and an adapter that never moves proves nothing about what becomes of it.
    """
    for task in range(tasks):
        for number in range(task * classes, (task + 1) * classes):
            for part, count in (("train", train), ("test", test)):
                place = folder / f"{task:03d}_task" / part / f"class{number:02d}"
                place.mkdir(parents=True)
                for index in range(count):
                    seed = index + (1000 if part == "test" else 0)
                    look, seed = (seed % 6, seed + 100 * number) if alike else (number, seed)
                    picture(look, seed).save(place / f"{index:03d}.png")
    return folder
