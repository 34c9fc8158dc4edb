"""``edge-zofc bench questions``: the ZO-FC paper's own questions, each a table and a sentence of what was found.

    a  memory of first order over memory of ZO-FC            e  eps in fp32, w8 and int8, fidelity beside it
    b  flatness of the minima, and does it go with forgetting f  where the adapter sits, what of it, which rank
    c  the classifier alone against the whole                g  does naive ZO collapse, do prompts diverge
    d  Q at equal steps and at equal forwards

    OUT/cells, logs, work    one cell a variant (``accuracy/cell.py``); what is there is not run again
    OUT/questions.json, .md  the answers so far

Under the LDA head the adapter adds nothing (LOG.md), so a comparison under it would compare noise. Here the head is the
trained cosine one, started at the class means. The default adapter rate is 3, at which the loss falls within forty
steps. At the paper's 0.01 nothing moves on this small network: its estimates are too short for the clip to act.

Everything is scaled down: few pictures a class, few epochs, one seed, the package's ViT. The answers say by how much.
Where accuracies differ by a picture or two, only the losses mean something.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.accuracy.cell_store import FIRST_SEED, claim
from edge_zofc.benchmarks.questions.answers import QUESTIONS
from edge_zofc.benchmarks.questions.variants import Bench, thinned
from edge_zofc.benchmarks.tables import as_markdown, for_terminal, write_json
from edge_zofc.errors import InputError

log = logging.getLogger("edge_zofc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench questions``."""
    parser.add_argument("--question", metavar="LETTERS", default="abcdefg", help="such as b or cd (default: all)")
    parser.add_argument("--stream", type=Path, required=True, help="as `edge-zofc split` writes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for cells and answers")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 1993 on (default: 1)")
    parser.add_argument(
        "--epochs", type=int, default=4, help="epochs a task, where the question is another (default: 4)"
    )
    parser.add_argument(
        "--train-per-class", type=int, default=6, help="most pictures of a class to learn from (default: 6)"
    )
    parser.add_argument("--test-per-class", type=int, default=6, help="and to test on (default: 6)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: 8)")
    parser.add_argument("--adapter-lr", type=float, default=3.0, help="(default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def main(options: argparse.Namespace) -> int:
    """Answer the questions asked that are not answered yet; print and write all answers. Raises InputError."""
    letters = list(dict.fromkeys(options.question))
    _check(options, letters)
    settings = {name: str(value) for name, value in vars(options).items() if name not in ("question", "json", "out")}
    out, source = options.out.resolve(), options.stream.resolve()
    claim(out, {**settings, "stream": str(source)})
    stream = thinned(source, out / "streams" / "thinned", options.train_per_class, options.test_per_class)
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + options.seeds))
    bench = Bench(out, stream, seeds, options.epochs, options.batch_size, options.adapter_lr)
    answers = _kept(out)
    for letter in letters:
        log.info("question %s", letter)
        answers[letter] = {**asdict(QUESTIONS[letter](bench)), "date": time.strftime("%Y-%m-%d")}
        _write(out, answers, settings)
    shown = {letter: answers[letter] for letter in letters}
    everything = {"out": str(out), "settings": settings, "answers": shown}
    print(json.dumps(everything) if options.json else _text(shown))  # noqa: T201
    return 0


def _check(options: argparse.Namespace, letters: list[str]) -> None:
    """Raises InputError for what cannot be answered."""
    unknown = [letter for letter in letters if letter not in QUESTIONS]
    if unknown or not letters:
        raise InputError(f"There is no question {unknown or 'given'}; known are {', '.join(QUESTIONS)}.")
    counts = (options.seeds, options.epochs, options.train_per_class, options.test_per_class)
    if min(*counts, options.batch_size) < 1:
        raise InputError("--seeds, --epochs, --train-per-class, --test-per-class and --batch-size are 1 at least.")
    if not options.stream.is_dir():
        raise InputError(f"There is no stream {options.stream}; write one with 'edge-zofc split'.")


def _kept(out: Path) -> dict[str, Any]:
    path = out / "questions.json"
    return json.loads(path.read_text(encoding="utf-8"))["answers"] if path.exists() else {}


def _write(out: Path, answers: dict[str, Any], settings: dict[str, str]) -> None:
    """questions.json and questions.md, by letter."""
    ordered = {letter: answers[letter] for letter in sorted(answers)}
    machine = f"{platform.machine()}, {platform.system()}"
    write_json(out / "questions.json", {"settings": settings, "machine": machine, "answers": ordered})
    scale = (
        f"Scaled down: {Path(settings['stream']).name} with at most {settings['train_per_class']} pictures of a class "
        f"to learn from and {settings['test_per_class']} to test on, {settings['epochs']} epochs a task unless "
        f"said otherwise, {settings['seeds']} seed(s), batch {settings['batch_size']}, adapter rate "
        f"{settings['adapter_lr']}, cosine head from class means unless said otherwise."
    )
    parts = []
    for letter, answer in ordered.items():
        table = as_markdown(answer["columns"], answer["rows"])
        parts.append(f"## ({letter}) {answer['title']}\n\n{answer['sentence']}\n\n{table}")
    (out / "questions.md").write_text("\n".join([f"{scale}\n", *parts]), encoding="utf-8")


def _text(answers: dict[str, Any]) -> str:
    return "\n\n".join(
        f"({letter}) {answer['title']}\n{for_terminal(answer['columns'], answer['rows'])}\n{answer['sentence']}"
        for letter, answer in answers.items()
    )
