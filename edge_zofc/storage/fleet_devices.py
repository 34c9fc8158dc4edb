"""What passed between a fleet and its devices over a network: ``devices.json`` in the fleet's folder.

Shares and head do not need it. It is written after each round, so that a power cut loses what one round told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edge_zofc.storage.fleet_folder import DEVICES, MOST_DEVICES, DeviceName, Hexadecimal
from edge_zofc.storage.reading import Strict, is_there, load_model, read_bounded
from edge_zofc.storage.writing import write_atomic

_LIMIT_BYTES = 16 << 20
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]


class Known(Strict):
    """One device. Times are seconds since 1970; bytes are those of messages, without what TLS and HTTP add.

    ``share``: number of its last share that was taken, at ``received``. ``strikes``: messages that no honest device
    sends; ``told``: the last of them, or why it did not take a head. ``head``: number of the last head that it took.
    """

    share: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    received: Seconds | None = None
    seen: Seconds | None = None
    strikes: Count = 0
    told: Annotated[str, Field(max_length=2000)] = ""
    head: Count = 0
    bytes_in: Count = 0
    bytes_out: Count = 0


class Devices(Strict):
    """The content of ``devices.json``; ``head`` counts the heads that were made, ``head_sha256`` is that of the last
    one's statistics.
    """

    format_version: Literal[1] = 1
    rounds: Count = 0
    head: Count = 0
    head_sha256: Hexadecimal | None = None
    devices: Annotated[dict[DeviceName, Known], Field(max_length=MOST_DEVICES)] = Field(default_factory=dict)


def read_devices(fleet: Path) -> Devices:
    """What is known of a fleet's devices; nothing where no network was used. Raises DamagedFileError."""
    path = fleet / DEVICES
    if not is_there(path):
        return Devices()
    ending = "; remove it, and counting starts anew"
    return load_model(Devices, read_bounded(path, _LIMIT_BYTES), f"{path} is damaged at", ending=ending)


def write_devices(fleet: Path, devices: Devices) -> None:
    """Durable when it returns."""
    write_atomic(fleet / DEVICES, (devices.model_dump_json(indent=2) + "\n").encode())
