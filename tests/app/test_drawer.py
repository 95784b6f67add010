"""The plan beside the page: opened and closed, what it says that it does, and another method instead."""

from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from safetensors.torch import load_file

from dgviz.checkpoint import open_pair
from dgviz.command import Command
from dgviz.rmt.threshold import RULES
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.app.pages import open_at, texts
from tests.checkpoints import write_pair

UP = "model.layers.2.mlp.up.weight"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), config={"model_type": "synthetic"})


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))


def press(app, key):
    app.button(key=key).click().run()
    assert not app.exception, [error.value for error in app.exception]
    return app


def keys(app):
    return {button.key for button in app.button}


def test_it_opens_and_closes_and_is_in_the_link(paths):
    app = open_at("open", base=paths[0], tuned=paths[1])
    assert "plan-close" not in keys(app) and app.button(key="plan").label == "Plan"
    press(app, "plan")
    assert app.query_params["plan"] in ("open", ["open"]) and "plan-close" in keys(app)
    assert "plan-close" in keys(open_at("evidence", base=paths[0], tuned=paths[1], plan="open"))
    press(app, "plan-close")
    assert "plan" not in app.query_params and "plan-close" not in keys(app)
    press(press(app, "plan"), "plan")
    assert "plan-close" not in keys(app)


def test_what_it_does_to_the_update(paths):
    app = open_at("open?plan=open", base=paths[0], tuned=paths[1])
    assert "is known after a scan" in texts(app)
    weights = weights_of(open_pair(*paths))
    for weight in weights:
        OpenWeight(weight, "cpu", SpectrumStore()).spectrum()
    base, tuned = (load_file(path / "model.safetensors") for path in paths)
    kept, whole, ranks = {}, {}, {}
    for weight in weights:
        delta = (tuned[weight.tensor.name].double() - base[weight.tensor.name].double()).numpy()
        delta = delta.reshape(-1, weight.shape[-1]) if weight.index is None else delta[weight.index]
        s = np.linalg.svd(delta.reshape(weight.shape), compute_uv=False)
        above = s > RULES["dg_hard"].apply(s, weight.shape).tau
        kept[weight.name], whole[weight.name] = (s[above] ** 2).sum(), (s**2).sum()
        ranks[weight.name] = above.sum()
    share, total = sum(kept.values()) / sum(whole.values()), 32 * len(weights)
    said = f"**{100 * share:.1f} %** of the update's energy and **{sum(ranks.values())}** of {total} directions stay."
    assert said in texts(app.run())
    app.text_input(key="override-typed").set_value(f"{UP}: keep=base").run()
    share, rank = (sum(kept.values()) - kept[UP]) / sum(whole.values()), sum(ranks.values()) - ranks[UP]
    assert f"**{100 * share:.1f} %** of the update's energy and **{rank}** of {total} directions stay." in texts(app)
    assert app.button(key="plan").label == "Plan · 1 override"
    app.selectbox(key="export-method").set_value("dare").run()
    assert not app.exception and "is not known from spectra" in texts(app)


def test_an_override_of_the_weight_in_view_is_in_it_at_once(paths):
    app = open_at("workbench?plan=open", base=paths[0], tuned=paths[1], weight=UP)
    press(app, "plan-Take from base")
    (command,) = (Command.parse(code.value) for code in app.code if " repair " in code.value)
    assert command.given["override"] == (f"name={UP}: keep=base",)
    assert app.button(key="plan").label == "Plan · 1 override"
    press(app, "override-0")
    assert app.button(key="plan").label == "Plan" and "by default" in texts(app)


def test_averaging_instead(paths):
    app = open_at("open?plan=open", base=paths[0], tuned=paths[1])
    press(app, "plan-average")
    assert "--method wise_ft" in texts(app) and "plan-average" not in keys(app)
    assert app.query_params["method"] in ("wise_ft", ["wise_ft"])
    assert app.selectbox(key="export-method").value == "wise_ft"


@pytest.mark.parametrize("place", ["open", "workbench", "evidence"])
def test_a_pair_that_cannot_be_opened_leaves_a_way_out(paths, tmp_path, place):
    app = open_at(f"{place}?plan=open", base=paths[0], tuned=tmp_path / "gone")
    assert str(tmp_path / "gone") in texts(app) and "Write checkpoint" not in {button.label for button in app.button}
    press(app, "plan-close")
    assert "plan-close" not in keys(app)


def test_a_home_that_nobody_has_is_a_sentence(paths):
    app = open_at("open?plan=open", base=paths[0], tuned=paths[1])
    next(field for field in app.text_input if field.label.startswith("Output")).set_value(
        "~nobody-of-this-name"
    ).run()
    assert not app.exception and "nobody of that name has a home here" in texts(app)
    app = open_at("open?plan=open", base="~nobody-of-this-name/base", tuned=paths[1])
    assert "~nobody-of-this-name/base is not opened" in texts(app)


def test_a_link_brings_a_plan_that_counts_when_it_is_taken(paths):
    app = open_at("open", base=paths[0], tuned=paths[1], plan="open", rule="energy")
    app.text_input(key="override-typed").set_value(f"name={UP}: tau=0.02").run()
    link = next(code.value for code in app.code if "take=" in code.value)
    given = {key: value for key, (value,) in parse_qs(urlsplit(link).query).items()}
    app = press(open_at("open", base=paths[0], tuned=paths[1], plan="open"), "override-undo")
    other = open_at("open", **given)
    assert "This link brings a plan" in texts(other) and "override-0" not in keys(other)  # nothing by itself
    press(other, "take-linked")
    assert "override-0" in keys(other) and "take" not in other.query_params and "take-linked" not in keys(other)
    assert other.query_params["rule"] in ("energy", ["energy"])


@pytest.mark.parametrize(
    "take", ["{", '{"rule": "best"}', '{"overrides": 3}', "[1]", "{" * 20_000, '{"dtype": "int3"}']
)
def test_a_spoiled_plan_of_a_link_is_one_sentence(paths, take):
    app = open_at("open", base=paths[0], tuned=paths[1], plan="open", take=take)
    assert "of this link" in texts(app) and "take-linked" not in keys(app) and not app.exception
    press(app, "leave-linked")
    assert "take" not in app.query_params
