"""Figure 4 in a notebook's cell: a browser draws the module, messages go to the widget and back."""

import base64

import pytest
from playwright.sync_api import expect

import dgviz
from dgviz.demo import demo_paths
from dgviz.figures.figure4.notebook import STATES

pytestmark = pytest.mark.e2e
NAME = "vit.encoder.layer.1.attention.output.dense.weight"
CELL = '<body style="margin: 0; background: {ground}"><div id="cell"></div></body>'
# What a notebook gives to a widget's module: a model with the kernel's state, which tells of its changes.
HOST = """async ({source, payload, states, late}) => {
  const cell = document.getElementById("cell");
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const state = { payload: bytes(payload), states }, listeners = [];
  const model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; window.changed = { [name]: value }; },
    save_changes: () => window.tell(window.changed),
    on: (event, call) => listeners.push(call),
    off: (event, call) => listeners.splice(listeners.indexOf(call), 1),
  };
  window.receive = (text) => { state.payload = bytes(text); for (const call of listeners) call(); };
  window.listening = () => listeners.length;
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  if (late) cell.remove();
  window.leave = module.default.render({ model, el: cell });
  if (late) setTimeout(() => document.body.append(cell), 100);
}"""


def encoded(widget):
    return base64.b64encode(widget.payload).decode()


def open_cell(page, widget, ground="#ffffff", late=False):
    """Show a widget in a cell; what it tells reaches the widget, and what that sends the page."""
    told = []

    def tell(changed):
        told.append(changed)
        widget.set_state(changed)

    page.set_viewport_size({"width": 1000, "height": 900})
    page.set_content(CELL.format(ground=ground))
    page.expose_function("tell", tell)
    given = {"source": widget._esm, "payload": encoded(widget), "states": list(STATES), "late": late}
    page.evaluate(HOST, given)
    return told


@pytest.fixture(scope="module")
def pair():
    paths = demo_paths()
    return dgviz.open_pair(paths["base"], paths["noisy"])


def inked(page):
    """Return how many colours the first map of the entries shows."""
    return page.locator(".grid canvas").first.evaluate(
        "(c) => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
def test_it_is_drawn_with_all_panels_on_light_and_dark(new_page, pair, ground):
    page = new_page()
    open_cell(page, pair[NAME].widget(), ground)
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    expect(page.locator(".grid canvas")).to_have_count(6)
    expect(page.locator("#f4-rank")).to_have_value("6")
    assert inked(page) > 20
    expect(page.get_by_placeholder("find a weight")).to_be_hidden()
    ends = page.locator(".key").evaluate_all(
        "(keys) => keys.flatMap((key) => [...key.querySelectorAll('.tick')].map((tick) =>"
        " tick.getBoundingClientRect().right - key.getBoundingClientRect().right))"
    )
    assert ends and max(ends) <= 0.5
    text = page.locator(".f4").evaluate("(f) => getComputedStyle(f).color")
    assert text == {"#ffffff": "rgb(26, 26, 26)", "#111111": "rgb(232, 234, 237)"}[ground]


def test_in_a_cell_that_is_put_on_the_page_later_what_is_nothing_has_the_colour_of_the_page(new_page, pair):
    page = new_page()
    open_cell(page, pair[NAME].widget(), late=True)
    expect(page.locator(".grid canvas")).to_have_count(6)
    corner = "(all) => all.map((c) => c.getContext('2d').getImageData(c.width - 1, 0, 1, 1).data.join())"
    corners = page.locator(".grid canvas").evaluate_all(corner)
    assert corners.count("255,255,255,255") == 1, corners  # of (f), beyond what is kept


def test_a_tau_typed_reaches_the_kernel_and_its_maps_come_back(new_page, pair):
    page, widget = new_page(), pair[NAME].widget()
    told = open_cell(page, widget)
    page.locator("#f4-rank").fill("10")
    page.locator("#f4-rank").press("Enter")
    expect(page.locator("#f4-rank")).to_have_value("10")
    for _ in range(100):
        if any("released" in changed for changed in told):
            break
        page.wait_for_timeout(50)
    assert widget.rank == 10
    assert pair.plan(overrides=[widget.override])[NAME].threshold.rank == 10
    page.evaluate("(text) => window.receive(text)", encoded(widget))
    expect(page.locator("#f4-rank")).to_have_value("10")
    expect(page.locator(".grid canvas")).to_have_count(6)


def test_a_cell_that_is_cleared_leaves_nothing_behind(new_page, pair):
    page = new_page()
    open_cell(page, pair["classifier.weight"].widget())
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    assert page.evaluate("window.listening()") == 1
    page.evaluate("window.leave()")
    assert page.evaluate("window.listening()") == 0
