"""Every place with a pair, without one and with a broken one; the view in the URL; where former addresses lead."""

import time

import pytest

from dgviz.app.jobs import root
from dgviz.app.recents import note_typed
from dgviz.app.weights import first_weight
from dgviz.checkpoint.module_path import module_path
from dgviz.jobs import list_jobs
from tests.app.pages import open_app, open_at, texts
from tests.checkpoints import write_checkpoint, write_pair

PLACES = ("open", "workbench", "workbench?show=model", "workbench?plan=open")
TITLES = {"open": "Open a pair", "workbench": "Workbench", "evidence": "Evidence: did a repair heal"}
WEIGHT, DRAWER = "workbench?show=spectrum", "workbench?plan=open"


@pytest.fixture(scope="module")
def pair_paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), shards=2, config={"model_type": "synthetic"})


def written(app):
    """Return the command that the plan prints."""
    (command,) = (code.value for code in app.code if " repair " in code.value)
    return command


@pytest.mark.parametrize("page", PLACES)
def test_every_page_without_a_pair_says_what_to_do(page):
    app = open_at(page, base="none")
    assert "No pair is open" in texts(app)
    labels = {button.label for button in app.button}
    assert {"Open the noisy demo", "Open the clean demo"} <= labels


@pytest.mark.parametrize("page", PLACES)
def test_every_page_with_a_missing_checkpoint_says_which(page, tmp_path):
    app = open_at(page, base=tmp_path / "gone", tuned=tmp_path / "gone too")
    assert str(tmp_path / "gone") in texts(app)
    assert "This did not work" in texts(app)


def test_a_first_visit_opens_the_demo():
    app = open_at("open")
    assert app.title[0].value == "Open a pair" and "base (demo) → noisy (demo)" in texts(app).replace("\\", "")
    assert app.query_params["tuned"] in ("demo:noisy", ["demo:noisy"])
    assert "What the models can do, measured" in texts(app)


def test_the_demo_opens_in_one_click():
    app = open_at("workbench", base="none")
    next(button for button in app.button if button.label == "Open the clean demo").click().run()
    assert not app.exception
    assert app.query_params["tuned"] in ("demo:clean", ["demo:clean"])
    assert app.selectbox(key="weight-choice").value and "demo/checkpoints/clean" in texts(app)


def test_open_counts_and_searches(pair_paths):
    app = open_at("open", base=pair_paths[0], tuned=pair_paths[1])
    values = {metric.label: metric.value for metric in app.metric}
    assert values["Repaired"] == "6"
    assert values["Kept"] == "5"
    assert len(app.dataframe[-1].value) == 11
    app.text_input(key="fate-search").set_value("mlp").run()
    assert set(app.dataframe[-1].value["tensor"]) == {
        "model.layers.2.mlp.up.weight",
        "model.layers.10.mlp.up.weight",
        "model.layers.2.mlp.experts.gate_up_proj",
    }
    app.text_input(key="fate-search").set_value("(").run()
    assert "is not a regular expression" in texts(app)


def test_the_spectrum_describes_the_weight_and_steps_through_them(pair_paths):
    app = open_at(WEIGHT, base=pair_paths[0], tuned=pair_paths[1], weight="model.embed_tokens.weight")
    assert "96 x 32 weight has 32 singular directions" in texts(app)
    assert "keeps the **3** above" in texts(app)
    app.button(key="step-Next").click().run()
    assert not app.exception
    assert app.selectbox(key="weight-choice").value == "model.layers.2.mlp.experts.gate_up_proj"
    assert "48 x 32 weight" in texts(app)
    app.number_input(key="slice-choice").set_value(2).run()
    assert not app.exception
    assert app.query_params["slice"] in ("2", ["2"])


def test_the_spectrum_follows_the_rule(pair_paths):
    app = open_at(WEIGHT, base=pair_paths[0], tuned=pair_paths[1], weight="model.embed_tokens.weight")
    app.selectbox(key="rule-choice").set_value("fixed_rank").run()
    app.number_input(key="rule-rank").set_value(7).run()
    assert not app.exception
    assert "keeps the **7** above" in texts(app)
    assert app.query_params["params"] in ("rank:7", ["rank:7"])


def test_a_link_shows_the_same_view(pair_paths):
    app = open_at(
        WEIGHT,
        base=pair_paths[0],
        tuned=pair_paths[1],
        weight="model.embed_tokens.weight",
        rule="mp_edge",
        tau="0.02",
    )
    assert "The threshold you set keeps" in texts(app)
    assert "τ = 0.02" in texts(app)
    assert app.selectbox(key="rule-choice").value == "mp_edge"


def test_a_tau_set_by_hand_leaves_with_its_weight(pair_paths):
    app = open_at(WEIGHT, base=pair_paths[0], tuned=pair_paths[1], weight="model.embed_tokens.weight", tau="0.02")
    app.button(key="step-Next").click().run()
    assert "tau" not in app.query_params and "The rule keeps" in texts(app)
    app.button(key="step-Previous").click().run()
    assert "tau" not in app.query_params and "The rule keeps" in texts(app)


