"""The attacks that have a name, each on a world of its own: ``bundle/``, ``stream/``, ``run/`` (its first task learnt)
and ``outside/``, which nobody may touch.

An entry is a function that spoils the world and, in ``@named``, what is then typed and how that must end. 0: the attack
must do no harm at all. Commands: see ``typed``.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from changes import as_json
from onnx import TensorProto, helper
from PIL import Image
from safetensors.numpy import save
from victims import rewrite_manifest, seal_journal, seal_snapshot, seal_state

from edge_zofc.storage import bundle, manifest

Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Named:
    """``typed``: the command's name; ``codes``: the exit codes it may end with."""

    name: str
    spoil: Spoil
    typed: str
    codes: frozenset[int]
    is_slow: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.typed}"


NAMED: list[Named] = []


def named(typed: str, *codes: int, is_slow: bool = False) -> Callable[[Spoil], Spoil]:
    """Register an attack for each of the commands in ``typed``."""

    def register(spoil: Spoil) -> Spoil:
        NAMED.extend(Named(spoil.__name__, spoil, word, frozenset(codes), is_slow) for word in typed.split())
        return spoil

    return register


def arguments(world: Path, typed: str) -> list[str]:
    """The command line behind a name: on the run that is there, or (``new``, ``plan``) without one."""
    run, stream, folder = str(world / "run"), str(world / "stream"), str(world / "bundle")
    small = ["--epochs", "1", "--batch-size", "8", "--queries", "1"]
    device = ["--device-profile", "cpu-512mib"]
    pictures = sorted(str(path) for path in (world / "stream/000_task/test/class00").iterdir())
    return {
        "learn": ["learn", "--bundle", folder, "--stream", stream, "--run", run, *device],
        "new": ["learn", "--bundle", folder, "--stream", stream, "--run", f"{run}/new", *device, *small],
        "history": ["history", run],
        "rollback": ["rollback", run, "--to-task", "0"],
        "predict": ["predict", run, *pictures],
        "eval": ["eval", run, "--stream", stream],
        "report": ["report", run],
        "replay": ["replay", folder, f"{run}/journal.bin", "-o", f"{run}/adapter.safetensors"],
        "plan": ["plan", "--bundle", folder, "--device-profile", f"{world}/board.toml"],
    }[typed]


# --- in a file's place -------------------------------------------------------------------------------------


def _in_place_of(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    outside = next(folder for folder in path.parents if folder.name == "world") / "outside"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(outside / "secret.txt")
    elif kind == "folder link":
        path.symlink_to(outside)
    elif kind == "device link":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "socket":
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket has at most 107 bytes
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)


KINDS = ("pipe", "folder", "link", "folder link", "device link", "loop", "socket", "sparse")
PLACES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    # Where, what reads it, and how that may end. Events and result are written anew, the cache is computed anew.
    ("bundle/bundle.json", "new", (5,)),
    ("bundle/backbone.onnx", "new", (5,)),
    ("bundle/backbone.onnx.data", "new", (5,)),
    ("bundle/adapter.safetensors", "new", (5,)),
    ("bundle/probe.safetensors", "new", (5,)),
    ("board.toml", "plan", (2,)),
    ("run/settings.json", "learn", (5,)),
    ("run/journal.bin", "learn", (5,)),
    ("run/journal.bin", "replay", (5,)),
    ("run/state", "learn", (5,)),
    ("run/state/task-000.safetensors", "rollback", (5,)),
    ("run/features", "learn", (0, 2, 5)),
    ("run/lock", "learn", (0, 2, 5)),
    ("run/events.jsonl", "learn", (0, 5)),
    ("run/result.json", "report", (2, 5)),
    ("run/result.json", "learn", (0, 2)),
    ("run/report.html", "report", (0, 2)),
    ("stream/001_task/train/class02/000.png", "learn", (0, 2)),
    ("stream/001_task/test/class02/000.png", "learn", (0, 2)),
    ("stream/000_task/test/class00/000.png", "predict", (2,)),
    ("stream/000_task/train/class00/000.png", "report", (0,)),
    ("stream/000_task/test/class00/000.png", "report", (0,)),
)


def _place(where: str, kind: str) -> Spoil:
    return lambda world: _in_place_of(world / where, kind)


