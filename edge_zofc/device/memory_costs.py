"""What parts of a learning process take, as it was measured: the numbers that a plan adds up."""

from __future__ import annotations

from collections.abc import Iterator

from edge_zofc.algorithm.adapter import Optimizer
from edge_zofc.algorithm.episodes import whitening_bytes
from edge_zofc.algorithm.heads import SOLVING
from edge_zofc.algorithm.options import HeadKind, Options
from edge_zofc.algorithm.symmetric import SLAB, packed_length
from edge_zofc.storage.manifest import Precision

MIB = 1 << 20
PICTURE_BYTES, PICTURE_BYTES_A_PIXEL = 2 * MIB, 120
"""Decoding an ordinary camera picture, and more for each pixel of the backbone's input: a JPEG is decoded reduced, but
to no less than that. Of 12 megapixels at 96 px 1.9 MiB (5.0 for a narrow crop), at 224 px 4.3 (15.8); a progressive
JPEG takes 38 and a 24-megapixel PNG 115 MiB."""
LOOP_BYTES = 3 * MIB
"""Logs, the journal, the sampler, Python objects of the loop; not measured apart."""

# Parts of the weights' size that onnxruntime 1.32 holds as an anonymous copy and still maps from the file once
# prepacked, and whether that pays. Measured on a ViT-B/16 at 224, one thread, x86-64: fp32 327 MiB anonymous, the same
# peak of the resident set, and 1.15 times as fast on an Intel Xeon (a ViT-Ti/16 at 96 px 1.05 to 1.26 times; as fast as
# without on an AMD EPYC); w8 nothing is packed at all; w4 41 of 54 MiB and 2.4 times as fast. int8: an earlier
# measurement (196 against 115 MiB of 86, 1.3 times as fast). fp16 on a CPU is widened to fp32, packed or not: `learn`
# on EfficientNet-Lite0 at 128 px held 134 MiB anonymous and 46 of files, 138 and 46 are predicted so.
PREPACKED: dict[Precision, tuple[float, float, bool]] = {
    "fp32": (1.0, 0.05, True),
    "w8": (0.0, 1.0, False),
    "w4": (0.8, 0.25, True),
    "int8": (0.95, 0.1, True),
    "fp16": (2.0, 0.1, False),
}
WIDENED: frozenset[Precision] = frozenset({"fp16"})
"""Held as the first two numbers say whether weights are prepacked or not."""


def weights_held(size: int, precision: Precision, prepacking: bool) -> tuple[int, int]:
    """Anonymous and file-backed bytes of an open session's weights, which take ``size`` in their file."""
    anonymous, mapped, _ = PREPACKED[precision]
    if prepacking or precision in WIDENED:
        return int(size * anonymous), int(size * mapped)
    return 0, size


