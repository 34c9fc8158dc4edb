"""What a fleet's steps gain: ``python -m edge_zofc.benchmarks.accuracy.fleet_steps --help``.

Devices learn with the adapter at rest, and their shares are merged. Then they take the steps of ``fleet serve --steps``
and judge what came of them: the same coordinator and members, in this process, with lists in place of a network. The
head of all is judged on the test pictures of all classes before and after.

``unlike``: the classes are dealt out to the devices. ``like``: each has all classes, and its share of their pictures,
which may be few, so that classes of any number of pictures are shared.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from edge_zofc.algorithm.aggregation import Aggregate
from edge_zofc.benchmarks.accuracy.fleet import dealt_out, fleet_parser, learn_at_rest
from edge_zofc.benchmarks.process import edge_zofc
from edge_zofc.benchmarks.tables import print_measured
from edge_zofc.data.folders import class_folders, part_folder
from edge_zofc.data.stream import numbered_tasks
from edge_zofc.errors import DamagedFileError
from edge_zofc.fleet.coordinator import Coordinator
from edge_zofc.fleet.member import Member
from edge_zofc.fleet.sharing import MIN_PICTURES
from edge_zofc.fleet.stepping import Estimator, Plan, Steps
from edge_zofc.storage.run_folder import EVENTS

COLUMNS = {
    "name": ("pictures", ""),
    "split": ("devices", ""),
    "steps": ("steps", ""),
    "rest": ("at rest", ".1f"),
    "moved": ("after the steps", ".1f"),
    "held": ("held-out right, at rest and moved", ""),
    "verdict": ("the adapter", ""),
    "up_kib": ("KiB up a device and step", ",.1f"),
    "seconds": ("s of the steps", ",.0f"),
}
Split = Literal["unlike", "like"]
SEED = 1993
"""Of the class order."""


def measure(bundle: Path, pictures: Path, split: Split, devices: int, plan: Plan, out: Path) -> dict[str, Any]:
    """One row; accuracies in percent of the test pictures of all classes. Everything stays in ``out``.

    Raises InputError where a command fails or there are fewer classes than unlike devices.
    """
    members = {}
    for number, stream in enumerate(_dealt(pictures, split, devices, out)):
        run, name = out / f"run{number}", f"d{number}"
        learn_at_rest(bundle, stream, run)
        members[name] = Member(run, name, _tell, MIN_PICTURES if split == "unlike" else 1, bundle)

    def exchange(messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
        for name, raw in messages.items():
            yield name, members[name].reply(raw)

    fleet = Coordinator(out / "fleet", bundle, _tell)
    fleet.round(members, exchange, plan.deadline)
    rest, before = _accuracy(out / "fleet", pictures), _bytes_in(fleet)
    began, steps = time.monotonic(), Steps(fleet, plan)
    while steps.are_left:
        if not steps.step(members, exchange):
            raise DamagedFileError("Too few devices measured a step.")
    seconds, up = time.monotonic() - began, _bytes_in(fleet) - before
    steps.judge(members, exchange, plan.deadline)
    for member in members.values():
        member.close()
    events = map(json.loads, (out / "fleet" / EVENTS).read_text(encoding="utf-8").splitlines())
    judged = [one for one in events if one["event"] == "judged"]
    return {
        "name": pictures.name,
        "split": f"{devices} {split}",
        "steps": f"{plan.steps} {plan.estimator}, {plan.pictures} pictures, {plan.aggregate}",
        "rest": rest,
        "moved": _accuracy(out / "fleet", pictures),
        "held": "{right_rest}, {right_moved} of {total}".format(**judged[0]),
        "verdict": "moved" if judged[0]["keeps"] else "rests",
        "up_kib": up / 1024 / devices / max(plan.steps, 1),
        "seconds": seconds,
    }


def _dealt(pictures: Path, split: Split, devices: int, out: Path) -> list[Path]:
    """A stream of one task for each device, of links."""
    if split == "unlike":
        stream = out / "stream"
        dealt_out(pictures, devices, SEED, stream)
        return list(numbered_tasks(stream).values())
    out.mkdir(parents=True)
    found = [out / f"stream{number}" for number in range(devices)]
    for part in ("train", "test"):
        for folder in class_folders(part_folder(pictures, part)):
            for index, picture in enumerate(sorted(folder.iterdir())):
                place = found[index % devices] / part / folder.name
                place.mkdir(parents=True, exist_ok=True)
                (place / picture.name).symlink_to(picture.resolve())
    return found


def _accuracy(fleet: Path, pictures: Path) -> float:
    return 100 * float(edge_zofc("eval", fleet, "--stream", pictures)["accuracy"])


def _bytes_in(fleet: Coordinator) -> int:
    return sum(known.bytes_in for known in fleet.ledger.known.values())


def _tell(sentence: str) -> None:
    if not sentence.startswith("asked"):
        sys.stderr.write(f"{sentence}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Print a Markdown table, a row for each folder of pictures; returns the exit code."""
    parser = fleet_parser("fleet_steps")
    parser.add_argument("--split", choices=get_args(Split), default="unlike", help="what each has (default: unlike)")
    parser.add_argument("--steps", metavar="N", type=int, default=25, help="steps (default: 25)")
    parser.add_argument("--estimator", choices=get_args(Estimator), default="exact", help="default: exact")
    parser.add_argument("--step-pictures", metavar="N", type=int, default=16, help="of a device and step (default: 16)")
    parser.add_argument("--aggregate", choices=get_args(Aggregate), default="trimmed", help="default: trimmed")
    options = parser.parse_args(words)
    plan = Plan(options.steps, options.estimator, pictures=options.step_pictures, aggregate=options.aggregate)
    rows = (
        measure(options.bundle, folder, options.split, options.devices, plan, options.out / folder.name)
        for folder in options.pictures
    )
    return print_measured(COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(main())
