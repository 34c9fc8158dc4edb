"""``edge-zofc bench questions``: the ZO-FC paper's own questions, each a table and a sentence of what was found.

    a  memory of first order over memory of ZO-FC            e  eps in fp32, w8 and int8, fidelity beside it
    b  flatness of the minima, and does it go with forgetting f  where the adapter sits, what of it, which rank
    c  the classifier alone against the whole                g  does naive ZO collapse, do prompts diverge
    d  Q at equal steps and at equal forwards

    OUT/cells, logs, work    one cell an arm (``cell.py``); what is there is not run again
    OUT/questions.json, .md  the answers so far

Under LDA's head the adapter was seen to add nothing (LOG.md), so a sweep under it would compare noise. Here the head
is the trained cosine one, started at the class means, and the adapter's learning rate is by default 3: there its
loss falls within forty steps, while at the paper's 0.01 nothing moves on this small network, whose estimates are
too short for the clip to act (LOG.md).

What may surprise: it is scaled down (few pictures a class, few epochs, one seed, the package's ViT) and every table
says by how much. Where accuracies differ by a picture or two, only the losses say something.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.accuracy.run import FIRST_SEED, claim
from edge_zofc.benchmarks.costs.tables import Columns, markdown_table, text_table
from edge_zofc.benchmarks.questions import sentences as say
from edge_zofc.benchmarks.questions.arms import COLUMNS, Arm, Bench, thinned
from edge_zofc.errors import InputError

log = logging.getLogger("edge_zofc")

QUERIES = (1, 2, 4, 8, 16, 32)
EPSILONS = ("1e-4", "1e-3", "1e-2", "1e-1")
EQUAL_FORWARDS = 66
"""Image-forwards a picture and task in the second half of question d: two epochs of Q = 32."""
PROMPT_EPOCHS = 12
PAPER_EPOCHS = 60
"""Some 200 to 300 steps a task at the default scale: steps of the paper's length then move an entry of this smaller
adapter about as far as the paper's 1,040 steps move one of its own."""
MEMORY_ARMS = "inference,zo-fc-in-place,zo-fc-in-place-numpy,fo-batch,fo-checkpoint,fo-micro"

REST = Arm("adapter at rest", learn=("--adapter-lr", "0", "--queries", "1"))
FULL = Arm("zo-fc")


@dataclass(frozen=True)
class Answer:
    """A table and what it says."""

    title: str
    columns: Columns
    rows: list[dict[str, Any]]
    sentence: str


def a_memory(bench: Bench) -> Answer:
    """By how much less memory ZO-FC learns: the arms of ``bench memory``."""
    from edge_zofc.benchmarks.accuracy.runtime_cell import edge_zofc
    from edge_zofc.benchmarks.costs.tables import COLUMNS as COST_COLUMNS

    found = bench.out / "memory" / "memory.json"
    if not found.exists():
        words = ["bench", "memory", "--steps", "1", "--arms", MEMORY_ARMS, "--out", str(found.parent)]
        edge_zofc(words, bench.out / "work")
    rows = json.loads(found.read_text(encoding="utf-8"))["rows"]
    return Answer("Memory of first order over ZO-FC", COST_COLUMNS["memory"], rows, say.memory(rows))


