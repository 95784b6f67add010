"""The app's configuration: options that Streamlit knows, a server for this machine only, readable colours."""

import tomllib
from pathlib import Path

import pytest
from streamlit import config

import dgviz.app
from dgviz.app.launch import app_options

PACKAGED = Path(dgviz.app.__file__).with_name("config.toml")
CONFIG = tomllib.loads(PACKAGED.read_text())


def luminance(colour):
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first, second):
    """Contrast ratio of WCAG 2.2, between 1 and 21."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_black_on_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("option", app_options())
def test_streamlit_knows_the_option(option):
    assert option in config.get_config_options()


def test_streamlit_run_finds_the_same_as_the_package():
    assert (Path(__file__).parents[2] / ".streamlit" / "config.toml").read_bytes() == PACKAGED.read_bytes()


def test_the_server_is_for_this_machine_and_sends_nothing_out():
    values = app_options()
    assert values["server.address"] == "127.0.0.1"
    assert values["server.allowedHosts"] == ["localhost", "127.0.0.1", "::1"]
    assert values["browser.gatherUsageStats"] is False
    assert values["client.showErrorDetails"] == "type"
    assert "server.enableXsrfProtection" not in values
    assert "server.enableCORS" not in values
    assert not [name for name, value in values.items() if "://" in str(value)]


@pytest.mark.parametrize("theme", ["light", "dark"])
class TestTheme:
    @pytest.mark.parametrize("name", ["textColor", "linkColor", "codeTextColor"])
    @pytest.mark.parametrize("ground", ["backgroundColor", "secondaryBackgroundColor"])
    def test_text_is_readable(self, theme, name, ground):
        colours = CONFIG["theme"][theme]
        assert contrast(colours[name], colours[ground]) >= 4.5

    def test_the_primary_colour_carries_white_text_and_stands_out(self, theme):
        colours = CONFIG["theme"][theme]
        assert contrast("#ffffff", colours["primaryColor"]) >= 4.5
        assert contrast(colours["primaryColor"], colours["backgroundColor"]) >= (4.5 if theme == "light" else 4)

    def test_lines_of_a_chart_stand_out(self, theme):
        colours = CONFIG["theme"][theme]
        assert all(contrast(c, colours["backgroundColor"]) >= 3 for c in colours["chartCategoricalColors"])

    def test_colour_scales_have_the_ten_colours_streamlit_asks_for(self, theme):
        scales = [CONFIG["theme"][theme][name] for name in ("chartSequentialColors", "chartDivergingColors")]
        assert [len(set(scale)) for scale in scales] == [10, 10]

    def test_the_sequential_scale_grows_away_from_the_background(self, theme):
        colours = CONFIG["theme"][theme]
        steps = [contrast(colour, colours["backgroundColor"]) for colour in colours["chartSequentialColors"]]
        assert steps == sorted(steps)
