"""The map of a model in a real browser: from a cell to its weight and back, and clicks that choose what to repair."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e


def settle(page):
    """Wait until the page is drawn: what is pointed at before may be taken away."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def click_cell(page, across, down):
    """Click a cell of the map, by shares of its width and height, as a hand does: pointed at first, then clicked."""
    settle(page)
    area, label = page.locator(".js-plotly-plot .nsewdrag").first, page.locator(".js-plotly-plot .hovertext").first
    area.wait_for()
    for _ in range(1000):  # a chart that is drawn again forgets what was pointed at
        box = area.bounding_box()
        x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
        page.mouse.move(x - 3, y)
        page.mouse.move(x, y, steps=3)
        if label.is_visible():
            break
        page.wait_for_timeout(100)
    page.mouse.click(x, y)


def test_from_the_map_to_a_weight_and_back(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 1600})
    page.goto(f"{scanned.url}/workbench?base=demo:base&tuned=demo:noisy&show=model&quantity=energy_kept")
    expect(page.get_by_text("Every weight", exact=True)).to_be_visible()
    click_cell(page, 0.1, 0.1)
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    expect(page).to_have_url(re.compile(r"weight=vit\.encoder\.layer\.0\."))
    page.wait_for_timeout(2500)  # sooner, the address before is taken for one that the browser still sends along
    page.go_back()
    expect(page.get_by_text("Every weight", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile("quantity=energy_kept"))


def test_a_second_click_while_the_weight_opens_leaves_its_page_whole(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 1600})
    page.goto(f"{scanned.url}/workbench?base=demo:base&tuned=demo:noisy&show=model")
    expect(page.get_by_text("Every weight", exact=True)).to_be_visible()
    box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    click_cell(page, 0.1, 0.1)
    page.wait_for_timeout(100)
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    page.wait_for_timeout(3000)  # the late answer to the second click comes after the page
    settle(page)
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()


def test_single_clicks_on_the_map_choose_what_is_repaired_and_exported(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 1600})
    page.goto(f"{scanned.url}/workbench?base=demo:base&tuned=demo:noisy&show=model")
    expect(page.get_by_text("Every weight", exact=True)).to_be_visible()
    page.get_by_text("chooses weights to repair").click()
    expect(page.get_by_text("Click a cell of the map to choose")).to_be_visible()
    click_cell(page, 0.1, 0.1)
    expect(page.get_by_text("1 weight is chosen on the map.")).to_be_visible()
    page.get_by_role("button", name="Repair only these").click()
    expect(page.get_by_text("1 of 26", exact=True)).to_be_visible()
    click_cell(page, 0.3, 0.3)
    expect(page.get_by_text("1 weight is chosen on the map.")).to_be_visible()
    page.get_by_role("button", name="Repair these too").click()
    expect(page.get_by_text("2 of 26", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile("include="))
    plan = page.get_by_role("button", name="Open the plan")
    expect(plan).to_have_count(1)  # that of the run before has gone
    plan.click()
    expect(page.get_by_role("button", name="Write checkpoint")).to_be_visible()
    page.get_by_text("DG-Hard, not every weight").click()
    included = page.locator(".st-key-drawer").get_by_label("Repair only names matching").input_value()
    assert included and re.search(included, "vit.encoder.layer.0.attention.attention.query.weight")
    assert not re.search(included, "classifier.weight")
