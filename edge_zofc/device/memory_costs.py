"""What parts of a learning process take, as it was measured: the numbers that a plan adds up."""

from __future__ import annotations

from edge_zofc.algorithm.adapter import Optimizer
from edge_zofc.algorithm.options import HeadKind
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
# measurement (196 against 115 MiB of 86, 1.3 times as fast). fp16 on a CPU is widened to fp32; not measured.
PREPACKED: dict[Precision, tuple[float, float, bool]] = {
    "fp32": (1.0, 0.05, True),
    "w8": (0.0, 1.0, False),
    "w4": (0.8, 0.25, True),
    "int8": (0.95, 0.1, True),
    "fp16": (2.0, 0.1, False),
}
# An open session: its graph and kernels' state, and the code that it touches first. Measured in `learn` on ViT-Ti/16
# at 96 and ViT-B/16 at 224.
SESSION_BYTES = (3 * MIB, 13 * MIB)
# Of the fixed and of the growing part of the manifest's activations (measured with arena and memory pattern on), what
# is left with both off and a low mmap threshold. ViT-B w8, b 1: K 1 about 9 of 67 MiB, K 5 about 24 of 114.
ARENA_OFF_FIXED, ARENA_OFF_GROWING = 0.1, 0.4
# The arena asks for powers of two: the same run mapped 178 MiB beyond the 200 that it touched.
ARENA_RESERVED = 1.25
# Vectors of the adapter's size beyond those of sgd: adam's second moment and two temporaries; conserve's two
# candidates and the copies that go into the graph.
MORE_VECTORS: dict[Optimizer, int] = {"sgd": 0, "sign": 0, "conserve": 4, "adam": 3}
# Of each class and feature, at 1,000 classes x 768 on x86-64: rows, velocity, gradient, class sums, their copies in a
# snapshot and its encoding. A solved head has feature sums of the run, the task and both together on top. Measured
# growth of the peak: cosine 66 bytes with 1 and with 10 tasks; lda 72 with 1 task and 103 with 10.
HEAD_BYTES: dict[HeadKind, int] = {"cosine": 66, "lda": 100}