for _where, _typed, _codes in PLACES:
    for _kind in KINDS:
        _name = f"{_where}-is-{_kind}".replace(" ", "-")
        _spoil = _place(_where, _kind)
        NAMED.append(Named(_name, _spoil, _typed, frozenset(_codes), _kind not in ("pipe", "link", "folder")))


@named("learn history predict", 5, 2)
def all_snapshots_are_pipes(world: Path) -> None:
    for path in (world / "run/state").glob("snapshot-*"):
        _in_place_of(path, "pipe")


@named("learn", 0)
def the_newest_snapshot_is_a_link_outside(world: Path) -> None:
    newest = max((world / "run/state").glob("snapshot-*"))
    _in_place_of(newest, "link")


@named("learn", 5)
def a_snapshot_whose_number_leaves_no_next(world: Path) -> None:
    (world / f"run/state/snapshot-{10**18 - 1}.safetensors").write_bytes(b"")


@named("learn", 0)
def a_snapshot_whose_number_is_too_long_to_be_one(world: Path) -> None:
    (world / f"run/state/snapshot-{10**18}.safetensors").write_bytes(b"")


@named("learn", 0)
def leftovers_are_links_outside(world: Path) -> None:
    for place in ("run", "run/state", "run/features"):
        (world / place / ".tmp-1-result.json").symlink_to(world / "outside/secret.txt")
        (world / place / ".tmp-2-x").symlink_to(world / "outside")


# --- forged files, whose hashes are right -------------------------------------------------------------------


