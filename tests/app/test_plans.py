"""The plan of a pair: what is seen on a weight goes into it, stays there, and reaches the export."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dgviz.app.plans import SavedPlan
from dgviz.cli import main
from dgviz.command import Command
from dgviz.rmt.threshold import RULES
from tests.app.pages import open_at, texts
from tests.checkpoints import write_pair

DRAWER = "workbench?plan=open"
UP, EMBEDDING, STACK = (
    "model.layers.2.mlp.up.weight",
    "model.embed_tokens.weight",
    "model.layers.2.mlp.experts.gate_up_proj",
)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    return write_pair(tmp_path, config={"model_type": "synthetic"})


def open_page(page, paths, **query):
    return open_at(page, base=paths[0], tuned=paths[1], **query)


def press(app, key):
    app.button(key=key).click().run()
    assert not app.exception, [error.value for error in app.exception]
    return app


def printed(app):
    (command,) = (Command.parse(code.value) for code in app.code if " repair " in code.value)
    return command


def test_a_tau_set_by_hand_is_exported_as_it_was_seen(paths, tmp_path):
    app = open_page("workbench", paths, weight=UP, tau="0.02")
    assert "by default" in texts(app) and "You are looking at τ = **0.02**" in texts(app)
    press(app, "plan-This weight only")
    assert f"by the override `name={UP}: tau=0.02`" in texts(app)
    other = open_page(DRAWER, paths)  # another session, without the tau in its link
    command = printed(other)
    assert command.given["override"] == (f"name={UP}: tau=0.02",)
    words = command.words
    words[words.index(str(command.given["out"]))] = str(tmp_path / "out")
    assert main([*words, "--device", "cpu"]) == 0
    base, tuned, written = (
        load_file(Path(folder) / "model.safetensors")[UP].double() for folder in (*paths, tmp_path / "out")
    )
    left, s, right = torch.linalg.svd(tuned - base, full_matrices=False)
    expected = base + (left * torch.where(s > 0.02, s, 0.0)) @ right
    torch.testing.assert_close(written, expected, rtol=0, atol=1e-7)


def test_a_factor_becomes_everybodys(paths):
    base, tuned = (load_file(path / "model.safetensors")[UP].double().numpy() for path in paths)
    own = RULES["dg_hard"].apply(np.linalg.svd(tuned - base, compute_uv=False), base.shape).tau
    app = open_page("workbench", paths, weight=UP, tau=repr(own * 1.5))
    press(app, "plan-everywhere")
    factor = float(app.number_input(key="rule-scale").value)
    assert factor == pytest.approx(1.5, rel=1e-3) and "tau" not in app.query_params
    assert "by default" in texts(app)
    press(app, "plan")
    assert app.number_input(key="export-rule-scale").value == factor


def test_keeping_a_side_undone_and_back(paths):
    app = open_page("workbench", paths, weight=STACK, slice="2")
    press(app, "plan-Take from base")
    assert f"base's values, unchanged, by the override `name={STACK}[2]: keep=base`" in texts(app)
    press(app, "plan-Keep as tuned")  # in the place of the other: the same selection
    export = open_page(DRAWER, paths)
    assert printed(export).given["override"] == (f"name={STACK}[2]: keep=tuned",)
    press(app, "plan-undo")
    assert "keep=base" in texts(app)
    press(app, "plan-default")
    assert "by default" in texts(app) and app.button(key="plan-default").disabled
    assert "override" not in printed(open_page(DRAWER, paths)).given


def test_overrides_are_typed_and_taken_out(paths):
    app = open_page(DRAWER, paths)
    app.text_input(key="override-typed").set_value("layers=2-10: factor=0.5").run()
    app.text_input(key="override-typed").set_value(f"{EMBEDDING}: keep=tuned").run()
    assert printed(app).given["override"] == ("layers=2-10: factor=0.5", f"{EMBEDDING}: keep=tuned")
    app.text_input(key="override-typed").set_value("layers=2-10 factor=0.5").run()
    assert "is not SELECTION" in texts(app)
    assert app.text_input(key="override-typed").value == "layers=2-10 factor=0.5"
    press(app, "override-0")
    assert printed(app).given["override"] == (f"{EMBEDDING}: keep=tuned",)
    press(app, "override-undo")
    assert len(printed(app).given["override"]) == 2


def test_an_override_that_selects_nothing_is_said_and_can_be_taken_out(paths):
    app = open_page(DRAWER, paths)
    app.text_input(key="override-typed").set_value("model.layers.3: keep=tuned").run()
    assert "selects no tensor" in texts(app) and "model.layers.2" in texts(app)
    press(app, "override-0")
    assert "selects no tensor" not in texts(app) and printed(app)


def test_a_tau_that_is_not_in_the_plan_is_offered(paths):
    app = open_page(DRAWER, paths, weight=UP, tau="0.02")
    assert "is not in the plan" in texts(app) and "override" not in printed(app).given
    press(app, "offer-tau")
    assert "is not in the plan" not in texts(app)
    assert printed(app).given["override"] == (f"name={UP}: tau=0.02",)


def test_a_spoiled_file_is_said_and_a_change_begins_a_new_plan(paths, tmp_path):
    press(open_page("workbench", paths, weight=UP), "plan-Take from base")
    (file,) = (tmp_path / "state" / "plans").iterdir()
    assert json.loads(file.read_text())["pair"]["base"] == str(paths[0])
    file.write_text("{")
    app = open_page("workbench", paths, weight=UP)
    assert "cannot be read" in texts(app) and "by default" in texts(app)
    assert "cannot be read" not in texts(press(app, "plan-Keep as tuned"))


def test_every_change_can_be_undone():
    plan = SavedPlan()
    generator = np.random.default_rng(0)
    states = [plan.overrides]
    for _ in range(30):
        plan = plan.changed([f"a: rank={n}" for n in generator.integers(0, 9, 3)])
        states.append(plan.overrides)
    states = [state for before, state in zip([None, *states], states, strict=False) if state != before]
    for state in reversed(states[:-1]):
        plan = plan.undone()
        assert plan.overrides == state
    assert plan.undone() == plan


def test_the_export_says_how_many_tensors_an_override_takes_out(paths):
    app = open_page(DRAWER, paths)
    before = texts(app)
    app.text_input(key="override-typed").set_value(f"{EMBEDDING}: keep=tuned").run()
    app.text_input(key="override-typed").set_value("model.norm.weight: keep=base").run()
    after = texts(app)
    assert "**6** of 11 tensors are repaired by DG-Hard." not in after
    assert "**5** of 11 tensors are repaired by DG-Hard or as overrides say, which decide on **2**" in after
    assert "**6** of 11 tensors are repaired by DG-Hard" in before and "**1** more" in after and "**-" not in after


@pytest.mark.parametrize(("field", "selection"), [("include", "not re="), ("exclude", "re=")])
def test_what_is_left_out_is_listed_and_becomes_an_override(paths, field, selection):
    app = open_page(DRAWER, paths, **{field: "embed"})
    kept = f"{selection}embed: keep=tuned"
    assert kept in texts(app)
    press(app, f"mask-override-{field}")
    assert field not in app.query_params and tuple(printed(app).given["override"]) == (kept,)
    press(app, "override-undo")
    assert kept not in texts(app)
    app = open_page(DRAWER, paths, **{field: "embed"})
    press(app, f"mask-{field}")
    assert kept not in texts(app) and field not in app.query_params
