"""What one cell of the comparison is asked to do: a method with a seed."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edge_zofc.algorithm.options import PresetName


class CellRequest(BaseModel):
    """One cell; paths are absolute. ``search`` counts the learning rates to try.

    ``batch_size`` None: each method's own. ``adapter_lr`` and ``clip_norm`` None: the preset's; both are for ZO-FC's
    relatives in torch. ``lr_factor`` multiplies every rate of a method in torch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    seed: int
    stream: Path
    bundle: Path | None
    backbone: str | None
    checkpoint: Path | None
    img_size: int | None
    preset: PresetName
    epochs: int
    epoch_factor: int
    search: int
    threads: int
    work: Path
    learn_options: tuple[str, ...] = ()
    adapter_lr: float | None = None
    batch_size: int | None = None
    clip_norm: float | None = None
    lr_factor: float = 1.0
