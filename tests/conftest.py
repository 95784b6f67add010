"""What every test shares: caches of its own, few threads, no network, and the two kinds of tests that may wait."""

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest

SOAK = os.environ.get("DGVIZ_SOAK") == "1"

# Set before any test module is imported, and inherited by every process that a test starts.
_HOME = Path(tempfile.mkdtemp(prefix="dgviz-tests-"))
os.environ.update(
    DGVIZ_CACHE_DIR=str(_HOME / "cache"),
    DGVIZ_STATE_DIR=str(_HOME / "state"),
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",  # torch reads it when it is imported
    MKL_NUM_THREADS="1",
)

# A shell has what it starts in the background ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every run tries the same few examples, whatever the machine's speed; make soak looks for others.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None, max_examples=30)
hypothesis.settings.register_profile("search", deadline=None, max_examples=200)
hypothesis.settings.load_profile("search" if SOAK else "same")


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """Give every module of tests a store of its own: what one has scanned is not there for another."""
    before = os.environ["DGVIZ_CACHE_DIR"]
    os.environ["DGVIZ_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ["DGVIZ_CACHE_DIR"] = before


@pytest.fixture
def later(monkeypatch):
    """A clock that goes a minute ahead: files written just now are old enough for their hashes to be remembered."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)


@pytest.fixture(autouse=True)
def main_module():
    """Streamlit's test harness leaves its script as the main module; a process started after would run it again."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


def pytest_unconfigure(config):
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    # Browser tests last: when a unit is broken, its own test says so more clearly.
    items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)
    if not SOAK:
        _skip(items, "soak", "takes long; make soak runs it (DGVIZ_SOAK=1)")
    if any(item.get_closest_marker("cuda") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "cuda", "there is no CUDA device on this machine")


def _skip(items, marker, reason):
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))
