"""What each command takes: the options of the command line, their types and help, and nothing that runs.

What may surprise: options that steer learning default to None here, not to a number. None means "not given", which a
preset or the run that is there already then fills.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from edge_zofc.errors import InputError

BUNDLE = Path("bundle")
RUN = Path("run")
_CHANGES = (
    "seed", "head", "augment", "epochs", "head_epochs", "batch_size", "queries", "query_form", "eps",
    "optimizer", "adapter_lr", "head_lr",
)  # fmt: skip


def demo(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``demo``."""
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="where bundle/, stream/ and run/ go (default: here)"
    )
    parser.add_argument("--seed", type=int, default=1993)


def export(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", default=BUNDLE, help="bundle folder (default: bundle/)"
    )
    parser.add_argument(
        "--backbone", metavar="NAME", help="timm name of a VisionTransformer (default: the package's own ViT)"
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--pretrained", action="store_true", help="weights from timm's hub")
    weights.add_argument(
        "--checkpoint", metavar="FILE", type=Path, help="weights from a safetensors file with timm's names"
    )
    weights.add_argument(
        "--random-weights", action="store_true", help="untrained weights, for measurements alone"
    )
    parser.add_argument("--img-size", metavar="N", type=int, help="input side in pixels")
    parser.add_argument("--depth", metavar="N", type=int, help="keep the first N blocks")
    parser.add_argument(
        "--adapter-blocks",
        metavar="A-B",
        help="blocks that get an adapter: 0-4 or 0,3,5 (default: the first five)",
    )
    parser.add_argument("--rank", metavar="N", type=int, default=5, help="rank of the adapter (default: 5)")
    parser.add_argument("--precision", choices=("fp32", "w8", "w4", "fp16", "int8"), default="fp32")
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help="pictures to measure fidelity on")
    parser.add_argument("--seed", metavar="N", type=int, default=1993)
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there")


