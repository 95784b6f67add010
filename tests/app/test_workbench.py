"""The workbench: one weight's figure beside the map, one line of controls, and the plan behind a button."""

import json
import time
from contextlib import contextmanager

import psutil
import pytest

from dgviz.checkpoint.module_path import module_path
from dgviz.figures.figure4.component import script
from tests.app.pages import open_at, texts
from tests.checkpoints import write_pair

UP, STACK = "model.layers.2.mlp.up.weight", "model.layers.2.mlp.experts.gate_up_proj"


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    return write_pair(tmp_path, config={"model_type": "synthetic"})


def open_page(paths, **query):
    return open_at("workbench", base=paths[0], tuned=paths[1], **query)


def test_one_line_of_controls_and_everything_behind_buttons(paths):
    app = open_page(paths, weight=UP)
    assert app.title[0].value == "Workbench"
    assert app.selectbox(key="weight-choice").value == UP
    assert app.selectbox(key="rule-choice").value == "dg_hard"
    assert "In the plan" in texts(app) and UP in texts(app)
    assert [code.value for code in app.code if " spectrum " in code.value]


def test_weights_are_stepped_through(paths):
    app = open_page(paths, weight=UP)
    names = app.selectbox(key="weight-choice").options
    app.button(key="step-Next").click().run()
    assert app.selectbox(key="weight-choice").value == names[names.index(UP) + 1]
    app.button(key="step-Previous").click().run()
    assert app.query_params["weight"] in (UP, [UP])


def test_one_matrix_of_a_stack(paths):
    app = open_page(paths, weight=STACK, slice="3")
    assert app.number_input(key="slice-choice").value == 3
    app.button(key="plan-Take from base").click().run()
    assert f"name={STACK}[3]: keep=base" in texts(app)


def test_a_tau_by_hand_goes_into_the_plan(paths):
    app = open_page(paths, weight=UP, tau="0.02")
    app.button(key="plan-This weight only").click().run()
    assert f"by the override `name={UP}: tau=0.02`" in texts(app)


def header(app):
    """What the component is told beside its arrays."""
    (component,) = app.get("bidi_component")
    size = int.from_bytes(component.proto.bytes[:4], "little")
    return json.loads(component.proto.bytes[4 : 4 + size])


@contextmanager
def worker_asleep():
    """Have the process that computes for the pages answer nothing."""
    workers = [p for p in psutil.Process().children(recursive=True) if "dgviz.jobs.serve" in p.cmdline()]
    assert workers
    for process in workers:
        process.suspend()
    try:
        yield
    finally:
        for process in workers:
            process.resume()


def test_spectrum_and_tau_wait_for_no_map(paths):
    app = open_page(paths, weight=UP)
    started = time.monotonic()
    while not (header(app)["entries"] and header(app)["spectrum"]):
        assert time.monotonic() < started + 60
        app.run()
    assert header(app)["entries"]["rank"] == 3
    with worker_asleep():
        app.query_params["tau"] = "0.1"
        app.run()
        assert not app.exception
        assert header(app)["tau"] == 0.1 and header(app)["spectrum"] and header(app)["entries"] is None
    while not header(app)["entries"]:
        assert time.monotonic() < started + 60
        app.run()
    assert header(app)["entries"]["rank"] == 2


def test_a_weight_that_is_not_there_is_said(paths):
    app = open_page(paths, weight="nothing.weight")
    assert "nothing.weight is not a repairable weight" in texts(app)
    assert module_path(app.selectbox(key="weight-choice").value)


def test_the_component_is_one_module():
    assert script().count("export default") == 1


def test_what_is_in_view_is_held_as_a_and_left(paths):
    app = open_page(paths, weight=UP, rule="energy", params="fraction:0.8")
    app.button(key="compare").click().run()
    assert app.query_params["against"] in ("rule=energy, fraction=0.8", ["rule=energy, fraction=0.8"])
    app.text_input(key="against-typed").set_value("tau=0.02").run()
    assert app.query_params["against"] in ("tau=0.02", ["tau=0.02"]) and not app.exception
    app.button(key="against-hold").click().run()
    assert app.text_input(key="against-typed").value == "rule=energy, fraction=0.8"
    app.button(key="against-leave").click().run()
    assert "against" not in app.query_params and app.button(key="compare")


@pytest.mark.parametrize("field", ["against", "beside"])
@pytest.mark.parametrize("spoiled", ["nothing", "rule=best", "tuned=nobody, rule=energy", "method=wise_ft, alpha=9"])
def test_a_side_that_is_none_is_said(paths, field, spoiled):
    app = open_page(paths, weight=UP, **{"against": "rule=energy", field: spoiled})
    assert "This did not work" in texts(app) and not app.exception


@pytest.mark.parametrize(
    "beside", ["", "shrinker=frobenius", "method=wise_ft, alpha=0.5", "method=ties", "keep=base", "factor=0.5"]
)
def test_either_side_is_whatever_an_override_can_say(paths, beside):
    app = open_page(paths, weight=UP, against="method=ties, density=0.5", beside=beside)
    assert "This did not work" not in texts(app) and not app.exception
    assert app.selectbox(key="beside-chosen").value == beside
    app.button(key="against-swap").click().run()
    assert app.query_params["beside"] in ("method=ties, density=0.5", ["method=ties, density=0.5"])
    app.selectbox(key="against-chosen").set_value("rule=energy").run()
    assert app.query_params["against"] in ("rule=energy", ["rule=energy"]) and not app.exception
    app.button(key="against-leave").click().run()
    assert not {"against", "beside"} & app.query_params.keys()


def test_what_the_map_shows_is_chosen_and_kept_in_the_link(paths):
    app = open_page(paths, weight=UP)
    shows = app.selectbox(key="map-shows")
    assert shows.value == "energy_kept" and "quantity" not in app.query_params
    shows.set_value("rank").run()
    assert app.query_params["quantity"] in ("rank", ["rank"]) and app.selectbox(key="map-shows").value == "rank"


def test_scale_and_part_are_in_the_link_and_correspond(paths):
    app = open_page(paths, weight=UP)
    assert app.segmented_control(key="scale").value == "Weight" and app.segmented_control(key="shown").value is None
    app.segmented_control(key="shown").set_value("rules").run()
    assert app.query_params["show"] in ("rules", ["rules"]) and app.multiselect(key="compared-rules")
    app.segmented_control(key="scale").set_value("Model").run()
    assert not app.exception and app.query_params["show"] in ("model-rules", ["model-rules"])
    app = open_page(paths, weight=UP, show="model-rules")  # as a reload does
    assert app.segmented_control(key="scale").value == "Model"
    assert app.segmented_control(key="shown").value == "model-rules"
    app.segmented_control(key="shown").set_value("model").run()
    assert not app.exception and app.selectbox(key="map-quantity")
    app.segmented_control(key="scale").set_value("Weight").run()
    assert "show" not in app.query_params and app.selectbox(key="weight-choice").value == UP
