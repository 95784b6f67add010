"""What importing a room may bring along; which way imports run is a contract in pyproject.toml (make lint)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ["torch", "scipy.stats", "plotly.express", "transformers", "sklearn"]
IMPORT_ALL = """
import importlib, json, pkgutil, sys
root = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(getattr(root, "__path__", []), root.__name__ + "."):
    if not module.name.startswith(tuple(json.loads(sys.argv[3]))):
        importlib.import_module(module.name)
print(json.dumps(sorted(set(json.loads(sys.argv[2])) & set(sys.modules))))
"""
# What the page's process and the command line import: all of these rooms but what works on tensors.
LIGHT = {
    "dgviz.jobs": [],
    "dgviz.forecast": [],
    "dgviz.checkpoint": [],
    "dgviz.rmt": [],
    "dgviz.scores": [],
    "dgviz.figures": [f"dgviz.figures.figure4.{name}" for name in ("panels", "contrast", "draw", "notebook")],
    "dgviz.cli": [],
    "dgviz.api": [],
    "dgviz.app": ["dgviz.app.answers", "dgviz.app.main"],
}


@pytest.mark.parametrize("room", LIGHT)
def test_importing_a_light_room_brings_nothing_heavy(room):
    command = [sys.executable, "-c", IMPORT_ALL, room, json.dumps(HEAVY), json.dumps(LIGHT[room] or [" "])]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == []
