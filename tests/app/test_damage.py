"""Damaged, empty, cut or older files of the dashboard's own: a row that says so, and every place is drawn."""

import hashlib
import json
import time

import pytest

from dgviz.app.jobs import KINDS, root
from dgviz.app.methods_model import comparison_task
from dgviz.app.pair import checkpoint_path, load_pair, state_dir
from dgviz.app.state import View
from dgviz.command import Command
from dgviz.files import write_json
from dgviz.jobs import list_jobs
from tests.app.pages import open_at, texts

DEMO = {"base": "demo:base", "tuned": "demo:noisy"}
DAMAGE = {"empty": b"", "cut": b'{"title": "Exp', "a list": b"[1, 2]", "older": b'{"name": "Export", "argv": []}'}
PLACES = "open", "workbench?plan=open", "workbench?show=model-methods", "evidence"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"DGVIZ_{name}_DIR", str(tmp_path / name.lower()))
    return tmp_path


def finished_export(out, result):
    """The files of an export of the demo that has ended well, by this version or another."""
    directory = root("repair") / "20260101-000000-abcdef"
    directory.mkdir(parents=True)
    command = Command("repair", **{side: str(checkpoint_path(name)) for side, name in DEMO.items()}, out=out)
    spec = {"title": "an export", "command": command.start, "cwd": "/", "lock": str(out), "created": time.time()}
    write_json(directory / "spec.json", spec)
    write_json(directory / "exit.json", {"code": 0, "ended": time.time()})
    (directory / "result.json").write_bytes(result)


def damaged_files(home, data):
    """Write files of state of every kind, all of them damaged in one way."""
    for name in KINDS:
        (root(name) / "20260101-000000-000000").mkdir(parents=True)
        (root(name) / "20260101-000000-000000" / "spec.json").write_bytes(data)
    (state_dir() / "recent.json").write_bytes(data)
    sides = "\n".join(str(checkpoint_path(name).absolute()) for name in DEMO.values())
    (state_dir() / "plans").mkdir()
    (state_dir() / "plans" / f"{hashlib.sha256(sides.encode()).hexdigest()[:24]}.json").write_bytes(data)
    saved = comparison_task(View(**DEMO), load_pair(View(**DEMO)), {}).lock
    saved.parent.mkdir(parents=True)
    saved.write_bytes(data)
    out = home / "out"
    out.mkdir()
    (out / "dgviz.json").write_bytes(data)
    (out / "config.json").write_bytes(data)
    finished_export(out, data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_place_is_drawn_and_says_what_is_damaged(home, damage):
    damaged_files(home, DAMAGE[damage])
    said = {place: texts(open_at(place, **DEMO)) for place in PLACES}
    assert "recent.json" in said["open"] and "Opened before" in said["open"]
    assert all(said["open"].count(f"{KINDS[name].title}: ") == 1 for name in KINDS)
    assert "the plan of this pair" in said["workbench?plan=open"] and "an export" in said["workbench?plan=open"]
    assert "comparisons/.results" in said["workbench?show=model-methods"]


def test_a_result_of_another_version_costs_its_row_only(home):
    out = home / "out"
    out.mkdir()
    finished_export(out, json.dumps({"state": "done", "ended": 1.0, "result": {"out": str(out)}}).encode())
    said = texts(open_at("workbench?plan=open", **DEMO))
    assert "20260101-000000-abcdef is damaged or of another version (KeyError" in said


def test_a_damaged_job_can_be_forgotten(home):
    damaged_files(home, b"")
    app = open_at("open", **DEMO)
    app.button(key=f"forget-damaged-scan-{list_jobs(root('scan'))[0].id}").click().run()
    assert not app.exception
