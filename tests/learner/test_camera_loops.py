"""The loops of device_profiles/README.md run as they stand there, with frames in place of a camera's library."""

from __future__ import annotations

import re
import types
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from small import picture

from edge_zofc.learner import Learner
from edge_zofc.storage.bundle import Bundle

PAGE = Path(str(files("edge_zofc.device_profiles"))).resolve() / "README.md"


def frame(number: int, index: int) -> np.ndarray:
    return np.asarray(picture(number, index, side=96).convert("RGB"))


def loops() -> dict[str, str]:
    """The page's Python, by the camera's library."""
    if not PAGE.exists():
        pytest.skip("the installed package has no README of device_profiles; run from the checkout")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {re.findall(r"(?:import|from) (\w+)", block)[0]: block for block in blocks}


@pytest.fixture
def run(small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with Learner.create(small_bundle.folder, tmp_path / "run", profile="cpu-2gib") as learner:
        learner.teach([frame(3, index) for index in range(5)], "pen")
        learner.teach([frame(5, index) for index in range(5)], "cap")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_the_loop_for_opencv_names_frames_whose_colours_are_the_other_way_round(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = iter([(True, frame(3, 20)[..., ::-1]), (True, frame(5, 20)[..., ::-1]), (False, None)])
    cv2 = types.SimpleNamespace(VideoCapture=lambda number: types.SimpleNamespace(read=lambda: next(shown)))
    monkeypatch.setitem(__import__("sys").modules, "cv2", cv2)
    exec(loops()["cv2"], {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["pen", "cap"]


def test_the_loop_for_picamera2_teaches(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = iter(range(100))

    class Picamera2:
        def create_preview_configuration(self, wanted: dict[str, object]) -> dict[str, object]:
            return wanted

        def configure(self, wanted: dict[str, object]) -> None:
            assert wanted["format"] == "BGR888"

        def start(self) -> None:
            pass

        def capture_array(self) -> np.ndarray:
            return frame(0, next(number))

    monkeypatch.setitem(__import__("sys").modules, "picamera2", types.SimpleNamespace(Picamera2=Picamera2))
    exec(loops()["picamera2"], {})
    with Learner.open(run) as learner:
        assert {each.name: each.taught for each in learner.classes} == {"pen": 5, "cap": 5, "mug": 10}
        assert learner.predict(frame(0, 50)).name == "mug"
