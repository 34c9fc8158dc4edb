"""Names that people give to things, before they become names of folders."""

from __future__ import annotations

import unicodedata

from edge_zofc.errors import InputError, is_control, quoted

MAX_CHARACTERS = 64
MAX_BYTES = 200
SYSTEM_FOLDERS = frozenset(
    ("$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx", "@eadir", "#recycle")
)
"""Folders that operating systems and disk stations make by themselves, in small letters."""

_JOINERS = frozenset("\u200c\u200d")  # parts of Persian and Indic words and of emoji
_TAGS = range(0xE0020, 0xE0080)  # the ends of some flags


def class_name(text: str) -> str:
    """The name in normal form C, without spaces around it.

    Raises InputError unless it has 1 to MAX_CHARACTERS visible characters in at most MAX_BYTES bytes of UTF-8, no / or
    backslash in it, and no . or - at its start. It is no folder that an operating system makes by itself.
    """
    name = unicodedata.normalize("NFC", text).strip()
    reason = _fault(name)
    if reason:
        raise InputError(f"{quoted(text)} cannot be the name of a class: {reason}; choose another name.")
    return name


def _fault(name: str) -> str:
    if not name:
        return "it is empty"
    if len(name) > MAX_CHARACTERS:
        return f"it has {len(name)} characters and the limit is {MAX_CHARACTERS}"
    if any(map(_is_hidden, name)):
        return "it holds characters that do not show"
    if not any(unicodedata.category(c)[0] in "LNPS" for c in name):
        return "nothing of it shows"
    if len(name.encode()) > MAX_BYTES:
        return f"it takes {len(name.encode())} bytes and the limit is {MAX_BYTES}"
    if "/" in name or "\\" in name:
        return "it holds a / or a \\"
    if name.lower() in SYSTEM_FOLDERS:
        return "operating systems make folders of that name"
    return "it begins with . or -" if name[0] in ".-" else ""


def _is_hidden(character: str) -> bool:
    kind = unicodedata.category(character)
    is_format = kind == "Cf" and character not in _JOINERS and ord(character) not in _TAGS
    return is_control(character) or is_format or kind in ("Cn", "Co")
