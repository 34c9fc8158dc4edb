"""What a manifest tells of the graph for exact gradients."""

from __future__ import annotations

from itertools import product
from typing import Annotated

from pydantic import Field, model_validator

from edge_zofc.storage.reading import Strict

Bytes = Annotated[int, Field(ge=0)]


class GradientMemory(Strict):
    """Measured bytes, opened with or without ``prepacking`` and the ``arena``: what the session that goes both ways
    holds more than that of the features, and ``run``, what its run back of one picture takes at its peak. Without
    ``run``, until format version 5: what a second session took.
    """

    prepacking: bool
    arena: bool
    anonymous: Bytes
    file: Bytes
    run: Bytes | None = None


class GradientInfo(Strict):
    """What was measured of the graph for exact gradients: its relative error against torch's autograd on the probe's
    best picture (the others may lie on a kink), and its memory, for each way of opening it.
    """

    error: Annotated[float, Field(ge=0)]
    memory: tuple[GradientMemory, ...]

    @model_validator(mode="after")
    def _every_way(self) -> GradientInfo:
        if sorted((one.prepacking, one.arena) for one in self.memory) != list(product((False, True), repeat=2)):
            raise ValueError("memory must have each way of opening the graph once")
        return self
