"""Names of classes that people give."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.data import folders
from edge_zofc.errors import InputError
from edge_zofc.storage.names import MAX_BYTES, MAX_CHARACTERS, class_name


@pytest.mark.parametrize(
    "name", ["apple", "red apple", "Äpfel 7", "リンゴ", "می‌خواهم", "👩‍🍳", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "…", "$", "a" * 64, "é" * 64, "a.-b"]
)
def test_what_can_be_seen_is_a_name(name: str) -> None:
    assert class_name(name) == name == class_name(f"  {name}\n")


def test_a_name_has_one_form() -> None:
    assert class_name(unicodedata.normalize("NFD", "Äpfel")) == "Äpfel"


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "\u3000", "\u0301", "\u200d", ".apple", "-apple", "..", "a/b", "a\\b", "a\0b", "a\nb", "a\x1b[2Jb",
        "a\u202eb", "ban\u200bana", "a\ufeffb", "soft\u00adhyphen", "a\udcffb", "a" * 65, "リ" * 64 + "a", "😀" * 51,
        "lost+found", "__MACOSX", "$RECYCLE.BIN", "a\ue000b", "a\U000e0000b",
    ],
)  # fmt: skip
def test_what_cannot_be_seen_or_be_a_folder_is_none(name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a class") as caught:
        class_name(name)
    assert str(caught.value).isprintable()


@given(st.text(max_size=80))
def test_every_name_that_is_taken_is_one_folder_that_a_stream_shows_as_it_is(text: str) -> None:
    try:
        name = class_name(text)
    except InputError:
        return
    assert class_name(name) == name
    assert len(name) <= MAX_CHARACTERS
    assert len(name.encode()) <= MAX_BYTES
    assert Path("folder", name).name == name
    assert folders.class_name(name) == name
    assert name.lower() not in folders.SYSTEM_FOLDERS