# An open session: its graph and kernels' state, and the code that it touches first. Measured in `learn` on ViT-Ti/16
# at 96 and ViT-B/16 at 224.
SESSION_BYTES = (3 * MIB, 13 * MIB)
# What the session that goes both ways leaves behind once it is closed: EfficientNet-Lite0, beside a run that never
# had it.
LEFT_BEHIND = (3 * MIB, 1 * MIB)
# Of a joined device, beyond Python and its libraries: flwr 1.42, httpx, gRPC, protobuf and cryptography, imported and
# connected. Then float64 [D, D] alive while the fleet's news are unpacked and its head is solved, and while that head
# and the one before are tried. Measured at D 192 and 1280: COSTS.md, "A joined device".
FLOWER_BYTES = (31 * MIB, 17 * MIB)
MERGED_MATRICES, TRIED_MATRICES = 3.5, 2.0
# The same while a step of the fleet is measured, whose whitening is made beside the open session, and while the moved
# adapter is judged, which solves two heads from three shares. Measured at D 1280, with the shares' bytes and what
# malloc keeps of freed matrices: of forward steps 6.2, of exact ones 6.3, then 9.4.
STEPPED_MATRICES, JUDGED_MATRICES = 6.5, 9.5
# Of the manifest's activations (measured with the arena on), what is left with it off and a low mmap threshold, at
# about half the speed: 0.58 to 0.74 of 10 to 79 MiB (EfficientNet-Lite0, b 4 and 8; ViT-Ti, b 8, K 9; ViT-B, b 2, K 5;
# ViT-B w8, b 4, K 5), 0.73 of 8 MiB (ViT-B, b 1, K 1).
ARENA_OFF = 0.75
# Where queries share nothing an export measures runs of one adapter. Runs of several, which are taken only if they are
# asked for, took up to 1.55 times as much a pair (EfficientNet-Lite0 at 224 px, 4 pictures x 3 adapters).
UNSHARED_TOGETHER = 1.6
# The arena asks for powers of two: the same run mapped 178 MiB beyond the 200 that it touched.
ARENA_RESERVED = 1.25
# Vectors of the adapter's size beyond those of sgd: adam's second moment and two temporaries; conserve's two
# candidates and the copies that go into the graph.
MORE_VECTORS: dict[Optimizer, int] = {"sgd": 0, "sign": 0, "conserve": 4, "adam": 3}
# Of each class and feature, at 1,000 classes x 768 on x86-64: rows, velocity, gradient, class sums, their copies in a
# snapshot and its encoding. A solved head has feature sums of the run, the task and both together on top. Measured
# growth of the peak: cosine 66 bytes with 1 and with 10 tasks; lda 72 with 1 task and 103 with 10.
HEAD_BYTES: dict[HeadKind, int] = {"cosine": 66, "lda": 100}
# The same while the whitening of the episodes' loss is made, counted: rows and class sums, both again in the state that
# is kept for a retry, and the sums of the pictures that take part.
WHITENING_BYTES = 32


def step_costs(options: Options, classes: int, width: int) -> Iterator[tuple[str, int, str]]:
    """As ``head_costs``, while steps are taken; a checkpoint makes matrices whole a slab at a time."""
    each, when = WHITENING_BYTES, "while steps are taken"
    yield "head", classes * width * each, f"{classes} classes x {width}, {each} bytes of each {when}"
    if options.head == "lda":
        packed = 3 if options.adapter == "auto" else 2
        taken = packed * 8 * packed_length(width) + 2 * 8 * SLAB * width
        # The whitening is float32.
        taken += 4 * width**2 if options.loss == "episodic" else 0
        note = f"of {width} x {width}, {packed} packed matrices {when}"
        yield "covariance of the closed-form head", taken, note


def head_costs(options: Options, classes: int, width: int) -> Iterator[tuple[str, int, str]]:
    """Name, anonymous bytes and note of what a head of C = ``classes`` and D = ``width`` takes when it takes most."""
    each, when, kept, working = HEAD_BYTES[options.head], "while a task begins, ends or is saved", 0, 0
    packed = 8 * packed_length(width)
    if options.head == "lda":
        # Second moments of the run and of a task, and that of the adapter's start for the gate. Where later tasks have
        # steps too, a head is solved as they begin, while a retry would still need the older one of these.
        kept, working = 2, SOLVING * 8 * width**2
        if options.adapter == "auto" and options.moves:
            kept += 1 if options.loss == "episodic" else 2
        if options.loss == "episodic" and options.moves:
            # In the first task the run's own moment is empty.
            more = whitening_bytes(width) - working - packed - (each - WHITENING_BYTES) * classes * width
            if more > 0:
                each, when, kept, working = WHITENING_BYTES, "before the first step", kept - 1, whitening_bytes(width)
    yield "head", classes * width * each, f"{classes} classes x {width}, {each} bytes of each {when}"
    if kept:
        whole = working / (8 * width**2)
        note = f"of {width} x {width}, {kept} packed and {whole:.1f} whole matrices {when}"
        yield "covariance of the closed-form head", kept * packed + working, note
