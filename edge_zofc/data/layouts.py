"""Layouts of other tools: what a folder that is no stream holds instead, and the way out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from edge_zofc.data.folders import PARTS, VALIDATION, class_folders, has_pictures, named_picture, scan, subfolders
from edge_zofc.errors import InputError, shown

UNSORTED = frozenset(("images", "image", "imgs", "img", "jpegimages", "segmentationclass", "segmentationobject"))
_BESIDE_UNSORTED = frozenset(("labels", "annotations", "imagesets"))
"""Folders of data sets that are sorted by kind of file and not by class, in small letters."""
_PART_OF_A_SET = re.compile(r"(train|val|valid|validation|test|unlabeled)[0-9]*")


def _is_unsorted(name: str) -> bool:
    return name.lower() in UNSORTED or bool(_PART_OF_A_SET.fullmatch(name.lower()))


def refuse_unsorted(names: Iterable[str], where: Path) -> None:
    """Raise InputError if the class folders are those of a data set that is not sorted by class."""
    found = sorted(names)
    if found and all(map(_is_unsorted, found)):
        raise InputError(
            f"{shown(where)} has only class folders named {', '.join(found)}, so its pictures are not sorted by class "
            "(is it a detection data set?); put the pictures of each class into a folder with the class's name."
        )


def layout_hint(folder: Path) -> str:
    """What a folder that is no stream holds instead, and the way out; or nothing."""
    folders = class_folders(folder)
    for found in folders:
        if found.name.lower() in ("train", "training") and found.name != "train":
            return f" Its folder {shown(found.name)} must be named train."
    if any(named_picture(entry) for place in (folder, folder / "train") for entry in scan(place)):
        return " It holds pictures without classes: put those of each class into a folder with the class's name."
    kinds = [found.name for found in folders if found.name.lower() not in _BESIDE_UNSORTED]
    if kinds and all(map(_is_unsorted, kinds)) and not has_pictures(folder / "train"):
        return (
            " Its folders are not classes (is it a detection data set?): put the pictures of each class into a folder "
            "with the class's name."
        )
    classes = [found for found in folders if found.name not in (*PARTS, *VALIDATION)]
    if any(named_picture(entry) for found in classes for entry in scan(found)):
        return f" It holds class folders: make a stream of them with 'edge-zofc split {shown(folder)} tasks'."
    if len(folders) == 1 and any(has_pictures(inner) for inner in (folders[0], *subfolders(folders[0]))):
        return f" Perhaps {shown(folders[0])} is meant."
    return ""
