"""One function a command of the device: call the runtime, print the answer. Its docstring is the help of the command.

Heavy parts are imported inside the functions. ``edge-zofc --help`` loads neither onnxruntime nor torch, and the
commands of the device never load the workstation's packages. Those of the workstation stand in ``workstation.py``.
"""

from __future__ import annotations

import argparse
import logging
import signal
from contextlib import closing
from dataclasses import asdict, fields
from typing import Any

from edge_zofc.cli import arguments
from edge_zofc.cli.answer import answer, terminal_width
from edge_zofc.cli.argument_kinds import RUN
from edge_zofc.errors import EdgeZofcError, InputError, shown

log = logging.getLogger("edge_zofc")


def split(options: argparse.Namespace) -> int:
    """Turn an ImageFolder into a class-incremental stream."""
    from edge_zofc.data.split import split_image_folder

    per_task = arguments.classes_per_task(options.classes_per_task)
    found = split_image_folder(options.source, options.out, per_task, options.seed, options.copy)
    for note in found.notes:
        log.info("%s", note)
    counts = f"{found.tasks} tasks, {found.classes} classes, {found.train_images} pictures to learn from"
    return answer(options, asdict(found), f"{options.out}: {counts}, {found.test_images} to test with")


def capture(options: argparse.Namespace) -> int:
    """Take a burst of pictures of one thing with a camera, to learn from or to test with."""
    from edge_zofc.live import capture as taking
    from edge_zofc.live.camera import open_camera
    from edge_zofc.signals import exit_on_sigterm

    folder = taking.class_folder(options.folder, options.name, test=options.test)
    limits = taking.Limits(options.count, options.every, options.seconds)
    camera = open_camera(options.camera, options.camera_command)
    if camera.source.kind == "browser":
        raise InputError("A browser sends its pictures to 'edge-zofc live' alone; give capture another camera.")
    with exit_on_sigterm(), camera:
        burst = taking.capture(camera, folder, limits)
    data = {"folder": str(folder), "burst": burst.number, "pictures": burst.names, "camera": camera.source.name}
    count = len(burst.names)
    text = f"{shown(folder)}: burst {burst.number}, {count} picture{'s' if count != 1 else ''}"
    if not options.test:
        text += "\nPictures to test with should be another burst: move the thing, then capture with --test."
    answer(options, data | {"part": folder.parent.name, "interrupted": burst.interrupted}, text)
    return 128 + signal.SIGINT if burst.interrupted else 0


def live(options: argparse.Namespace) -> int:
    """Teach by showing: a page in the browser with the camera's picture, what it is, and a button to hold."""
    from edge_zofc.cli.answer import need

    need("starlette", "uvicorn")
    from edge_zofc.live.live import Address, LiveRequest, live
    from edge_zofc.signals import exit_on_sigterm

    def tell(address: Address) -> None:
        if address.warning:
            log.warning("%s", address.warning)
        answer(options, {"address": address.url}, f"Open {address.url}")

    given = {field.name: getattr(options, field.name) for field in fields(LiveRequest)}
    try:
        with exit_on_sigterm():
            stopped = live(LiveRequest(**given), tell)
    except KeyboardInterrupt:  # before the page was there
        return 0
    return 128 + signal.SIGTERM if stopped == "SIGTERM" else 0


