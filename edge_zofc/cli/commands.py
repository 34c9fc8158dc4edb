"""One function a command: call the runtime, print the answer.

Heavy parts are imported inside the functions. ``edge-zofc --help`` loads neither onnxruntime nor torch, and the
commands of the device never load the workstation's packages.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from edge_zofc.cli import arguments
from edge_zofc.errors import EdgeZofcError, InputError, shown

if TYPE_CHECKING:
    from edge_zofc.device.memory_plan import MemoryPlan
    from edge_zofc.engine.disk_plan import DiskPlan

log = logging.getLogger("edge_zofc")


def demo(options: argparse.Namespace) -> int:
    """Export the package's ViT, learn the digits stream, write and show the report."""
    from edge_zofc.cli.demo import run_demo

    return _print(options, run_demo(options.folder, options.seed), lambda: "")


def export(options: argparse.Namespace) -> int:
    """Write a bundle."""
    module = _workstation("writer")
    given = vars(options)
    asked = {field.name: given[field.name] for field in fields(module.ExportOptions) if field.name in given}
    bundle = module.export_bundle(module.ExportOptions(**asked), log.info)
    manifest = bundle.manifest
    fidelity = manifest.fidelity
    return _print(
        options,
        {"bundle": str(bundle.folder), "identity": bundle.identity, **manifest.model_dump(mode="json")},
        lambda: (
            f"{bundle.folder}: {manifest.backbone.name} at {manifest.image.size} px, {manifest.precision}, "
            f"{manifest.adapter.size} adapter parameters on blocks {list(manifest.adapter.blocks)}\n"
            f"fidelity at eps {fidelity.eps:.4g}: one-sided {fidelity.one_sided:.3f}, "
            f"two-sided {fidelity.two_sided:.3f} ({fidelity.directions} directions)"
        ),
    )


def split(options: argparse.Namespace) -> int:
    """Turn an ImageFolder into a stream."""
    from edge_zofc.data.split import split_image_folder

    per_task = arguments.classes_per_task(options.classes_per_task)
    found = split_image_folder(options.source, options.out, per_task, options.seed, options.copy)
    for note in found.notes:
        log.info("%s", note)
    return _print(
        options,
        asdict(found),
        lambda: (
            f"{options.out}: {found.tasks} tasks, {found.classes} classes, "
            f"{found.train_images} pictures to learn from, {found.test_images} to test with"
        ),
    )


def plan(options: argparse.Namespace) -> int:
    """Predict the peak memory of learning, and the disk that it takes."""
    from edge_zofc.algorithm.options import make_options
    from edge_zofc.device.memory_plan import Fixed
    from edge_zofc.device.profiles import load_profile
    from edge_zofc.engine.disk_plan import predict_disk
    from edge_zofc.engine.setup import Device, make_plan
    from edge_zofc.engine.work import stream_sizes
    from edge_zofc.storage.bundle import read_bundle

    bundle = read_bundle(options.bundle)
    chosen = make_options(options.preset or "edge", arguments.changes(options))
    tasks = stream_sizes(options.stream) if options.stream else ()
    disk = predict_disk(bundle, chosen, tasks)
    device = Device(load_profile(options.device_profile), arguments.budget(options))
    fixed = Fixed(options.micro_batch, options.parallel_queries)
    found = make_plan(bundle, chosen, device, fixed=fixed)
    data = asdict(found) | found.placement.model_dump()
    del data["placement"]
    data |= {"disk": asdict(disk), "disk_bytes": disk.bytes}
    return _print(options, data, lambda: f"{_memory_table(found)}\n\n{_disk_table(disk, len(tasks))}")


def learn(options: argparse.Namespace) -> int:
    """Learn the pending tasks of a stream."""
    from edge_zofc.cli.progress import ProgressBar
    from edge_zofc.engine.run import learn_run, silent
    from edge_zofc.engine.setup import LearnRequest
    from edge_zofc.engine.watch import watch_run
    from edge_zofc.report.summary import summary

    request = LearnRequest(
        bundle=options.bundle,
        stream=options.stream,
        run=options.run,
        profile=options.device_profile,
        budget_bytes=arguments.budget(options),
        preset=options.preset,
        changes=arguments.changes(options),
        resume=options.resume,
        micro_batch=options.micro_batch,
        parallel_queries=options.parallel_queries,
        max_steps=options.max_steps,
    )
    with ProgressBar() as progress:
        if options.watch:
            result, stopped = watch_run(request, silent, on_forwards=progress.forwards)
        else:
            result = learn_run(request, silent, progress.forwards)
            stopped = result.stopped or ""
    # A watch that was stopped before it learnt anything has no result to show.
    data = {**(result.model_dump(mode="json") if result else {}), "stopped": stopped or None}
    _print(options, data, lambda: summary(data, arguments.terminal_width()) if result else "")
    if not stopped:
        return 0
    if result is not None:
        log.info("Stopped after step %d; go on with the same command and --resume.", result.steps)
    return 128 + int(signal.Signals[stopped])


