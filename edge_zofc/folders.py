"""What lies in a folder of pictures: its visible entries, its subfolders, what counts as a picture.

What may surprise: links are followed wherever they lead, because ``split.py`` makes streams of links; but only what
ends in a regular file counts as a picture, so a device or pipe is never opened. Names that are not UTF-8 are shown
with backslashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edge_zofc.errors import InputError, shown

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class LeftOut:
    """Counts names and keeps the first few, so that a note on 100,000 files stays a sentence."""

    def __init__(self, why: str) -> None:
        self.why, self.count, self.first = why, 0, list[str]()

    def add(self, name: str) -> None:
        """Count a name that was left out."""
        self.count += 1
        if len(self.first) < 3:
            self.first.append(shown(name))

    def note(self) -> list[str]:
        """A sentence, or none where nothing was left out."""
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return [f"{self.why}: {', '.join(self.first)}{more}."] if self.count else []


def scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The visible entries of a folder, none if it does not exist. Raises InputError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be listed ({error.strerror}).") from error


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders too, by name. Raises InputError."""
    return sorted(folder / entry.name for entry in scan(folder) if _leads_to(entry, "folder"))


def loose_files(folder: Path) -> Iterator[str]:
    """The names of what lies in a folder and is no folder. Raises InputError."""
    return (entry.name for entry in scan(folder) if not _leads_to(entry, "folder"))


def is_picture(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, or a link to one, that is named as a picture."""
    return entry.name.lower().endswith(SUFFIXES) and _leads_to(entry, "file")


def _leads_to(entry: os.DirEntry[str], kind: Literal["file", "folder"]) -> bool:
    """Whether an entry is, or is a link to, a regular file or a folder; a link that leads nowhere is neither."""
    try:
        return entry.is_file() if kind == "file" else entry.is_dir()
    except OSError:
        return False
