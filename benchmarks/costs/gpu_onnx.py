"""The checks of ``bench gpu`` in onnxruntime: what ``edge-zofc`` does on a provider, each in processes of its own.

Every check is a function of a ``Place`` that returns what it saw. With the CPU provider in place of CUDA the same
checks run anywhere.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from edge_zofc.benchmarks.costs.soak import noise_stream
from edge_zofc.benchmarks.process import Ended, command, run
from edge_zofc.errors import EdgeZofcError
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.run_folder import RunFolder

CPU = "CPUExecutionProvider"
LEARN_SECONDS = 60.0
METHOD = ("--loss", "head", "--epochs", 3, "--batch-size", 8, "--head", "lda", "--seed", 7)
"""Without the cosine head torch is not imported, whose CUDA libraries would be there for onnxruntime too."""


class UnexpectedError(EdgeZofcError):
    """A command ended as it should not have."""


@dataclass(frozen=True)
class Place:
    """Where the checks work, on which provider. ``tiny``: small networks in place of the package's ViT and ViT-B."""

    folder: Path
    provider: str
    tiny: bool = False

    def bundle(self, name: str) -> Path:
        """The bundle "ti" or "base", exported when it is first asked for."""
        found = self.folder / name
        if not found.exists():
            words: list[object] = (
                ["--backbone", "vit_base_patch16_224", "--random-weights"]
                if name == "base"
                else ["--backbone", "package-vit"]
            )
            if self.tiny:
                words = ["--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", 32, "--depth", 2]
            good(zofc("export", found, *words, seconds=200))
        return found

    def stream(self, name: str) -> Path:
        """Two tasks for the bundle of that name: 2 x 2 classes of 20 + 4 noisy pictures."""
        found = self.folder / f"stream-{name}"
        if not found.exists():
            noise_stream(found, read_bundle(self.bundle(name)).manifest.image.size)
            for task in sorted(found.iterdir())[2:]:
                shutil.rmtree(task)
        return found

    def profile(self, limit_mib: int = 4096, provider: str | None = None, tf32: str = "") -> Path:
        """A device profile: this provider with an arena of ``limit_mib``, then the CPU; ``tf32`` "0", "1" or unset."""
        provider = provider or self.provider
        options = {"arena_extend_strategy": "kSameAsRequested", **({"use_tf32": tf32} if tf32 else {})}
        found = self.folder / f"{provider}-{limit_mib}-{tf32}.toml"
        lines = ['name = "gpu"', "ram_mib = 16384", "system_reserve_mib = 0", "learning_budget_mib = 8192"]
        lines += ["threads = 8", "verified_on_hardware = false"]
        if provider != CPU:
            lines += ["[[providers]]", f'name = "{provider}"', f"gpu_mem_limit_mib = {limit_mib}"]
            lines += ["options = { " + ", ".join(f'{key} = "{value}"' for key, value in options.items()) + " }"]
        found.write_text("\n".join([*lines, "[[providers]]", f'name = "{CPU}"', ""]))
        return found

    def learn(self, name: str, profile: Path, *words: object, bundle: str = "ti") -> Ended:
        """``edge-zofc learn`` in the run folder ``name``, once more from the start."""
        return zofc(*self.words(name, profile, *words, bundle=bundle), seconds=LEARN_SECONDS)

    def words(self, name: str, profile: Path, *words: object, bundle: str = "ti") -> list[object]:
        """The words of that command; what was in the folder is gone."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        where = ["--bundle", self.bundle(bundle), "--stream", self.stream(bundle), "--run", self.folder / name]
        return ["learn", *where, "--device-profile", profile, *METHOD, *words]

    def bits(self, name: str) -> dict[str, str]:
        """SHA-256 of a run's journal and of each array of its newest checkpoint."""
        folder = RunFolder(self.folder / name)
        found = folder.latest()
        assert found is not None
        arrays = {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in found.snapshot.arrays.items()}
        return {"journal": hashlib.sha256(folder.journal.read_bytes()).hexdigest(), **arrays}


def zofc(*words: object, seconds: float) -> Ended:
    """``edge-zofc WORDS --json``, killed after so many seconds."""
    return run(command("edge_zofc", *words, "--json"), seconds)


def good(ended: Ended) -> Ended:
    """The same, if it ended well. Raises UnexpectedError."""
    if ended.code:
        raise UnexpectedError(f"exit code {ended.code} after {ended.seconds:.0f} s: {ended.errors[-600:]}")
    return ended


def doctor(place: Place) -> dict[str, Any]:
    """What ``doctor`` says of onnxruntime, the providers and the bundle."""
    ended = zofc("doctor", "--bundle", place.bundle("ti"), seconds=60)
    told = {each["name"]: [each["ok"], each["detail"], each["remedy"]] for each in ended.answer.get("findings", [])}
    wanted = {key: value for key, value in told.items() if "Provider" in key or key in ("onnxruntime", "bundle probe")}
    return {"exit_code": ended.code, **wanted, "stderr": ended.errors[-300:]}


def features(place: Place, bundle: str = "ti") -> dict[str, Any]:
    """Features, loss differences and seconds of the provider against the CPU's (``gpu_features.py``)."""
    words = (place.bundle(bundle), place.provider)
    return good(run(command("edge_zofc.benchmarks.costs.gpu_features", *words), 120)).answer


