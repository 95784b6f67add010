"""The report in a real browser: whole without scripts and network, light and dark, saved piece by piece, on paper."""

import io
from contextlib import redirect_stdout

import pytest
from PIL import Image
from playwright.sync_api import expect

from dgviz.cli import main
from dgviz.demo import demo_paths

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A report of the demo's pair."""
    found = tmp_path_factory.mktemp("report") / "report.html"
    sides = [str(demo_paths()[side]) for side in ("base", "noisy")]
    with redirect_stdout(io.StringIO()):
        assert main(["report", *sides, "-o", str(found), "--weight", "classifier.weight"]) == 0
    return found


def opened(browser, file, **options):
    """Return a page with the report, and every request and message that it makes."""
    page = browser.new_context(viewport={"width": 1200, "height": 900}, **options).new_page()
    seen = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.goto(file.as_uri())
    return page, seen


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_it_is_whole_without_scripts_and_asks_for_nothing(browser, file):
    page, seen = opened(browser, file, java_script_enabled=False)
    expect(page.get_by_role("heading", name="DG-Hard passes with warnings")).to_be_visible()
    expect(page.get_by_text("What it would do:")).to_be_visible()
    expect(page.locator("figure svg")).to_have_count(4)
    expect(page.locator("#table-weights tbody tr")).to_have_count(26)
    expect(page.get_by_role("button")).to_have_count(0)
    assert [url for url in seen if not url.startswith("data:")] == [file.as_uri()]


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_and_dark_and_no_wider_than_its_window(browser, file, scheme, width):
    page, seen = opened(browser, file, color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    assert ground(page) == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 22)"}[scheme]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen == [file.as_uri()]


def test_every_figure_and_table_is_saved_by_a_click(browser, file, tmp_path):
    saved, seen = {}, []
    links = [("figure .save", number) for number in range(8)] + [(".table .save", number) for number in range(4)]
    for name, number in links:  # each on a page of its own: a browser drops one of many downloads in a row
        page, told = opened(browser, file)
        expect(page.locator(".save")).to_have_count(len(links))
        with page.expect_download(timeout=20_000) as download:
            page.locator(name).nth(number).click()
        saved[download.value.suggested_filename] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[download.value.suggested_filename])
        seen += told
    assert {"map-verdict.svg", "figure4-classifier.weight.png", "weights.csv"} <= saved.keys() and len(saved) == 12
    with Image.open(saved["figure4-classifier.weight.png"]) as image:
        assert image.width == 2000 and len(image.convert("RGB").getcolors(2**24)) > 100
    assert saved["weights.csv"].read_text().startswith("weight,class,layer")
    assert not [message for message in seen if not message.startswith(("data:", "blob:", "file:"))]


def test_it_prints_light_without_its_links(browser, file, tmp_path):
    page, _ = opened(browser, file, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert ground(page) == "rgb(255, 255, 255)"
    expect(page.locator(".save:visible")).to_have_count(0)
    assert page.locator(".paper").first.evaluate("(paper) => getComputedStyle(paper).filter") == "none"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_page_of_the_model_saves_it(scanned, page, tmp_path):
    page.goto(f"{scanned.url}/workbench?base=demo:base&tuned=demo:noisy&show=model")
    button = page.get_by_role("button", name="Report (HTML)")
    expect(button).to_be_visible()
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    with page.expect_download() as saved:
        button.click()
    assert saved.value.suggested_filename == "noisy-report.html"
    text = saved.value.path().read_text()
    assert "DG-Hard passes with warnings" in text and text.count('data-file="figure4-') == 3
