"""What ``deploy --int8`` prints beside the file's name and size."""

from __future__ import annotations

from edge_zofc.export.int8 import Int8File


def int8_lines(written: Int8File) -> list[str]:
    """What it was calibrated on, how many answers changed, and what it gains on this machine."""
    found, mib = written.comparison, written.float_bytes / 2**20
    lines = [
        f"int8, calibrated on {found.calibrated_on} ({found.calibrated})",
        f"another answer than in float32: {found.changed} of {found.compared}, on {found.compared_on}",
    ]
    if found.labelled:
        lines.append(f"right: {found.int8_right} of {found.labelled}; in float32 {found.float_right}")
    no_gain = "" if written.int8_milliseconds < written.float_milliseconds else "; int8 is no faster on this machine"
    lines.append(
        f"one picture on one thread here: {written.int8_milliseconds:.1f} ms; in float32 "
        f"{written.float_milliseconds:.1f} ms and {mib:.1f} MiB{no_gain}"
    )
    return lines
