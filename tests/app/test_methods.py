"""Methods side by side: columns, sliders, the table, and what is asked for before a method can be drawn."""

import json
import time

import pytest

from dgviz.analysis.sweep import find_standing, standing_words
from dgviz.app.jobs import root
from dgviz.app.messages import plain
from dgviz.checkpoint import open_pair
from dgviz.demo import read_frontier
from dgviz.jobs import list_jobs
from dgviz.repair.methods import METHODS
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.app.pages import open_at, texts
from tests.checkpoints import write_pair

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def pair_paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Jobs and spectra of one's own."""
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    yield
    for job in list_jobs(root("compare-methods")):
        if job.state == "running":
            job.cancel(force=True)


def open_page(paths, weight=EMBEDDING):
    return open_at("workbench?show=methods", 120, base=paths[0], tuned=paths[1], weight=weight)


def open_model(paths):
    return open_at("workbench?show=model-methods", 120, base=paths[0], tuned=paths[1])


def figures(app):
    return app.dataframe[0].value.set_index("method")


def test_dg_hard_stands_beside_wise_ft_and_two_controls(pair_paths):
    app = open_page(pair_paths)
    table = figures(app)
    assert list(table.index) == [
        "Fine-tuned",
        "DG-Hard",
        "WiSE-FT",
        "Control: as long as D*",
        "Control: what DG-Hard drops",
    ]
    kept = table["norm kept %"]
    assert kept["Fine-tuned"] == 100 and kept["WiSE-FT"] == pytest.approx(50)
    assert kept["Control: as long as D*"] == pytest.approx(kept["DG-Hard"])
    energy = table["energy kept %"]
    assert energy["DG-Hard"] + energy["Control: what DG-Hard drops"] == pytest.approx(100)
    assert list(table["subspace kept %"]) == [100, 100, 100, 100, 0]
    assert table["from base %"].notna().all()


def test_a_slider_moves_its_method_only(pair_paths):
    app = open_page(pair_paths)
    before = figures(app)
    app.slider(key="method-wise_ft-alpha").set_value(0.25).run()
    assert not app.exception
    after = figures(app)
    assert after["norm kept %"]["WiSE-FT"] == pytest.approx(25)
    assert after["settings"]["WiSE-FT"] == "alpha=0.25"
    assert after.drop("WiSE-FT").equals(before.drop("WiSE-FT"))


def test_a_rule_moves_dg_hard_and_its_controls(pair_paths):
    app = open_page(pair_paths)
    app.selectbox(key="methods-rule-choice").set_value("fixed_rank").run()
    app.number_input(key="methods-rule-rank").set_value(1).run()
    table = figures(app)
    assert table["effective rank"]["DG-Hard"] == pytest.approx(1)
    assert table["norm kept %"]["Control: as long as D*"] == pytest.approx(table["norm kept %"]["DG-Hard"])
    app.selectbox(key="methods-shrinker").set_value("frobenius").run()
    assert not app.exception
    assert figures(app)["norm kept %"]["DG-Hard"] < table["norm kept %"]["DG-Hard"]


def test_every_method_draws_or_says_what_is_missing(pair_paths):
    app = open_page(pair_paths, "model.layers.2.mlp.experts.gate_up_proj")
    app.multiselect(key="chosen-methods").set_value(list(METHODS)).run()
    assert not app.exception, [error.value for error in app.exception]
    table = figures(app)
    missing = {METHODS[name].title for name in ("norm_matched_global", "norm_capped")}
    assert set(table.index) == {"Fine-tuned", *(method.title for method in METHODS.values())} - missing
    for title in missing:
        assert f"{title} takes its factor from the spectra of all weights" in texts(app)
    assert table["from base %"]["TIES, tensor by tensor"] == pytest.approx(80, abs=4)  # of the stack, 80
    assert table["from base %"]["DARE"] == pytest.approx(90, abs=2)
    assert "times the end of the scale" in texts(app)  # DARE multiplies what it leaves by ten
    app.multiselect(key="chosen-methods").set_value([]).run()
    assert not app.exception and list(figures(app).index) == ["Fine-tuned"]