def _forge_graph(world: Path, nodes: list[onnx.NodeProto], initialisers: list[onnx.TensorProto] | None = None) -> None:
    """A graph with the bundle's inputs and output and other nodes."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, "S", "S"])
    adapters = helper.make_tensor_value_info("adapters", TensorProto.FLOAT, ["K", "P"])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "forged", [images, adapters], [features], initialisers or [])
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (world / "bundle" / manifest.GRAPH).write_bytes(raw)
    rewrite_manifest(world / "bundle", manifest.GRAPH, raw)


@named("new", 5)
def a_graph_of_garbage(world: Path) -> None:
    (world / "bundle" / manifest.GRAPH).write_bytes(b"\x08\x08garbage")
    rewrite_manifest(world / "bundle", manifest.GRAPH, b"\x08\x08garbage")


@named("new", 5)
def a_graph_whose_features_have_another_shape(world: Path) -> None:
    _forge_graph(world, [helper.make_node("Flatten", ["images"], ["features"])])


@named("new", 5)
def a_graph_that_fails_while_it_runs(world: Path) -> None:
    _forge_graph(world, [helper.make_node("MatMul", ["images", "adapters"], ["features"])])


@named("new", 3, 5)
def a_graph_that_asks_for_a_tebibyte(world: Path) -> None:
    size = helper.make_tensor("size", TensorProto.INT64, [1], [1 << 38])
    _forge_graph(world, [helper.make_node("ConstantOfShape", ["size"], ["features"])], [size])


@named("new", 5)
def weights_outside_of_the_bundle(world: Path) -> None:
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../outside/secret.txt")
    _forge_graph(world, [helper.make_node("Add", ["images", "w"], ["features"])], [weight])


def _forge_tensors(world: Path, name: str, raw: bytes) -> None:
    (world / "bundle" / name).write_bytes(raw)
    rewrite_manifest(world / "bundle", name, raw)


@named("new", 5)
def an_adapter_that_is_not_a_number(world: Path) -> None:
    count = bundle.read_bundle(world / "bundle").manifest.adapter.size
    _forge_tensors(world, manifest.ADAPTER, save({"adapter": np.full(count, np.nan, np.float32)}))


@named("new", 5)
def an_adapter_of_the_wrong_type(world: Path) -> None:
    count = bundle.read_bundle(world / "bundle").manifest.adapter.size
    _forge_tensors(world, manifest.ADAPTER, save({"adapter": np.zeros(count, np.float64)}))


@named("new", 5)
def an_adapter_that_says_it_is_huge(world: Path) -> None:
    header = b'{"adapter":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}'
    _forge_tensors(world, manifest.ADAPTER, len(header).to_bytes(8, "little") + header + bytes(4))


def _change_manifest(world: Path, **changes: object) -> None:
    path = world / "bundle" / manifest.MANIFEST
    path.write_bytes(as_json({**json.loads(path.read_text()), **changes}))


@named("new", 3, 5)
def a_manifest_with_an_adapter_of_a_tebibyte(world: Path) -> None:
    layout = json.loads((world / "bundle" / manifest.MANIFEST).read_text())["adapter"]
    layout["pieces"] = [{"name": "down", "shape": [1 << 38], "offset": 0}]
    _change_manifest(world, adapter=layout)


@named("new", 3, 5)
def a_manifest_with_features_of_a_tebibyte(world: Path) -> None:
    _change_manifest(world, feature_size=1 << 38)


@named("new", 5)
def a_manifest_that_names_files_outside(world: Path) -> None:
    files = json.loads((world / "bundle" / manifest.MANIFEST).read_text())["files"]
    files["../outside/secret.txt"] = files.pop("probe.safetensors")
    _change_manifest(world, files=files)


@named("new", 2)
def a_manifest_of_a_later_version(world: Path) -> None:
    _change_manifest(world, format_version=manifest.FORMAT_VERSION + 1)


@named("new", 5)
def a_manifest_nested_a_hundred_thousand_deep(world: Path) -> None:
    (world / "bundle" / manifest.MANIFEST).write_bytes(b"[" * 100_000)


@named("learn replay", 5)
def a_journal_with_a_hole(world: Path) -> None:
    path = world / "run/journal.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:108] + raw[136:])


@named("learn replay", 2, 5)
def a_journal_that_says_it_is_another_runs(world: Path) -> None:
    path = world / "run/journal.bin"
    raw = bytearray(path.read_bytes())
    raw[24] ^= 1  # the seed
    raw[40] ^= 1  # the bundle
    path.write_bytes(seal_journal(bytes(raw)))


@named("learn replay", 5)
def a_journal_of_an_impossible_rate(world: Path) -> None:
    path = world / "run/journal.bin"
    raw = bytearray(path.read_bytes())
    raw[108 + 28 + 16 : 108 + 28 + 20] = struct.pack("<f", float("nan"))
    path.write_bytes(seal_journal(bytes(raw)))


@named("learn", 0)
def a_journal_with_a_tail_of_zeros(world: Path) -> None:
    path = world / "run/journal.bin"
    path.write_bytes(path.read_bytes() + bytes(1 << 20))


def _forge_state(world: Path, **changes: object) -> None:
    for path in (world / "run/state").glob("snapshot-*"):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        state = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["state"])
        path.write_bytes(seal_state(raw, as_json({**state, **changes})))


@named("learn predict history", 5)
def a_state_whose_task_has_a_class_that_is_not_there(world: Path) -> None:
    _forge_state(world, class_names=[])


@named("learn predict", 5)
def a_state_under_way_without_a_task(world: Path) -> None:
    _forge_state(world, phase="training", tasks=[])


@named("learn", 5)
def a_state_with_more_records_than_the_journal(world: Path) -> None:
    _forge_state(world, journal_records=10**9)


@named("learn history report", 0, 2, 5)
def a_state_whose_names_fool_a_terminal(world: Path) -> None:
    _forge_state(world, class_names=["\x1b[2J", "../../etc/passwd\n"])


@named("learn predict", 5)
def a_state_that_is_not_a_number(world: Path) -> None:
    for path in (world / "run/state").glob("snapshot-*"):
        raw = path.read_bytes()
        path.write_bytes(seal_snapshot(raw[:-4] + struct.pack("<f", float("nan"))))


@named("learn history predict", 5)
def settings_with_a_batch_of_a_quintillion(world: Path) -> None:
    _change_settings(world, "execution", micro_batch=10**18)


@named("learn history predict", 5)
def settings_with_half_an_epoch(world: Path) -> None:
    _change_settings(world, "options", epochs=0.5)


@named("history predict", 2)
def settings_with_a_bundle_at_a_name_that_is_too_long(world: Path) -> None:
    _change_settings(world, None, bundle_folder="/x" * 5000)


@named("history predict", 2)
def settings_with_a_bundle_elsewhere(world: Path) -> None:
    _change_settings(world, None, bundle_folder="../../../../etc\x00")


def _change_settings(world: Path, part: str | None, **changes: object) -> None:
    path = world / "run/settings.json"
    data = json.loads(path.read_text())
    (data if part is None else data[part]).update(changes)
    path.write_bytes(as_json(data))


# --- streams and pictures -----------------------------------------------------------------------------------


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (head, *chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def _bombs() -> dict[str, bytes]:
    many = zlib.compress(bytes(64 << 20), 9)
    jpeg = io.BytesIO()
    Image.new("L", (16, 16)).save(jpeg, "JPEG")
    raw = bytearray(jpeg.getvalue())
    at = raw.index(b"\xff\xc0") + 5
    raw[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return {
        "png of 10 gigapixels": _png(100_000, 100_000, (b"IDAT", many)),
        "png of text": _png(1, 1, (b"zTXt", b"a\0\0" + many), (b"IDAT", zlib.compress(bytes(4)))),
        "png profile": _png(1, 1, (b"iCCP", b"a\0\0" + many), (b"IDAT", zlib.compress(bytes(4)))),
        "jpeg of 4 gigapixels": bytes(raw),
        "webp of 268 megapixels": b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x0f" + bytes(8),
    }


@named("predict", 2)
def pictures_that_are_bombs(world: Path) -> None:
    for index, raw in enumerate(_bombs().values()):
        (world / f"stream/000_task/test/class00/bomb{index}.png").write_bytes(raw)


@named("learn", 2)
def a_task_of_bombs(world: Path) -> None:
    for index, raw in enumerate(_bombs().values()):
        (world / f"stream/001_task/train/class02/bomb{index}.png").write_bytes(raw)


@named("learn", 2, is_slow=True)
def a_class_of_a_hundred_thousand_empty_files(world: Path) -> None:
    folder = world / "stream/001_task/train/class02"
    for number in range(100_000):
        os.close(os.open(f"{folder}/{number}.png", os.O_CREAT | os.O_WRONLY))


@named("learn", 0, is_slow=True)
def a_hundred_thousand_files_that_are_no_pictures(world: Path) -> None:
    folder = world / "stream/001_task/train/class02"
    for number in range(100_000):
        os.close(os.open(f"{folder}/{number}.txt", os.O_CREAT | os.O_WRONLY))


def _copy_task(world: Path, task: bytes, *classes: bytes) -> None:
    good = world / "stream/001_task/train/class02"
    for name in classes:
        shutil.copytree(good, world / "stream" / os.fsdecode(task) / "train" / os.fsdecode(name))


@named("learn", 0)
def names_that_are_not_utf8(world: Path) -> None:
    _copy_task(world, b"002_\xff\xfe", b"\xc3\x28", b"\xff")


@named("learn", 0)
def names_that_fool_a_terminal_or_a_parser(world: Path) -> None:
    _copy_task(world, b"002_a\nb", b"\x1b[2J", b"...", b"a b\\x", b"%s{0}$(x)", "\u202egnp".encode())


@named("learn", 0)
def names_of_255_bytes(world: Path) -> None:
    _copy_task(world, b"002_" + b"x" * 251, b"y" * 255, b"z" * 254)


@named("learn", 0)
def tasks_whose_numbers_are_huge(world: Path) -> None:
    _copy_task(world, b"9" * 200 + b"_x", b"a", b"b")


@named("learn", 0, 2)
def a_class_that_is_a_link_in_a_circle(world: Path) -> None:
    (world / "stream/001_task/train/self").symlink_to("..")
    (world / "stream/001_task/train/loop").symlink_to("loop")


@named("new", 2)
@named("learn eval", 0)  # train pictures of learnt tasks may be deleted, and test pictures alone are evaluated
def a_stream_that_is_a_file(world: Path) -> None:
    shutil.rmtree(world / "stream/000_task/train")
    for part in ("000_task/test", "001_task", "002_task"):
        (world / "kept").mkdir(exist_ok=True)
        if part != "000_task/test" and (world / "stream" / part).exists():
            shutil.rmtree(world / "stream" / part)
    shutil.copytree(world / "stream/000_task/test/class00", world / "kept/class00")
    (world / "stream/001_task").write_text("no folder")


@named("plan", 2)
def a_profile_of_a_gigabyte(world: Path) -> None:
    with (world / "board.toml").open("wb") as file:
        file.truncate(1 << 30)


@named("plan", 2)
def a_profile_nested_ten_thousand_deep(world: Path) -> None:
    (world / "board.toml").write_bytes(b"a = " + b"[" * 10_000)
