"""Shares of devices become a fleet: taken in, put in the place of older ones, and taken out again.

The head of a fleet is that of one process that saw all pictures, to the bit, in whatever order the shares came: sums
on a grid add up without error, and class ids go by the sorted names. The head of a run that has other ids is the same
but for rounding.

Nothing in a share proves who made it, and the pictures behind it cannot be looked at. What can be seen is refused:
another bundle or adapter, statistics that no pictures have. A device that claims too many pictures is held down by a
cap. It is off by default, as with it the head is not that of all pictures any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edge_zofc.algorithm.options import PRESETS
from edge_zofc.data.folders import case_notes
from edge_zofc.errors import DamagedFileError, InputError, shown
from edge_zofc.fleet.sharing import adapter_sha256
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.fleet_folder import About, Device, FleetFolder, Merged, misfit
from edge_zofc.storage.reading import read_bounded
from edge_zofc.storage.settings import folder_place
from edge_zofc.storage.share import MAX_SHARE_BYTES, Share, decode

BEYOND_PROBE = 16
"""Pictures of one kind have features of much the same length. One device with longer ones would outweigh all others."""
Fate = Literal["new", "replaced", "the same", "older, not taken", "revoked, not taken"]


@dataclass(frozen=True)
class Given:
    """A share file that was given to ``merge``, and what it tells of its device; ``sha256`` is that of its bytes."""

    path: Path
    device: Device
    sha256: str


@dataclass(frozen=True)
class MergeDone:
    """What became of each share that was given, and the fleet as it is now; ``notes`` are sentences."""

    fates: tuple[tuple[Given, Fate], ...]
    merged: Merged
    notes: tuple[str, ...]


def merge(bundle_folder: Path, paths: Sequence[Path], out: Path, cap: float | None = None) -> MergeDone:
    """Take share files into the fleet in ``out``, which is made if need be. All are checked before one is taken.

    The newest share of a device counts. ``cap``: see ``About``; None leaves it as it is, 0 takes it away. Raises
    InputError for a share of another bundle, adapter or normalisation, or two different ones of one number and device,
    DamagedFileError for one that no device made, RunLockedError while another process changes the fleet.
    """
    _check_cap(cap)
    fleet, bundle = FleetFolder(out), read_bundle(bundle_folder)
    if fleet.in_force() is not fleet:
        raise InputError(
            f"The adapter of the fleet in {out} has moved (fleet serve --steps), and shares as files are of its start; "
            "give -o a new folder."
        )
    wanted, longest = _wanted(bundle, out, paths[0]), _longest(bundle)
    given = [_given(path, wanted, longest) for path in dict.fromkeys(paths)]
    newest = _newest(given)
    with fleet.locked():
        about = _with_cap(wanted, fleet, cap)
        fleet.write_about(about)
        fates = [(one, _take(fleet, about, one, newest[one.device.name].sha256 == one.sha256)) for one in given]
        merged = fleet.merged()
        merged.head()
    return MergeDone(tuple(fates), merged, tuple(case_notes(merged.class_names)))


def begin(bundle_folder: Path, out: Path, cap: float | None = None) -> tuple[Bundle, About]:
    """The bundle and what all shares of the fleet in ``out`` have in common; a fleet that is new is made.

    Pictures of a new one are normalised as with the preset ``edge``. ``cap`` as in ``merge``. Raises as ``merge``.
    """
    _check_cap(cap)
    fleet, bundle = FleetFolder(out), read_bundle(bundle_folder)
    with fleet.locked():
        about = _with_cap(_about(bundle, out) or _new_about(bundle, out, PRESETS["edge"].normalise), fleet, cap)
        fleet.write_about(about)
        for part in fleet.parts()[1:]:
            part.write_about(about.model_copy(update={"adapter_sha256": part.about().adapter_sha256}))
    return bundle, about


def take_bytes(fleet: FleetFolder, bundle: Bundle, name: str, raw: bytes) -> tuple[Device, Fate]:
    """Take a share that came over a network from the device ``name``. Raises as ``merge``, and leaves all as it was."""
    device = _checked(raw, "The share", fleet.about(), _longest(bundle))
    if device.name != name:
        raise InputError(f"The share is one of {device.name}, and its sender has the key of {name}; use that name.")
    with fleet.locked():
        if name in fleet.about().revoked:
            return device, "revoked, not taken"
        return device, _put(fleet, device, raw)


def revoke(folder: Path, name: str, undo: bool = False) -> bool:
    """Take a device's share out of a fleet, and take none of it any more; ``undo``: take some again.

    Returns whether a share was taken out. Raises InputError where there is no such fleet or device.
    """
    fleet = FleetFolder(folder)
    fleet.about()
    with fleet.locked():
        about, holders = fleet.about(), [part for part in fleet.parts() if name in part.names(part.about())]
        is_revoked = name in about.revoked
        if undo and not is_revoked:
            raise InputError(f"{shown(name)} is not revoked in {folder}; revoked are: {_listed(about.revoked)}.")
        if not (undo or is_revoked or holders):
            raise InputError(f"The fleet {folder} has no share of {shown(name)}; it has those of: "
                             f"{_listed(fleet.names(about))}.")  # fmt: skip
        others = tuple(one for one in about.revoked if one != name)
        for part in fleet.parts():
            part.write_about(part.about().model_copy(update={"revoked": others if undo else (*others, name)}))
        for part in holders:
            part.remove_share(name)
    return bool(holders)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _check_cap(cap: float | None) -> None:
    if cap and not 1 <= cap <= 1e6:
        raise InputError(f"--cap is {cap:g}; give a number from 1 to a million, or 0 for none.")


def _with_cap(wanted: About, fleet: FleetFolder, cap: float | None) -> About:
    """As the fleet is now, under its lock, else as ``wanted``."""
    changes = {"bundle_folder": wanted.bundle_folder} | ({} if cap is None else {"cap": cap or None})
    return (fleet.about() if fleet.is_fleet() else wanted).model_copy(update=changes)


def _wanted(bundle: Bundle, out: Path, first: Path) -> About:
    """What all shares must have in common: that of the fleet which is there, or of the ``first`` share."""
    about = _about(bundle, out)
    if about is None:
        share = decode(read_bounded(first, MAX_SHARE_BYTES), shown(first))
        about = _new_about(bundle, out, share.normalise)
    return about


def _new_about(bundle: Bundle, out: Path, normalise: bool) -> About:
    return About(
        bundle_identity=bundle.identity,
        bundle_folder=folder_place(out, bundle.folder),
        adapter_sha256=adapter_sha256(bundle),
        feature_size=bundle.manifest.feature_size,
        normalise=normalise,
    )


def _about(bundle: Bundle, out: Path) -> About | None:
    """That of the fleet in ``out``; None where there is none. Raises InputError where it is of another bundle."""
    fleet = FleetFolder(out)
    if not fleet.is_fleet():
        return None
    about = fleet.about()
    if about.bundle_identity != bundle.identity:
        raise InputError(
            f"The fleet in {out} is of another bundle than {bundle.folder} (its identity is "
            f"{about.bundle_identity[:12]}..., this one {bundle.identity[:12]}...); name the right one."
        )
    return about.model_copy(update={"bundle_folder": folder_place(out, bundle.folder)})


def _longest(bundle: Bundle) -> float:
    """The squared length that the features of a share may have on average: BEYOND_PROBE times those of the probe."""
    return BEYOND_PROBE * float(np.square(bundle.probe().features, dtype=np.float64).sum(axis=-1).max())


def _given(path: Path, about: About, longest: float) -> Given:
    raw = read_bounded(path, MAX_SHARE_BYTES)
    return Given(path, _checked(raw, shown(path), about, longest), hashlib.sha256(raw).hexdigest())


def _checked(raw: bytes, where: str, about: About, longest: float) -> Device:
    """Whose share it is. Raises InputError or DamagedFileError where it cannot join."""
    share = decode(raw, where)
    reason = misfit(share, about)
    if reason:
        raise InputError(
            f"{where} of the device {share.name} cannot join this fleet: {reason}; features that were not "
            "computed alike do not add up, so leave it out or learn with the fleet's bundle."
        )
    length = share.statistics.moment_trace / share.pictures
    if length > longest:
        raise DamagedFileError(
            f"{where} of the device {share.name} cannot join this fleet: the squared length of its features is "
            f"{length:.3g} on average, the bundle's own pictures allow {longest:.3g}; make it anew with "
            "'edge-zofc fleet share'."
        )
    check_scatter(share, where)
    return Device.of(share)


def check_scatter(share: Share, where: str) -> None:
    """Raise DamagedFileError unless the scatter within classes is that of pictures: no direction has less than none."""
    scatter = share.statistics.scatter
    # What rounding may leave below zero: of the matrix product, and of classes that were left out.
    scatter.flat[:: len(scatter) + 1] += 1e-9 * share.statistics.moment_trace + 1e-6
    try:
        np.linalg.cholesky(scatter)
    except np.linalg.LinAlgError as error:
        raise DamagedFileError(
            f"{where} of the device {share.name} cannot join this fleet: no pictures have such a second moment; "
            "make it anew with 'edge-zofc fleet share'."
        ) from error


def _newest(given: Sequence[Given]) -> dict[str, Given]:
    """The newest share of each device. Raises InputError where two of one number differ."""
    newest: dict[str, Given] = {}
    numbered: dict[tuple[str, int], Given] = {}
    for one in given:
        if one.device.number >= newest.setdefault(one.device.name, one).device.number:
            newest[one.device.name] = one
        other = numbered.setdefault((one.device.name, one.device.number), one)
        if one.sha256 != other.sha256:
            raise InputError(
                f"{shown(other.path)} and {shown(one.path)} differ, and both are share {one.device.number} of "
                f"{one.device.name}; give each device a name of its own with 'edge-zofc fleet share --name'."
            )
    return newest


def _take(fleet: FleetFolder, about: About, given: Given, is_newest: bool) -> Fate:
    """Write one share file into the fleet, unless there is a newer one."""
    if given.device.name in about.revoked:
        return "revoked, not taken"
    if not is_newest:
        return "older, not taken"
    raw = read_bounded(given.path, MAX_SHARE_BYTES)
    if hashlib.sha256(raw).hexdigest() != given.sha256:
        raise InputError(f"{shown(given.path)} changed while it was merged; run the same command again.")
    return _put(fleet, given.device, raw)


def _put(fleet: FleetFolder, device: Device, raw: bytes) -> Fate:
    """Write a checked share in the place of the device's last one, unless that is newer."""
    held = fleet.share_bytes(device.name)
    if held == raw:
        return "the same"
    if held is not None:
        with suppress(DamagedFileError):  # a good share may replace a damaged one
            if decode(held).number > device.number:
                return "older, not taken"
    fleet.write_share(device.name, raw)
    return "new" if held is None else "replaced"
