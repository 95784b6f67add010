"""Figure 4 as one SVG: every panel there, the maps those of the browser, and nothing from elsewhere."""

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from dgviz.cli import main
from dgviz.figures.figure4.panels import compute_entry_panels, compute_spectrum_panels
from dgviz.figures.figure4.static import caption_of, figure4_svg
from dgviz.rmt.threshold import RULES
from dgviz.spectra.svd.decompose import decompose
from tests.checkpoints import write_pair

NS = {"svg": "http://www.w3.org/2000/svg"}
UP, STACK = "model.layers.2.mlp.up.weight", "model.layers.2.mlp.experts.gate_up_proj"


def draw(delta, tau=None, rule="dg_hard"):
    found = decompose(delta, "cpu")
    s = np.asarray(found.s)
    threshold = RULES[rule].apply(s, tuple(delta.shape))
    tau = threshold.tau if tau is None else tau
    entries = compute_entry_panels(found, delta, int(np.count_nonzero(s > tau)))
    caption = caption_of("a<b>.weight", delta.shape, ("base", "tuned"), RULES[rule].title, s, tau)
    maps = compute_spectrum_panels(found)
    assert maps.exact is None
    shape = tuple(delta.shape)
    return figure4_svg(s, threshold, entries, maps, tau=tau, nonzero_shape=shape, caption=caption), entries, s


def planted(shape=(96, 64), rank=3):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, rank, generator=generator))[0] for n in shape)
    return torch.randn(shape, generator=generator) * 0.01 + (left * torch.tensor([2.0, 1.5, 1.0][:rank])) @ right.T


def pictures(svg):
    """Return the maps of a document as indices of the palette, (b) to (g)."""
    images = ET.fromstring(svg).findall(".//svg:image", NS)
    data = [image.get("href").partition("base64,")[2] for image in images]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in data]


def words(svg):
    return [text.text for text in ET.fromstring(svg).findall(".//svg:text", NS)]


def test_all_seven_panels_are_lettered_and_told_apart():
    svg, _, s = draw(planted())
    said = words(svg)
    assert [f"({letter})" for letter in "abcdefg"] == [
        word for word in said if word and len(word) == 3 and word[0] == "("
    ]
    assert said.count("=") == 2 and said.count("+") == 2
    assert "kept 3" in said and f"dropped {s.size - 3}" in said
    assert any(word.startswith("MP-fit") and "noise of this shape" in word for word in said)
    assert "a&lt;b&gt;.weight" in svg and "a<b>" not in svg
    assert svg.count("http") == 1  # the name space of SVG: nothing is fetched


def test_maps_are_the_codes_and_the_lower_row_adds_up():
    svg, entries, _ = draw(planted())
    b, c, d, e, f, g = pictures(svg)
    for drawn, codes in ((b, entries.tuned), (c, entries.repaired), (d, entries.discarded)):
        assert np.array_equal(drawn, codes)
    assert np.array_equal(e, f + g) and not (f.any(axis=0) & g.any(axis=0)).any()


@pytest.mark.parametrize("tau", [0.0, 1e9])
def test_everything_or_nothing_kept(tau):
    svg, _, s = draw(planted(), tau)
    *_, e, f, g = pictures(svg)
    assert np.array_equal(e, f if tau == 0 else g) and not (g if tau == 0 else f).any()
    assert (f"kept {s.size}" if tau == 0 else f"dropped {s.size}") in words(svg)


def test_an_update_without_noise_has_no_law():
    svg, *_ = draw(torch.outer(torch.arange(1.0, 97.0), torch.arange(1.0, 65.0)))
    assert "no MP-fit" in words(svg) and not any("Marchenko" in (word or "") for word in words(svg))


def test_an_update_of_zero_is_said_to_be_one():
    svg, *_ = draw(torch.zeros(96, 64))
    assert "D is exactly zero" in words(svg)


def test_maps_of_another_rank_are_refused():
    found = decompose(planted(), "cpu")
    threshold = RULES["dg_hard"].apply(found.s, (96, 64))
    entries, maps = compute_entry_panels(found, planted(), 9), compute_spectrum_panels(found)
    with pytest.raises(ValueError, match="keeps 3 directions, and the entry maps are of rank 9"):
        figure4_svg(
            np.asarray(found.s), threshold, entries, maps, tau=threshold.tau, nonzero_shape=(96, 64), caption=""
        )


def test_the_command_draws_it(tmp_path, capsys):
    paths = list(map(str, write_pair(tmp_path)))
    file = tmp_path / "figure.svg"
    words_of = ["spectrum", *paths, UP, "--figure", str(file), "--device", "cpu", "--override", f"{UP}: rank=5"]
    assert main(words_of) == 0
    assert "kept 5" in words(file.read_text())
    assert main(["spectrum", *paths, STACK, "--figure", str(file)]) == 2
    assert f"name one, as {STACK}[0]" in capsys.readouterr().err
    assert main(["spectrum", *paths, f"{STACK}[2]", "--figure", str(file)]) == 0
    assert f"{STACK}[2]" in file.read_text()
    assert main(["spectrum", *paths, f"{STACK}[4]"]) == 2 and "index 4 does not fit" in capsys.readouterr().err
    assert main(["spectrum", *paths, UP, "--figure", str(tmp_path / "gone" / "figure.svg")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_caption_says_which_directions_are_sketched():
    words = caption_of("w", (96, 64), ("base", "tuned"), "DG-Hard", np.ones(64), 0.5, 7)
    assert "; after direction 7 the lower maps sketch each neighbourhood of directions." in words
