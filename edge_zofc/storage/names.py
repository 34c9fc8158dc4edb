"""What a user may call a class: a name that is one folder everywhere and shows as what it is."""

from __future__ import annotations

import unicodedata

from edge_zofc.errors import InputError, is_control, quoted

MAX_CHARACTERS, MAX_BYTES = 64, 200
SYSTEM_FOLDERS = frozenset(
    ("$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx", "@eadir", "#recycle")
)
"""Folders that operating systems and disk stations make by themselves, in small letters."""

_JOINERS = frozenset("\u200c\u200d")  # parts of Persian and Indic words and of emoji
_TAGS = range(0xE0020, 0xE0080)  # the ends of some flags


def checked_name(name: str) -> str:
    r"""The name in NFC, without spaces around it. Raises InputError.

    1 to 64 visible characters and at most 200 bytes of UTF-8, without / and \, not beginning with a dot or a hyphen,
    and no folder that an operating system makes by itself.
    """
    found = unicodedata.normalize("NFC", name).strip()
    size = len(found.encode("utf-8", errors="surrogatepass"))
    why = ""
    if not any(unicodedata.category(c)[0] in "LNPS" for c in found):
        why = "it has no visible character"
    elif len(found) > MAX_CHARACTERS or size > MAX_BYTES:
        why = f"it has {len(found)} characters and {size} bytes, and the limits are {MAX_CHARACTERS} and {MAX_BYTES}"
    elif any(c in "/\\" for c in found):
        why = "it holds / or \\, which separate folders"
    elif found[0] in ".-":
        why = f"it begins with {found[0]}, which hides a folder or looks like an option"
    elif any(map(_is_invisible, found)):
        why = "it holds a character that does not show"
    elif found.lower() in SYSTEM_FOLDERS:
        why = "operating systems make a folder of that name themselves"
    if why:
        raise InputError(f"{quoted(name)} cannot name a class, for {why}; give another name, such as red_apple.")
    return found


def _is_invisible(character: str) -> bool:
    is_format = unicodedata.category(character) == "Cf"
    return is_control(character) or (is_format and character not in _JOINERS and ord(character) not in _TAGS)
