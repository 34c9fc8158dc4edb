"""What lies in a folder of pictures: what is a picture, what a class is called, what is left out and why.

Links are followed wherever they lead. Only what ends in a regular file counts as a picture, so a device or pipe is
never opened. Names that begin with a dot are hidden and not looked at.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from edge_zofc.errors import InputError, is_control, shown
from edge_zofc.storage.names import SYSTEM_FOLDERS

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")
VALIDATION = ("val", "valid", "validation")
"""Folders that are taken for test where there is no test picture."""
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")


Kind = Literal["folder", "picture", "broken link", "other"]


def class_name(name: str) -> str:
    """The name of the class whose folder is called ``name``: NFC, with escaped control characters.

    Joiners, U+3000 and emoji stay as they are. What is not UTF-8, line ends, control characters and marks that turn
    the reading direction are escaped.
    """
    return _visible(unicodedata.normalize("NFC", name))


def identity(name: str) -> str:
    """What two names must have in common to be one: NFC, printable. File systems may change the form in a copy."""
    return shown(unicodedata.normalize("NFC", name))


def order(name: str) -> tuple[str, str]:
    """What names are sorted by, so that the order does not depend on their Unicode form."""
    return unicodedata.normalize("NFC", name), name


def _visible(name: str) -> str:
    return "".join(shown(c) if is_control(c) else c for c in name)


class ClassIds:
    """Class names with their ids 0, 1, ...; one class has one id whatever the Unicode form of its folder's name."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.names: list[str] = []
        self._exact: dict[str, int] = {}
        self._by_key: dict[str, int] = {}
        for name in known:
            self.add(name)

    def find(self, folder: str) -> int | None:
        """The id of the class whose folder is called ``folder``, or None."""
        # Names were once kept without NFC and with more characters escaped: such a name is found first.
        exact = self._exact.get(shown(folder))
        return self._by_key.get(identity(folder)) if exact is None else exact

    def name(self, folder: str) -> str:
        """The name of the class whose folder is called ``folder``: the one that is known, or ``class_name``."""
        number = self.find(folder)
        return class_name(folder) if number is None else self.names[number]

    def add(self, name: str) -> int:
        """Give a class the next id. Raises ValueError if it has one."""
        if name in self._exact:
            raise ValueError(f"the class {name!r} is there twice")
        number = self._exact[name] = len(self.names)
        self._by_key.setdefault(identity(name), number)
        self.names.append(name)
        return number


def case_notes(names: Iterable[str]) -> list[str]:
    """A sentence if some of the class names differ in letter case only."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    found = LeftOut("Different classes, although their names differ in letter case only")
    for group in alike.values():
        if len(group) > 1:
            found.add(" and ".join(group[:3]))
    return found.note()


class LeftOut:
    """Counts names and keeps the first few, so that a note on 100,000 files stays a sentence."""

    def __init__(self, why: str, way_out: str = "") -> None:
        self.why, self.way_out, self.count, self.first = why, way_out, 0, list[str]()
        self.suffixes: Counter[str] = Counter()

    def add(self, name: str, suffix: str = "") -> None:
        """Count a name that was left out; ``suffix`` counts it among those of its kind, too."""
        self.count += 1
        if suffix:
            self.suffixes[suffix] += 1
        if len(self.first) < 3:
            self.first.append(_visible(name))

    def note(self) -> list[str]:
        """A sentence, or none where nothing was left out."""
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in self.suffixes.most_common(5))
        why = f"{self.why} ({kinds})" if kinds else self.why
        return [f"{why}: {', '.join(self.first)}{more}.{self.way_out}"] if self.count else []


class LeftOuts:
    """What is not used in the class folders of ``where`` (a task, or nothing), by reason."""

    def __init__(self, where: str = "", broken: str = "not used, for it is a broken link") -> None:
        def why(text: str) -> str:
            return f"{where}: {text}" if where else text[:1].upper() + text[1:]

        self.foreign = LeftOut(
            why(f"not used, for it is no {', '.join(SUFFIXES)} file"), " Convert HEIC pictures to JPEG."
        )
        self.deeper = LeftOut(why("not used, for it is a folder in a class folder"), " Move its pictures up.")
        self.loose = LeftOut(why("not used, for it lies in no class folder"))
        self.system = LeftOut(why("not used, for an operating system made it"))
        self.broken = LeftOut(why(broken), " Copy a stream of links with 'cp -rL', or split again with --copy.")

    def pictures(self, folder: Path, name: str) -> tuple[list[str], list[str]]:
        """Names of the pictures and of the broken links in a class folder, sorted; anything else is counted here."""
        found: dict[Kind, list[str]] = {"picture": [], "broken link": []}
        for entry in scan(folder):
            kind = kind_of(entry)
            if kind in found:
                found[kind].append(entry.name)
            elif kind == "folder":
                count = _pictures_below(folder / entry.name)
                self.deeper.add(f"{name}/{entry.name} ({count} picture{'s' if count != 1 else ''})")
            else:
                self.foreign.add(f"{name}/{entry.name}", _suffix(entry.name))
        for link in sorted(found["broken link"]):
            self.broken.add(f"{name}/{link}")
        return sorted(found["picture"], key=order), sorted(found["broken link"], key=order)

    def class_folders(self, folder: Path, name: str) -> list[Path]:
        """The class folders in a folder, by name; anything else is counted here."""
        for entry in scan(folder):
            if kind_of(entry) != "folder":
                if is_broken(entry):
                    self.broken.add(f"{name}{entry.name}")
                else:
                    self.loose.add(f"{name}{entry.name}", _suffix(entry.name))
            elif entry.name.lower() in SYSTEM_FOLDERS:
                self.system.add(f"{name}{entry.name}")
        return class_folders(folder)

    def notes(self) -> list[str]:
        """A sentence for each reason."""
        if not self.foreign.suffixes.keys() & {".heic", ".heif"}:
            self.foreign.way_out = ""
        every = (self.broken, self.foreign, self.deeper, self.loose, self.system)
        return [text for kind in every for text in kind.note()]


def scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The visible entries of a folder, none if it does not exist. Raises InputError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise InputError(f"{shown(folder)} is a file where a folder belongs; rename it or take it away.") from error
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be listed ({error.strerror}).") from error


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders too, by name. Raises InputError."""
    names = [entry.name for entry in scan(folder) if _leads_to(entry, "folder")]
    return [folder / name for name in sorted(names, key=order)]


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder that may hold a class's pictures, by name. Raises InputError."""
    return [found for found in subfolders(folder) if found.name.lower() not in SYSTEM_FOLDERS]


