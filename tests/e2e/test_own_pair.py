"""Pairs of one's own in a real browser: typed, looked at, compared, planned in two tabs, written, and taken away."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect
from safetensors.torch import load_file, save_file

from dgviz.rmt.law import aspect_ratio, svht_coef
from tests.checkpoints import planted_update, write_llama
from tests.e2e.conftest import follow_link

pytestmark = pytest.mark.e2e

LAYERS = 12
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama of 12 layers and its fine-tune, two folders."""
    folder = tmp_path_factory.mktemp("llama")
    base = write_llama(folder / "base", LAYERS)
    tuned = shutil.copytree(base, folder / "tuned")
    save_file(planted_update(load_file(base / "model.safetensors")), tuned / "model.safetensors", {"format": "pt"})
    return base, tuned


def repaired(base, tuned, tau=None, factor=1.0):
    """Return base and what one threshold leaves of the update, in float64."""
    left, s, right = torch.linalg.svd(tuned.double() - base.double(), full_matrices=False)
    if tau is None:
        tau = factor * svht_coef(aspect_ratio(base.shape)) * float(s.quantile(0.5))
    return base.double() + (left * torch.where(s > tau, s, 0.0)) @ right


def settle(page):
    """Wait until the page is drawn: meanwhile what is drawn again may be there twice."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def bench(page):
    """Wait until a weight's figure is drawn in full."""
    expect(page.get_by_role("slider", name="Threshold tau")).to_be_visible()
    expect(page.locator(".note:visible")).to_have_count(0)
    settle(page)


def test_a_llama_from_its_paths_to_the_bytes_of_an_export_with_overrides(server, llama, page, new_page):
    base, tuned = llama
    # Open: both paths are typed, the scan starts by itself and ends in a verdict.
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{server.url}/?base=none")
    page.get_by_label("Base checkpoint").fill(str(base))
    page.get_by_label("Tuned checkpoint").fill(str(tuned))
    page.keyboard.press("Tab")
    settle(page)
    page.get_by_role("button", name="Open pair").click()
    expect(page.get_by_text(re.compile("DG-Hard (passes|does not)"))).to_be_visible()
    page.get_by_role("button", name="Look at the weights").click()
    bench(page)

    # The map: every layer, and a click on a cell is one step of the history.
    steps = page.evaluate("history.length")
    page.locator(f"button.cell[data-weight='{QUERY}']").click()
    page.wait_for_url("**layers.0.self_attn.q_proj**")
    bench(page)
    assert page.evaluate("history.length") == steps + 1
    rows = {
        cell.split(".")[2]
        for cell in page.locator("button.cell").evaluate_all(
            "cells => cells.map((cell) => cell.dataset.weight).filter((name) => name.includes('.layers.'))"
        )
    }
    assert rows == set(map(str, range(LAYERS)))

    # Two taus by eye, then this one into the plan; two overrides more are typed.
    page.get_by_role("button", name="Compare", exact=False).click()
    page.wait_for_url("**against=**")
    page.get_by_role("slider", name="Threshold tau").press("PageDown")
    expect(page.locator("table.table")).to_contain_text("+10")
    page.wait_for_url("**tau=**")
    tau = float(re.search(r"[?&]tau=([^&]+)", page.url)[1])
    page.get_by_role("button", name="Add to plan").click()
    page.get_by_role("button", name="This weight only").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("1 override")).click()
    drawer = page.locator(".st-key-drawer")
    for override in ("layers=3-4: factor=0.5", "lm_head: keep=base"):
        field = drawer.get_by_role("textbox", name="Add an override")
        field.fill(override)
        field.press("Enter")
        expect(drawer.get_by_text(override, exact=True).first).to_be_visible()
        settle(page)
        expect(field).to_have_value("")

    # Another tab on the same pair has the same plan, and what it takes back is gone here as well.
    link = page.url
    other = new_page()
    other.goto(link)
    shown = other.locator(".st-key-drawer")
    expect(shown.get_by_text("lm_head: keep=base", exact=True).first).to_be_visible()
    settle(other)
    shown.get_by_role("button", name="Undo").click()
    expect(shown.get_by_text("lm_head: keep=base", exact=True)).to_have_count(0)
    other.close()

    # The plan survives the server.
    server.restart()
    page.goto(link)
    bench(page)
    expect(drawer.get_by_text("layers=3-4: factor=0.5", exact=True).first).to_be_visible()
    expect(drawer.get_by_text(f"name={QUERY}: tau=").first).to_be_visible()
    expect(drawer.get_by_text("lm_head: keep=base", exact=True)).to_have_count(0)

    out = Path(drawer.get_by_label("Output folder (new or empty)").input_value())
    drawer.get_by_role("button", name="Write checkpoint").click()
    expect(drawer.get_by_text("read back and compared with the plan")).to_be_visible()

    before, after, written = (load_file(side / "model.safetensors") for side in (base, tuned, out))
    assert written.keys() == after.keys()
    for name, tensor in written.items():
        if "_proj" not in name:
            continue
        own = {"factor": 0.5} if re.search(r"layers\.[34]\.", name) else {"tau": tau} if name == QUERY else {}
        expected = repaired(before[name], after[name], **own)
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)


