"""A board's limits, read from TOML: memory, what the system keeps, what learning may use, providers, threads.

A profile is a built-in name (``device_profiles/*.toml``), a TOML file of the user's own, or ``auto``, which reads the
board it runs on: MemAvailable (a Jetson's GPU shares that memory, and the page cache gives way), the CPUs, and the
cgroup's limits of both where they are set.

``learning_budget_mib`` is host memory of the learning process alone. What an accelerator that shares the RAM needs
beside it (a CUDA context, the arena) is ``accelerator_reserve_mib``.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ByteSize, ConfigDict, Field, TypeAdapter, model_validator

from edge_zofc.device.system import Board, board
from edge_zofc.errors import InputError, quoted
from edge_zofc.storage.reading import load_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MIB = 1 << 20
MAX_PROFILE_BYTES = 64 << 10
MAX_PARSED_BYTES = 1 << 50
AUTO = "auto"
"""The name of the profile that is made from what this machine has."""

AUTO_AVAILABLE_FRACTION = 0.75
"""``auto`` learns in this much of MemAvailable; the rest is for the page cache and whatever else starts."""
AUTO_CGROUP_FRACTION = 0.9
"""... and in this much of a cgroup's limit, which also counts page tables, sockets and the page cache."""

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# onnxruntime's default, kNextPowerOfTwo, asks for up to twice what is needed.
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested"}
# What a provider is opened with unless its options say otherwise. onnxruntime's default is TF32, products of 10 bits,
# whose rounding drowns the small loss differences that learning lives on (COSTS.md, "On a GPU").
_DEFAULTS = {CUDA: {"use_tf32": "0"}}

Mebibytes = Annotated[int, Field(ge=1, le=1 << 24)]

_AMOUNT = TypeAdapter(ByteSize)
# ByteSize alone reads "1,5GiB" as one byte.
_AMOUNT_SHAPE = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})? ?([kmgt]i?b|b)?", re.ASCII | re.IGNORECASE)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Provider(_Strict):
    """One execution provider of onnxruntime and the options it is opened with."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,60}ExecutionProvider$")]
    gpu_mem_limit_mib: Mebibytes | None = None
    options: dict[str, str] = Field(default_factory=dict)

    def session_options(self) -> dict[str, str]:
        """The options in onnxruntime's own spelling: ``gpu_mem_limit`` is in bytes there; CUDA without TF32."""
        options = {**_DEFAULTS.get(self.name, {}), **self.options}
        if self.gpu_mem_limit_mib is not None:
            options["gpu_mem_limit"] = str(self.gpu_mem_limit_mib * MIB)
        return options

    @model_validator(mode="after")
    def _one_limit(self) -> Provider:
        if "gpu_mem_limit" in self.options:
            raise ValueError("options.gpu_mem_limit has no unit; write gpu_mem_limit_mib beside options")
        return self


class DeviceProfile(_Strict):
    """What one board has and what learning may use of it."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=500)] = ""
    board_model_contains: Annotated[str, Field(min_length=4, max_length=100)] | None = None
    ram_mib: Mebibytes
    system_reserve_mib: Annotated[int, Field(ge=0, le=1 << 24)]
    accelerator_shares_ram: bool = False
    accelerator_reserve_mib: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    learning_budget_mib: Mebibytes
    threads: Annotated[int, Field(ge=1, le=1024)]
    # A TOML array arrives as a list, which strict mode would not take for a tuple.
    providers: Annotated[tuple[Provider, ...], Field(min_length=1, max_length=16, strict=False)]
    verified_on_hardware: bool

    @property
    def learning_budget_bytes(self) -> int:
        """Host memory that the whole learning process may take, in bytes."""
        return self.learning_budget_mib * MIB

    @property
    def arena_bytes(self) -> int | None:
        """What the best provider's arena may hold: weights and activations, in bytes; None: no limit."""
        limit_mib = self.providers[0].gpu_mem_limit_mib
        return None if limit_mib is None else limit_mib * MIB

    def with_providers(self, names: Collection[str]) -> DeviceProfile:
        """The profile with those of its providers that are in ``names``; the CPU if none is."""
        kept = tuple(provider for provider in self.providers if provider.name in names)
        return self.model_copy(update={"providers": kept or (Provider(name=CPU),)})

    def session_providers(self) -> tuple[tuple[str, dict[str, str]], ...]:
        """Provider names and options, best first, as ``backbone.choose_providers`` takes them."""
        return tuple((provider.name, provider.session_options()) for provider in self.providers)

    @model_validator(mode="after")
    def _sums_fit(self) -> DeviceProfile:
        accelerator = self.accelerator_reserve_mib if self.accelerator_shares_ram else 0
        wanted = self.system_reserve_mib + accelerator + self.learning_budget_mib
        if wanted > self.ram_mib:
            raise ValueError(
                f"system_reserve_mib {self.system_reserve_mib} + accelerator_reserve_mib {accelerator} + "
                f"learning_budget_mib {self.learning_budget_mib} is {wanted}, above ram_mib {self.ram_mib}"
            )
        names = [provider.name for provider in self.providers]
        if len(set(names)) < len(names):
            raise ValueError("providers names the same provider twice")
        limits = [provider.gpu_mem_limit_mib or 0 for provider in self.providers]
        if accelerator and max(limits) > accelerator:
            raise ValueError(f"gpu_mem_limit_mib {max(limits)} is above accelerator_reserve_mib {accelerator}")
        return self


