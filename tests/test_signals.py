"""A SIGTERM ends an export in order: with its clean-up done, and not in the middle of what must be whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from edge_zofc.signals import bus_errors_told, exit_on_sigterm, signals_held, stop_signals


def test_sigterm_is_an_exit_with_143_that_lets_clean_up_happen() -> None:
    done = []
    with pytest.raises(SystemExit) as ended, exit_on_sigterm():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            done.append("cleaned up")
    assert ended.value.code == 143
    assert done == ["cleaned up"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_closed_terminal_is_an_exit_with_129_unless_nohup_said_to_ignore_it() -> None:
    """FAULTS C9: the partial folder and the measuring process were left behind."""
    with pytest.raises(SystemExit) as ended, exit_on_sigterm():
        signal.raise_signal(signal.SIGHUP)
    assert ended.value.code == 129
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exit_on_sigterm(), signals_held():
            signal.raise_signal(signal.SIGHUP)
    finally:
        assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit), (signal.SIGINT, KeyboardInterrupt)],
)
def test_a_held_signal_is_answered_at_the_end(number: signal.Signals, raised: type[BaseException]) -> None:
    done = []
    with pytest.raises(raised), exit_on_sigterm(), signals_held():
        signal.raise_signal(number)
        done.append("the rest")
    assert done == ["the rest"]


def test_another_thread_does_its_work_without_handlers() -> None:
    done = []

    def work() -> None:
        with exit_on_sigterm(), signals_held():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]


def test_a_bus_error_is_only_caught_where_a_thread_listens_and_the_graph_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS B6: caught elsewhere, the process would hang."""
    monkeypatch.setattr("faulthandler.is_enabled", lambda: False)  # pytest enables it
    with bus_errors_told():
        assert signal.getsignal(signal.SIGBUS) is signal.SIG_DFL
    with stop_signals():
        assert signal.getsignal(signal.SIGBUS) is signal.SIG_DFL
        with bus_errors_told():
            assert signal.getsignal(signal.SIGBUS) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGBUS) is signal.SIG_DFL
    with bus_errors_told():
        assert signal.getsignal(signal.SIGBUS) is signal.SIG_DFL


def test_faulthandler_keeps_the_bus_error() -> None:
    """FAULTS B6: its handler is written in C, and Python cannot put it back."""
    program = (
        "from edge_zofc.signals import bus_errors_told, stop_signals\n"
        "import signal\n"
        "with stop_signals(), bus_errors_told():\n"
        "    print(signal.getsignal(signal.SIGBUS))\n"
    )
    command = [sys.executable, "-X", "faulthandler", "-c", program]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "None\n"