def test_a_url_is_the_whole_view(pair_paths):
    view = {"weight": "model.embed_tokens.weight", "rule": "fixed_rank", "params": "rank:7", "tau": "0.02"}
    app = open_at(WEIGHT, base=pair_paths[0], tuned=pair_paths[1], **view)
    for name in ("rule", "params", "tau"):
        del app.query_params[name]
    app.query_params["weight"] = "model.layers.2.mlp.up.weight"  # as Back does
    app.run()
    assert not app.exception
    assert app.selectbox(key="rule-choice").value == "dg_hard"
    assert app.selectbox(key="weight-choice").value == "model.layers.2.mlp.up.weight"
    assert "The rule keeps" in texts(app)


def test_the_manual_rule_takes_the_tau_in_view(pair_paths):
    app = open_at(WEIGHT, base=pair_paths[0], tuned=pair_paths[1], weight="model.embed_tokens.weight", tau="0.02")
    app.selectbox(key="rule-choice").set_value("manual").run()
    assert not app.exception
    assert app.number_input(key="rule-tau").value == 0.02
    assert app.query_params["params"] in ("tau:0.02", ["tau:0.02"])


def test_a_spoiled_link_is_said_and_survived(pair_paths):
    app = open_at(
        WEIGHT, base=pair_paths[0], tuned=pair_paths[1], weight="nothing", rule="nothing", tau="x", slice="-3"
    )
    assert "nothing is not a repairable weight" in texts(app)
    assert "no threshold rule 'nothing'" in texts(app)
    app = open_at(WEIGHT, base=pair_paths[0], tuned=pair_paths[1], rule="energy", params="fraction:7")
    assert "must lie in [0, 1]" in texts(app)


def test_a_low_rank_update_is_said_to_be_one(tmp_path):
    import torch

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(64, 48, generator=generator, dtype=torch.float64)
    update = torch.randn(64, 2, generator=generator, dtype=torch.float64) @ torch.randn(
        2, 48, generator=generator, dtype=torch.float64
    )
    write_checkpoint(tmp_path / "base", {"w.weight": base, "same.weight": base.clone()})
    write_checkpoint(tmp_path / "tuned", {"w.weight": base + update, "same.weight": base.clone()})
    app = open_at(WEIGHT, base=tmp_path / "base", tuned=tmp_path / "tuned", weight="w.weight")
    assert "Low-rank delta: only 2 of 48" in texts(app)
    app = open_at(WEIGHT, base=tmp_path / "base", tuned=tmp_path / "tuned", weight="same.weight")
    assert "was not changed by fine-tuning" in texts(app)


def test_an_update_with_a_nan_is_a_sentence(tmp_path):
    import torch

    base = torch.randn(64, 48)
    tuned = base + torch.randn(64, 48)
    tuned[3, 4] = float("nan")
    write_checkpoint(tmp_path / "base", {"w.weight": base})
    write_checkpoint(tmp_path / "tuned", {"w.weight": tuned})
    app = open_at(WEIGHT, base=tmp_path / "base", tuned=tmp_path / "tuned")
    assert "This did not work" in texts(app)
    assert "w.weight: entry [3, 4]" in texts(app)


def test_rules_are_compared_on_a_weight(pair_paths):
    app = open_at("workbench?show=rules", base=pair_paths[0], tuned=pair_paths[1], weight="model.embed_tokens.weight")
    table = app.dataframe[0].value
    assert list(table["rule"]) == [
        "DG-Hard",
        "DG-Hard, reference code's median",
        "Marchenko-Pastur edge",
        "Energy fraction",
    ]
    assert list(table["kept rank"])[:3] == [3, 3, 3]
    app.multiselect(key="compared-rules").set_value(["fixed_rank", "manual"]).run()
    assert not app.exception
    assert list(app.dataframe[0].value["rule"]) == ["Fixed rank", "Manual tau"]
    app.multiselect(key="compared-rules").set_value([]).run()
    assert "Choose at least one rule" in texts(app)


def test_the_plan_says_what_it_will_do_and_refuses_bad_outputs(pair_paths, tmp_path):
    app = open_at(DRAWER, base=pair_paths[0], tuned=pair_paths[1])
    assert "**6** of 11 tensors are repaired by DG-Hard, **5** are copied from tuned" in texts(app)
    folder = next(field for field in app.text_input if field.label.startswith("Output folder"))
    folder.set_value(str(pair_paths[1] / "inside")).run()
    assert "lies inside the tuned checkpoint" in texts(app)
    assert not any(button.label == "Write checkpoint" for button in app.button)
    folder.set_value(str(tmp_path / "out")).run()
    app.text_input(key="plan-exclude").set_value("mlp").run()
    assert "**3** of 11 tensors" in texts(app)
    assert "--exclude mlp" in written(app) and "dgviz repair" in written(app)