def b_flatness(bench: Bench) -> Answer:
    """The rises of ``flatness.py`` after each task, for three splits of orders."""
    found = bench.out / "flatness.json"
    if not found.exists():
        words = [
            "--stream", bench.stream, "--epochs", bench.epochs, "--pictures", 24, "--directions", 100,
            "--adapter-lr", bench.adapter_lr, "--batch-size", bench.batch_size, "--out", found,
        ]  # fmt: skip
        command = [sys.executable, "-m", "edge_zofc.benchmarks.questions.flatness", *map(str, words)]
        with (bench.out / "logs" / "flatness.txt").open("w", encoding="utf-8") as said:
            done = subprocess.run(  # noqa: S603
                command, cwd=bench.out / "work", stdout=said, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise InputError(f"The flatness could not be measured; see {said.name}.")
    methods = json.loads(found.read_text(encoding="utf-8"))["methods"]
    accuracies = ("average_accuracy", "last_accuracy", "forgetting")
    rows: list[dict[str, Any]] = []
    for name, method in methods.items():
        rows += [{"arm": name, "after_task": n, **rises} for n, rises in enumerate(method["after_task"], 2)]
        rows[-1] |= {key: method[key] for key in accuracies}
    columns: Columns = {
        "arm": ("arm", ""),
        "after_task": ("after task", "d"),
        "loss": ("loss on old tasks", ".4f"),
        "gradient_rise": ("rise along the gradient", ".5f"),
        "mean_rise": ("mean rise, 100 directions", ".5f"),
        "max_rise": ("largest", ".5f"),
        **{key: COLUMNS[key] for key in accuracies},
    }
    return Answer("Flatness over training, and forgetting", columns, rows, say.flatness(rows))


def c_classifier(bench: Bench) -> Answer:
    """The same run with the adapter at rest and with it, under three heads."""
    lda, paper = ("--head", "lda", "--adapter-lr", "0.01"), "paper"
    rows = bench.rows(
        [
            REST,
            FULL,
            Arm("adapter at rest, lda head", learn=("--head", "lda", *REST.learn)),
            Arm("zo-fc, lda head", learn=lda),
            Arm("adapter at rest, paper preset", learn=REST.learn, preset=paper),
            Arm("zo-fc, paper preset", preset=paper),
        ]
    )
    return Answer("The classifier alone against the whole", COLUMNS, rows, say.classifier(rows))


def d_queries(bench: Bench) -> Answer:
    """Q directions a step, one-sided, at equal steps and at equal image-forwards.

    At equal forwards few queries mean more epochs; the head learns in the first alone, so that what differs is the
    adapter.
    """
    few, once = max(1, bench.epochs // 2), ("--head-epochs", "1")
    arms = [Arm("equal steps, adapter at rest", learn=REST.learn, epochs=few)]
    arms += [Arm(f"equal steps, Q {q}", learn=("--queries", str(q)), epochs=few) for q in QUERIES]
    arms.append(Arm("equal forwards, adapter at rest", learn=(*REST.learn, *once), epochs=2))
    for q in QUERIES:
        words = ("--queries", str(q), *once)
        arms.append(Arm(f"equal forwards, Q {q}", learn=words, epochs=round(EQUAL_FORWARDS / (q + 1))))
    rows = bench.rows(arms)
    return Answer("Q at equal steps and at equal forwards", COLUMNS, rows, say.queries(rows))


def e_eps(bench: Bench) -> Answer:
    """By eps and precision: what learning reaches, and how much of the gradient is left (``export/fidelity.py``)."""
    rows = []
    for precision in ("fp32", "w8", "int8"):
        export = () if precision == "fp32" else ("--precision", precision)
        kept = bench.fidelities(precision, EPSILONS, export)
        arms = [
            # The default eps in fp32 is the whole method of the other questions.
            Arm(f"{precision}, eps {eps}", learn=("--eps", eps), export=export,
                cell=FULL.name if (precision, eps) == ("fp32", "1e-3") else "")
            for eps in EPSILONS
        ]  # fmt: skip
        # learn refuses an int8 bundle: its fidelity is all there is to show.
        found = [{"arm": arm.name} for arm in arms] if precision == "int8" else bench.rows(arms)
        rows += [{**row, **fidelity} for row, fidelity in zip(found, kept, strict=True)]
    columns = {
        **COLUMNS,
        "one_sided": ("fidelity, one-sided", ".3f"),
        "two_sided": ("two-sided", ".3f"),
    }
    return Answer("eps by precision, with fidelity", columns, rows, say.epsilons(rows))


def f_adapter(bench: Bench) -> Answer:
    """Blocks, parts and rank of the adapter."""
    arms = [REST, Arm("blocks 0-4, rank 5", cell=FULL.name)]
    arms += [
        Arm(f"blocks {blocks}, rank 5", export=("--adapter-blocks", blocks)) for blocks in ("3-7", "7-11")
    ]
    arms += [Arm(f"blocks 0-4, rank {rank}", export=("--rank", rank)) for rank in ("1", "2", "8", "16")]
    arms += [
        Arm("both projections (in torch)", "zo-fc-torch"),
        Arm("up-projections alone (in torch)", "zo-fc-up"),
    ]
    rows = bench.rows(arms)
    columns = {**COLUMNS, "parameters": ("parameters", ",d")}
    return Answer("Where the adapter sits, what of it and which rank", columns, rows, say.adapter(rows))


def g_naive(bench: Bench) -> Answer:
    """ZO on everything, and on prompts, beside their first-order twins."""
    names = ("l2p", "l2p-zo", "coda-prompt", "coda-prompt-zo")
    prompts = [Arm(name, name, epochs=PROMPT_EPOCHS) for name in names]
    prompts += [
        Arm(f"{name}, 10 x the rate", name, epochs=PROMPT_EPOCHS, lr_factor=10.0)
        for name in names
        if name.endswith("-zo")
    ]
    long = [
        Arm(f"{name}, steps as long as the paper's", method, epochs=PAPER_EPOCHS, is_normalised=True)
        for name, method in (("zo-fc (in torch)", "zo-fc-torch"), ("zo-all", "zo-all"))
    ]
    rows = bench.rows(
        [
            REST,
            Arm("fo-fc", "fo-fc"),
            FULL,
            Arm("zo-all", "zo-all"),
            Arm("zo-all, the paper's rate", "zo-all", is_plain=True),
            Arm("head alone, as many epochs as the next two", "head", epochs=PAPER_EPOCHS),
            *long,
            *prompts,
        ]
    )
    return Answer("Naive ZO, and prompts under ZO", COLUMNS, rows, say.naive(rows))


QUESTIONS: dict[str, Callable[[Bench], Answer]] = {
    "a": a_memory,
    "b": b_flatness,
    "c": c_classifier,
    "d": d_queries,
    "e": e_eps,
    "f": f_adapter,
    "g": g_naive,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench questions``."""
    parser.add_argument(
        "--question", metavar="LETTERS", default="abcdefg", help="such as b or cd (default: all)"
    )
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
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--adapter-lr", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def main(options: argparse.Namespace) -> int:
    """Answer the questions asked that are not answered yet; print and write all answers. Raises InputError."""
    letters = list(dict.fromkeys(options.question))
    unknown = [letter for letter in letters if letter not in QUESTIONS]
    if unknown or not letters:
        raise InputError(f"There is no question {unknown or 'given'}; known are {', '.join(QUESTIONS)}.")
    least = min(
        options.seeds, options.epochs, options.train_per_class, options.test_per_class, options.batch_size
    )
    if least < 1:
        raise InputError(
            "--seeds, --epochs, --train-per-class, --test-per-class and --batch-size are 1 at least."
        )
    if not options.stream.is_dir():
        raise InputError(f"There is no stream {options.stream}; write one with 'edge-zofc split'.")
    settings = {
        name: str(value) for name, value in vars(options).items() if name not in ("question", "json", "out")
    }
    out = options.out.resolve()
    claim(out, {**settings, "stream": str(options.stream.resolve())})
    stream = thinned(
        options.stream.resolve(), out / "streams" / "thinned", options.train_per_class, options.test_per_class
    )
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


def _kept(out: Path) -> dict[str, Any]:
    path = out / "questions.json"
    return json.loads(path.read_text(encoding="utf-8"))["answers"] if path.exists() else {}


def _write(out: Path, answers: dict[str, Any], settings: dict[str, str]) -> None:
    """questions.json and questions.md, by letter."""
    ordered = {letter: answers[letter] for letter in sorted(answers)}
    machine = f"{platform.machine()}, {platform.system()}"
    text = json.dumps({"settings": settings, "machine": machine, "answers": ordered}, indent=1)
    (out / "questions.json").write_text(text + "\n", encoding="utf-8")
    scale = (
        f"Scaled down: {Path(settings['stream']).name} with at most {settings['train_per_class']} pictures of a class "
        f"to learn from and {settings['test_per_class']} to test on, {settings['epochs']} epochs a task unless "
        f"said otherwise, {settings['seeds']} seed(s), batch {settings['batch_size']}, adapter rate "
        f"{settings['adapter_lr']}, cosine head from class means unless said otherwise."
    )
    parts = []
    for letter, answer in ordered.items():
        table = markdown_table(answer["columns"], answer["rows"])
        parts.append(f"## ({letter}) {answer['title']}\n\n{answer['sentence']}\n\n{table}")
    (out / "questions.md").write_text("\n".join([f"{scale}\n", *parts]), encoding="utf-8")


def _text(answers: dict[str, Any]) -> str:
    return "\n\n".join(
        f"({letter}) {answer['title']}\n{text_table(answer['columns'], answer['rows'])}\n{answer['sentence']}"
        for letter, answer in answers.items()
    )
