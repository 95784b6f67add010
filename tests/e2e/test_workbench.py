"""The workbench in a real browser: all of Figure 4 beside the map, tau by hand, and from there into the plan."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.conftest import noted_messages, wait_until

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
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)  # what is loaded after the page, our styles among it


def test_the_map_and_all_seven_panels_are_on_one_screen(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    places = page.evaluate(PLACES)
    assert len(places["panels"]) == 6 and places["a"][1] < 250
    for left, top, right, bottom in (*places["panels"], places["a"], places["map"]):
        assert 0 <= left < right <= 1440 and 0 < top < bottom <= 900

    page.get_by_label("in proportion").check()
    for left, top, right, bottom in page.evaluate(PLACES)["panels"][::2]:  # (b) to (d), of 128 x 128 entries
        assert right - left == pytest.approx(bottom - top, abs=1)
    assert page.evaluate("() => localStorage.getItem('dgviz-in-proportion')") == "1"

    # So are those of two thresholds compared, on a short screen.
    page.set_viewport_size({"width": 1280, "height": 720})
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("[data-panel$=x] canvas")).to_have_count(2)
    expect(page.locator(".note:visible")).to_have_count(0)
    wait_until(page, f"() => ({PLACES})().panels.every((box) => box[3] <= 720)")
    assert len(page.evaluate(PLACES)["panels"]) == 10


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
    page.locator("[data-panel=e] canvas").click(position={"x": 10, "y": 40})
    expect(page.get_by_text("Overlap with the base weight")).to_be_visible()
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


def test_a_direction_is_looked_at_dropped_alone_and_given_back(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    weight = "vit.encoder.layer.0.attention.attention.value.weight"
    open_bench(page, scanned, others="demo:clean", weight=weight)
    box = page.locator("[data-panel=e] canvas").bounding_box()
    page.mouse.click(box["x"] + 10, box["y"] + 40)
    panel = page.get_by_role("complementary", name="What this direction does")
    expect(panel.get_by_role("heading", name="Direction 1 of 128")).to_be_visible()
    expect(panel.get_by_text("Overlap with the base weight, its 12 leading directions")).to_be_visible()
    expect(panel.get_by_text("Overlap with the update of clean (demo)")).to_be_visible()
    expect(panel.locator("ol[aria-label=outputs] li")).to_have_count(10)
    figure = page.evaluate(PLACES)["panels"]
    assert max(right for _, _, right, _ in figure) <= panel.bounding_box()["x"]  # it covers nothing
    assert max(bottom for *_, bottom in figure) <= 900

    panel.get_by_role("button", name="Drop it alone").click()
    expect(panel.get_by_text("In the plan: dropped by itself")).to_be_visible()
    expect(page.locator("button.cell[aria-current]")).to_have_class(re.compile("overridden"))
    page.get_by_role("button", name="Add to plan").click()
    expect(page.get_by_text(f"name={weight}: drop_directions=1").first).to_be_visible()
    page.keyboard.press("Escape")
    panel.get_by_role("button", name="Back to the threshold").click()
    expect(panel.get_by_text("In the plan: kept by the threshold")).to_be_visible()
    panel.get_by_role("button", name="Close").click()
    expect(panel).to_be_hidden()


def test_a_rectangle_zooms_to_entries_that_add_up(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    grid, readout = page.locator(".grid"), page.locator(".readout")
    box = page.locator("[data-panel=c] canvas").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 30)
    page.mouse.move(box["x"] + 60, box["y"] + 45)
    page.mouse.up()
    expect(grid).to_have_class(re.compile("zoomed"))
    expect(page.locator(".note:visible")).to_have_count(0)
    page.mouse.move(box["x"] + 50, box["y"] + 40)
    expect(readout).to_contain_text("(b)")
    numbers = re.findall(r"\([bcd]\) ([+−][\d.e−]+)", readout.inner_text())
    whole, kept, dropped = (float(number.replace("−", "-")) for number in numbers)
    assert whole == pytest.approx(kept + dropped, abs=2e-5)
    page.keyboard.press("Escape")
    expect(grid).not_to_have_class(re.compile("zoomed"))


def test_the_figure_is_saved_as_pixels(scanned, page):
    open_bench(page, scanned)
    page.get_by_role("button", name="Details").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Figure 4 (PNG)").click()
    assert saved.value.suggested_filename == f"{WEIGHT}.png"
    with Image.open(saved.value.path()) as picture:
        assert (
            picture.format == "PNG"
            and picture.width >= 3000
            and len(set(picture.resize((90, 60)).get_flattened_data())) > 100
        )


def test_a_module_is_selected_for_the_plan_and_a_weight_found_by_its_name(scanned, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    open_bench(page, scanned)
    page.get_by_title(re.compile("^Select every .*query")).click()
    expect(page.get_by_text("4 weights selected, for the plan")).to_be_visible()
    page.get_by_role("button", name="Add to plan").click()
    page.locator(".st-key-plan-Take-from-base-The-4-selected button").first.click()
    expect(page.locator("button.cell.selected.overridden")).to_have_count(4)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("button.cell.selected.overridden")).to_have_count(0)
    page.keyboard.press("Escape")

    page.keyboard.press("Control+k")
    page.keyboard.type("layer.2 value")
    expect(page.locator("#f4-found li")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url("**layer.2.attention.attention.value.weight**")
    found = page.url

    page.get_by_role("button", name="? keys").click()
    page.get_by_label("Keys of a single letter are on").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("n")
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_be_hidden()
    assert page.url == found
    page.reload()
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    page.get_by_role("button", name="? keys").click()
    expect(page.get_by_label("Keys of a single letter are on")).not_to_be_checked()


@pytest.mark.parametrize("width", [800, 400])
def test_where_there_is_little_room_nothing_is_cut_off(scanned, page, width):
    page.set_viewport_size({"width": width, "height": 900})
    open_bench(page, scanned)
    expect(page.locator(".cells").first).to_be_hidden()
    page.get_by_role("button", name="Map of the model").click()
    expect(page.locator(".cells").first).to_be_visible()
    page.get_by_role("button", name="(e) (f) (g) directions").click()
    expect(page.locator("[data-panel=b]")).to_be_hidden()
    expect(page.locator("[data-panel=g]")).to_be_visible()
    inside = """() => {
      const root = document.querySelector('[data-testid=stBidiComponentIsolated]').shadowRoot;
      const shown = [...root.querySelectorAll('.figure *, .map *')].filter((node) => node.getClientRects().length);
      const cut = (box) => box.right > innerWidth + 1 || box.left < -1;
      return shown.map((node) => node.getBoundingClientRect()).filter(cut).length;
    }"""
    assert page.evaluate(inside) == 0
