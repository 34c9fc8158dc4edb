"""Downloaded data sets -> streams, in the papers' class order (seed 1993).

    cifar10, cifar100   the *binary* version: cifar-10-batches-bin/, cifar-100-binary/   (toronto.edu/~kriz/cifar)
    imagenet-r          imagenet-r/<wnid>/*.jpg                                          (hendrycks/imagenet-r)
    domainnet           <domain>/<class>/*.jpg beside <domain>_train.txt, <domain>_test.txt   (ai.bu.edu/M3SDA)
    core50-nc, core50-ni   core50_128x128/ and the folder of one run's file lists, batches_filelists/NC_inc/run0

    python -m edge_zofc.benchmarks.streams cifar100 cifar-100-binary OUT --classes-per-task 5

writes OUT/images, an ImageFolder, and OUT/stream. CIFAR becomes PNG files, all others become links.

The python version of CIFAR is a pickle, which can run code, so it is never opened here. ImageNet-R has no official
split: every 5th picture of a class (by name) is test. In CORe50 NI every task has all classes and there is one test
set. It stands in the first task, and the later tasks have no test pictures of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_zofc.benchmarks.streams.links import link
from edge_zofc.data.split import split_image_folder
from edge_zofc.errors import EdgeZofcError, InputError

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
IMAGENET_R_TEST_EVERY = 5
PIXELS = 3 * 32 * 32
KINDS = ("cifar10", "cifar100", "imagenet-r", "domainnet", "core50-nc", "core50-ni")
PER_TASK = {"cifar10": 2, "cifar100": 5, "imagenet-r": 5, "domainnet": 69}

Item = tuple[str, str, Path]
"""Part ("train" or "test"), class folder, picture."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("kind", choices=KINDS, help="the data set")
    parser.add_argument("source", type=Path, help="the downloaded and unpacked folder")
    parser.add_argument("out", type=Path, help="new folder for images/ and stream/")
    parser.add_argument("--classes-per-task", type=int, help=f"(default: {PER_TASK})")
    parser.add_argument("--seed", type=int, default=1993, help="of the class order (default: 1993)")
    parser.add_argument(
        "--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="of DomainNet (default: all)"
    )
    parser.add_argument("--lists", type=Path, help="folder of CORe50's file lists (default: searched below SOURCE)")


def main(arguments: argparse.Namespace) -> int:
    """Convert, and print what was written as one JSON object. Raises InputError."""
    source, out = arguments.source, arguments.out
    if not source.is_dir():
        raise InputError(f"There is no folder {source}; give the unpacked download.")
    if out.exists():
        raise InputError(f"{out} exists already; name a new folder or take it away.")
    try:
        summary = _convert(arguments)
    except (EdgeZofcError, OSError):
        # A part of a data set must not be taken for the whole.
        shutil.rmtree(out, ignore_errors=True)
        raise
    print(json.dumps({"stream": str(out / "stream"), **summary}))  # noqa: T201
    return 0


def _convert(arguments: argparse.Namespace) -> dict[str, Any]:
    kind, source, out = arguments.kind, arguments.source, arguments.out
    if kind.startswith("core50"):
        return core50(source, arguments.lists, out, new_classes=kind.endswith("nc"))
    if kind.startswith("cifar"):
        cifar(source, out / "images", hundred=kind == "cifar100")
    elif kind == "imagenet-r":
        link_all(imagenet_r(source), out / "images")
    else:
        link_all(domainnet(source, arguments.domains), out / "images")
    per_task = arguments.classes_per_task or PER_TASK[kind]
    return dataclasses.asdict(split_image_folder(out / "images", out / "stream", per_task, arguments.seed))