def evaluate(options: argparse.Namespace) -> int:
    """Measure accuracy on a stream."""
    from edge_zofc.engine.predict import evaluate as evaluate_stream
    from edge_zofc.engine.predict import open_backbone, open_run

    trained = open_run(options.run, options.bundle)
    found = evaluate_stream(trained, open_backbone(trained, options.threads), options.stream, log.info)

    def text() -> str:
        rows = [(task.name, _percent(task.accuracy), f"of {task.total}") for task in found.tasks]
        rows.append(("all", _percent(found.accuracy), f"of {sum(task.total for task in found.tasks)}"))
        rows.append(("mean over classes", _percent(found.mean_per_class_accuracy), ""))
        lines = [_table(rows, align=("left", "right", "left"))]
        if found.unknown_classes:
            lines.append("not learnt yet, left out: " + ", ".join(found.unknown_classes))
        return "\n".join(lines)

    return _print(options, asdict(found), text)


def predict(options: argparse.Namespace) -> int:
    """Name pictures."""
    from edge_zofc.engine.predict import open_backbone, open_run
    from edge_zofc.engine.predict import predict as predict_pictures

    trained = open_run(options.run, options.bundle)
    # What the run's plan found room for is what this process may take, too.
    size = min(len(options.images), trained.settings.execution.micro_batch)
    found = predict_pictures(trained, open_backbone(trained, options.threads, size), options.images, options.top)
    answers: list[dict[str, Any]] = []
    for path, guesses in zip(options.images, found, strict=True):
        if isinstance(guesses, EdgeZofcError):
            answers.append({"image": str(path), "error": str(guesses)})
        else:
            answers.append({"image": str(path), "classes": [asdict(guess) for guess in guesses]})

    def line(answer: dict[str, Any]) -> str:
        named = (f"{g['class_name']} {g['probability']:.3f}" for g in answer.get("classes", ()))
        return f"{shown(answer['image'])}: {answer.get('error') or ', '.join(named)}"

    _print(options, {"predictions": answers}, lambda: "\n".join(map(line, answers)))
    return InputError.exit_code if any("error" in answer for answer in answers) else 0


def deploy(options: argparse.Namespace) -> int:
    """Write one plain ONNX file."""
    from edge_zofc.engine.predict import open_run

    module = _workstation("deploy")
    trained = open_run(options.run, options.bundle)
    module.deploy(
        trained.head, trained.adapter, trained.class_names, trained.bundle, options.out, normalise=trained.normalise
    )
    size_mib = options.out.stat().st_size / 2**20
    return _print(
        options,
        {"out": str(options.out), "classes": list(trained.class_names), "mib": round(size_mib, 2)},
        lambda: f"{options.out}: {len(trained.class_names)} classes, {size_mib:.1f} MiB",
    )


def report(options: argparse.Namespace) -> int:
    """Write the HTML report and print the summary."""
    from edge_zofc.report.summary import summary, write_report
    from edge_zofc.storage.result import read_result

    page = write_report(options.run, options.out)
    result = read_result(options.run)
    return _print(
        options, {"report": str(page)}, lambda: f"{summary(result.model_dump(), arguments.terminal_width())}\n{page}"
    )


def replay(options: argparse.Namespace) -> int:
    """Rebuild the adapter."""
    from edge_zofc.engine.history import replay_run

    found = replay_run(options.bundle, options.journal, options.out, options.until_step, options.until_task)
    return _print(
        options,
        asdict(found),
        lambda: f"{options.out}: {found.steps} steps applied, SHA-256 of the adapter {found.sha256}",
    )