def parse_bytes(text: str) -> int:
    """Bytes in "512MiB", "1.5 GiB", "200MB" or a bare number of bytes; a fraction of a byte is dropped.

    Raises InputError for anything else, for zero, and above 1 PiB.
    """
    if not _AMOUNT_SHAPE.fullmatch(text.strip()):
        raise InputError(
            f"{quoted(text)} is not an amount of memory; write it like 512MiB, 1.5GiB, 200MB or 536870912."
        )
    value = int(_AMOUNT.validate_python(text.strip()))
    if not 1 <= value <= MAX_PARSED_BYTES:
        raise InputError(f"{quoted(text)} is {value} bytes; an amount of memory is from 1 byte to 1024 TiB.")
    return value


def format_bytes(count: int) -> str:
    """``count`` bytes as "512 MiB" or "1.5 GiB": binary units, at most one decimal."""
    # 1023.95 would be shown as 1024.0 of the smaller unit.
    power = next(p for p in (0, 1, 2, 3, 4) if abs(count) < 1023.95 * 1024**p or p == 4)
    return f"{count / 1024**power:.1f}".removesuffix(".0") + f" {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def profile_names() -> list[str]:
    """Names of the built-in profiles, in alphabetical order."""
    return list(_built_in())


def load_profile(name_or_path: str) -> DeviceProfile:
    """A built-in profile by name, a TOML file (ends in .toml or holds a path separator), or ``auto``.

    Raises InputError: an unknown name, an unreadable file, a line that is not TOML, a value that is missing, unknown,
    of the wrong type or out of its limits.
    """
    if name_or_path == AUTO:
        return auto_profile(board())
    if is_profile_file(name_or_path):
        return _parse(_read_file(name_or_path), name_or_path)
    built_in = _built_in()
    if name_or_path not in built_in:
        near = difflib.get_close_matches(name_or_path[:60].lower(), built_in, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"There is no device profile {quoted(name_or_path)}{hint}; give auto, a .toml file or one of "
            f"{', '.join(built_in)}."
        )
    return _parse(built_in[name_or_path], name_or_path)


def is_profile_file(name_or_path: str) -> bool:
    """Whether this names a file and not a built-in profile."""
    return name_or_path.endswith(".toml") or any(mark in name_or_path for mark in {"/", os.sep})


def auto_profile(here: Board) -> DeviceProfile:
    """A profile for the board described: its budget is a stated part of the memory available now.

    A known board brings its own profile's providers, any other CUDA before the CPU. ``backbone.choose_providers`` keeps
    those that onnxruntime has.
    """
    budget = int(here.mem_available_bytes * AUTO_AVAILABLE_FRACTION)
    if here.cgroup_limit_bytes is not None:
        budget = min(budget, int(here.cgroup_limit_bytes * AUTO_CGROUP_FRACTION))
    budget_mib = max(budget // MIB, 1)
    ram_mib = max(here.mem_total_bytes // MIB, budget_mib)
    known = matching_profile(here)
    reserve = known.accelerator_reserve_mib if known is not None and known.accelerator_shares_ram else 0
    gpu = Provider(name=CUDA, gpu_mem_limit_mib=budget_mib, options=_CUDA_OPTIONS)
    providers = known.providers if known is not None else (gpu, Provider(name=CPU))
    if reserve >= budget_mib:
        # The accelerator would take all there is now: learn on the CPU.
        reserve, providers = 0, (Provider(name=CPU),)
    return DeviceProfile(
        name="auto",
        description=here.model or f"{here.machine} with {here.cpu_count} CPUs",
        ram_mib=ram_mib,
        system_reserve_mib=max(min(ram_mib - here.usable_bytes // MIB, ram_mib - budget_mib), 0),
        accelerator_shares_ram=reserve > 0,
        accelerator_reserve_mib=reserve,
        learning_budget_mib=budget_mib - reserve,
        threads=min(here.usable_cpus, 1024),
        providers=providers,
        verified_on_hardware=False,
    )


def matching_profile(here: Board) -> DeviceProfile | None:
    """The built-in profile of this board, told by its device tree and its RAM; None for any other machine."""
    profiles = [_parse(raw, name) for name, raw in _built_in().items()]
    fitting = [found for found in profiles if found.board_model_contains and found.board_model_contains in here.model]
    return min(fitting, key=lambda found: abs(found.ram_mib - here.mem_total_bytes // MIB), default=None)


def _built_in() -> dict[str, bytes]:
    """The text of every built-in profile by name, in alphabetical order; small enough to read them all."""
    files = [file for file in resources.files("edge_zofc.device_profiles").iterdir() if file.name.endswith(".toml")]
    return dict(sorted((file.name.removesuffix(".toml"), file.read_bytes()) for file in files))


def _read_file(name: str) -> bytes:
    what = f"The device profile {quoted(name)}"
    try:
        path = Path(name)
        # A pipe or a device would block or never end, so only a plain file is opened.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{what} is not a plain file; give a .toml file.")
        with path.open("rb") as file:
            raw = file.read(MAX_PROFILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{what} cannot be read: {reason}.") from error
    if len(raw) > MAX_PROFILE_BYTES:
        raise InputError(f"{what} is larger than {MAX_PROFILE_BYTES} bytes, which no profile is.")
    return raw


def _parse(raw: bytes, name: str) -> DeviceProfile:
    try:
        data: dict[str, Any] = tomllib.loads(raw.decode("utf-8"))
    # TOMLDecodeError, UnicodeDecodeError and an integer of 5,000 digits are all ValueErrors.
    except (ValueError, RecursionError) as error:
        raise InputError(f"The device profile {quoted(name)} is not TOML: {str(error)[:200]}.") from error
    return load_model(DeviceProfile, data, f"The device profile {quoted(name)} is wrong at", InputError)
