"""Every number that steers a run, declared once: its limits, its help on the command line, and two presets.

The first ``learn`` on a run folder freezes its options there, because replay and resume depend on them
(``engine/setup.py`` says which two may change between tasks).

Nothing heavy is imported at the top: ``--help`` reads the declarations. pydantic checks values when a command runs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from annotated_types import Interval

from edge_zofc.algorithm.adapter import Optimizer
from edge_zofc.algorithm.directions import Directions
from edge_zofc.algorithm.spsa import QueryForm
from edge_zofc.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

HeadKind = Literal["cosine", "lda"]
HeadInit = Literal["class-means", "random"]
Augment = Literal["crop", "mild", "none"]
AdapterUse = Literal["auto", "on", "off"]
LossKind = Literal["head", "episodic"]
Estimator = Literal["auto", "spsa", "exact"]
PresetName = Literal["edge", "paper"]
_Epochs = Annotated[int, Interval(ge=0, le=10_000)]
_Rate = Annotated[float, Interval(ge=0, le=100)]


@dataclass(frozen=True)
class Help:
    """What ``--help`` says of an option; an option without one is not on the command line."""

    text: str
    metavar: str | None = "N"


@dataclass(frozen=True)
class Options:
    """The options of a run, each with its limits. The defaults are the authors' release (``paper``).

    ``clip_norm`` bounds the L2 norm of the gradient estimate (0: no bound). ``normalise`` False feeds pixels in [0, 1]
    as the authors' release does, True applies the backbone's own mean and standard deviation. ``momentum`` is the
    adapter's and the head's.
    """

    preset: PresetName
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1), Help("of every random draw")] = 1993
    epochs: Annotated[_Epochs, Help("passes over each task's pictures")] = 20
    head_epochs: Annotated[_Epochs, Help("the first N of them also train the head")] = 10
    batch_size: Annotated[int, Interval(ge=1, le=65_536), Help("pictures a step")] = 48
    queries: Annotated[int, Interval(ge=1, le=1024), Help("random directions a step", "Q")] = 4
    query_form: Annotated[QueryForm, Help("one-sided: Q + 1 forward passes a picture; two-sided: 2 Q", None)] = (
        "two-sided"
    )
    eps: Annotated[float, Interval(gt=0, le=0.25), Help("radius of a perturbation", "X")] = 1e-3
    adapter_lr: Annotated[
        _Rate, Help("learning rate of the adapter (default: the preset's; sign 5e-5, adam 5e-4)", "X")
    ] = 0.01
    head_lr: Annotated[_Rate, Help("of the cosine head", "X")] = 0.01
    momentum: Annotated[float, Interval(ge=0, le=0.9999)] = 0.9
    clip_norm: Annotated[float, Interval(ge=0, le=1e6)] = 1.0
    head: Annotated[HeadKind, Help("trained by gradient on the task's classes, or solved in closed form", None)] = (
        "cosine"
    )
    head_init: HeadInit = "random"
    augment: Annotated[
        Augment, Help("while training: random crops and flips; mild: of at least 2 fifths of a picture", None)
    ] = "crop"
    normalise: bool = False
    optimizer: Annotated[
        Optimizer, Help("what a step makes of the gradient estimate (default: the preset's)", None)
    ] = "sgd"
    adapter: Annotated[
        AdapterUse, Help("auto: moved where that may win, put back where it does harm; on: moved; off: it rests", None)
    ] = "on"
    loss: Annotated[
        LossKind,
        Help("what steers the adapter: the head's loss, or nearest class means with each picture left out", None),
    ] = "head"
    directions: Annotated[
        Directions,
        Help(
            "balanced: each piece of the adapter has the same share of a direction; shifts: a film's shifts alone", None
        ),
    ] = "whole"
    steps: Annotated[
        int, Interval(ge=0, le=1_000_000), Help("steps of the first task, in place of --epochs (0: by epochs)")
    ] = 0
    estimator: Annotated[
        Estimator,
        Help(
            "of the adapter's gradient: spsa by forward passes, exact by the bundle's own graph, auto what fits", None
        ),
    ] = "spsa"

    @property
    def moves(self) -> bool:
        """Whether the adapter takes a step at all."""
        return self.adapter != "off" and (self.steps > 0 or self.epochs > 0)

    def moves_in(self, task_index: int, classes: int) -> bool:
        """Whether the adapter moves in the task of this number, from 0, and of so many classes.

        By episodes it moves in the first task alone: what was learnt of earlier pictures is under the adapter of then.
        """
        if self.loss == "episodic":
            return self.moves and task_index == 0 and classes >= LEAST_EPISODIC_CLASSES
        return self.moves and classes > 1

    def steps_of(self, pictures: int) -> int:
        """Steps of a task with so many training pictures, if the adapter moves in it."""
        return self.steps or self.epochs * -(-pictures // self.batch_size)


PAPER = Options(preset="paper")
# Measured on grocery, clothing and objects with EfficientNet-Lite0 (benchmarks/results/RESULTS.md).
EDGE = Options(
    preset="edge",
    epochs=1,
    head_epochs=1,
    batch_size=16,
    queries=8,
    query_form="one-sided",
    eps=2e-3,
    adapter_lr=2e-3,
    clip_norm=0.0,
    head="lda",
    head_init="class-means",
    augment="mild",
    normalise=True,
    optimizer="adam",
    adapter="auto",
    loss="episodic",
    directions="shifts",
    steps=260,
    estimator="auto",
)
PRESETS: dict[PresetName, Options] = {"edge": EDGE, "paper": PAPER}
_BY_HEAD: dict[str, Any] = {
    "loss": "head", "adapter": "on", "directions": "whole", "steps": 0, "optimizer": "sgd", "adapter_lr": 0.01,
    "batch_size": 48, "queries": 4, "eps": 1e-3, "clip_norm": 1.0, "augment": "none", "estimator": "spsa",
}  # fmt: skip
"""What the edge preset has where the head's loss steers the adapter."""
_EXACT: dict[str, Any] = {
    "estimator": "exact",
    "directions": "whole",
    "steps": 50,
    "batch_size": 64,
    "adapter_lr": 1e-2,
}
"""What it has where the episodic loss does and gradients are exact: of few larger batches more is learnt."""
OF_SPSA = frozenset({"queries", "query_form", "eps", "directions"})
"""Options that an exact gradient has no use for."""
LEAST_EPISODIC_CLASSES = 4
"""Class means of two or three classes say nothing about the classes that come later."""
_RATES: dict[str, float] = {"sgd": 0.01, "sign": 5e-5, "conserve": 0.01, "adam": 5e-4}
"""Where ``adapter_lr`` starts when one of these optimizers is asked for in place of the preset's. sign moves every
entry by lr: 5e-5 moves 42,265 of them by the 0.01 in L2 of a clipped SGD step. adam: the paper's ZO-Adam run of
CODA-Prompt."""
_LATER: dict[str, Any] = {
    "optimizer": "sgd", "adapter": "on", "loss": "head", "directions": "whole", "steps": 0, "estimator": "spsa",
}  # fmt: skip
"""Options that older runs do not name, with what they did."""


