"""How pictures become inputs of a network: timm's record of its weights, unless mean and deviation are given."""

from __future__ import annotations

from typing import Any

import timm

from edge_zofc.errors import InputError
from edge_zofc.storage.manifest import ImageSpec

Colour = tuple[float, float, float]
"""Red, green, blue of pixels from 0 to 1."""
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


def image_spec(config: Any, side: int, mean: Colour | None, std: Colour | None) -> ImageSpec:
    """The spec of timm's ``pretrained_cfg`` at S = ``side`` with the mean and deviation that were given, if any.

    Raises InputError for colours that are none.
    """
    check_colours(mean, std)
    interpolation = config.get("interpolation", "bicubic")
    return ImageSpec(
        size=side,
        mean=mean or tuple(config["mean"]),
        std=std or tuple(config["std"]),
        interpolation=interpolation if interpolation in _INTERPOLATIONS else "bicubic",
        crop_fraction=config.get("crop_pct") or 1.0,
    )


def check_colours(mean: Colour | None, std: Colour | None) -> None:
    """Raise InputError for a mean or a standard deviation that pixels from 0 to 1 cannot have."""
    for option, values, low in (("--mean", mean, 0.0), ("--std", std, 1e-3)):
        if values is not None and not all(low <= value <= 1.0 for value in values):
            shown = ",".join(f"{value:g}" for value in values)
            raise InputError(
                f"{option} must be {low:g} to 1 in red, green and blue, as pixels are 0 to 1; got {shown}. "
                "Divide numbers for pixels of 0 to 255 by 255."
            )


def picture_note(image: ImageSpec) -> str:
    """One sentence: size, crop and interpolation."""
    crop = f", of which the middle {image.crop_fraction:.1%} is kept" if image.crop_fraction < 1 else ""
    return f"pictures are made {image.size} pixels wide and high ({image.interpolation}{crop})"


def normalisation_note(image: ImageSpec, origin: str, mean: Colour | None, std: Colour | None) -> str:
    """One sentence: mean, standard deviation and where they came from; ``origin`` says so of what was not given."""
    shown_mean, shown_std = (",".join(f"{value:.4g}" for value in values) for values in (image.mean, image.std))
    given = {"mean": mean, "std": std}
    kept = [name for name, values in given.items() if values is None]
    told = [f"{name} as given" for name, values in given.items() if values is not None]
    if kept:
        told.append(f"{' and '.join(kept)} {origin}")
    return f"pictures are normalised with mean {shown_mean} and std {shown_std}: {', '.join(told)}"


def timm_origin(config: Any, name: str) -> str:
    """Which of timm's tags of the model ``name`` its mean and deviation are taken from."""
    architecture, tag = str(config.get("architecture")), str(config.get("tag"))
    if "." in name:
        return f"of timm's tag '{tag}'"
    found = f"of '{tag}', timm's default tag for {name}" if tag else f"of timm's record of {name}"
    mine = (tuple(config["mean"]), tuple(config["std"]))
    tags = {other: timm.get_pretrained_cfg(other) for other in timm.list_pretrained(f"{architecture}.*")}
    others = [other for other, its in tags.items() if its and (tuple(its.mean), tuple(its.std)) != mine]
    if not others:
        return f"{found} (weights trained with others need --mean and --std)"
    return f"{found} (others are used by {', '.join(others[:3])}: name that, or give --mean and --std)"
