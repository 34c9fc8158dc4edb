"""What a manifest tells of a start that ``export --tune`` trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edge_zofc.storage.reading import Strict

Count = Annotated[int, Field(ge=1, le=2**40)]
Share = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-2, le=2)]  # an interval's end may lie beyond 1


class TuningGain(Strict):
    """What a tuned start won over the untuned one on ``pictures`` that it was not trained on: the share of pictures
    named rightly without it, the difference with it, and that one's 95 % interval, all fractions.
    """

    pictures: Count
    untuned: Share
    gain: Difference
    low: Difference
    high: Difference


class TuningInfo(Strict):
    """How ``adapter.safetensors`` was trained before it starts, and what that won.

    ``pictures`` of ``classes`` trained it for ``steps``, and it was taken at ``strength`` of the way. Nothing
    was trained on the ``held_back`` classes: ``on_held_back`` is of their pictures, ``on_all`` of those of all classes,
    both named among all.
    """

    classes: Count
    held_back: Count
    pictures: Count
    steps: Count
    strength: Annotated[float, Field(gt=0, le=1)]
    seed: Annotated[int, Field(ge=0)]
    on_held_back: TuningGain
    on_all: TuningGain
