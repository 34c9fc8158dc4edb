"""The command line: one function a sub-command, and the one place that turns errors into exit codes.

0 done, 2 usage or bad input, 3 does not fit, 4 diverged, 5 damaged file; 130 and 143 after SIGINT and SIGTERM.

What may surprise: heavy parts are imported inside the functions. ``edge-zofc --help`` loads neither onnxruntime nor
torch, and the commands of the device never load the workstation's packages.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edge_zofc import __version__
from edge_zofc.cli import arguments
from edge_zofc.errors import DoesNotFitError, EdgeZofcError, InputError, explanation, shown

if TYPE_CHECKING:
    from edge_zofc.device.memory_plan import MemoryPlan

log = logging.getLogger("edge_zofc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(argv)
    # Logs and progress go to stderr, so that stdout holds the answer alone.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except EdgeZofcError as error:
        return _failed(options, str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; there is nobody left to tell.
        sys.stderr.close()
        return 0
    except OSError as error:
        # Readers and writers explain their own; this is a path that could not even be looked at.
        told = explanation(error)
        return _failed(options, str(told), told.exit_code)
    except MemoryError as error:
        return _failed(options, f"Memory ran out ({error}); give a larger budget.", DoesNotFitError.exit_code)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-zofc",
        description="Keep learning new classes on a small computer with the memory of inference.",
    )
    parser.add_argument("--version", action="version", version=f"edge-zofc {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, function, fill, text in (
        ("demo", demo, arguments.demo, "the whole road on what ships in the package: export, learn, report"),
        ("export", export, arguments.export, "write a bundle: a frozen ViT with a small adapter as ONNX"),
        ("split", split, arguments.split, "turn an ImageFolder into a class-incremental stream"),
        ("plan", plan, arguments.plan, "predict the peak memory and the disk of learning, before it runs"),
        ("learn", learn, arguments.learn, "learn the tasks of a stream that a run has not learnt yet"),
        ("eval", evaluate, arguments.evaluate, "measure a run's accuracy on a stream's test pictures"),
        ("predict", predict, arguments.predict, "name pictures with what a run has learnt"),
        ("deploy", deploy, arguments.deploy, "write what a run has learnt as one plain ONNX file"),
        ("report", report, arguments.report, "write a run's report as one HTML page"),
        ("replay", replay, arguments.replay, "rebuild the adapter from bundle and journal alone"),
        ("history", history, arguments.history, "list what a run has learnt, and when"),
        ("rollback", rollback, arguments.rollback, "go back to the state after an earlier task"),
        ("profiles", profiles, arguments.profiles, "list the device profiles, or show one"),
        ("doctor", doctor, arguments.doctor, "say what this machine has and what it lacks"),
        ("bench", bench, arguments.bench, "measure memory, speed or accuracy side by side"),
    ):
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        fill(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        sub.set_defaults(command=function)
    return parser


def demo(options: argparse.Namespace) -> int:
    """Export the package's ViT, learn the digits stream, write and show the report."""
    from edge_zofc.cli.demo import run_demo

    result = run_demo(options.folder, options.seed)
    return _print(options, result, lambda: "")


def export(options: argparse.Namespace) -> int:
    """Write a bundle."""
    module = _workstation("writer")
    bundle = module.export_bundle(arguments.export_options(options, module), log.info)
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

    found = split_image_folder(
        options.source, options.out, arguments.classes_per_task(options.classes_per_task), options.seed
    )
    for note in found.notes:
        log.info("%s", note)
    return _print(
        options,
        dataclasses.asdict(found),
        lambda: (
            f"{options.out}: {found.tasks} tasks, {found.classes} classes, "
            f"{found.train_images} pictures to learn from, {found.test_images} to test with"
        ),
    )


def plan(options: argparse.Namespace) -> int:
    """Predict the peak memory of learning, and the disk that it takes."""
    from edge_zofc.algorithm.options import make_options
    from edge_zofc.device.profiles import load_profile
    from edge_zofc.engine.disk_plan import disk_table, predict_disk, stream_sizes
    from edge_zofc.engine.setup import make_plan
    from edge_zofc.storage.bundle import read_bundle

    bundle = read_bundle(options.bundle)
    chosen = make_options(options.preset or "edge", arguments.changes(options))
    tasks = stream_sizes(options.stream) if options.stream else ()
    disk = predict_disk(bundle, chosen, tasks)
    found = make_plan(
        bundle,
        load_profile(options.device_profile),
        chosen,
        budget_bytes=arguments.budget(options),
        micro_batch=options.micro_batch,
        parallel_queries=options.parallel_queries,
    )
    data = {
        **dataclasses.asdict(found),
        "disk": dataclasses.asdict(disk),
        "disk_bytes": disk.bytes,
    }
    return _print(options, data, lambda: f"{_plan_table(found)}\n\n{disk_table(disk, len(tasks))}")


