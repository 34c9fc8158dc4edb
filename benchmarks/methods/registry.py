"""Every method by name, with the one table of hyper-parameters.

The numbers of epochs are the papers' for CIFAR-100 on a ViT-B. On small streams ``bench accuracy --epochs N`` gives
every trained method the same N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_zofc.algorithm.options import Options, PresetName, make_options
from edge_zofc.benchmarks.methods.aper import Aper, AperLda
from edge_zofc.benchmarks.methods.coda import CodaPrompt
from edge_zofc.benchmarks.methods.dualprompt import DualPrompt
from edge_zofc.benchmarks.methods.ease import Ease
from edge_zofc.benchmarks.methods.fo_episodic import EpisodicAdapter, Later
from edge_zofc.benchmarks.methods.fo_lda import AdapterAndLda
from edge_zofc.benchmarks.methods.inflora import InfLora
from edge_zofc.benchmarks.methods.l2p import L2p
from edge_zofc.benchmarks.methods.lae import Lae
from edge_zofc.benchmarks.methods.names import EPISODIC, EQUAL_FORWARDS
from edge_zofc.benchmarks.methods.problem import Method, Problem
from edge_zofc.benchmarks.methods.training import Order, Training
from edge_zofc.benchmarks.methods.training_free import Lda, Ridge, SimpleCil
from edge_zofc.benchmarks.methods.zofc import AdapterAndHead


@dataclass(frozen=True)
class MethodSettings:
    """What a command line may change for all methods alike. ``epochs`` 0: each method's own.

    ``epoch_factor`` multiplies the epochs of those that need one forward pass a picture (equal image-forwards).
    ``lr_factor`` is what the search varies. ``batch_size`` None: each method's own. The others are for the relatives
    of ZO-FC alone: ``preset`` gives their values, which ``adapter_lr`` and ``clip_norm`` replace if they are given.
    """

    epochs: int = 0
    preset: PresetName = "edge"
    epoch_factor: int = 1
    lr_factor: float = 1.0
    adapter_lr: float | None = None
    batch_size: int | None = None
    clip_norm: float | None = None


_ADAM = Training(5, 128, lr=1e-3, optimiser="adam", schedule="constant", head_schedule="constant")
# Values from each paper or its public code; lr for SGD with momentum 0.9 where no optimiser is named.
HOW: dict[str, Training] = {
    "aper-adapter": Training(20, 48, lr=0.01, weight_decay=5e-4),  # 2303.07338
    "aper-lda": Training(20, 48, lr=0.01, weight_decay=5e-4),  # as aper-adapter
    "ease": Training(20, 48, lr=0.025, weight_decay=5e-4),  # 2403.12030
    "inflora": replace(_ADAM, epochs=20, lr=5e-4, schedule="quarter-cosine", head_schedule="quarter-cosine"),
    "lae": replace(_ADAM, lr=2.8e-3),  # 2303.10070
    "l2p": replace(_ADAM, batch_size=16, lr=1.875e-3),  # 2112.08654
    "dualprompt": replace(_ADAM, batch_size=24, lr=1e-3),  # 2204.04799
    # 2211.13218
    "coda-prompt": replace(_ADAM, epochs=20, schedule="quarter-cosine", head_schedule="quarter-cosine"),
}
# The loss of the edge preset. Steps, their size and the rate are those of the best trials.
HOW |= dict.fromkeys(EPISODIC, replace(_ADAM, epochs=1, batch_size=64, lr=1e-2, steps=50))
_ZEROTH = Training(
    20, 48, lr=0.01, schedule="constant", head_schedule="constant", part_order="zeroth", head_order="zeroth"
)
# The ZO paper's runs of the others (2510.21019): SPSA over what the first-order run trains.
HOW |= {
    "aper-zo": replace(_ZEROTH, clip_norm=5.0),
    "ease-zo": _ZEROTH,
    "l2p-zo": replace(_ZEROTH, epochs=5),
    "coda-prompt-zo": replace(_ZEROTH, lr=5e-4, optimiser="adam"),
    # SPSA on the LoRA, first order on the head.
    "inflora-zo": replace(_ZEROTH, head_order="first", head_schedule="cosine"),
}

BUILD: dict[str, Callable[[Problem, Training], Method]] = {
    "aper-adapter": Aper,
    "aper-lda": AperLda,
    "aper-zo": Aper,
    "ease": Ease,
    "ease-zo": Ease,
    "inflora": InfLora,
    "inflora-zo": InfLora,
    "lae": Lae,
    "l2p": L2p,
    "l2p-zo": L2p,
    "dualprompt": DualPrompt,
    "coda-prompt": CodaPrompt,
    "coda-prompt-zo": CodaPrompt,
}


def build(name: str, problem: Problem, settings: MethodSettings) -> Method:
    """The method ``name`` for ``problem``; draws its initial values from torch's global generator."""
    if name == "simplecil":
        return SimpleCil(problem)
    if name == "lda":
        return Lda(problem)
    if name in ("ridge", "ranpac"):
        return Ridge(problem, 0 if name == "ridge" else 1000)
    how = training(name, settings)
    if name == "fo-fc-lda":
        return AdapterAndLda(problem, how)
    if name in EPISODIC:
        later: dict[str, Later] = {"fo-episodic-move": "move", "fo-episodic-drift": "drift"}
        return EpisodicAdapter(problem, how, name == "fo-episodic-balanced", later.get(name, "rest"))
    if name not in BUILD:
        return AdapterAndHead(
            problem,
            how,
            "none" if name == "head" else "up" if name == "zo-fc-up" else "all",
            # The edge preset may solve its head in closed form; the trained heads here start from class means.
            head_init="random" if settings.preset == "paper" else "class-means",
            old_rows_too=name == "zo-all",
        )
    return BUILD[name](problem, how)


