"""The seven questions, each a table of variants and a sentence about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_zofc.benchmarks.costs.tables import COLUMNS as COST_COLUMNS
from edge_zofc.benchmarks.process import command, edge_zofc, wait_for
from edge_zofc.benchmarks.questions import sentences as say
from edge_zofc.benchmarks.questions.variants import COLUMNS, Bench, QuestionVariant
from edge_zofc.benchmarks.tables import Columns, write_json
from edge_zofc.errors import InputError

QUERIES = (1, 2, 4, 8, 16, 32)
EPSILONS = ("1e-4", "1e-3", "1e-2", "1e-1")
EQUAL_FORWARDS = 66
"""Image-forwards a picture and task in the second half of question d: two epochs of Q = 32."""
PROMPT_EPOCHS = 12
PAPER_EPOCHS = 60
"""Some 200 to 300 steps a task at the default scale. Steps of the paper's length then move an entry of this smaller
adapter about as far as the paper's 1,040 steps move one of its own."""
MEMORY_VARIANTS = "inference,zo-fc-in-place,zo-fc-in-place-numpy,fo-batch,fo-checkpoint,fo-micro"

REST = QuestionVariant("adapter at rest", learn=("--adapter-lr", "0", "--queries", "1"))
FULL = QuestionVariant("zo-fc")


@dataclass(frozen=True)
class Answer:
    """A table and what it says."""

    title: str
    columns: Columns
    rows: list[dict[str, Any]]
    sentence: str


def a_memory(bench: Bench) -> Answer:
    """By how much less memory ZO-FC learns: the variants of ``bench memory``."""
    found = bench.out / "memory" / "memory.json"
    if not found.exists():
        edge_zofc("bench", "memory", "--steps", 1, "--arms", MEMORY_VARIANTS, "--out", found.parent)
    rows = json.loads(found.read_text(encoding="utf-8"))["rows"]
    return Answer("Memory of first order over ZO-FC", COST_COLUMNS["memory"], rows, say.memory(rows))


def b_flatness(bench: Bench) -> Answer:
    """The rises of ``flatness.py`` after each task, for three splits of orders. Raises InputError."""
    found, log = bench.out / "flatness.json", bench.out / "logs" / "flatness.txt"
    if not found.exists():
        words = ["--stream", bench.stream, "--epochs", bench.epochs, "--pictures", 24, "--directions", 100]
        words += ["--adapter-lr", bench.adapter_lr, "--batch-size", bench.batch_size, "--out", found]
        if wait_for(command("edge_zofc.benchmarks.questions.flatness", *words), log):
            raise InputError(f"The flatness could not be measured; see {log}.")
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
            QuestionVariant("adapter at rest, lda head", learn=("--head", "lda", *REST.learn)),
            QuestionVariant("zo-fc, lda head", learn=lda),
            QuestionVariant("adapter at rest, paper preset", learn=REST.learn, preset=paper),
            QuestionVariant("zo-fc, paper preset", preset=paper),
        ]
    )
    return Answer("The classifier alone against the whole", COLUMNS, rows, say.classifier(rows))