def plan(options: argparse.Namespace) -> int:
    """Predict the peak memory, the disk and the time of learning, before it runs."""
    from edge_zofc.algorithm.options import PresetName
    from edge_zofc.cli.estimators_text import estimators_text, timed
    from edge_zofc.cli.fleet_text import fleet_part
    from edge_zofc.cli.plan_text import before_export, plan_text, planned, shows_text
    from edge_zofc.data.stream import read_stream
    from edge_zofc.device.memory_plan import Fixed
    from edge_zofc.device.profiles import AUTO, load_profile
    from edge_zofc.engine.begin import plan_of_teaching
    from edge_zofc.engine.disk_plan import predict_disk
    from edge_zofc.engine.plans import Device, choose, rivals
    from edge_zofc.engine.work import survey

    bundle, sizes = planned(options.bundle, options.backbone, options.img_size)
    stream = read_stream(options.stream) if options.stream else None
    tasks, some = survey(stream, stream.tasks) if stream else ((), [])
    device = Device(load_profile(options.device_profile or AUTO), arguments.budget(options))
    fixed = Fixed(options.micro_batch, options.parallel_queries)
    preset: PresetName = options.preset or "edge"
    classes = len(stream.class_names) if stream else None
    compared = rivals(sizes, preset, arguments.changes(options), device, classes, fixed)
    chosen, found, why = choose(compared)
    rows = timed(compared, bundle, tasks, some)
    disk, time = predict_disk(sizes, chosen, tasks), next(row.time for row in rows if row.rival.options is chosen)
    data = asdict(found) | found.placement.model_dump()
    del data["placement"]
    data |= {"disk": asdict(disk), "disk_bytes": disk.bytes, "time": asdict(time) if time else None}
    data |= {"backbone": options.backbone, "img_size": sizes.image_side, "estimator": chosen.estimator, "why": why}
    data["estimators"] = [row.as_dict() for row in rows]
    shows = [plan_of_teaching(sizes, found.placement, 1, page=page) for page in (False, True)]
    data |= {"teach_peak_bytes": shows[0].peak_bytes, "live_peak_bytes": shows[1].peak_bytes}
    notes = [before_export(options.backbone, sizes)] if options.backbone else []
    notes += [why] if chosen.moves else []
    text = plan_text(found, disk, len(tasks), terminal_width(), notes)
    text += f"\n\n{estimators_text(rows, chosen, terminal_width())}"
    if chosen.head == "lda":
        text += f"\n\n{shows_text(shows[0], shows[1], terminal_width())}"
    facts, more = fleet_part(compared, chosen, device, classes, terminal_width()) if options.fleet else ({}, "")
    return answer(options, data | facts, text + more)


def learn(options: argparse.Namespace) -> int:
    """Learn the tasks of a stream that a run has not learnt yet."""
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
        evaluate=options.evaluate,
    )
    with closing(ProgressBar()) as progress:
        if options.watch:
            result, stopped = watch_run(request, silent, on_forwards=progress.forwards)
        else:
            result = learn_run(request, silent, progress.forwards)
            stopped = result.stopped or ""
    # A watch that was stopped before it learnt anything has no result to show.
    data = {**(result.model_dump(mode="json") if result else {}), "stopped": stopped or None}
    answer(options, data, summary(data, terminal_width()) if result else "")
    if not stopped:
        return 0
    if result is not None:
        log.info("Stopped after step %d; go on with the same command and --resume.", result.steps)
    return 128 + int(signal.Signals[stopped])


def evaluate(options: argparse.Namespace) -> int:
    """Measure a run's accuracy on a stream's test pictures."""
    from edge_zofc.engine import predict as using
    from edge_zofc.report.text import percent, table

    trained = using.open_run(options.run, options.bundle)
    found = using.evaluate(trained, using.open_backbone(trained, options.threads), options.stream, log.info)
    rows = [(task.name, percent(task.accuracy), f"of {task.total}") for task in found.tasks]
    rows.append(("all", percent(found.accuracy), f"of {sum(task.total for task in found.tasks)}"))
    rows.append(("mean over classes", percent(found.mean_per_class_accuracy), ""))
    unknown = ", ".join(map(shown, found.unknown_classes))
    text = table(rows, "lrl", terminal_width()) + (f"\nnot learnt yet, left out: {unknown}" if unknown else "")
    return answer(options, asdict(found), text)


def predict(options: argparse.Namespace) -> int:
    """Name pictures, or what a camera sees, with what a run has learnt."""
    from edge_zofc.cli.camera_answers import asks_a_camera, predict_camera
    from edge_zofc.cli.teaching import named_text
    from edge_zofc.engine import predict as using

    if asks_a_camera(options):
        return predict_camera(options)
    run, pictures, notes = using.run_and_pictures(options.names, RUN)
    for text in notes:
        log.warning(text)
    trained = using.open_run(run, options.bundle, needs_limit=True)
    # What the run's plan found room for is what this process may take, too.
    size = min(len(pictures), trained.settings.execution.micro_batch)
    backbone = using.open_backbone(trained, options.threads, size)
    found = using.predict(trained, backbone, pictures, options.top or 1)
    answers: list[dict[str, Any]] = []
    lines = []
    for path, one in zip(pictures, found, strict=True):
        if isinstance(one, EdgeZofcError):
            answers.append({"image": str(path), "error": str(one)})
            lines.append(f"{shown(path)}: {str(one).removeprefix(shown(path)).lstrip()}")
        else:
            classes = [asdict(guess) for guess in one.guesses]
            answers.append({"image": str(path), "likeness": one.likeness, "unknown": one.unknown, "classes": classes})
            lines.append(f"{shown(path)}: {named_text(one, options.unknown)}")
    answer(options, {"predictions": answers}, "\n".join(lines))
    return InputError.exit_code if any("error" in answer for answer in answers) else 0


