"""The workbench in a real browser: all of Figure 4 beside the map, tau by hand, and from there into the plan."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.e2e.conftest import noted_messages

pytestmark = pytest.mark.e2e

WEIGHT = "vit.encoder.layer.1.attention.output.dense.weight"
# Where every panel and the map lie on the screen.
PLACES = """() => {
  const root = document.querySelector('[data-testid=stBidiComponentIsolated]').shadowRoot;
  const box = (node) => ['left', 'top', 'right', 'bottom'].map((side) => node.getBoundingClientRect()[side]);
  const panels = [...root.querySelectorAll('[data-panel] canvas')].map(box);
  return { panels, a: box(root.querySelector('svg.a')), map: box(root.querySelector('.cells')) };
}"""


def open_bench(page, server, **query):
    words = "".join(f"&{name}={value}" for name, value in {"weight": WEIGHT, **query}.items())
    page.goto(f"{server.url}/workbench?base=demo:base&tuned=demo:noisy{words}")
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    expect(page.locator(".note:visible")).to_have_count(0)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def test_the_map_and_all_seven_panels_are_on_one_screen(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    places = page.evaluate(PLACES)
    assert len(places["panels"]) == 6 and places["a"][1] < 250
    for left, top, right, bottom in (*places["panels"], places["a"], places["map"]):
        assert 0 <= left < right <= 1440 and 0 < top < bottom <= 900


def test_tau_is_dragged_in_the_spectrum_and_goes_into_the_plan(scanned, page):
    sent = noted_messages(page)
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    handle, rank = page.get_by_role("slider", name="Threshold tau"), page.get_by_label("rank", exact=True)
    own, box = int(rank.input_value()), handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    sent.clear()
    page.mouse.move(x, y + 20)
    page.mouse.move(x, y + 30)
    expect(rank).not_to_have_value(str(own))
    kept = int(rank.input_value())
    assert kept > own and sent == []
    expect(page.get_by_text("stand below the bulk edge: like noise")).to_be_visible()
    page.mouse.up()
    page.wait_for_url("**tau=**")
    expect(page.locator(".note:visible")).to_have_count(0)

    handle.press("ArrowUp")  # drops one direction
    expect(rank).to_have_value(str(kept - 1))
    expect(page.locator(".note:visible")).to_have_count(0)
    page.get_by_role("button", name="Add to plan").click()
    page.get_by_role("button", name="This weight only").click()
    expect(page.get_by_role("button", name=re.compile("1 override"))).to_be_visible()
    page.keyboard.press("Escape")
    cell = page.locator("button.cell[aria-current]")
    expect(cell).to_have_class(re.compile("overridden"))

    handle.press("Home")
    expect(rank).to_have_value(str(own))
    page.get_by_role("button", name=re.compile("1 override")).click()
    expect(page.get_by_text(re.compile(f"name={re.escape(WEIGHT)}: tau="))).to_have_count(2)  # the plan, the command


def test_a_click_on_the_map_opens_a_weight_and_is_one_step_back(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    before = page.evaluate("history.length")
    page.locator("button.cell[data-weight='vit.encoder.layer.0.attention.attention.query.weight']").click()
    page.wait_for_url("**layer.0.attention.attention.query.weight**")
    expect(page.locator("button.cell[aria-current]")).to_have_attribute("data-weight", re.compile("layer.0.*query"))
    assert page.evaluate("history.length") == before + 1
    page.wait_for_timeout(2500)  # sooner, the address before is taken for one that the browser still sends along
    page.go_back()
    expect(page.locator("button.cell[aria-current]")).to_have_attribute("data-weight", WEIGHT)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_those_who_cannot_see_or_point(scanned, page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    found = Axe().run(page, context=".stMain", options={"resultTypes": ["violations"]}).response["violations"]
    ours = [
        (rule["id"], node["target"])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if isinstance(node["target"][0], list)  # inside a shadow root: an element of ours
    ]
    assert ours == []


def test_two_thresholds_are_compared_in_a_link_and_let_go(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    page.get_by_role("button", name="Compare", exact=False).click()
    page.wait_for_url("**against=**")
    page.get_by_role("slider", name="Threshold tau").press("PageDown")  # B keeps ten directions more
    table = page.locator("table.table")
    expect(table).to_contain_text("+10")
    expect(page.get_by_text("10 directions only B keeps").first).to_be_visible()
    expect(page.locator(".note:visible")).to_have_count(0)
    page.wait_for_url("**tau=**")
    bottoms = page.evaluate(PLACES)["panels"]
    assert len(bottoms) == 10 and max(bottom for _, _, _, bottom in bottoms) <= 900
    shown = table.inner_text()
    page.goto(page.url)  # the link alone
    expect(page.locator("table.table")).to_contain_text("+10")
    assert page.locator("table.table").inner_text() == shown
    page.get_by_role("button", name="Comparing").click()
    page.get_by_role("button", name="Leave").click()
    expect(page.locator("figcaption", has_text="(b)")).to_be_visible()


def test_a_held_key_shows_pure_noise_and_then_the_update_again(scanned, page):
    open_bench(page, scanned)
    kept = """() => {
      const root = document.querySelector('[data-testid=stBidiComponentIsolated]').shadowRoot;
      const canvas = root.querySelector('[data-panel=c] canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size;
    }"""
    before = page.evaluate(kept)
    page.keyboard.down("z")
    expect(page.get_by_text("pure noise of this shape and sigma, seed 0")).to_be_visible()
    expect(page.locator("svg.a .tau-label")).to_contain_text("keeps 0 of 128")
    assert page.evaluate(kept) == 1 < before  # nothing of noise is kept
    page.keyboard.up("z")
    expect(page.locator("svg.a .tau-label")).to_contain_text("keeps 6 of 128")
    assert page.evaluate(kept) == before