def split(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``split``."""
    parser.add_argument("source", metavar="IMAGE_FOLDER", type=Path, help="{train,test}/<class>/ or <class>/")
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="the stream's folder, which must not be there yet"
    )
    parser.add_argument(
        "--classes-per-task", metavar="N", required=True, help="a number, or a list such as 5,4,4,4"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=1993, help="of the class order (default: 1993)"
    )


def plan(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``plan``."""
    _bundle(parser)
    parser.add_argument("--stream", metavar="FOLDER", type=Path, help="say what disk its tasks will take")
    _device(parser)
    _options(parser)


def learn(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``learn``."""
    _bundle(parser)
    parser.add_argument(
        "--stream", metavar="FOLDER", type=Path, required=True, help="NNN_name/{train,test}/<class>/"
    )
    parser.add_argument("--run", metavar="FOLDER", type=Path, default=RUN, help="run folder (default: run/)")
    parser.add_argument("--resume", action="store_true", help="go on with a run; an error if there is none")
    parser.add_argument(
        "--watch", action="store_true", help="wait for new task folders and learn each, until a signal comes"
    )
    parser.add_argument(
        "--max-steps", metavar="N", type=int, help="stop, with the state saved, when the run has N steps"
    )
    _device(parser)
    _options(parser)


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``eval``."""
    _learned(parser)
    parser.add_argument("--stream", metavar="FOLDER", type=Path, required=True)
    parser.add_argument("--threads", metavar="N", type=_positive, default=1)


def predict(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``predict``."""
    _learned(parser)
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+")
    parser.add_argument("--top", metavar="N", type=_positive, default=1, help="classes to name (default: 1)")
    parser.add_argument("--threads", metavar="N", type=_positive, default=1)


def deploy(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``deploy``."""
    _learned(parser)
    parser.add_argument("out", metavar="OUT.onnx", type=Path)


def report(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``report``."""
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("--out", metavar="FILE", type=Path, help="the page (default: RUN/report.html)")


def replay(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``replay``."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument("journal", metavar="JOURNAL", type=Path)
    parser.add_argument(
        "-o", "--out", metavar="FILE", type=Path, required=True, help="adapter as safetensors"
    )
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--until-step", metavar="N", type=_natural, help="after N steps")
    until.add_argument("--until-task", metavar="N", type=_natural, help="at the end of task N (from 0)")


def history(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``history``."""
    parser.add_argument("run", metavar="RUN", type=Path)


def rollback(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rollback``."""
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument(
        "--to-task", metavar="N", type=_natural, required=True, help="number of the task, from 0"
    )


def profiles(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``profiles``."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a built-in name, a TOML file, or auto")


def doctor(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``doctor``."""
    parser.add_argument("--bundle", metavar="FOLDER", type=Path, help="also run this bundle's probe")


def bench(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench``: each benchmark reads its own, so that help does not import torch."""
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=("memory", "speed", "accuracy", "questions", "soak", "streams"),
        help="memory, speed, accuracy, questions, soak or streams",
    )
    parser.add_argument(
        "rest", metavar="...", nargs=argparse.REMAINDER, help="see 'edge-zofc bench NAME --help'"
    )


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """The learning options that were given explicitly."""
    given = {name: getattr(options, name) for name in _CHANGES}
    return {name: value for name, value in given.items() if value is not None}


def budget(options: argparse.Namespace) -> int | None:
    """``--memory-budget`` in bytes, or None. Raises InputError."""
    from edge_zofc.device.profiles import parse_bytes

    return None if options.memory_budget is None else parse_bytes(options.memory_budget)


def classes_per_task(text: str) -> int | list[int]:
    """The number in "5" or the list in "5,4,4,4". Raises InputError for anything else."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(
            f"--classes-per-task is {text!r}; give a number such as 5 or a list such as 5,4,4,4."
        )
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers


def export_options(options: argparse.Namespace, module: Any) -> Any:
    """``ExportOptions`` of the workstation's module."""
    return module.ExportOptions(
        out=options.out,
        backbone=options.backbone,
        pretrained=options.pretrained,
        checkpoint=options.checkpoint,
        random_weights=options.random_weights,
        img_size=options.img_size,
        depth=options.depth,
        adapter_blocks=options.adapter_blocks,
        rank=options.rank,
        precision=options.precision,
        pictures=options.pictures,
        seed=options.seed,
        force=options.force,
    )


def terminal_width() -> int:
    """Columns of the terminal, 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def _bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", metavar="FOLDER", type=Path, default=BUNDLE, help="bundle folder (default: bundle/)"
    )


def _learned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument(
        "--bundle", metavar="FOLDER", type=Path, help="where the run's bundle is now, if it moved"
    )


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device-profile", metavar="NAME|FILE|auto", default="auto")
    parser.add_argument(
        "--memory-budget", metavar="SIZE", help="such as 512MiB; replaces the profile's budget"
    )
    parser.add_argument("--micro-batch", metavar="N", type=_positive, help="pictures in one run of the graph")
    parser.add_argument(
        "--parallel-queries", metavar="K", type=_positive, help="adapters in one run of the graph"
    )


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", choices=("edge", "paper"), help="where the other options come from (default: edge)"
    )
    parser.add_argument("--seed", metavar="N", type=int)
    parser.add_argument(
        "--head", choices=("cosine", "lda"), help="trained by gradient, or solved in closed form"
    )
    parser.add_argument(
        "--augment", choices=("crop", "none"), help="random crops and flips while training, or none"
    )
    parser.add_argument("--epochs", metavar="N", type=int, help="passes over each task's pictures")
    parser.add_argument(
        "--head-epochs", metavar="N", type=int, help="the first N of them also train the head"
    )
    parser.add_argument("--batch-size", metavar="N", type=int)
    parser.add_argument("--queries", metavar="Q", type=int, help="random directions a step")
    parser.add_argument("--query-form", choices=("one-sided", "two-sided"))
    parser.add_argument("--eps", metavar="X", type=float, help="radius of a perturbation")
    parser.add_argument(
        "--optimizer",
        choices=("sgd", "sign", "conserve", "adam"),
        help="what a step makes of the gradient estimate (default: sgd). All four are replayed from the journal: "
        "each is elementwise, and conserve journals which of its three points it took",
    )
    parser.add_argument(
        "--adapter-lr", metavar="X", type=float, help="default: the preset's; sign 5e-5, adam 5e-4"
    )
    parser.add_argument("--head-lr", metavar="X", type=float)


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _natural(text: str) -> int:
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)