def cifar(source: Path, images: Path, *, hundred: bool) -> None:
    """Write ``images/{train,test}/<NN_class>/NNNNN.png`` from the binary version.

    A record is one label byte (CIFAR-100: coarse, then fine) and 3,072 bytes, red, green, blue planes of 32 x 32.
    """
    meta, offset = ("fine_label_names.txt", 1) if hundred else ("batches.meta.txt", 0)
    names = [line.strip() for line in _text(source / meta).splitlines() if line.strip()]
    files = {"train": ["train.bin"], "test": ["test.bin"]} if hundred else {
        "train": [f"data_batch_{number}.bin" for number in range(1, 6)],
        "test": ["test_batch.bin"],
    }  # fmt: skip
    record = offset + 1 + PIXELS
    for part, parts in files.items():
        number = 0
        for file in parts:
            raw = np.frombuffer(_bytes(source / file), np.uint8)
            if not len(raw) or len(raw) % record:
                raise InputError(f"{source / file} has {len(raw)} bytes, no multiple of {record}; download it again.")
            for row in raw.reshape(-1, record):
                label = int(row[offset])
                if label >= len(names):
                    raise InputError(f"{source / file} has the label {label}, {meta} only {len(names)} names.")
                path = images / part / f"{label:02}_{names[label]}" / f"{number:05}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(row[offset + 1 :].reshape(3, 32, 32).transpose(1, 2, 0)).save(path)
                number += 1


def imagenet_r(source: Path) -> Iterator[Item]:
    """All pictures of ``source/<wnid>/``; every 5th of a class is test."""
    classes = sorted(path for path in source.iterdir() if path.is_dir() and re.fullmatch(r"n\d{8}", path.name))
    if not classes:
        raise InputError(f"{source} has no folders named by WordNet ids (n01443537); give the folder imagenet-r.")
    for folder in classes:
        for index, path in enumerate(sorted(folder.iterdir())):
            yield ("test" if index % IMAGENET_R_TEST_EVERY == IMAGENET_R_TEST_EVERY - 1 else "train", folder.name, path)


def domainnet(source: Path, domains: Sequence[str]) -> Iterator[Item]:
    """The pictures of the official lists, whose lines are "domain/class/name.jpg label"."""
    for domain in domains:
        for part in ("train", "test"):
            for name, label in _lines(source / f"{domain}_{part}.txt"):
                yield part, f"{label:03}_{Path(name).parent.name}", _inside(source, name)


def core50(source: Path, lists: Path | None, out: Path, *, new_classes: bool) -> dict[str, int]:
    """Write ``out/stream`` from the file lists of one run; lines are "s1/o1/C_01_01_000.png label".

    ``new_classes`` (NC): a task's test pictures are those of the classes that are new in it.
    """
    if lists is None:
        found = sorted(source.rglob("NC_inc/run0" if new_classes else "NI_inc/run0"))
        if not found:
            raise InputError(f"There are no file lists below {source}; give --lists batches_filelists/NC_inc/run0.")
        lists = found[0]
    root = next((path for path in (source / "core50_128x128", source) if (path / "s1").is_dir()), source)
    batches = sorted(lists.glob("train_batch_*_filelist.txt"))
    if not batches:
        raise InputError(f"{lists} has no train_batch_00_filelist.txt; give --lists batches_filelists/NC_inc/run0.")
    tests, seen = _lines(lists / "test_filelist.txt"), set[int]()
    counts = {"train": 0, "test": 0}
    for number, batch in enumerate(batches):
        train = _lines(batch)
        new = {label for _, label in train} - seen
        seen |= new
        chosen = [(name, label) for name, label in tests if label in new]
        folder = out / "stream" / f"{number:03}_batch"
        for part, lines in (("train", train), ("test", chosen)):
            counts[part] += len(lines)
            link_all(((part, f"{label:02}", _inside(root, name)) for name, label in lines), folder)
    return {"tasks": len(batches), "classes": len(seen), "train_images": counts["train"], "test_images": counts["test"]}


def link_all(items: Iterator[Item], out: Path) -> None:
    """Absolute links ``out/<part>/<class>/<name>``. Raises InputError for a missing picture."""
    for part, name, path in items:
        if not path.is_file():
            raise InputError(f"{path} is missing; unpack the download completely.")
        # Names differ within a folder. Those of DomainNet and CORe50 differ within the whole data set.
        link(path, out / part / name)


def _lines(path: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise InputError(f"{path}, line {number}: expected 'picture label', found '{line[:80]}'.")
        found.append((name, int(label)))
    return found


def _inside(root: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"A list names '{name}', which leaves {root}.")
    return root / name


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); unpack the download completely.") from error


def command(argv: Sequence[str] | None = None) -> int:
    """The program: convert, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.streams", description=__doc__.splitlines()[0])
    add_arguments(parser)
    try:
        return main(parser.parse_args(argv))
    except EdgeZofcError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
