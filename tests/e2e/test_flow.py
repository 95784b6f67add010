"""The main job in a real browser: from the demo to an exported checkpoint that transformers loads."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from safetensors.torch import load_file

pytestmark = pytest.mark.e2e


def open_layer(page, url):
    """Open a link to the Layer page and wait for Figure 4."""
    page.goto(url)
    expect(page.get_by_role("heading", name="One weight's update")).to_be_visible()
    expect(page.get_by_label("Kept rank")).to_be_visible()


def test_from_the_demo_to_a_checkpoint_that_transformers_loads(server, page, new_page):
    # The first visit shows the demo, nothing typed.
    page.goto(server.url)
    expect(page.get_by_text("base (demo)")).to_be_visible()
    expect(page.get_by_text("What the models can do, measured")).to_be_visible()
    page.get_by_role("button", name="Look at the weights").click()

    # Figure 4 of one weight.
    rank = page.get_by_label("rank", exact=True)
    expect(rank).to_be_visible()
    expect(page.locator("canvas")).to_have_count(6)
    before = int(rank.input_value())
    page.get_by_role("button", name="Keep one direction more").click()
    expect(rank).to_have_value(str(before + 1))
    expect(page).to_have_url(re.compile("tau="))

    # The link shows the same in another browser.
    other = new_page()
    other.goto(page.url)
    expect(other.get_by_label("rank", exact=True)).to_have_value(str(before + 1))

    # Export, and be elsewhere meanwhile.
    page.get_by_role("link", name="Export").first.click()
    expect(page.get_by_text("tensors are repaired by DG-Hard")).to_be_visible()
    out = Path(page.get_by_label("Output folder (new or empty)").input_value())
    assert out.is_relative_to(server.home)
    page.get_by_role("button", name="Start export").click()
    page.get_by_role("link", name="Checkpoints").first.click()
    expect(page.get_by_role("heading", name="Checkpoints")).to_be_visible()
    page.get_by_role("link", name="Export").first.click()
    expect(page.get_by_text("read back and compared with the plan")).to_be_visible()
    page.reload()
    expect(page.get_by_text("read back and compared with the plan")).to_be_visible()

    import transformers

    from dgviz.demo import demo_paths

    _, info = transformers.AutoModelForImageClassification.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    repaired, tuned = (load_file(path / "model.safetensors") for path in (out, demo_paths()["noisy"]))
    assert repaired.keys() == tuned.keys()
    assert any(not repaired[name].equal(tuned[name]) for name in tuned)


def test_a_direct_link_to_a_page_of_a_fresh_server(fresh_server, page):
    open_layer(page, f"{fresh_server.url}/layer?base=demo:base&tuned=demo:clean&rule=mp_edge")
    expect(page.get_by_text("clean (demo)")).to_be_visible()
    expect(page.get_by_role("link", name="Thresholds")).to_be_visible()
    expect(page.get_by_role("button", name="Reset to Marchenko-Pastur edge")).to_be_attached()


def test_moving_tau_moves_the_line_of_the_chart_without_a_redraw(server, page):
    open_layer(page, f"{server.url}/layer?base=demo:base&tuned=demo:noisy")
    chart = page.locator(".js-plotly-plot").first
    chart.wait_for()
    read = "node => ({y: node.layout.shapes[1].y0, mark: node.dgvizMark})"
    chart.evaluate("node => { node.dgvizMark = 'same element'; }")
    before = chart.evaluate(read)
    for _ in range(5):
        page.get_by_role("button", name="Keep one direction more").click()
    expect(page.get_by_text("The threshold you set keeps")).to_be_visible()
    after = page.locator(".js-plotly-plot").first.evaluate(read)
    assert after["y"] < before["y"]
    assert after["mark"] == "same element"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/workbench", "/model", "/layer", "/thresholds", "/export"])
def test_every_page_opens_without_an_uncaught_error(server, new_page, scheme, path):
    for query in ("", "?base=none"):
        page = new_page(color_scheme=scheme)
        page.goto(f"{server.url}{path}{query}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_test_id("stException")).to_have_count(0)
        assert [line for line in page.console if line.startswith("uncaught")] == []
