"""Shared by all tests: the small bundle and the small stream that most of them learn on."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

# The problems here are tiny: a second thread costs more than it brings, here and in child processes.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# A shell that starts the tests in the background lets them and their children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings
from small import write_small_bundle, write_small_stream

from edge_zofc.storage.bundle import Bundle

# A shared machine may be slow at any moment; what a test proves does not depend on its pace.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests run outside the checkout: its edge_zofc/ would hide the installed package from child processes."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


_MEMORY_LIMIT = resource.getrlimit(resource.RLIMIT_DATA)


@pytest.fixture(autouse=True)
def own_memory_limit() -> Iterator[None]:
    """A learner limits the memory of its process; the next test shall not run within what it left.

    Nor within what a fixture of a module or the session left, which is set up before this one.
    """
    resource.setrlimit(resource.RLIMIT_DATA, _MEMORY_LIMIT)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, _MEMORY_LIMIT)


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A verified fp32 bundle; read it, do not change it."""
    return write_small_bundle(tmp_path_factory.mktemp("small") / "bundle")


@pytest.fixture(scope="session")
def exact_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with the graph for exact gradients."""
    return write_small_bundle(tmp_path_factory.mktemp("exact") / "bundle", gradient=True)


@pytest.fixture(scope="session")
def film_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with a film in place of a bottleneck, and no graph for exact gradients."""
    return write_small_bundle(tmp_path_factory.mktemp("film") / "bundle", film=True)


@pytest.fixture(scope="session")
def small_stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks of two classes, 8 + 4 pictures each, on which an adapter moves; read it, do not change it."""
    return write_small_stream(tmp_path_factory.mktemp("small") / "stream", alike=True)