def repeats(place: Place, tf32: str = "") -> dict[str, Any]:
    """Whether the same seed gives the same bits twice, and whether the journal replays to them on the CPU."""
    profile = place.profile(tf32=tf32)
    first, second = (good(place.learn(name, profile)) for name in ("first", "second"))
    good(place.learn("on-the-cpu", place.profile(provider=CPU)))
    same = {key: value == place.bits("second").get(key) for key, value in place.bits("first").items()}
    replayed = good(zofc("replay", place.bundle("ti"), place.folder / "first" / "journal.bin", "-o",
                         place.folder / "replayed.safetensors", seconds=60))  # fmt: skip
    theta = place.bits("first")["theta"]
    return {
        "seconds": [round(first.seconds, 2), round(second.seconds, 2)],
        "same_bits": same,
        "replay_gives_theta": _replayed_theta(place) == theta,
        "steps": replayed.answer["steps"],
        "theta_moved_by": _moved_by(place),
        "same_theta_as_learnt_on_the_cpu": theta == place.bits("on-the-cpu")["theta"],
        "average_accuracy": [first.answer["average_accuracy"], second.answer["average_accuracy"]],
        "warnings": _warnings(first),
    }


def _replayed_theta(place: Place) -> str:
    (array,) = load_file(place.folder / "replayed.safetensors").values()
    return hashlib.sha256(array.tobytes()).hexdigest()


def _moved_by(place: Place) -> float:
    (array,) = load_file(place.folder / "replayed.safetensors").values()
    return float(abs(array - read_bundle(place.bundle("ti")).initial_adapter()).max())


def killed(place: Place) -> dict[str, Any]:
    """Kill -9 in the middle, resume, and compare with a run that was left alone."""
    profile = place.profile()
    good(place.learn("whole", profile))
    words = place.words("killed", profile)
    journal = place.folder / "killed" / "journal.bin"
    half = (place.folder / "whole" / "journal.bin").stat().st_size // 2
    process = subprocess.Popen(command("edge_zofc", *words), stderr=subprocess.DEVNULL)  # noqa: S603 - our own words
    ends = time.monotonic() + LEARN_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        if journal.exists() and journal.stat().st_size >= half:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    code, size = process.wait(), journal.stat().st_size
    stream = ["--stream", place.stream("ti"), "--run", place.folder / "killed"]
    resumed = good(zofc("learn", "--resume", *stream, seconds=LEARN_SECONDS))
    same = {key: value == place.bits("killed").get(key) for key, value in place.bits("whole").items()}
    return {"killed_with": code, "journal_bytes_then": size, "resumed_seconds": resumed.seconds, "same_bits": same}


def arena(place: Place) -> dict[str, Any]:
    """GPU memory in use at the peak of ``learn`` on the large network, by the arena's limit."""
    found: dict[str, Any] = {}
    for limit in (512, 4096):
        with used_gpu_memory() as used:
            ended = place.learn(f"arena-{limit}", place.profile(limit), "--max-steps", 2, bundle="base")
        found[f"{limit} MiB"] = {"used_mib": used(), **ending(ended)}
    return found


def too_small(place: Place) -> dict[str, Any]:
    """What ``learn`` says where the arena has no room: for the weights (8 MiB), for the activations (32 and 64 MiB)."""
    found = {}
    for limit in (8, 32, 64):
        words = ("--micro-batch", 16, "--parallel-queries", 5, "--max-steps", 2)
        found[f"{limit} MiB"] = ending(place.learn(f"small-{limit}", place.profile(limit), *words))
    return found


def ending(ended: Ended) -> dict[str, Any]:
    """Exit code, seconds and the last lines of a command."""
    seconds = [task["seconds"] for task in ended.answer.get("tasks", [])]
    return {"exit_code": ended.code, "seconds": round(ended.seconds, 2), "tasks": seconds, "said": ended.errors[-700:]}


def base(place: Place) -> dict[str, Any]:
    """Two steps of a batch of 48 on the large network: the provider, then the CPU."""
    words = ("--batch-size", 48, "--epochs", 1, "--head", "cosine", "--max-steps", 2)
    profiles = {place.provider: place.profile(16384), "the CPU": place.profile(provider=CPU)}
    return {name: ending(place.learn(f"base-{at}", profile, *words, bundle="base"))
            for at, (name, profile) in enumerate(profiles.items())}  # fmt: skip


def _warnings(ended: Ended) -> list[str]:
    return [line for line in ended.errors.splitlines() if "not used" in line or "not enforced" in line]


@contextmanager
def used_gpu_memory() -> Iterator[Callable[[], float | None]]:
    """Calls for the peak in MiB above the start, as nvidia-smi tells it; None where there is none."""
    before, done, seen = _gpu_used(), threading.Event(), [0.0]

    def watch() -> None:
        while before is not None and not done.wait(0.1):
            seen.append(_gpu_used() or 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: None if before is None else max(seen) - before
    finally:
        done.set()
        watcher.join()


def _gpu_used() -> float | None:
    found = shutil.which("nvidia-smi")
    if found is None:
        return None
    told = run([found, "--query-gpu=memory.used", "--format=csv,noheader,nounits"], 10).output
    return float(told.split()[0]) if told.strip() else None


def checks() -> dict[str, Callable[[Place], dict[str, Any]]]:
    """Name -> check, the quick ones on the package's ViT first."""
    return {
        "doctor": doctor,
        "features, package's ViT": features,
        "same seed twice, replay": repeats,
        "same seed twice, TF32 on": lambda place: repeats(place, tf32="1"),
        "kill -9 and resume": killed,
        "arena too small": too_small,
        "export ViT-B": lambda place: {"bundle": place.bundle("base").name},
        "features, ViT-B": lambda place: features(place, "base"),
        "learn, ViT-B, 2 steps": base,
        "arena's limit, ViT-B": arena,
    }
