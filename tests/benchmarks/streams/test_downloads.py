"""Small fakes of each download become streams in the papers' class order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_zofc.benchmarks.streams.downloads import command
from edge_zofc.data.stream import Stream, list_samples, read_stream

ORDER_OF_100 = [68, 56, 78, 8, 23]
"""The first classes of CIFAR-100 under seed 1993, as PILOT's logs print them."""


def converted(*arguments: object) -> Stream:
    assert command([str(argument) for argument in arguments]) == 0
    return read_stream(Path(str(arguments[2])) / "stream")


def counts(stream: Stream, part: str) -> list[int]:
    return [len(list_samples(stream, task, part)) for task in stream.tasks]  # type: ignore[arg-type]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)


def write_cifar100(folder: Path) -> Path:
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("".join(f"name{i:02}\n" for i in range(100)))
    for name, each in (("train.bin", 2), ("test.bin", 1)):
        records = []
        for label in range(100):
            for copy in range(each):
                planes = np.zeros((3, 32, 32), np.uint8)
                planes[0, 0, 1], planes[1], planes[2, 31, 31] = 255, label, copy
                records.append(bytes([label // 5, label]) + planes.tobytes())
        (folder / name).write_bytes(b"".join(records))
    return folder


def test_cifar100_inc5_is_twenty_tasks_in_the_order_of_seed_1993(tmp_path: Path) -> None:
    stream = converted("cifar100", write_cifar100(tmp_path / "cifar"), tmp_path / "out")
    assert len(stream.tasks) == 20
    assert counts(stream, "train") == [10] * 20
    assert counts(stream, "test") == [5] * 20
    record = json.loads((tmp_path / "out/stream/class_order.json").read_text())
    assert [int(name[:2]) for name in record["classes"][:5]] == ORDER_OF_100


def test_a_cifar_record_is_red_green_and_blue_planes(tmp_path: Path) -> None:
    stream = converted("cifar100", write_cifar100(tmp_path / "cifar"), tmp_path / "out")
    sample = list_samples(stream, stream.tasks[3], "test")[0]
    pixels = np.asarray(Image.open(sample.path))
    label = int(stream.class_names[sample.class_id][:2])
    assert pixels[0, 1].tolist() == [255, label, 0]
    assert pixels[5, 5].tolist() == [0, label, 0]


def test_cifar10_reads_five_batches(tmp_path: Path) -> None:
    folder = tmp_path / "cifar"
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    record = b"".join(bytes([label]) + bytes(3072) for label in range(10))
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(record)
    (folder / "test_batch.bin").write_bytes(record)
    stream = converted("cifar10", folder, tmp_path / "out")
    assert counts(stream, "train") == [10] * 5
    assert counts(stream, "test") == [2] * 5


def test_every_fifth_picture_of_imagenet_r_is_for_test(tmp_path: Path) -> None:
    for wnid in range(6):
        for number in range(10):
            picture(tmp_path / f"r/n0000000{wnid}/art_{number}.jpg")
    (tmp_path / "r/README.txt").write_text("not a class")
    stream = converted("imagenet-r", tmp_path / "r", tmp_path / "out", "--classes-per-task", 3)
    assert counts(stream, "train") == [24, 24]
    assert {s.path.name for s in list_samples(stream, stream.tasks[0], "test")} == {"art_4.jpg", "art_9.jpg"}


def write_domainnet(folder: Path) -> Path:
    for domain in ("real", "sketch"):
        for part, number in (("train", 0), ("train", 1), ("test", 2)):
            lines = []
            for label, name in enumerate(("ant", "bee", "cow", "dog")):
                file = f"{domain}/{name}/{domain}_{label:03}_{number:06}.jpg"
                picture(folder / file)
                lines.append(f"{file} {label}\n")
            with (folder / f"{domain}_{part}.txt").open("a") as out:
                out.writelines(lines)
    return folder


def test_domainnet_puts_all_domains_of_a_class_together(tmp_path: Path) -> None:
    source = write_domainnet(tmp_path / "domainnet")
    stream = converted("domainnet", source, tmp_path / "out", "--classes-per-task", 2, "--domains", "real", "sketch")
    assert counts(stream, "train") == [8, 8]
    assert counts(stream, "test") == [4, 4]
    assert sorted(stream.class_names) == ["000_ant", "001_bee", "002_cow", "003_dog"]
    one = converted("domainnet", source, tmp_path / "one", "--classes-per-task", 2, "--domains", "real")
    assert counts(one, "train") == [4, 4]


def write_core50(folder: Path, batches: list[list[int]], kind: str) -> Path:
    lists = folder / f"batches_filelists/{kind}/run0"
    lists.mkdir(parents=True)
    for number, labels in enumerate(batches):
        session = number + 1
        lines = [f"s{session}/o{label + 1}/C_{session:02}_{label + 1:02}_000.png {label}" for label in labels]
        for line in lines:
            picture(folder / "core50_128x128" / line.rsplit(" ", 1)[0])
        (lists / f"train_batch_{number:02}_filelist.txt").write_text("\n".join(lines) + "\n")
    tests = [f"s9/o{label + 1}/C_09_{label + 1:02}_000.png {label}" for label in range(4)]
    for line in tests:
        picture(folder / "core50_128x128" / line.rsplit(" ", 1)[0])
    (lists / "test_filelist.txt").write_text("\n".join(tests) + "\n")
    return folder


def test_core50_nc_tests_a_task_on_the_classes_that_are_new_in_it(tmp_path: Path) -> None:
    source = write_core50(tmp_path / "core50", [[2, 0], [1], [3]], "NC_inc")
    stream = converted("core50-nc", source, tmp_path / "out")
    assert counts(stream, "train") == [2, 1, 1]
    assert counts(stream, "test") == [2, 1, 1]
    assert stream.class_names == ("00", "02", "01", "03")


def test_core50_ni_has_all_classes_in_every_task_and_one_test_set(tmp_path: Path) -> None:
    source = write_core50(tmp_path / "core50", [[0, 1, 2, 3]] * 3, "NI_inc")
    stream = converted("core50-ni", source, tmp_path / "out")
    assert counts(stream, "train") == [4, 4, 4]
    assert counts(stream, "test") == [4, 0, 0]
    assert [task.class_ids for task in stream.tasks] == [(0, 1, 2, 3)] * 3


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda f: (f / "train.bin").write_bytes(bytes(3073)), "no multiple of 3074"),
        (lambda f: (f / "test.bin").unlink(), "cannot be read"),
        (lambda f: (f / "test.bin").write_bytes(bytes([0, 200]) + bytes(3072)), "label 200"),
        (lambda f: (f / "fine_label_names.txt").write_text("one\n"), "only 1 names"),
    ],
)
def test_a_damaged_cifar_is_one_sentence_and_exit_code_2(
    damage: object, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_cifar100(tmp_path / "cifar")
    damage(folder)  # type: ignore[operator]
    assert command(["cifar100", str(folder), str(tmp_path / "out")]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_list_cannot_name_a_picture_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_domainnet(tmp_path / "domainnet")
    (source / "real_test.txt").write_text("../../etc/passwd 0\n")
    assert command(["domainnet", str(source), str(tmp_path / "out"), "--domains", "real"]) == 2
    assert "leaves" in capsys.readouterr().err


def test_a_list_line_without_a_label_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_domainnet(tmp_path / "domainnet")
    (source / "real_train.txt").write_text("\nreal/ant/x.jpg zero\n")
    assert command(["domainnet", str(source), str(tmp_path / "out"), "--domains", "real"]) == 2
    assert "line 2" in capsys.readouterr().err