@dataclass(frozen=True)
class Declared:
    """One option: its type, the words or limits that it allows, and its help; as text what a value must do."""

    kind: type
    choices: tuple[str, ...]
    limits: Interval | None
    help: Help | None

    def __str__(self) -> str:
        if self.kind is bool:
            return "be true or false"
        if self.limits is None:
            return f"be {' or '.join(self.choices)}"
        least = self.limits.gt if self.limits.ge is None else self.limits.ge
        return f"lie between {least} and {self.limits.le}"


@cache
def declared() -> dict[str, Declared]:
    """Every option by name, in order of declaration."""
    found = {}
    for name, hint in get_type_hints(Options, include_extras=True).items():
        inner, *extras = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        choices = get_args(inner)
        limits = next((extra for extra in extras if isinstance(extra, Interval)), None)
        text = next((extra for extra in extras if isinstance(extra, Help)), None)
        found[name] = Declared(str if choices else inner, choices, limits, text)
    return found


def make_options(preset: PresetName, changes: dict[str, Any]) -> Options:
    """The preset with ``changes``. Where they are not given, ``head_epochs`` follows ``epochs`` and ``adapter_lr`` the
    optimizer; epochs that are given stand in place of the preset's steps. Where the head's loss steers the adapter,
    which a cosine head's always does, and where gradients are exact, the edge preset has other values.
    Raises InputError for a value outside its limits.
    """
    base, more = PRESETS[preset], dict[str, Any]()
    if preset == "edge" and (changes.get("loss") == "head" or changes.get("head") == "cosine"):
        base = changed(base, {**_BY_HEAD, "head": changes.get("head", base.head)})
    elif preset == "edge" and changes.get("estimator") == "exact":
        base = changed(base, _EXACT)
    if "epochs" in changes:
        share = base.head_epochs / base.epochs  # of the epochs, those that train the head
        more |= {"head_epochs": math.ceil(share * int(changes["epochs"])), "steps": 0}
    if changes.get("optimizer", base.optimizer) != base.optimizer:
        more["adapter_lr"] = _RATES.get(changes["optimizer"], base.adapter_lr)
    return changed(base, {**more, **changes})


