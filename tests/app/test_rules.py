"""The comparison of rules over a whole model: scanned and not, and its figures."""

import numpy as np
import pytest

from dgviz.analysis.model_spectra import read_spectra
from dgviz.analysis.rules import MULTIPLIERS, cut_model, read_rule, scaled_plan, sum_up, trace_tau
from dgviz.checkpoint import open_pair
from dgviz.figures import agreement_map, rank_boxes, series_colour, tau_curves
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.app.pages import open_at, texts
from tests.checkpoints import write_pair

SHARES = dict(
    zip(("low", "p5", "q1", "median", "q3", "p95", "high"), (0, 0.01, 0.04, 0.09, 0.16, 0.25, 1), strict=True)
)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    return write_pair(tmp_path / "pair", config={"model_type": "synthetic"})


def scan(paths, leave=()):
    """Store every spectrum but those to leave, where the app looks for them."""
    pair = open_pair(*paths)
    for weight in weights_of(pair):
        if (weight.tensor.name, weight.index) not in leave:
            OpenWeight(weight, "cpu", SpectrumStore()).spectrum()
    return pair


def open_page(paths):
    return open_at("workbench?show=model-rules", base=paths[0], tuned=paths[1])


def test_without_stored_spectra_the_scan_is_offered(paths):
    app = open_page(paths)
    assert "**9 of 9 weights have no stored spectrum**" in texts(app)
    assert "model.layers.2.mlp.experts.gate_up_proj[3]" in app.code[0].value
    assert any(button.label == "Scan every weight" for button in app.button)


def test_what_is_missing_is_counted_and_named(paths):
    scan(paths, leave={("model.pos", None)})
    app = open_page(paths)
    assert "**1 of 9 weights have no stored spectrum**" in texts(app)
    assert app.code[0].value == "model.pos"
    assert len(app.dataframe[0].value) == 4 and "A factor on tau" in texts(app)


def test_rules_are_compared_and_one_is_taken_into_the_plan(paths):
    matrices = read_spectra(scan(paths)).weights
    app = open_page(paths)
    assert "no stored spectrum" not in texts(app)
    app.multiselect(key="compared-rules").set_value(["dg_hard", "mp_edge", "energy"]).run()
    app.multiselect(key="compared-shrinkers").set_value(["frobenius"]).run()
    assert not app.exception
    table = app.dataframe[0].value
    plans = [read_rule(text) for text in ("dg_hard", "mp_edge", "energy", "mp_edge:shrinker=frobenius")]
    expected = [sum_up(cut_model(matrices, plan)) for plan in plans]
    assert list(table["kept parameters"]) == [row.kept_parameters for row in expected]
    assert list(table["energy kept %"]) == pytest.approx([100 * row.energy_kept for row in expected])
    assert list(table["MP-fit of dropped, with zeros"]) == pytest.approx([row.residual_fit for row in expected])
    app.select_slider(key="compared-factor").set_value(0.5).run()
    assert not app.exception
    halved = sum_up(cut_model(matrices, scaled_plan(plans[1], 0.5)))
    assert f"**Marchenko-Pastur edge** :gray[at 0.5 × tau]: {halved.kept_parameters:,} parameters" in texts(app)
    assert "**Energy fraction** :gray[has no factor]" in texts(app)
    assert [app.button(key=f"take-{i}").disabled for i in range(4)] == [False, False, False, True]
    app.button(key="take-1").click().run()
    assert not app.exception
    assert app.session_state["view"]["rule"] == "mp_edge" and app.session_state["view"]["params"] == "scale:0.5"
    assert app.button(key="plan-close") and "--rule-param scale=0.5" in texts(app)


def test_a_rule_that_needs_the_weights_is_refused_and_its_scan_offered(paths):
    scan(paths)
    app = open_page(paths)
    app.multiselect(key="compared-rules").set_value(["dg_hard", "flip_pa"]).run()
    assert not app.exception
    assert "no scan has stored what it finds in 9 of 9 matrices" in texts(app)
    assert "--rule flip_pa" in app.code[0].value
    assert list(app.dataframe[0].value["rule"]) == ["DG-Hard"]


def test_no_rule_chosen_is_said(paths):
    scan(paths)
    app = open_page(paths)
    app.multiselect(key="compared-rules").set_value([]).run()
    assert not app.exception and "Choose at least one rule" in texts(app)


def test_boxes_are_even_in_the_square_root():
    figure = rank_boxes({"one": SHARES, "two": SHARES}, {"one": ("a", "b"), "two": ("c", "d")})
    boxes = [trace for trace in figure.data if trace.type == "box"]
    assert [box.name for box in boxes] == ["one", "two"]
    assert (boxes[0].q1[0], boxes[0].median[0], boxes[0].q3[0]) == pytest.approx((0.2, 0.3, 0.4))
    assert (boxes[0].lowerfence[0], boxes[0].upperfence[0]) == pytest.approx((0.1, 0.5))
    assert [box.line.color for box in boxes] == [series_colour(0), series_colour(1)]
    ends = figure.data[1]
    assert list(ends.x) == pytest.approx([0, 0.3, 1]) and ends.text[0].endswith("a") and ends.text[2].endswith("b")
    ticks = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    assert ticks["25"] == 0.5


def test_the_map_of_agreement_has_directions_below_and_weights_above():
    alike, same = np.array([[1, 0.99999], [0.99999, 1]]), np.array([[1, 0.25], [0.25, 1]])
    figure = agreement_map(["one", "two"], alike, same)
    heat = figure.data[0]
    assert heat.z[1][0] == 0.99999 and heat.z[0][1] == 0.25 and np.isnan(heat.z[0][0])
    assert heat.text[1][0] == "99.99 %" and heat.text[0][1] == "25 %"  # what is not all is not rounded to all
    assert heat.colorscale != agreement_map(["one", "two"], alike, same, dark=True).data[0].colorscale


def test_curves_carry_the_factor_in_view(paths):
    curve = trace_tau(cut_model(read_spectra(scan(paths)).weights, read_rule("dg_hard")))
    for log in (False, True):
        figure = tau_curves(
            MULTIPLIERS, {"DG-Hard": curve.energy_kept}, {"DG-Hard": "#123456"}, 2.0, title="energy", log=log
        )
        assert np.array_equal(figure.data[0].x, MULTIPLIERS)
        assert np.array_equal(figure.data[0].y, 100 * curve.energy_kept)
        assert figure.data[0].line.color == "#123456" and figure.layout.shapes[0].x0 == 2.0
    nothing = tau_curves(MULTIPLIERS, {"none": np.zeros(65)}, {"none": "#123456"}, 1.0, title="energy", log=True)
    assert np.isnan(nothing.data[0].y).all()
