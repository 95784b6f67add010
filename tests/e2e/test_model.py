"""The map of a model in a real browser: from a cell to its weight, and back."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e
LONG = 90_000  # milliseconds: the worker imports torch at the first question


@pytest.fixture
def scanned(server):
    """The server, whose store knows the demo."""
    code = "from dgviz.demo import demo_paths as d; print(d()['base']); print(d()['noisy'])"
    paths = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    command = [sys.executable, "-m", "dgviz", "scan", *paths.stdout.split("\n")[:2], "--workers", "1"]
    subprocess.run(command, cwd=ROOT, env=server.environment, capture_output=True, check=True)
    return server


def point(page, across, down):
    """Return a point of the map, by shares of its width and height."""
    area = page.locator(".js-plotly-plot .nsewdrag").first
    area.wait_for(timeout=LONG)
    box = area.bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def test_from_the_map_to_a_weight_and_back(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 1600})
    page.goto(f"{scanned.url}/model?base=demo:base&tuned=demo:noisy&quantity=energy_kept")
    expect(page.get_by_text("Every weight", exact=True)).to_be_visible(timeout=LONG)
    page.mouse.click(*point(page, 0.1, 0.1))
    expect(page.get_by_role("heading", name="One weight's update")).to_be_visible(timeout=LONG)
    expect(page).to_have_url(re.compile(r"weight=vit\.encoder\.layer\.0\."))
    expect(page.get_by_label("Kept rank")).to_be_visible(timeout=LONG)

    page.go_back()
    expect(page.get_by_role("heading", name="The whole update")).to_be_visible(timeout=LONG)
    expect(page.get_by_text("Every weight", exact=True)).to_be_visible(timeout=LONG)
    expect(page).to_have_url(re.compile("quantity=energy_kept"))
