"""The panel that starts, watches, cancels and goes on with a job: the scan of a pair."""

import os
import shutil
import time

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dgviz.app.jobs import running_jobs, start
from dgviz.app.scans import find_scan, is_scanning, scan_task
from dgviz.app.state import View
from dgviz.checkpoint import open_pair
from dgviz.jobs import JobRunningError
from tests.checkpoints import write_checkpoint, write_pair
from tests.scans import scan_here


def panel(base, tuned):
    from dgviz.app.jobs import draw_task
    from dgviz.app.scans import scan_task
    from dgviz.app.state import View
    from dgviz.checkpoint import open_pair

    draw_task(scan_task(View(str(base), str(tuned), device="cpu"), open_pair(base, tuned)))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Jobs and spectra of one's own."""
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    yield
    for _, job in running_jobs():
        job.cancel(force=True)


def drawn(paths):
    app = AppTest.from_function(panel, args=paths, default_timeout=300).run()
    assert not app.exception, [error.value for error in app.exception]
    return app


def words(app):
    return "\n".join(str(element.value) for kind in ("markdown", "text") for element in getattr(app, kind))


def started(pair, paths):
    task = scan_task(View(*map(str, paths), device="cpu"), pair)
    return start(task.command, task.title, task.lock)


def wait_for(pair):
    deadline = time.monotonic() + 300
    while find_scan(pair).state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    return find_scan(pair)


@pytest.mark.slow
def test_a_scan_is_started_followed_and_found_again(tmp_path):
    paths = write_pair(tmp_path)
    pair = open_pair(*paths)
    scan_here(pair)  # so that the job finds all of it
    app = drawn(paths)
    assert "is computed in the background" in words(app)
    assert app.code[0].value == f"python -m dgviz scan {paths[0]} {paths[1]} --device cpu"
    app.button(key="start-scan").click().run()
    assert not app.exception and find_scan(pair) is not None
    job = wait_for(pair)
    assert job.state == "done", job.log_tail()
    app = drawn(paths)
    assert "0 computed in" in words(app) and "9 had been before" in words(app)
    assert app.button(key="start-scan").label == "Scan again"
    # A copy is the same pair, spectra being stored by content, and so is one that was touched; a change is seen.
    copies = [shutil.copytree(path, tmp_path / "copy" / path.name) for path in paths]
    assert "0 computed in" in words(drawn(copies))
    os.utime(copies[1] / "model.safetensors", (1e9, 1e9))
    assert "0 computed in" in words(drawn(copies))
    data = bytearray((copies[1] / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copies[1] / "model.safetensors").write_bytes(data)
    os.utime(copies[1] / "model.safetensors", (1e9, 1e9))
    assert "is computed in the background" in words(drawn(copies))


def test_where_no_scan_runs_nothing_is_read_to_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("dgviz.app.scans.contents_of", lambda checkpoint: pytest.fail("read"))
    assert not is_scanning(open_pair(*write_pair(tmp_path)))


@pytest.mark.slow
def test_a_running_scan_is_cancelled_and_gone_on_with(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{i}.w": torch.randn(1600, 1600, generator=generator) for i in range(8)}
    base = write_checkpoint(tmp_path / "base", tensors)
    tuned = write_checkpoint(tmp_path / "tuned", {name: tensor + 0.1 * tensor.T for name, tensor in tensors.items()})
    pair = open_pair(base, tuned)
    job = started(pair, (base, tuned))
    with pytest.raises(JobRunningError):
        started(pair, (base, tuned))
    assert running_jobs() == [("scan", job)] and is_scanning(pair)
    assert not is_scanning(open_pair(tuned, base))
    app = drawn((base, tuned))
    assert "progress_activity: running" in words(app)
    app.button(key=f"cancel-{job.id}").click().run()
    assert wait_for(pair).state == "cancelled", job.log_tail()
    assert not is_scanning(pair)
    app = drawn((base, tuned))
    assert "what was computed is kept" in words(app) and app.button(key="start-scan").label == "Go on"


@pytest.mark.slow
def test_a_failure_names_its_weights(tmp_path):
    base, tuned = torch.ones(40, 40), torch.ones(40, 40)
    tuned[3, 4] = float("nan")
    paths = (
        write_checkpoint(tmp_path / "base", {"w": base}),
        write_checkpoint(tmp_path / "tuned", {"w": tuned}),
    )
    pair = open_pair(*paths)
    started(pair, paths)
    assert wait_for(pair).state == "failed"
    app = drawn(paths)
    assert "1 of 1 matrices failed" in words(app)
    assert "entry [3, 4]" in app.dataframe[0].value["error"][0]