def changed(options: Options, changes: dict[str, Any]) -> Options:
    """These options with others in place of some. Raises InputError for a value outside its limits."""
    return _checked({**asdict(options), **changes})


def options_from_json(data: Any) -> Options:
    """Options from the dictionary that ``dataclasses.asdict`` gave. Raises InputError for anything else."""
    if isinstance(data, Options):
        return data
    known = set(declared())
    data = {**_LATER, **data} if isinstance(data, dict) else {}
    if set(data) != known or data["preset"] not in list(get_args(PresetName)):
        raise InputError(f"the options have the keys {sorted(data)}, this edge-zofc has {sorted(known)}.")
    return _checked(data)


def options_to_json(options: Options) -> dict[str, Any]:
    """The options by name, without newer ones that are as an older version has them: it can go on with such a run."""
    newer = {name: value for name, value in _LATER.items() if name != "optimizer"}
    return {name: value for name, value in asdict(options).items() if name not in newer or newer[name] != value}


def differences(old: Options, preset: PresetName | None, changes: dict[str, Any]) -> dict[str, str]:
    """What an explicit request changes about a run's frozen options, as "old -> new" by name."""
    wanted = changes if preset is None else {"preset": preset, **changes}
    current = asdict(old)
    return {name: f"{current[name]} -> {value}" for name, value in wanted.items() if current[name] != value}


def _checked(values: dict[str, Any]) -> Options:
    from pydantic import ValidationError

    try:
        options = Options(**_model().model_validate(values).model_dump())
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        found = declared()[name]
        whole = "be a whole number, " if found.kind is int and isinstance(values[name], float) else ""
        raise _outside(name, values[name], f"{whole}{found}") from error
    _check_together(options)
    if options.head_epochs > options.epochs:
        raise _outside("head_epochs", options.head_epochs, f"lie between 0 and {options.epochs}, the epochs")
    return options


def _check_together(options: Options) -> None:
    """Raise InputError for values that do not go together."""
    if options.steps and options.loss == "head":
        raise InputError(f"steps is {options.steps}, which goes with --loss episodic; give --epochs instead.")
    if options.estimator == "exact" and options.optimizer == "conserve":
        raise InputError("optimizer is 'conserve', which compares forward passes; it needs --estimator spsa.")
    asked, its = {"loss": options.loss, "adapter": options.adapter}, {"loss": "head", "adapter": "on"}
    for name, value in asked.items() if options.head == "cosine" else ():
        if value != its[name]:
            raise InputError(f"{name} is {value}, but a cosine head needs {its[name]}; leave it out, or --head lda.")


@cache
def _model() -> type[BaseModel]:
    """The declarations as a pydantic model: strict, as True is no number of queries."""
    from pydantic import ConfigDict, create_model

    hints: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(Options, include_extras=True).items()}
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return create_model("CheckedOptions", __config__=config, **hints)


def _outside(name: str, value: object, limits: str) -> InputError:
    return InputError(f"{name.replace('_', '-')} is {value!r}, it must {limits}.")
