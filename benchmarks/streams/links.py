"""Streams of links: pictures stay where they are, and a stream points to them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_zofc.data.stream import Sample, Stream


def link(path: Path, folder: Path) -> None:
    """Make ``folder``/<name> an absolute link to ``path``, and the folder if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).symlink_to(path.resolve())


def link_samples(stream: Stream, samples: Iterable[Sample], folder: Path) -> None:
    """Make ``folder``/<class>/<name> a link to each of these pictures of ``stream``."""
    for sample in samples:
        link(sample.path, folder / stream.class_names[sample.class_id])