@pytest.mark.slow
def test_the_whole_model_is_measured_by_a_command_and_read_back(pair_paths):
    app = open_model(pair_paths)
    app.slider(key="method-wise_ft-alpha").set_value(0.25).run()
    app.run()
    command = next(code.value for code in app.code if "compare-methods" in code.value)
    assert "base_damping,wise_ft:alpha=0.25,lines" in command
    app.button(key="start-compare-methods").click().run()
    assert not app.exception
    (job,) = list_jobs(root("compare-methods"))
    deadline = time.monotonic() + 300
    while job.state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert job.state == "done", job.log_tail()
    app = open_model(pair_paths)
    table = app.dataframe[-1].value.set_index("method")
    assert len(table) == len(METHODS)
    assert table["Distance to DG-Hard %"]["DG-Hard"] == 0
    assert table["Norm kept %"]["WiSE-FT (alpha=0.25)"] == pytest.approx(25, abs=0.1)
    assert table["Entries from base %"]["DARE"] > 50 > table["Entries from base %"]["DG-Hard"]
    assert app.button(key="start-compare-methods").label == "Measure again"


def test_the_whole_model_is_previewed_from_stored_spectra(pair_paths):
    matrices = weights_of(open_pair(*pair_paths))
    for weight in matrices[:4]:
        OpenWeight(weight, "cpu", SpectrumStore()).spectrum()
    app = open_model(pair_paths)
    assert f"Spectra of 4 of {len(matrices)} matrices are stored" in texts(app)
    for weight in matrices[4:]:
        OpenWeight(weight, "cpu", SpectrumStore()).spectrum()
    app.slider(key="method-wise_ft-alpha").set_value(0.25).run()
    app.multiselect(key="chosen-methods").set_value(["dg_hard", "wise_ft", "dare"]).run()
    table = app.dataframe[0].value.set_index("method")
    assert list(table.index) == ["DG-Hard", "WiSE-FT"]
    assert table["norm kept %"]["WiSE-FT"] == pytest.approx(25) and table["distance to DG-Hard %"]["DG-Hard"] == 0
    assert table["directions kept"]["DG-Hard"] > len(matrices) and "Not known from spectra: DARE" in texts(app)


def test_a_method_is_taken_into_the_plan(pair_paths):
    app = open_page(pair_paths)
    app.slider(key="method-wise_ft-alpha").set_value(0.25).run()
    app.button(key="export-wise_ft").click().run()
    assert not app.exception
    assert app.session_state["view"]["method"] == "wise_ft" and app.session_state["view"]["settings"] == "alpha:0.25"
    assert app.button(key="plan-close") and "--method wise_ft --param alpha=0.25" in texts(app)


def test_the_demo_shows_its_frontier_and_where_dg_hard_stands():
    app = open_model(["demo:base", "demo:noisy"])
    assert plain(standing_words(find_standing(read_frontier()["noisy"]["lines"]))) in texts(app)
    assert set(app.multiselect(key="frontier-methods").value) > {"dg_hard", "norm_matched", "complement"}


def test_a_frontier_of_ones_own_is_read_from_a_file(pair_paths, tmp_path):
    app = open_model(pair_paths)
    assert "Which repair heals more is not in the weights" in texts(app)
    assert any("--on-task BENCHMARK --save sweep.json" in code.value for code in app.code)
    (tmp_path / "sweep.json").write_text('{"lines": [], "ends": null}')
    app.text_input(key="sweep-path").set_value(str(tmp_path / "sweep.json")).run()
    assert "was swept without scores" in texts(app)
    sweep = {name: value for name, value in read_frontier()["clean"].items()}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    app.text_input(key="sweep-path").set_value(str(tmp_path / "sweep.json")).run()
    assert not app.exception and plain(standing_words(find_standing(sweep["lines"]))) in texts(app)