def test_the_plan_takes_any_method_and_keeps_it_in_the_link(pair_paths):
    app = open_at(DRAWER, base=pair_paths[0], tuned=pair_paths[1])
    app.selectbox(key="export-method").set_value("wise_ft").run()
    app.number_input(key="export-wise_ft-alpha").set_value(0.25).run()
    assert "are repaired by WiSE-FT, **4** more (vectors and small tensors" in texts(app)
    assert "--method wise_ft --param alpha=0.25" in written(app) and "--rule" not in written(app)
    assert "tuned-wise-ft" in next(field.value for field in app.text_input if field.label.startswith("Output folder"))
    assert (app.query_params["method"], app.query_params["settings"]) == ("wise_ft", "alpha:0.25")
    app.selectbox(key="format").set_value("lora").run()
    assert "--format lora takes a method whose update is a product of two factors" in texts(app)
    linked = open_at(DRAWER, base=pair_paths[0], tuned=pair_paths[1], shrinker="frobenius", settings="alpha:0.5")
    assert "--param alpha=0.5 --shrinker frobenius" in written(linked)
    spoiled = open_at(DRAWER, base=pair_paths[0], tuned=pair_paths[1], settings="alpha:9", shrinker="x")
    assert "'alpha' of method 'dg_hard' must lie in [0, 2]; got '9'; showing its defaults" in texts(spoiled)
    assert "There is no shrinker 'x'" in texts(spoiled) and "--shrinker" not in written(spoiled)


def test_the_first_weight_is_a_large_one_of_a_middle_layer(pair_paths):
    from dgviz.checkpoint import open_pair

    assert module_path(first_weight(open_pair(*pair_paths))).layer in ((2,), (10,))


def submit(app, base, tuned):
    """Type a pair into the form and open it."""
    app.text_input(key="picked-base").set_value(str(base))
    app.text_input(key="picked-tuned").set_value(str(tuned))
    next(button for button in app.button if button.label == "Open pair").click().run()
    assert not app.exception, [error.value for error in app.exception]
    return app


def test_a_wrong_path_leaves_the_open_pair_alone(pair_paths, tmp_path):
    app = open_at("open", base=pair_paths[0], tuned=pair_paths[1])
    submit(app, pair_paths[0], tmp_path / "gone")
    assert "This did not work" in texts(app) and str(tmp_path / "gone") in texts(app)
    assert app.query_params["tuned"] in (str(pair_paths[1]), [str(pair_paths[1])])


@pytest.mark.parametrize("by", ["form", "command", "link"])
def test_a_short_scan_begins_by_itself_where_the_pair_is_opened_and_never_from_a_link(tmp_path, monkeypatch, by):
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))  # the pairs have the same contents
    paths = write_pair(tmp_path, config={"model_type": "synthetic"})
    if by == "form":
        submit(open_at("open", base="none"), *paths)
    else:
        if by == "command":
            note_typed(*map(str, paths))
        open_at("open", base=paths[0], tuned=paths[1])
    jobs = list_jobs(root("scan"))
    assert len(jobs) == (by != "link")
    for job in jobs:
        deadline = time.monotonic() + 300
        while job.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert job.state == "done", job.log_tail()


def test_a_link_reads_nothing_before_somebody_says_yes(tmp_path):
    base, tuned = write_pair(tmp_path)
    app = open_at("workbench", opened=False, base=base, tuned=tuned, plan="open", rule="mp_edge")
    said = texts(app)
    assert "Nothing of it has been read" in said and str(base) in said and str(tuned) in said
    assert [box.key for box in app.selectbox] == ["device-choice"] and "Plan" not in {
        element.value for element in app.subheader
    }
    next(button for button in app.button if button.label == "Open this pair").click().run()
    assert not app.exception and app.selectbox(key="rule-choice").value == "mp_edge"  # all of the link is there


@pytest.mark.parametrize("field", ["weight", "rule", "method", "shrinker", "against"])
def test_what_a_link_says_is_never_read_as_markdown(pair_paths, field):
    picture = "![x](http://elsewhere.invalid/x.png)"
    app = open_at("workbench", base=pair_paths[0], tuned=pair_paths[1], plan="open", **{field: picture})
    assert not app.exception and picture in texts(app)
    marked = [
        element.value
        for kind in ("markdown", "caption", "warning", "info", "error")
        for element in getattr(app, kind)
    ]
    assert not [text for text in marked if picture in text]


def test_a_script_that_streamlit_serves_by_itself_shows_nothing(monkeypatch):
    monkeypatch.setattr("streamlit.config._server_mode", "starlette-managed")  # as `streamlit run main.py` sets it
    app = open_app().run()
    assert "asks nobody for a token: start app.py, or `dgviz app`" in texts(app) and not app.title
