"""The loop: ten steps of the paper against plain torch, resumed runs, and the streams real users bring."""

from __future__ import annotations

import json
import shutil
import signal
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import FAST, final_bits, go, without_times
from safetensors.numpy import load_file
from small import picture, small_model, write_small_bundle, write_small_stream

from edge_zofc.algorithm.directions import batches, direction
from edge_zofc.algorithm.heads import cosine_rate
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.engine.predict import open_run
from edge_zofc.engine.replay import replay_run
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DamagedFileError, DoesNotFitError, InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.transforms import load_train
from edge_zofc.storage.bundle import Bundle

# --- the paper's algorithm -------------------------------------------------------------------------------


def reference_run(bundle: Bundle, stream_folder: Path, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """ZO-FC as the paper has it, in float64 torch on one task: (theta, head rows, sigma) after ``steps`` steps.

    Nothing of the device runtime is used but the directions, the order of the batches and the pictures.
    """
    model = small_model().double()
    stream = read_stream(stream_folder)
    samples = list_samples(stream, stream.tasks[0], "train")
    theta = torch.from_numpy(bundle.initial_adapter()).double()
    velocity = torch.zeros_like(theta)
    bound = bundle.manifest.feature_size**-0.5
    words = [np.random.Philox(key=[1993, 1 << 32 | c]).random_raw(bundle.manifest.feature_size) for c in (0, 1)]
    draws = np.stack(words) >> np.uint64(11)
    rows = torch.nn.Parameter(torch.from_numpy((draws * 2.0**-53 * 2 - 1) * bound))
    sigma = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser = torch.optim.SGD([rows, sigma], lr=0.01, momentum=0.9)
    eps, step = 4194 * 2.0**-22, 0

    def loss_at(adapter: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        features = model(images, adapter[None])[0]
        cosines = torch.nn.functional.normalize(features, dim=-1) @ torch.nn.functional.normalize(rows, dim=-1).T
        return torch.nn.functional.cross_entropy(sigma * cosines, labels)

    for epoch in range(20):
        for batch in batches(len(samples), 8, 1993, 0, epoch):
            if step == steps:
                return theta.numpy(), rows.detach().numpy(), float(sigma.detach())
            images = [load_train(samples[i].path, bundle.manifest.image, (1993, 0, epoch, int(i)), normalise=False)
                      for i in batch]  # fmt: skip
            x = torch.from_numpy(np.stack(images)).double()
            y = torch.tensor([samples[i].class_id for i in batch])
            if epoch < 10:
                optimiser.param_groups[0]["lr"] = cosine_rate(0.01, epoch, 10)
                optimiser.zero_grad()
                loss_at(theta, x, y).backward()
                optimiser.step()
            gradient = torch.zeros_like(theta)
            with torch.no_grad():
                for query in range(4):
                    z = torch.from_numpy(direction(1993, step, query, len(theta))).double()
                    difference = loss_at(theta + eps * z, x, y) - loss_at(theta - eps * z, x, y)
                    gradient += difference / (2 * eps * 4) * z
            gradient *= min(1.0, 1.0 / (float(gradient.norm()) + 1e-6))
            velocity = 0.9 * velocity + gradient
            theta = theta - 0.01 * velocity
            step += 1
    raise AssertionError("too few steps")


@pytest.mark.parametrize("parallel", [1, 8])
def test_ten_steps_of_the_paper_agree_with_plain_torch(small_bundle: Bundle, tmp_path: Path, parallel: int) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1)
    theta, rows, sigma = reference_run(small_bundle, stream, 10)
    go(
        small_bundle, stream, tmp_path / "run", preset="paper", changes={"batch_size": 8}, max_steps=10,
        parallel_queries=parallel,
    )  # fmt: skip
    learned = open_run(tmp_path / "run")
    assert np.abs(theta - small_bundle.initial_adapter()).max() > 1e-4, "the reference must have moved"
    assert np.abs(learned.adapter - theta).max() < 1e-5
    assert np.abs(learned.head.rows - rows).max() < 1e-5
    assert abs(float(learned.head.sigma[0]) - sigma) < 1e-5


def test_in_place_and_at_once_end_with_the_same_bits(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    for parallel in (1, 3):
        go(small_bundle, small_stream, tmp_path / str(parallel), parallel_queries=parallel)
    assert final_bits(tmp_path / "1") == final_bits(tmp_path / "3")


# --- results and files -----------------------------------------------------------------------------------


def test_a_whole_run_leaves_its_numbers_and_a_journal_that_rebuilds_the_adapter(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    result = go(small_bundle, small_stream, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert result["completed"] is True
    assert result["steps"] == 3 * 2 * 2  # tasks x epochs x batches of 8 among 16 pictures
    # Statistics when a task begins and when it ends, and (Q + 1) x batch a step.
    assert result["forward_passes"] == 2 * 3 * 16 + 12 * 3 * 8
    assert [len(row) for row in result["accuracy_matrix"]] == [1, 2, 3]
    assert set(result["class_mean_floor"]) < set(result)
    assert result["class_names"] == [f"class{n:02d}" for n in range(6)]
    replayed = replay_run(small_bundle.folder, tmp_path / "run/journal.bin", tmp_path / "a.safetensors", None, None)
    assert replayed.steps == 12
    adapter = load_file(tmp_path / "a.safetensors")["adapter"]
    assert adapter.tobytes() == final_bits(tmp_path / "run")[0]


def test_the_floor_is_simplecil_computed_by_hand(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    """Class means of the frozen features, cosine, in plain torch on the last stage."""
    from edge_zofc.inference.transforms import load_test

    result = go(small_bundle, small_stream, tmp_path / "run")
    stream, model = read_stream(small_stream), small_model()

    def features(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        samples = [s for task in stream.tasks for s in list_samples(stream, task, part)]  # type: ignore[arg-type]
        pictures = np.stack([load_test(s.path, small_bundle.manifest.image) for s in samples])
        adapter = torch.from_numpy(small_bundle.initial_adapter())[None]
        with torch.inference_mode():
            return model(torch.from_numpy(pictures), adapter)[0], torch.tensor([s.class_id for s in samples])

    x, y = features("train")
    means = torch.nn.functional.normalize(torch.stack([x[y == c].mean(0) for c in range(6)]), dim=-1)
    test_x, test_y = features("test")
    guesses = (torch.nn.functional.normalize(test_x, dim=-1) @ means.T).argmax(-1)
    assert result["class_mean_floor"]["last_accuracy"] == pytest.approx(float((guesses == test_y).float().mean()))


@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_the_stream_that_most_tests_learn_moves_the_adapter(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, head: str
) -> None:
    """Else what they say of its bits would be true of any run."""
    go(small_bundle, small_stream, tmp_path / "run", changes={**FAST, "head": head})
    assert final_bits(tmp_path / "run")[0] != small_bundle.initial_adapter().tobytes()


# --- stopping and going on -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 5, 11])
def test_a_stopped_run_goes_on_to_the_same_bits(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, steps: int
) -> None:
    whole = go(small_bundle, small_stream, tmp_path / "whole")
    part = go(small_bundle, small_stream, tmp_path / "run", max_steps=steps)
    assert part["completed"] is False
    assert part["steps"] == steps
    resumed = go(small_bundle, small_stream, tmp_path / "run", resume=True)
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")
    assert without_times(resumed) == without_times(whole)


def test_a_signal_stops_between_two_runs_of_the_graph_and_saves(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    def send(session: Trainer, loss: float) -> None:
        if session.state.progress.step == 3:
            signal.raise_signal(signal.SIGTERM)

    result = go(small_bundle, small_stream, tmp_path / "run", on_step=send)
    assert (result["stopped"], result["steps"], result["completed"]) == ("SIGTERM", 3, False)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    go(small_bundle, small_stream, tmp_path / "run")
    go(small_bundle, small_stream, tmp_path / "whole")
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_a_finished_run_learns_just_what_was_added(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=3)
    later = stream / "002_task"
    later.rename(tmp_path / "later")
    first = go(small_bundle, stream, tmp_path / "run")
    assert len(first["tasks"]) == 2
    (tmp_path / "later").rename(later)
    second = go(small_bundle, stream, tmp_path / "run")
    assert [task["name"] for task in second["tasks"]] == ["000_task", "001_task", "002_task"]
    assert second["steps"] == first["steps"] * 3 // 2
    go(small_bundle, stream, tmp_path / "whole")
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_a_run_is_not_mixed_with_other_options_or_another_bundle(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    go(small_bundle, small_stream, tmp_path / "run", max_steps=1)
    with pytest.raises(InputError, match=r"epochs: 2 -> 7.*which cannot change"):
        go(small_bundle, small_stream, tmp_path / "run", changes={**FAST, "epochs": 7})
    other = write_small_bundle(tmp_path / "other", "w8")
    with pytest.raises(InputError, match="belongs to another bundle"):
        go(other, small_stream, tmp_path / "run")
    with pytest.raises(InputError, match="no run to resume"):
        go(small_bundle, small_stream, tmp_path / "new", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="not empty and holds no run"):
        go(small_bundle, small_stream, tmp_path / "full")


def test_a_bundle_that_loses_the_gradient_is_refused_with_the_number(small_stream: Path, tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", fidelity=0.17)
    with pytest.raises(InputError, match=r"fidelity 0\.17"):
        go(bundle, small_stream, tmp_path / "run")
    assert not (tmp_path / "run" / "settings.json").exists()


# --- memory ----------------------------------------------------------------------------------------------


def test_a_failed_allocation_halves_the_micro_batch_and_goes_on(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_graph = Backbone.features

    def fail_above_two(self: Backbone, count: int, adapters: np.ndarray) -> np.ndarray:
        if self.placement.micro_batch > 2:
            raise MemoryError("injected")
        return run_graph(self, count, adapters)

    monkeypatch.setattr(Backbone, "features", fail_above_two)
    result = go(small_bundle, small_stream, tmp_path / "run")
    assert (result["completed"], result["micro_batch"]) == (True, 2)
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert events.count("micro_batch_halved") == 1


def test_when_nothing_is_left_to_halve_the_state_is_saved_and_the_exit_code_is_3(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(small_bundle, small_stream, tmp_path / "run", max_steps=3)
    before = final_bits(tmp_path / "run")

    def fail(self: Backbone, count: int, adapters: np.ndarray) -> np.ndarray:
        raise MemoryError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "features", fail)
        with pytest.raises(DoesNotFitError, match="one picture and one adapter") as caught:
            go(small_bundle, small_stream, tmp_path / "run")
    assert caught.value.exit_code == 3
    assert final_bits(tmp_path / "run") == before


def test_a_run_whose_snapshots_are_lost_keeps_its_journal(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    go(small_bundle, small_stream, tmp_path / "run", max_steps=3)
    journal = (tmp_path / "run" / "journal.bin").read_bytes()
    shutil.rmtree(tmp_path / "run" / "state")
    with pytest.raises(DamagedFileError, match="holds no snapshot"):
        go(small_bundle, small_stream, tmp_path / "run")
    assert (tmp_path / "run" / "journal.bin").read_bytes() == journal


# --- what real users bring -------------------------------------------------------------------------------


def test_a_task_with_one_class_gets_its_class_mean_and_no_step(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=3, classes=1)
    result = go(small_bundle, stream, tmp_path / "run", changes={**FAST, "head": "cosine"})
    assert result["steps"] == 0
    assert result["accuracy_matrix"] == result["class_mean_floor"]["accuracy_matrix"]
    assert "single class class00" in (tmp_path / "run" / "events.jsonl").read_text()


def test_pictures_of_an_old_class_in_a_later_task_keep_its_id(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=2)
    shutil.copytree(stream / "000_task/train/class00", stream / "001_task/train/class00")
    result = go(small_bundle, stream, tmp_path / "run")
    assert result["class_names"] == ["class00", "class01", "class02", "class03"]
    assert result["tasks"][1]["class_ids"] == [0, 2, 3]


def test_a_stream_without_test_pictures_is_learnt_and_reports_no_accuracy(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=2, train=3)
    for folder in stream.glob("*/test"):
        shutil.rmtree(folder)
    result = go(small_bundle, stream, tmp_path / "run")
    assert result["completed"] is True
    assert result["steps"] == 4
    assert result["average_accuracy"] is None
    assert result["beats_class_mean_floor"] is None


def test_unreadable_pictures_are_left_out_and_named_up_to_a_tenth(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1, train=10)
    broken = stream / "000_task/train/class00/003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    result = go(small_bundle, stream, tmp_path / "run")
    assert (result["skipped_images"], result["tasks"][0]["train_images"]) == (1, 19)
    assert "003.png" in (tmp_path / "run" / "events.jsonl").read_text()
    for name in ("004.png", "005.png"):
        (broken.parent / name).write_bytes(b"")
    with pytest.raises(InputError, match="3 of 20 pictures of task 000_task cannot be read"):
        go(small_bundle, stream, tmp_path / "other")


def test_broken_links_count_as_unreadable_pictures(small_bundle: Bundle, tmp_path: Path) -> None:
    """FAULTS A2: a stream of links whose pictures stayed behind is refused, and not learnt with half of its classes."""
    stream = write_small_stream(tmp_path / "stream", tasks=1, train=10)
    for path in (stream / "000_task/train/class00").iterdir():
        path.unlink()
        path.symlink_to(f"../../../left-behind/{path.name}")
    with pytest.raises(InputError, match="10 of 20 pictures of task 000_task cannot be read"):
        go(small_bundle, stream, tmp_path / "run")
    assert "is a broken link: ../../../left-behind/" in (tmp_path / "run" / "events.jsonl").read_text()


def test_a_class_without_a_readable_picture_is_no_class(small_bundle: Bundle, tmp_path: Path) -> None:
    """FAULTS A4: it is named, takes no id, and may come back; the run goes on in another process."""
    stream = write_small_stream(tmp_path / "stream", tasks=2, train=22)
    good = tmp_path / "good"
    shutil.copytree(stream / "000_task" / "train" / "class00", good)
    bad = stream / "000_task" / "train" / "bad"
    bad.mkdir()
    for name in ("0.jpg", "1.jpg"):
        (bad / name).write_bytes(b"")
    run = tmp_path / "run"
    go(small_bundle, stream, run, max_steps=3)
    result = go(small_bundle, stream, run)
    assert result["completed"]
    assert result["class_names"] == ["class00", "class01", "class02", "class03"]
    assert (result["skipped_images"], result["tasks"][0]["train_images"]) == (2, 44)
    log = (run / "events.jsonl").read_text()
    assert "no train picture of the class can be read: bad." in log
    assert "changed" not in log
    shutil.copytree(good, stream / "002_task" / "train" / "bad")
    shutil.copytree(good, stream / "002_task" / "test" / "bad")
    assert go(small_bundle, stream, run)["class_names"][4:] == ["bad"]
    assert go(small_bundle, stream, tmp_path / "at-once")["class_names"][4:] == ["bad"]


def test_the_train_pictures_of_a_learnt_task_may_be_deleted(small_bundle: Bundle, tmp_path: Path) -> None:
    """FAULTS A8: privacy and disk space are the user's; the run goes on and learns what is new."""
    stream = write_small_stream(tmp_path / "stream", tasks=2)
    (stream / "001_task").rename(tmp_path / "later")
    go(small_bundle, stream, tmp_path / "run")
    shutil.rmtree(stream / "000_task" / "train")
    (tmp_path / "later").rename(stream / "001_task")
    result = go(small_bundle, stream, tmp_path / "run")
    assert result["completed"]
    assert [task["name"] for task in result["tasks"]] == ["000_task", "001_task"]
    assert result["accuracy_matrix"][1][0] is not None
    shutil.rmtree(stream / "000_task" / "test")
    assert go(small_bundle, stream, tmp_path / "run")["completed"]


def test_a_class_has_one_name_whatever_its_unicode_form(small_bundle: Bundle, tmp_path: Path) -> None:
    """FAULTS A3: the same name in NFC and in NFD, in two tasks and in two parts of one, is one class."""
    stream = write_small_stream(tmp_path / "stream", tasks=2)
    for task, part, old, form in (
        ("000_task", "train", "class00", "NFC"),
        ("000_task", "test", "class00", "NFD"),
        ("001_task", "train", "class02", "NFD"),
        ("001_task", "test", "class02", "NFC"),
    ):
        folder = stream / task / part
        (folder / old).rename(folder / unicodedata.normalize(form, "Caf\u00e9"))
    result = go(small_bundle, stream, tmp_path / "run")
    assert result["class_names"] == ["Caf\u00e9", "class01", "class03"]
    assert [task["test_images"] for task in result["tasks"]] == [8, 8]


def test_a_picture_that_vanishes_while_learning_leaves_its_batch(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1, train=12)

    def lose(session: Trainer, loss: float) -> None:
        (stream / "000_task/train/class01/007.png").unlink(missing_ok=True)

    result = go(small_bundle, stream, tmp_path / "run", on_step=lose)
    assert result["completed"] is True
    assert result["skipped_images"] == 1


def test_a_changed_task_is_told_and_not_learnt_again(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1)
    first = go(small_bundle, stream, tmp_path / "run")
    picture(0, 99).save(stream / "000_task/train/class00/999.png")
    second = go(small_bundle, stream, tmp_path / "run")
    assert second["steps"] == first["steps"]
    assert "changed after it was learnt" in (tmp_path / "run" / "events.jsonl").read_text()


@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_a_stream_that_is_unplugged_before_a_task_ends_leaves_the_task_unfinished(
    small_bundle: Bundle, tmp_path: Path, head: str
) -> None:
    """To end a task without its pictures would be to forget it: the solved head's sums are those of the pictures."""
    stream, away, changes = (
        write_small_stream(tmp_path / "stream", tasks=2),
        tmp_path / "away",
        {**FAST, "head": head},
    )

    def unplug(session: Trainer, loss: float) -> None:
        if session.state.progress.step == 8:  # the last of the second task
            stream.rename(away)

    with pytest.raises(InputError, match=r"16 of the 16 pictures .* 001_task began with are gone .* mounted\?\)"):
        go(small_bundle, stream, tmp_path / "run", unplug, changes=changes)
    away.rename(stream)
    resumed = go(small_bundle, stream, tmp_path / "run", changes=changes)
    whole = go(small_bundle, stream, tmp_path / "whole", changes=changes)
    assert without_times(resumed) == without_times(whole)
    assert final_bits(tmp_path / "run") == final_bits(tmp_path / "whole")


def test_pictures_that_come_while_their_task_is_learnt_are_told(small_bundle: Bundle, tmp_path: Path) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1)

    def add(session: Trainer, loss: float) -> None:
        picture(1, 99).save(stream / "000_task/train/class01/late.png")

    result = go(small_bundle, stream, tmp_path / "run", add)
    assert result["completed"]
    assert "task 000_task changed while it was being learnt" in (tmp_path / "run/events.jsonl").read_text()