def learn(options: argparse.Namespace) -> int:
    """Learn the pending tasks of a stream."""
    from edge_zofc.cli.progress import StepProgress
    from edge_zofc.engine.run import learn_run
    from edge_zofc.engine.setup import Request
    from edge_zofc.engine.watch import watch_run
    from edge_zofc.report.summary import summary

    request = Request(
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
    with StepProgress() as progress:
        result = (watch_run if options.watch else learn_run)(request, progress.step)
    stopped = result.get("stopped")
    # A watch that was stopped before it learnt anything has no result to show.
    _print(options, result, lambda: summary(result, arguments.terminal_width()) if "steps" in result else "")
    if stopped is None:
        return 0
    if "steps" in result:
        log.info("Stopped after step %d; go on with the same command and --resume.", result["steps"])
    return 128 + int(signal.Signals[stopped]) if stopped in signal.Signals.__members__ else 0


def evaluate(options: argparse.Namespace) -> int:
    """Measure accuracy on a stream."""
    from edge_zofc.engine.predict import evaluate as evaluate_stream
    from edge_zofc.engine.predict import open_backbone, open_learned

    learned = open_learned(options.run, options.bundle)
    found = evaluate_stream(learned, open_backbone(learned, options.threads), options.stream, log.info)

    def text() -> str:
        lines = [f"{task.name:32} {_percent(task.accuracy)}  of {task.total}" for task in found.tasks]
        lines.append(f"{'all':32} {_percent(found.accuracy)}  of {sum(t.total for t in found.tasks)}")
        lines.append(f"{'mean over classes':32} {_percent(found.mean_per_class_accuracy)}")
        if found.unknown_classes:
            lines.append("not learnt yet, left out: " + ", ".join(found.unknown_classes))
        return "\n".join(lines)

    return _print(options, dataclasses.asdict(found), text)


def predict(options: argparse.Namespace) -> int:
    """Name pictures."""
    from edge_zofc.engine.predict import open_backbone, open_learned
    from edge_zofc.engine.predict import predict as predict_pictures

    learned = open_learned(options.run, options.bundle)
    # What the run's plan found room for is what this process may take, too.
    backbone = open_backbone(
        learned, options.threads, min(len(options.images), learned.settings.execution.micro_batch)
    )
    found = predict_pictures(learned, backbone, options.images, options.top)
    answers: list[dict[str, Any]] = []
    for path, guesses in zip(options.images, found, strict=True):
        if isinstance(guesses, EdgeZofcError):
            answers.append({"image": str(path), "error": str(guesses)})
        else:
            answers.append({"image": str(path), "classes": [dataclasses.asdict(guess) for guess in guesses]})

    def text() -> str:
        return "\n".join(
            f"{shown(answer['image'])}: "
            + (
                answer.get("error")
                or ", ".join(f"{g['class_name']} {g['probability']:.3f}" for g in answer["classes"])
            )
            for answer in answers
        )

    _print(options, {"predictions": answers}, text)
    return InputError.exit_code if any("error" in answer for answer in answers) else 0


def deploy(options: argparse.Namespace) -> int:
    """Write one plain ONNX file."""
    from edge_zofc.engine.predict import open_learned

    module = _workstation("deploy")
    learned = open_learned(options.run, options.bundle)
    module.deploy(
        learned.head,
        learned.adapter,
        learned.class_names,
        learned.bundle,
        options.out,
        normalise=learned.normalise,
    )
    size_mib = options.out.stat().st_size / 2**20
    return _print(
        options,
        {"out": str(options.out), "classes": list(learned.class_names), "mib": round(size_mib, 2)},
        lambda: f"{options.out}: {len(learned.class_names)} classes, {size_mib:.1f} MiB",
    )


def report(options: argparse.Namespace) -> int:
    """Write the HTML report and print the summary."""
    from edge_zofc.report.summary import summary, write_report
    from edge_zofc.storage.result import read_result

    page = write_report(options.run, options.out)
    result = read_result(options.run)
    return _print(
        options,
        {"report": str(page)},
        lambda: f"{summary(result.model_dump(), arguments.terminal_width())}\n{page}",
    )


def replay(options: argparse.Namespace) -> int:
    """Rebuild the adapter."""
    from edge_zofc.engine.history import replay_run

    found = replay_run(options.bundle, options.journal, options.out, options.until_step, options.until_task)
    return _print(
        options,
        dataclasses.asdict(found),
        lambda: f"{options.out}: {found.steps} steps applied, SHA-256 of the adapter {found.sha256}",
    )


def history(options: argparse.Namespace) -> int:
    """List tasks, steps, accuracies and sizes."""
    from edge_zofc.engine.history import history_table, read_history

    found = read_history(options.run)
    return _print(options, found, lambda: history_table(found))


def rollback(options: argparse.Namespace) -> int:
    """Go back to the state after a task."""
    from edge_zofc.engine.history import roll_back

    found = roll_back(options.run, options.to_task)
    return _print(options, found, lambda: f"{options.run} is back at the end of task {options.to_task}.")


def profiles(options: argparse.Namespace) -> int:
    """List the profiles, or show one."""
    from edge_zofc.device.profiles import load_profile, profile_names

    names = [options.name] if options.name else profile_names()
    found = [load_profile(name) for name in names]

    def text() -> str:
        if options.name:
            return "\n".join(f"{key} = {value}" for key, value in found[0].model_dump(mode="json").items())
        rows = [f"{p.name:20} {p.ram_mib:>8} {p.learning_budget_mib:>10}  {p.description}" for p in found]
        return "\n".join([f"{'name':20} {'RAM MiB':>8} {'budget MiB':>10}", *rows])

    return _print(options, {"profiles": [p.model_dump(mode="json") for p in found]}, text)


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine has, and whether it computes a bundle's probe as the workstation did."""
    from edge_zofc.report.doctor import inspect
    from edge_zofc.storage.bundle import read_bundle

    bundle = read_bundle(options.bundle) if options.bundle else None
    findings = inspect(bundle)

    def text() -> str:
        marks = {True: "ok  ", False: "BAD ", None: "    "}
        return "\n".join(
            f"{marks[f.ok]} {f.name:24} {f.detail}" + (f"\n{'':30}-> {f.remedy}" if f.remedy else "")
            for f in findings
        )

    _print(options, {"findings": [dataclasses.asdict(f) for f in findings]}, text)
    return InputError.exit_code if any(f.ok is False for f in findings) else 0


def bench(options: argparse.Namespace) -> int:
    """Hand over to the benchmark that was named."""
    _workstation("writer")  # the benchmarks need the same packages
    import importlib

    # By name: the benchmarks stand above the commands.
    code: int = importlib.import_module("edge_zofc.benchmarks").run(options.name, options.rest)
    return code


def _plan_table(found: MemoryPlan) -> str:
    rows = [(item.name, item.anonymous_bytes, item.file_bytes, item.note) for item in found.items]
    rows.append(
        ("predicted peak", found.anonymous_bytes, found.file_bytes, f"{_mib(found.peak_bytes)} MiB together")
    )
    width = max(len(row[0]) for row in rows)
    lines = [f"{'MiB':{width}} {'anonymous':>10} {'file-backed':>12}"]
    lines += [
        f"{name:{width}} {_mib(anonymous):>10} {_mib(mapped):>12}  {note}"
        for name, anonymous, mapped, note in rows
    ]
    lines.append(f"{'budget':{width}} {_mib(found.budget_bytes):>10}")
    return "\n".join([*lines, "", found.reason])


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f}"


def _workstation(name: str) -> Any:
    """A module of the workstation side, or one sentence on how to install it."""
    import importlib

    try:
        return importlib.import_module(f"edge_zofc.export.{name}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"This command needs the package {error.name}; install the workstation's packages with "
            "pip install 'edge-zofc[export]'."
        ) from error


def _percent(fraction: float | None) -> str:
    return "     –" if fraction is None else f"{100 * fraction:5.1f}%"


def _print(options: argparse.Namespace, data: dict[str, Any], text: Callable[[], str]) -> int:
    if options.json:
        print(json.dumps(data, default=str))  # noqa: T201 - this is the program's output
    elif shown := text():
        print(shown)  # noqa: T201
    return 0


def _failed(options: argparse.Namespace, sentence: str, code: int) -> int:
    if options.json:
        print(json.dumps({"error": sentence, "exit_code": code}))  # noqa: T201
    print(f"edge-zofc: {sentence}", file=sys.stderr)  # noqa: T201
    return code
