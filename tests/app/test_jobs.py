"""Jobs of every kind: in the bar of every place while they run, found again afterwards, and gone on with."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dgviz.app.jobs import KINDS, find_job, root, running_jobs, start
from dgviz.command import Command
from dgviz.jobs import list_jobs, start_job
from tests.app.pages import open_app
from tests.checkpoints import write_pair


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Jobs and spectra of one's own; no hub."""
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    yield
    for _, job in running_jobs():
        job.cancel(force=True)


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path / "pair", config={"model_type": "synthetic"})


def commands(pair, folder):
    """Return a command of every kind with what it writes."""
    sides = {"base": pair[0], "tuned": pair[1]}
    save = {name: folder / f"{name}.json" for name in ("family", "compare-methods", "sweep")}
    found = {
        "repair": (Command("repair", **sides, out=folder / "out"), folder / "out"),
        "scan": (Command("scan", **sides), folder / "scan"),
        "fetch": (Command("fetch", model="org/name"), folder / "fetch"),
        "family": (
            Command("family", base=pair[0], tuned=[pair[1], pair[1]], names="a,b", save=save["family"]),
            save["family"],
        ),
        "compare-methods": (
            Command("compare-methods", **sides, save=save["compare-methods"]),
            save["compare-methods"],
        ),
        "sweep": (Command("sweep", **sides, methods=["wise_ft"], save=save["sweep"]), save["sweep"]),
    }
    assert found.keys() == KINDS.keys()
    return found


def listed():
    """Return the texts of the progress bars in the bar above the place that the app opens with."""
    app = open_app().run()
    assert not app.exception, [error.value for error in app.exception]
    return [bar.proto.text for bar in app.get("progress")]


def ended(job, seconds=300):
    deadline = time.monotonic() + seconds
    while job.state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    return job


@pytest.mark.slow
def test_every_kind_that_runs_is_listed_in_the_bar(pair, tmp_path):
    jobs = {}
    for name, (command, lock) in commands(pair, tmp_path).items():
        jobs[name] = start(command, f"the {name} job", lock)
        assert find_job(name, lock) == jobs[name] and Command.parse(jobs[name].command) == command
        supervisor = json.loads((jobs[name].directory / "supervisor.json").read_text())
        os.killpg(supervisor["pid"], signal.SIGSTOP)  # it runs as long as it is looked for, on any machine
    assert sorted(listed()) == sorted(f"{KINDS[name].title}: the {name} job" for name in KINDS)
    for job in jobs.values():
        job.cancel(force=True)
    assert all(ended(job).state == "cancelled" for job in jobs.values())
    assert listed() == []


@pytest.mark.slow
def test_a_sweep_is_a_job_like_the_others(pair, tmp_path):
    command, lock = commands(pair, tmp_path)["sweep"]
    job = ended(start(command, "sweep", lock))
    assert job.state == "done" and json.loads(lock.read_text())["lines"], job.log_tail()


def test_jobs_that_lie_on_disk_are_found(tmp_path):
    folders = {"repair": "jobs", "scan": "scans", "fetch": "fetches"}
    folders |= {"family": "families", "compare-methods": "comparisons"}
    for name, folder in folders.items():
        assert root(name) == tmp_path / "state" / folder
        job = start_job([sys.executable, "-c", "pass"], tmp_path / "state" / folder, "earlier", lock=tmp_path / name)
        assert find_job(name, tmp_path / name) == ended(job)


def exports():
    from dgviz.app.jobs import draw_list, draw_start_error

    draw_start_error()
    draw_list("repair", lambda job: None)


@pytest.mark.slow
def test_an_interrupted_export_is_gone_on_with(pair, tmp_path):
    out = tmp_path / "out"
    words = ["repair", *map(str, pair), str(out), "--rule", "flip_pa", "--rule-param", "seed=123456789"]
    command = Command.parse(words)
    job = start(command, "tuned → out", out)
    job.cancel(force=True)
    assert ended(job).state == "cancelled"
    app = AppTest.from_function(exports, default_timeout=300).run()
    assert f"In {out} finished files are kept" in app.text[0].value
    app.button(key=f"go-on-{job.id}").click().run()
    assert not app.exception
    (again,) = list_jobs(root("repair"))
    assert again.id != job.id and Command.parse(again.command) == command and again.title == "tuned → out"
    assert ended(again).state == "done", again.log_tail()
    plan = json.loads((out / "dgviz.json").read_text())["plan"]
    assert plan["params"]["seed"] == 123456789
    app = AppTest.from_function(exports, default_timeout=300).run()
    app.button(key=f"forget-{again.id}").click().run()
    assert list_jobs(root("repair")) == [] and Path(out).is_dir()


def test_what_cannot_be_started_is_said(pair, tmp_path, monkeypatch):
    out = tmp_path / "out"
    job = start(Command("repair", base=pair[0], tuned=pair[1], out=out), "tuned → out", out)
    job.cancel(force=True)
    ended(job)
    app = AppTest.from_function(exports, default_timeout=300).run()
    monkeypatch.setenv("DGVIZ_ROOTS", str(tmp_path / "elsewhere"))
    app.button(key=f"go-on-{job.id}").click().run()
    assert any("is not opened: it lies outside the folders" in text.value for text in app.text)
    assert not any(button.key == f"go-on-{job.id}" for button in app.button)  # nothing of it is told
    assert list_jobs(root("repair")) == [job]
