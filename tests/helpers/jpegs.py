"""JPEGs for tests of cameras, and small programs that write them as a camera's child does."""

from __future__ import annotations

import sys
from pathlib import Path

from pictures import encoded, noise

THUMBNAIL_AT = 400
"""How many bytes of other things stand before a thumbnail."""
PLAIN = encoded(noise(48, 32), "JPEG")


def with_thumbnail(number: int = 0, **options: object) -> bytes:
    """A picture as cameras write them: its first segment holds another whole JPEG."""
    inner, outer = encoded(noise(16, 16, number + 100), "JPEG"), encoded(noise(40, 32, number), "JPEG", **options)
    held = b"Exif\0\0" + bytes(THUMBNAIL_AT) + inner
    return outer[:2] + b"\xff\xe1" + (len(held) + 2).to_bytes(2, "big") + held + outer[2:]


def child(body: str, *words: object) -> tuple[str, ...]:
    """The command of a child: ``body`` is Python, with ``write`` (bytes to standard output), sys and time at hand."""
    head = "import os, signal, sys, time\nwrite = lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush())\n"
    return (sys.executable, "-I", "-S", "-c", head + body, *map(str, words))


def showing(path: Path, then: str = "time.sleep(60)") -> tuple[str, ...]:
    """The command of a child that writes the file at ``path`` and does what follows."""
    return child(f"write(open(sys.argv[1], 'rb').read())\n{then}", path)


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
