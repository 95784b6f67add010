"""Figure 4 in a real browser: tau is followed without a message, panels add up, the maps come when they are there."""

import json
from urllib.parse import urlencode

import pytest
import torch
from playwright.sync_api import expect
from safetensors.torch import save_file

from tests.e2e.conftest import follow_link, noted_messages

pytestmark = pytest.mark.e2e

# How many pixels of (e) are not those of exactly one of (f) and (g), the other showing the colour of zero.
MISFITS = """() => {
  const root = document.querySelector('[data-testid=stBidiComponentIsolated]').shadowRoot;
  const [e, f, g] = ['e', 'f', 'g'].map((id) => {
    const canvas = root.querySelector(`[data-panel=${id}] canvas`);
    return new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  });
  const zero = f[f.length - 1];
  let kept = 0, misfits = 0;
  for (let i = 0; i < e.length; i++) {
    if (g[i] === zero && f[i] === e[i]) kept += 1;
    else if (!(f[i] === zero && g[i] === e[i])) misfits += 1;
  }
  return { misfits, kept, size: e.length };
}"""


@pytest.fixture(scope="module")
def large_pair(tmp_path_factory):
    """A pair of two weights whose lower row comes after the upper one: large, and too much is kept to sketch it."""
    generator = torch.Generator().manual_seed(0)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("base", "tuned")}
    strong = torch.randn(3200, 400, generator=generator) @ torch.randn(400, 2400, generator=generator)
    for side, folder in folders.items():
        weights = {f"{name}.weight": torch.randn(3200, 2400, generator=generator) for name in ("first", "second")}
        if side == "tuned":
            weights = {name: weight + strong for name, weight in weights.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps({"model_type": "test"}))
    return urlencode({name: str(folder) for name, folder in folders.items()})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A pair of one 300 x 200 weight: noise and five spikes."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(300, 200, generator=generator)
    u, v = (torch.linalg.qr(torch.randn(n, 5, generator=generator))[0] for n in (300, 200))
    noise = torch.randn(300, 200, generator=generator)
    delta = 1e-3 * (noise + (u * torch.tensor([400.0, 300, 200, 100, 60])) @ v.T)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("base", "tuned")}
    for name, weight in (("base", base), ("tuned", base + delta)):
        save_file({"layer.weight": weight}, folders[name] / "model.safetensors", {"format": "pt"})
        (folders[name] / "config.json").write_text(json.dumps({"model_type": "test"}))
    return urlencode({name: str(folder) for name, folder in folders.items()})


def open_figure(page, server, pair):
    """Open the weight on the workbench; return the field that shows tau."""
    follow_link(page, f"{server.url}/workbench?{pair}")
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    expect(page.locator(".note:visible")).to_have_count(0)
    return page.get_by_label("τ", exact=True)


def test_moving_tau_sends_nothing_until_it_is_released(server, page, pair):
    sent = noted_messages(page)
    tau = open_figure(page, server, pair)
    before, box = tau.input_value(), page.get_by_role("slider", name="Threshold tau").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    sent.clear()
    for down in (10, 20, 30):
        page.mouse.move(x, y + down)
        expect(tau).not_to_have_value(before)
        before, seen = tau.input_value(), page.evaluate(MISFITS)
        assert seen["misfits"] == 0 and 0 < seen["kept"] <= seen["size"]
    assert sent == []
    page.mouse.up()
    page.wait_for_url("**tau=**")
    assert sent != []
    expect(page.locator(".note:visible")).to_have_count(0)
    expect(tau).to_have_value(before)


def test_keys_alone_move_tau_and_read_values(server, page, pair):
    tau = open_figure(page, server, pair)
    rule = tau.input_value()
    page.get_by_role("slider", name="Threshold tau").press("ArrowDown")
    expect(tau).not_to_have_value(rule)
    tau.fill("not a number")
    page.keyboard.press("Enter")
    expect(tau).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Reset to").click()
    expect(tau).to_have_value(rule)
    expect(tau).to_have_attribute("aria-invalid", "false")
    page.locator("[data-panel=e] canvas").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("dropped", exact=False).last).to_be_visible()
    expect(page.locator(".hair.y:visible")).to_have_count(6)
    expect(page.locator(".hair.x:visible")).to_have_count(3)


def test_the_maps_survive_a_change_of_weight(server, page, large_pair):
    follow_link(page, f"{server.url}/workbench?{large_pair}&weight=first.weight")
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    expect(page.locator(".st-key-step-Next button").first).to_be_enabled()
    page.keyboard.press("n")
    page.wait_for_url("**weight=second**")
    expect(page.locator(".st-key-step-Previous button").first).to_be_enabled()  # its key does nothing before
    page.keyboard.press("p")
    page.wait_for_url("**weight=first**")
    expect(page.locator("button[aria-current]")).to_have_attribute(
        "data-weight", "first.weight"
    )  # drawn, not only asked
    expect(page.locator(".note:visible")).to_have_count(0)
    misfits = page.evaluate(MISFITS)
    assert misfits["misfits"] == 0 and misfits["kept"] < misfits["size"]