def report(options: argparse.Namespace) -> int:
    """Write the report of a run or a fleet as one HTML page."""
    from edge_zofc.cli.fleet import fleet_report
    from edge_zofc.report.summary import summary, write_report
    from edge_zofc.storage.fleet_folder import FleetFolder
    from edge_zofc.storage.lesson_log import LessonFolder
    from edge_zofc.storage.result import read_result

    if FleetFolder(options.run).is_fleet():
        return fleet_report(options.run, options)
    page = write_report(options.run, options.out, options.stream, options.pictures)
    if LessonFolder(options.run).is_there():
        log.info("What was shown by teach or live is in no number here; see 'edge-zofc lesson %s'.", options.run)
    told = summary(read_result(options.run).model_dump(), terminal_width())
    return answer(options, {"report": str(page)}, f"{told}\n{page}")


def replay(options: argparse.Namespace) -> int:
    """Rebuild the adapter from bundle and journal alone."""
    from edge_zofc.engine.replay import replay_run

    found = replay_run(options.bundle, options.journal, options.out, options.until_step, options.until_task)
    text = f"{options.out}: {found.steps} steps applied, SHA-256 of the adapter {found.sha256}"
    return answer(options, asdict(found), text)


def history(options: argparse.Namespace) -> int:
    """List what a run has learnt, and when."""
    from edge_zofc.device.profiles import format_bytes
    from edge_zofc.engine.history import read_history
    from edge_zofc.report.text import gate_word, percent, table

    found = read_history(options.run, options.bundle)
    rows: list[tuple[Any, ...]] = [("task", "classes", "pictures", "steps", "its own", "all seen", "adapter", "name")]
    for task in found["tasks"]:
        numbers = (task[name] for name in ("task", "classes", "train_images", "steps"))
        name = task["name"] if task["finished"] else f"{task['name']} (unfinished)"
        accuracies = (percent(task[which]) for which in ("own_accuracy", "stage_accuracy"))
        rows.append((*numbers, *accuracies, "stays" if task["adapter_stays"] else gate_word(task["adapter"]), name))
    largest = sorted(found["bytes"].items(), key=lambda item: -item[1])[:4]
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in largest)
    lines = [table(rows, "rrrrrrrl", terminal_width())]
    lines.append(f"{found['steps']} steps; {format_bytes(sum(found['bytes'].values()))} on disk ({parts})")
    if found["rollbacks_to"]:
        lines.append("rolled back to task " + ", then ".join(map(str, found["rollbacks_to"])))
    return answer(options, found, "\n".join(lines))


def rollback(options: argparse.Namespace) -> int:
    """Go back to the state after an earlier task."""
    from edge_zofc.engine.history import roll_back

    found = roll_back(options.run, options.to_task, options.bundle)
    return answer(options, found, f"{options.run} is back at the end of task {options.to_task}.")


def profiles(options: argparse.Namespace) -> int:
    """List the device profiles, or show one."""
    from edge_zofc.device.profiles import MIB, format_bytes, load_profile, profile_names
    from edge_zofc.report.text import table

    found = [load_profile(name) for name in ([options.name] if options.name else profile_names())]
    data = {"profiles": [profile.model_dump(mode="json") for profile in found]}
    if options.name:
        return answer(options, data, "\n".join(f"{key} = {value}" for key, value in data["profiles"][0].items()))
    rows = [("name", "RAM", "budget", "verified", "board")]
    for profile in found:
        ram, budget = format_bytes(profile.ram_mib * MIB), format_bytes(profile.learning_budget_bytes)
        rows.append((profile.name, ram, budget, "yes" if profile.verified_on_hardware else "no", profile.description))
    told = "verified: whether the limits were tried on the hardware itself"
    return answer(options, data, f"{table(rows, 'lrrll', terminal_width())}\n{told}")


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine has and what it lacks."""
    from edge_zofc.report.doctor import inspect, table
    from edge_zofc.storage.bundle import read_bundle

    findings = inspect(read_bundle(options.bundle) if options.bundle else None)
    answer(options, {"findings": [asdict(finding) for finding in findings]}, table(findings, terminal_width()))
    return InputError.exit_code if any(finding.ok is False for finding in findings) else 0