def test_a_direction_is_read_as_tokens_where_it_meets_their_stream(server, llama, page):
    base, tuned = llama
    page.set_viewport_size({"width": 1440, "height": 900})
    address = f"{server.url}/workbench?base={base}&tuned={tuned}&weight={QUERY}"
    follow_link(page, address)
    bench(page)
    box = page.locator("[data-panel=e] canvas").bounding_box()
    page.mouse.click(box["x"] + 2, box["y"] + 40)
    panel = page.get_by_role("complementary", name="What this direction does")
    expect(panel.get_by_text("v, which it reads, against model.embed_tokens.weight")).to_be_visible()
    expect(panel.get_by_text("Its strongest token stands out by")).to_be_visible()
    tuned_q, base_q = (load_file(side / "model.safetensors") for side in (tuned, base))
    _, _, right = torch.linalg.svd(tuned_q[QUERY].double() - base_q[QUERY].double())
    products = base_q["model.embed_tokens.weight"].double() @ right[0]
    ends = {f"#{int((sign * products).argmax())}" for sign in (1, -1)}
    assert {panel.locator(f"ol[aria-label='towards {sign}v'] li span").first.inner_text() for sign in "+−"} == ends


def test_a_pair_that_goes_away_while_it_is_open_is_one_sentence(server, llama, tmp_path, page):
    base, tuned = (shutil.copytree(side, tmp_path / side.name) for side in llama)
    follow_link(page, f"{server.url}/workbench?base={base}&tuned={tuned}&weight={QUERY}")
    bench(page)
    tuned.rename(tmp_path / "elsewhere")
    page.reload()
    expect(page.get_by_text("cannot be opened (no such file or directory)")).to_be_visible()
    expect(page.get_by_test_id("stException")).to_have_count(0)
    (tmp_path / "elsewhere").rename(tuned)
    page.reload()
    bench(page)


@pytest.mark.soak
def test_a_large_weight_never_seen_shows_its_spectrum_before_its_maps(server, tmp_path, page):
    shape, name = (8192, 3072), "model.layers.0.mlp.up_proj.weight"
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=generator)}
    for side, tensors in (("base", base), ("tuned", planted_update(base))):
        (tmp_path / side).mkdir()
        save_file({key: value.bfloat16() for key, value in tensors.items()}, tmp_path / side / "model.safetensors")
    follow_link(page, f"{server.url}/workbench?base={tmp_path / 'base'}&tuned={tmp_path / 'tuned'}&weight={name}")
    rank = page.get_by_label("rank", exact=True)
    expect(rank).to_be_visible()
    expect(page.locator(".note:visible").first).to_be_visible()  # the maps are on their way, and it is said
    bench(page)
    before = int(rank.input_value())
    page.get_by_role("slider", name="Threshold tau").press("ArrowDown")
    expect(rank).to_have_value(str(before + 1))
    bench(page)