def training(name: str, settings: MethodSettings) -> Training:
    """How ``name`` trains under ``settings``."""
    how = HOW[name] if name in HOW else _zofc(name, settings)
    if settings.epochs:
        share = None if how.head_epochs is None else max(1, round(how.head_epochs / how.epochs * settings.epochs))
        how = replace(how, epochs=settings.epochs, head_epochs=share, steps=0)
    if name in EQUAL_FORWARDS:
        heads = None if how.head_epochs is None else how.head_epochs * settings.epoch_factor
        how = replace(how, epochs=how.epochs * settings.epoch_factor, head_epochs=heads)
    head_lr = None if how.head_lr is None else how.head_lr * settings.lr_factor
    batch_size = settings.batch_size or how.batch_size
    return replace(how, lr=how.lr * settings.lr_factor, head_lr=head_lr, batch_size=batch_size)


def options_of(name: str, preset: PresetName) -> Options:
    """The preset that ``name`` is trained and fed by. A method that is not steered by episodes has the edge preset's
    values for the loss of a head: those for episodes would cripple it.
    """
    return make_options(preset, {} if name in EPISODIC or preset == "paper" else {"loss": "head"})


def _zofc(name: str, settings: MethodSettings) -> Training:
    """The values of the paper's or the edge preset, for the relatives of ZO-FC."""
    options = options_of(name, settings.preset)
    orders: dict[str, tuple[Order, Order]] = {
        "zo-fc-torch": ("zeroth", "first"),
        "zo-fc-up": ("zeroth", "first"),
        "head": ("first", "first"),
        "fo-fc": ("first", "first"),
        "fo-fc-lda": ("first", "first"),
        "zo-all": ("zeroth", "zeroth"),
        "fo-adapter+zo-head": ("first", "zeroth"),
    }
    part, head = orders[name]
    return Training(
        options.epochs,
        options.batch_size,
        lr=options.adapter_lr if settings.adapter_lr is None else settings.adapter_lr,
        # The naive way has one rate for everything.
        head_lr=None if name == "zo-all" else options.head_lr,
        head_epochs=options.head_epochs if name not in ("fo-fc", "fo-fc-lda") else None,
        schedule="cosine" if part == "first" else "constant",
        head_schedule="cosine" if head == "first" else "constant",
        part_order=part,
        head_order=head,
        queries=options.queries,
        two_sided=options.query_form == "two-sided",
        eps=options.eps,
        clip_norm=(options.clip_norm if settings.clip_norm is None else settings.clip_norm) or float("inf"),
    )
