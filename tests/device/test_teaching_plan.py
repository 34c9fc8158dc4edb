"""The plan of a process that is shown pictures, against what such a process takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small import picture

from edge_zofc.device.process_cost import measure_base
from edge_zofc.device.teaching_plan import PAGE_BYTES, SPARE_BYTES, one_by_one, teaching_plan
from edge_zofc.learner import Learner
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement

PEAK = """
import sys
from pathlib import Path
from edge_zofc import Learner
with Learner.open(sys.argv[1], limit_memory=True) as learner:
    for path in sorted(Path(sys.argv[2]).iterdir()):
        learner.teach(path, path.stem[:1])
        learner.predict(path)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0])
"""


def test_a_page_takes_its_own_and_the_budget_has_room_for_a_large_picture(small_bundle: Bundle) -> None:
    placement = one_by_one(Placement.simple(8, 4), threads=1)
    assert (placement.micro_batch, placement.parallel_queries) == (1, 1)
    base = measure_base(with_torch=False)
    plans = [teaching_plan(small_bundle.manifest.sizes, placement, base, 20, page=page) for page in (False, True)]
    assert plans[1].peak_bytes - plans[0].peak_bytes == sum(PAGE_BYTES)
    assert plans[0].budget_bytes == plans[0].peak_bytes + SPARE_BYTES


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_a_process_that_is_taught_keeps_to_its_plan(small_bundle: Bundle, tmp_path: Path) -> None:
    """A tiny network: what is left is Python and its libraries, within a tenth."""
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        for index in range(4):
            picture(number, index).save(tmp_path / "pictures" / f"{number}{index}.png")
    Learner.create(small_bundle.folder, tmp_path / "run", profile="cpu-2gib").close()
    words = [sys.executable, "-c", PEAK, str(tmp_path / "run"), str(tmp_path / "pictures")]
    peak_bytes = 1024 * int(subprocess.run(words, capture_output=True, check=True).stdout)
    placement = one_by_one(Placement.simple(), threads=1)
    base = measure_base(with_torch=False)
    predicted = teaching_plan(small_bundle.manifest.sizes, placement, base, 20).peak_bytes
    assert 0.85 * predicted < peak_bytes < 1.1 * predicted