def history(options: argparse.Namespace) -> int:
    """List tasks, steps, accuracies and sizes."""
    from edge_zofc.engine.history import read_history

    found = read_history(options.run)

    def text() -> str:
        head = ("task", "name", "classes", "pictures", "steps", "accuracy", "")
        names = ("task", "name", "classes", "train_images", "steps")
        rows = [
            (*(t[name] for name in names), _percent(t["stage_accuracy"]), "" if t["finished"] else "(unfinished)")
            for t in found["tasks"]
        ]
        largest = sorted(found["bytes"].items(), key=lambda item: -item[1])[:4]
        parts = ", ".join(f"{name} {_mib(size)}" for name, size in largest)
        lines = [_table(rows, head, ("right", "left", *["right"] * 4, "left"))]
        lines.append(f"{found['steps']} steps; {_mib(sum(found['bytes'].values()))} MiB on disk ({parts})")
        if found["rollbacks_to"]:
            lines.append("rolled back to task " + ", then ".join(map(str, found["rollbacks_to"])))
        return "\n".join(lines)

    return _print(options, found, text)


def rollback(options: argparse.Namespace) -> int:
    """Go back to the state after a task."""
    from edge_zofc.engine.history import roll_back

    found = roll_back(options.run, options.to_task)
    return _print(options, found, lambda: f"{options.run} is back at the end of task {options.to_task}.")


def profiles(options: argparse.Namespace) -> int:
    """List the profiles, or show one."""
    from edge_zofc.device.profiles import load_profile, profile_names

    found = [load_profile(name) for name in ([options.name] if options.name else profile_names())]

    def text() -> str:
        if options.name:
            return "\n".join(f"{key} = {value}" for key, value in found[0].model_dump(mode="json").items())
        rows = [(p.name, p.ram_mib, p.learning_budget_mib, p.description) for p in found]
        return _table(rows, ("name", "RAM MiB", "budget MiB", ""), ("left", "right", "right", "left"))

    return _print(options, {"profiles": [p.model_dump(mode="json") for p in found]}, text)


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine has, and whether it computes a bundle's probe as the workstation did."""
    from edge_zofc.report.doctor import inspect, table
    from edge_zofc.storage.bundle import read_bundle

    findings = inspect(read_bundle(options.bundle) if options.bundle else None)
    data = {"findings": [asdict(finding) for finding in findings]}
    _print(options, data, lambda: table(findings, arguments.terminal_width()))
    return InputError.exit_code if any(finding.ok is False for finding in findings) else 0


def bench(options: argparse.Namespace) -> int:
    """Hand over to the benchmark that was named; by name, as the benchmarks stand above the commands."""
    _need("onnx", "timm")
    code: int = importlib.import_module("edge_zofc.benchmarks").run(options.name, options.rest)
    return code


def _memory_table(found: MemoryPlan) -> str:
    rows = [(i.name, _mib(i.anonymous_bytes), _mib(i.file_bytes), i.note) for i in found.items]
    total = f"{_mib(found.peak_bytes)} MiB together"
    rows.append(("predicted peak", _mib(found.anonymous_bytes), _mib(found.file_bytes), total))
    rows.append(("budget", _mib(found.budget_bytes), "", ""))
    head = ("MiB", "anonymous", "file-backed", "")
    return f"{_table(rows, head, ('left', 'right', 'right', 'left'))}\n\n{found.reason}"


def _disk_table(found: DiskPlan, tasks: int) -> str:
    what = f"{tasks} tasks, {found.steps} steps" if tasks else "before any task; give --stream for its tasks"
    rows = [(item.name, f"{item.bytes / 1024:.1f}", item.note) for item in found.items]
    rows.append(("together", f"{found.bytes / 1024:.1f}", what))
    return _table(rows, ("disk", "KiB", ""), ("left", "right", "left"))


def _table(rows: Sequence[Sequence[object]], head: Sequence[str] = (), align: Sequence[str] = ()) -> str:
    from tabulate import tabulate

    return tabulate(rows, head, tablefmt="plain", colalign=align, disable_numparse=True)


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f}"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}%"


def _workstation(name: str) -> Any:
    """A module of the workstation side, or one sentence on how to install it."""
    try:
        return importlib.import_module(f"edge_zofc.export.{name}")
    except ModuleNotFoundError as error:
        raise _missing(error.name) from error


def _need(*packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise _missing(name)


def _missing(package: str | None) -> InputError:
    return InputError(
        f"This command needs the package {package}; install the workstation's packages with "
        "pip install 'edge-zofc[export]'."
    )


def _print(options: argparse.Namespace, data: dict[str, Any], text: Callable[[], str]) -> int:
    if options.json:
        print(json.dumps(data, default=str))  # noqa: T201 - this is the program's output
    elif answer := text():
        print(answer)  # noqa: T201
    return 0