def d_queries(bench: Bench) -> Answer:
    """Q directions a step, one-sided, at equal steps and at equal image-forwards.

    At equal forwards few queries mean more epochs. The head learns in the first epoch alone, so only the adapter
    differs.
    """
    few, once = max(1, bench.epochs // 2), ("--head-epochs", "1")
    variants = [QuestionVariant("equal steps, adapter at rest", learn=REST.learn, epochs=few)]
    variants += [QuestionVariant(f"equal steps, Q {q}", learn=("--queries", str(q)), epochs=few) for q in QUERIES]
    variants.append(QuestionVariant("equal forwards, adapter at rest", learn=(*REST.learn, *once), epochs=2))
    for q in QUERIES:
        words, epochs = ("--queries", str(q), *once), round(EQUAL_FORWARDS / (q + 1))
        variants.append(QuestionVariant(f"equal forwards, Q {q}", learn=words, epochs=epochs))
    rows = bench.rows(variants)
    return Answer("Q at equal steps and at equal forwards", COLUMNS, rows, say.queries(rows))


def e_eps(bench: Bench) -> Answer:
    """By eps and precision: what learning reaches, and how much of the gradient is left (``export/fidelity.py``)."""
    rows = []
    for precision in ("fp32", "w8", "int8"):
        export = () if precision == "fp32" else ("--precision", precision)
        kept = fidelities(bench, precision, EPSILONS, export)
        variants = [_eps(precision, eps, export) for eps in EPSILONS]
        # learn refuses an int8 bundle: its fidelity is all there is to show.
        found = [{"arm": each.name} for each in variants] if precision == "int8" else bench.rows(variants)
        rows += [{**row, **fidelity} for row, fidelity in zip(found, kept, strict=True)]
    columns = {**COLUMNS, "one_sided": ("fidelity, one-sided", ".3f"), "two_sided": ("two-sided", ".3f")}
    return Answer("eps by precision, with fidelity", columns, rows, say.epsilons(rows))


def _eps(precision: str, eps: str, export: tuple[str, ...]) -> QuestionVariant:
    # The default eps in fp32 is the whole method of the other questions.
    cell = FULL.name if (precision, eps) == ("fp32", "1e-3") else ""
    return QuestionVariant(f"{precision}, eps {eps}", learn=("--eps", eps), export=export, cell=cell)


def fidelities(
    bench: Bench, precision: str, epsilons: Sequence[str], export: tuple[str, ...]
) -> list[dict[str, float]]:
    """{"one_sided", "two_sided"} of the bundle at each eps; measured once."""
    kept = bench.out / "cells" / f"fidelity-{precision}.json"
    if not kept.exists():
        from edge_zofc.benchmarks.questions.fidelities import measure_fidelities

        write_json(kept, measure_fidelities(bench.bundle(export), epsilons))
    values: list[dict[str, float]] = json.loads(kept.read_text(encoding="utf-8"))
    return values


def f_adapter(bench: Bench) -> Answer:
    """Blocks, parts and rank of the adapter."""
    exports = [(f"blocks {blocks}, rank 5", ("--adapter-blocks", blocks)) for blocks in ("3-7", "7-11")]
    exports += [(f"blocks 0-4, rank {rank}", ("--rank", rank)) for rank in ("1", "2", "8", "16")]
    variants = [
        REST,
        QuestionVariant("blocks 0-4, rank 5", cell=FULL.name),
        *(QuestionVariant(name, export=export) for name, export in exports),
        QuestionVariant("both projections (in torch)", "zo-fc-torch"),
        QuestionVariant("up-projections alone (in torch)", "zo-fc-up"),
    ]
    rows = bench.rows(variants)
    columns = {**COLUMNS, "parameters": ("parameters", ",d")}
    return Answer("Where the adapter sits, what of it and which rank", columns, rows, say.adapter(rows))


def g_naive(bench: Bench) -> Answer:
    """ZO on everything, and on prompts, beside their first-order twins."""
    rows = bench.rows(
        [
            REST,
            QuestionVariant("fo-fc", "fo-fc"),
            FULL,
            QuestionVariant("zo-all", "zo-all"),
            QuestionVariant("zo-all, the paper's rate", "zo-all", is_plain=True),
            QuestionVariant("head alone, as many epochs as the next two", "head", epochs=PAPER_EPOCHS),
            _long("zo-fc (in torch)", "zo-fc-torch"),
            _long("zo-all", "zo-all"),
            *_prompts(("l2p", "l2p-zo", "coda-prompt", "coda-prompt-zo")),
        ]
    )
    return Answer("Naive ZO, and prompts under ZO", COLUMNS, rows, say.naive(rows))


def _long(name: str, method: str) -> QuestionVariant:
    title = f"{name}, steps as long as the paper's"
    return QuestionVariant(title, method, epochs=PAPER_EPOCHS, is_normalised=True)


def _prompts(names: Sequence[str]) -> list[QuestionVariant]:
    return [
        *(QuestionVariant(name, name, epochs=PROMPT_EPOCHS) for name in names),
        *(
            QuestionVariant(f"{name}, 10 x the rate", name, epochs=PROMPT_EPOCHS, lr_factor=10.0)
            for name in names
            if name.endswith("-zo")
        ),
    ]


QUESTIONS: dict[str, Callable[[Bench], Answer]] = {
    "a": a_memory,
    "b": b_flatness,
    "c": c_classifier,
    "d": d_queries,
    "e": e_eps,
    "f": f_adapter,
    "g": g_naive,
}
