"""The main job in a real browser: from the demo to an exported checkpoint that transformers loads."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from safetensors.torch import load_file

pytestmark = pytest.mark.e2e


def test_from_the_demo_to_a_checkpoint_that_transformers_loads(server, page, new_page):
    # The first visit shows the demo, nothing typed.
    page.goto(server.url)
    expect(page.get_by_text("base (demo)").first).to_be_visible()
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
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_text("tensors are repaired by DG-Hard")).to_be_visible()
    out = Path(page.get_by_label("Output folder (new or empty)").input_value())
    assert out.is_relative_to(server.home)
    page.get_by_role("button", name="Write checkpoint").click()
    expect(page.get_by_text(re.compile("is being written by|holds the export"))).to_be_visible()
    page.get_by_role("link", name="Open").first.click()
    expect(page.get_by_role("heading", name="Open a pair")).to_be_visible()
    page.get_by_role("link", name="Workbench").first.click()
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


def test_an_address_of_a_former_page_on_a_fresh_server(fresh_server, page):
    page.goto("about:blank")
    steps = page.evaluate("history.length")
    page.goto(f"{fresh_server.url}/thresholds?base=demo:base&tuned=demo:clean&rule=mp_edge")
    expect(page.get_by_text("clean (demo)").first).to_be_visible()
    expect(page.get_by_role("button", name="Reset to Marchenko-Pastur edge")).to_be_attached()
    expect(page.get_by_text("The repaired update under two rules")).to_be_visible()
    page.wait_for_url("**/workbench?**show=rules**")
    assert page.evaluate("history.length") == steps + 1


PLACES = ("/", "/workbench", "/workbench?show=model", "/evidence")
# Unlike what a click moves, what moves by itself counts: by how much of the screen, and how far.
NOTE_SHIFTS = """window.shifted = 0;
new PerformanceObserver(list => list.getEntries().forEach(entry => { window.shifted += entry.value; }))
  .observe({type: "layout-shift", buffered: true})"""


def opened(server, page, path, query=""):
    """Open a place and see that nothing went wrong."""
    page.goto(f"{server.url}{path}{'&' if '?' in path else '?'}{query}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert [line for line in page.console if line.startswith("uncaught")] == []


@pytest.mark.parametrize(("path", "scheme"), list(zip(PLACES, ("dark", "light", "dark", "light"), strict=True)))
def test_every_page_opens_without_a_pair(server, new_page, path, scheme):
    opened(server, new_page(color_scheme=scheme), path, "base=none")


@pytest.mark.parametrize(
    ("path", "scheme"),
    [
        pytest.param(path, scheme, marks=[pytest.mark.soak] if number % 2 == (scheme == "light") else [])
        for number, path in enumerate(PLACES)
        for scheme in ("light", "dark")
    ],
)
def test_every_page_opens_and_can_be_read(server, new_page, path, scheme):
    page = new_page(color_scheme=scheme)
    page.add_init_script(NOTE_SHIFTS)
    opened(server, page, path)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.locator("[data-stale=true]")).to_have_count(0)  # they fade
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)  # what is loaded after the page
    assert page.evaluate("window.shifted") < 0.25  # a page whose style comes late has 0.5 to 1.4
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], node["html"], node["any"][0]["message"]) for rule in serious for node in rule["nodes"]] == []
