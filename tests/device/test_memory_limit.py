"""The limit is hard: a process that wants more than its plan gets a MemoryError, and no more memory."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cgroup import memory_cgroup

from edge_zofc.device import memory_limit
from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def plan_of(budget_mib: int) -> MemoryPlan:
    return MemoryPlan((), Placement.simple(), 0, budget_mib * MIB, 0, "")


def test_without_proc_nothing_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_zofc.device.system._STATUS", Path("/nowhere/status"))
    assert memory_limit.enforce(plan_of(1000)) is None


_CAPPED = """
    import json, sys
    import numpy as np
    from edge_zofc.device import memory_limit, memory_plan
    from edge_zofc.device.system import usage
    from edge_zofc.storage.settings import Placement
    MIB = 1 << 20
    plan = memory_plan.MemoryPlan((), Placement.simple(fast=ARENA), 0, usage().rss_bytes + 200 * MIB, 0, "")
    limit = memory_limit.enforce(plan)
    kept = np.ones(60 * MIB, np.uint8)
    try:
        np.ones(400 * MIB, np.uint8)
        print(json.dumps({"result": "allocated", "limit": limit}))
    except MemoryError as error:
        print(json.dumps({"result": "MemoryError", "limit": limit, "kept": int(kept[-1])}))
"""


def run_child(code: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n" + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload, no-any-return]


@linux
@pytest.mark.parametrize("arena", [True, False])
def test_an_array_beyond_the_cap_is_a_memory_error_and_one_below_is_not(arena: bool) -> None:
    done = run_child(_CAPPED.replace("ARENA", str(arena)))
    found = json.loads(done.stdout)
    assert found["result"] == "MemoryError", done.stderr
    assert found["kept"] == 1


@linux
def test_a_hard_limit_that_is_already_there_is_kept() -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))\n"
    code += textwrap.dedent(_CAPPED).replace("ARENA", "True").replace("200 * MIB", "5000 * MIB")
    found = json.loads(run_child(code).stdout)
    assert found["limit"] == 900 << 20


def test_an_accelerator_is_not_capped_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="edge_zofc"):
        assert memory_limit.enforce(plan_of(100_000), accelerator=True) is None
    assert "not enforced" in caplog.text


@linux
@pytest.mark.parametrize(("least", "block"), [("SMALL_BYTES", 1 << 20), ("LARGE_BYTES", 13 << 20)])
def test_freed_blocks_go_back_at_once_where_malloc_is_glibcs(least: str, block: int) -> None:
    code = f"""
        import numpy as np
        from edge_zofc.device import memory_limit
        from edge_zofc.device.system import usage
        done = memory_limit.give_freed_memory_back(memory_limit.{least})
        del [np.ones({block}, np.uint8)][0]  # malloc would raise its threshold now
        usage()
        blocks = [np.ones({block}, np.uint8) for _ in range((64 << 20) // {block} + 1)]
        full = usage().anonymous_bytes
        keep = blocks[-1]
        del blocks
        print(done, full - usage().anonymous_bytes > 50 << 20)
    """
    assert run_child(code).stdout.split() in (["True", "True"], ["False", "True"], ["False", "False"])


@linux
def test_after_the_cap_a_product_of_large_matrices_reserves_no_more_than_its_arrays() -> None:
    code = """
        import numpy as np
        from edge_zofc.device import memory_limit, memory_plan
        from edge_zofc.device.system import data_bytes, usage
        from edge_zofc.storage.settings import Placement
        budget = usage().rss_bytes + (200 << 20)
        memory_limit.enforce(memory_plan.MemoryPlan((), Placement.simple(), 0, budget, 0, ""))
        before = data_bytes()
        matrix = np.ones((512, 512))
        product = matrix @ matrix
        print((data_bytes() - before) >> 20)
    """
    assert int(run_child(code).stdout) < 8  # two arrays of 2 MiB; OpenBLAS's buffer would be 32 more


@linux
def test_a_cgroups_limit_is_seen_by_a_process_inside_and_ends_one_that_goes_beyond() -> None:
    see = "from edge_zofc.device.system import cgroup_limit_bytes\nprint(cgroup_limit_bytes())\n"
    with memory_cgroup(96 * MIB) as group:
        inside = run_child(see, preexec_fn=group.enter)
        assert inside.stdout.strip() == str(96 * MIB), inside.stderr
        beyond = run_child("data = bytearray(300 << 20)\nprint('alive')", preexec_fn=group.enter)
        assert beyond.returncode == -9
        assert "alive" not in beyond.stdout
        assert group.peak_bytes() <= 96 * MIB


def learn_in_cgroup(limit_mib: int, bundle: Bundle, stream: Path, run: Path) -> "subprocess.CompletedProcess[str]":
    """A whole `learn` process under a limit without swap; skips where none can be made."""
    arguments = ["learn", "--json", "--bundle", str(bundle.folder), "--stream", str(stream), "--run", str(run)]
    code = f"from edge_zofc.cli.main import main\nsys.exit(main({arguments!r}))"
    with memory_cgroup(limit_mib * MIB) as group:
        return run_child(code, preexec_fn=group.enter)


@linux
def test_learn_plans_for_the_cgroup_it_finds_itself_in_and_stays_inside(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    done = learn_in_cgroup(160, small_bundle, small_stream, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["completed"]
    assert result["memory_budget_mib"] == pytest.approx(0.9 * 160, abs=1)
    assert result["peak_rss_mib"] <= result["memory_budget_mib"]


@linux
def test_in_a_cgroup_that_is_too_small_learn_says_so_instead_of_being_killed(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    done = learn_in_cgroup(72, small_bundle, small_stream, tmp_path / "run")
    assert done.returncode == 3, done.stderr
    assert "the nearest that fits is a budget of" in json.loads(done.stdout)["error"]
    assert not (tmp_path / "run" / "journal.bin").exists()
