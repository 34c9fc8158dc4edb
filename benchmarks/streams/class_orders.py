"""Another class order of the same stream: what a seed of ``bench accuracy`` changes beside the randomness of training.

Which classes meet in a task, and which come first, changes an accuracy more than batches and crops do. For a method
without training nothing else is random. So the first seed learns the stream as it is. Each other seed learns its
classes in the order in which ``edge-zofc split --seed`` would have written them.

Tasks keep their number of classes, not their names. A stream in which a class comes back in a later task has no other
order.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_zofc.benchmarks.streams.links import link
from edge_zofc.data.split import split_image_folder
from edge_zofc.data.stream import PARTS, list_samples, read_stream


def has_other_orders(stream_root: Path) -> bool:
    """Whether every class of the stream belongs to one task alone. Raises InputError."""
    tasks = read_stream(stream_root).tasks
    return sum(len(task.class_ids) for task in tasks) == len({c for task in tasks for c in task.class_ids})


def in_order(stream_root: Path, seed: int, out: Path) -> Path:
    """Write ``out``, a stream of links to the same pictures with the classes in the order of ``seed``.

    An ``out`` that is there is left as it is. Raises InputError.
    """
    if out.exists():
        return out
    stream = read_stream(stream_root)
    merged = out.parent / f"{out.name}-classes"
    shutil.rmtree(merged, ignore_errors=True)
    sizes = []
    for task in stream.tasks:
        for part in PARTS:
            folders = {sample.path.parent for sample in list_samples(stream, task, part)}
            for folder in folders:
                link(folder, merged / part)
            if part == "train":
                sizes.append(len(folders))
    split_image_folder(merged, out, sizes, seed)
    shutil.rmtree(merged)
    return out