def all_pictures(folder: Path, left: LeftOuts, above: tuple[str, ...] = ()) -> list[Path]:
    """The pictures in a folder and in those below it, by name, broken links too; other files are counted in ``left``.

    ``above``: the folders around it, which a link may lead back to. Raises InputError.
    """
    found, around = list[Path](), (*above, os.path.realpath(folder))
    for entry in sorted(scan(folder), key=lambda entry: order(entry.name)):
        if named_picture(entry):
            found.append(folder / entry.name)
        elif kind_of(entry) != "folder":
            left.foreign.add(entry.name, _suffix(entry.name))
        elif entry.name.lower() in SYSTEM_FOLDERS:
            left.system.add(entry.name)
        elif os.path.realpath(entry.path) not in around:
            found += all_pictures(folder / entry.name, left, around)
    return found


def part_folder(folder: Path, part: Part) -> Path:
    """Where the pictures of a part lie below ``folder``: train, test, or a validation folder if test has no picture."""
    if part == "train" or has_pictures(folder / "test"):
        return folder / part
    return next((folder / name for name in VALIDATION if has_pictures(folder / name)), folder / part)


def has_pictures(folder: Path) -> bool:
    """Whether a folder has a class folder with a picture, or with a broken link to one."""
    return any(named_picture(entry) for inner in class_folders(folder) for entry in scan(inner))


def named_picture(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a picture, or a broken link that is named as one: it counts as unreadable."""
    return kind_of(entry) in ("picture", "broken link")


def kind_of(entry: os.DirEntry[str]) -> Kind:
    """What an entry is; only what is named as a picture is a picture or a broken link."""
    if _leads_to(entry, "folder"):
        return "folder"
    if not entry.name.lower().endswith(SUFFIXES):
        return "other"
    if _leads_to(entry, "file"):
        return "picture"
    return "broken link" if is_broken(entry) else "other"


def is_broken(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link that leads nowhere."""
    try:
        return entry.is_symlink() and not Path(entry.path).exists()
    except OSError:  # a link to itself
        return True


def _leads_to(entry: os.DirEntry[str], kind: Literal["file", "folder"]) -> bool:
    """Whether an entry is, or is a link to, a regular file or a folder; a link that leads nowhere is neither."""
    try:
        return entry.is_file() if kind == "file" else entry.is_dir()
    except OSError:
        return False


def _pictures_below(folder: Path) -> int:
    return sum(name.lower().endswith(SUFFIXES) for _, _, names in os.walk(folder) for name in names)


def _suffix(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return shown(suffix) if 1 < len(suffix) <= 8 else "without a known suffix"
