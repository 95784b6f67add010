"""Scales fitted to what both sides say of their own texts: the divergence, its gradient, the file, and the plan."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import MethodError, PlanError
from dgviz.fit import FitSettings, iter_fit
from dgviz.fit.blend import Blend
from dgviz.fit.path import Objective
from dgviz.fit.samples import Samples, draw_texts
from dgviz.repair.plan import RepairPlan, read_plan_file
from dgviz.repair.tensor import repair_tensor
from tests.checkpoints import planted_update, tiny_model, write_tiny_pair

pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = FitSettings(samples=16, length=12, steps=4)
PLANTED = "model.layers.1.mlp.up_proj.weight"


def write_model_pair(folder, family):
    """A tiny model and one whose answers are clearly others: noise in every weight, strong directions in matrices."""
    model = tiny_model(family)
    model.save_pretrained(folder / "base")
    model.load_state_dict(planted_update(dict(model.named_parameters()), noise=0.005), strict=False)
    model.save_pretrained(folder / "tuned")
    return folder / "base", folder / "tuned"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_model_pair(tmp_path_factory.mktemp("llama"), "llama_tied")


@pytest.fixture(scope="module")
def pair(paths):
    return open_pair(*paths)


@pytest.fixture(scope="module")
def objective(pair):
    blend = Blend(pair, device="cpu")
    texts = [draw_texts(blend.at(blend.scales(end)), blend.model.config, 16, 12, seed=end) for end in (0, 1)]
    return Objective(blend, *texts)


@pytest.fixture(scope="module")
def plan_file(pair, tmp_path_factory):
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    points = list(iter_fit(pair, file, SETTINGS, keep=90, device="cpu"))
    assert points[0].target_kept == 100 and points[-1].target_kept < 90
    return file


def log_probabilities(paths, alpha, ids):
    """Of the average of two models, by float64."""
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval() for path in paths]
    base, tuned = (model.state_dict() for model in models)
    models[0].load_state_dict({name: torch.lerp(base[name], tuned[name], alpha) for name in base})
    with torch.no_grad():
        return models[0](input_ids=ids).logits.log_softmax(-1)


def test_the_divergence_is_that_of_the_averaged_model(objective, paths):
    batch = objective.tuned.batches[1].shown
    own, other = (log_probabilities(paths, alpha, batch) for alpha in (1.0, 0.3))
    expected = (own.exp() * (own - other)).sum(-1).mean()
    found = objective.tuned.divergence(objective.blend.scales(0.3), 1)
    assert float(found) == pytest.approx(float(expected), rel=1e-4) and expected > 0.01


def test_the_gradient_is_that_of_finite_differences(objective):
    draws = torch.Generator().manual_seed(0)
    scales = torch.rand(len(objective.blend.parts), generator=draws).requires_grad_(True)
    objective.base.divergence(scales, 0).backward()
    for seed in range(3):
        way = torch.randn(len(scales), generator=draws.manual_seed(seed))
        step = 0.02
        ends = [float(objective.base.divergence(scales.detach() + sign * step * way, 0)) for sign in (1, -1)]
        assert float(scales.grad @ way) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02, abs=1e-4)


def test_estimates_are_of_the_ends_at_the_ends(objective):
    for value in (0.0, 1.0):
        assert objective.tuned.kept(objective.blend.scales(value)) == pytest.approx(100 * value, abs=1e-3)
        assert objective.base.kept(objective.blend.scales(value)) == pytest.approx(100 - 100 * value, abs=1e-3)


def test_a_fit_is_better_than_where_it_begins(objective):
    def loss(scales):
        sides = (objective.base, 0.3), (objective.tuned, 0.7)
        parts = [w / side.whole * side.divergence(scales, n) for side, w in sides for n in range(len(side.batches))]
        return float(torch.stack(parts).sum())

    start = objective.blend.scales(0.7)
    fitted = objective.fit(0.7, start, steps=30, seed=0)
    assert loss(fitted) < 0.99 * loss(start) and float(fitted.min()) >= 0 and float(fitted.max()) <= 1


def test_a_fit_that_was_stopped_ends_in_the_same_bytes(pair, plan_file, tmp_path):
    file = tmp_path / "plan.json"
    for points in (1, 2):
        fit = iter_fit(pair, file, SETTINGS, keep=90, device="cpu")
        for _ in range(points):
            next(fit)
        fit.close()
        assert "plan" not in json.loads(file.read_bytes())
    with pytest.raises(PlanError, match="plan"):
        read_plan_file(file)
    list(iter_fit(pair, file, SETTINGS, keep=90, device="cpu"))
    assert file.read_bytes() == plan_file.read_bytes()


def test_what_is_to_be_kept_can_change_without_another_fit(pair, plan_file, tmp_path):
    file = tmp_path / "plan.json"
    file.write_bytes(plan_file.read_bytes())
    before = json.loads(file.read_bytes())["fit"]
    list(iter_fit(pair, file, SETTINGS, keep=97, device="cpu"))
    after = json.loads(file.read_bytes())["fit"]
    assert after["path"] == before["path"] and after["samples"] == before["samples"]
    assert before["chosen"]["target_kept"] == pytest.approx(90, abs=1)
    assert after["chosen"]["target_kept"] == pytest.approx(97, abs=1)


def test_the_seed_decides_the_samples(pair, plan_file, tmp_path):
    other = FitSettings(seed=1, samples=16, length=12, steps=4)
    with pytest.raises(PlanError, match="holds no fit of this pair with these settings"):
        next(iter_fit(pair, plan_file, other, 90, "cpu"))
    list(iter_fit(pair, tmp_path / "other.json", other, 90, "cpu"))
    first, second = (read_plan_file(file) for file in (plan_file, tmp_path / "other.json"))
    assert first.method_params["fit_samples"] != second.method_params["fit_samples"]
    assert (first.method_params["fit_seed"], second.method_params["fit_seed"]) == (0, 1)


@pytest.mark.slow
def test_an_export_is_base_plus_every_fitted_part(paths, plan_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["repair", *map(str, paths), str(out), "--plan", str(plan_file), "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["warnings"]
    base, tuned, made = (load_file(folder / "model.safetensors") for folder in (*paths, out))
    plan = read_plan_file(plan_file)
    scales = {str(item.selector.text): float(item.settings["alpha"]) for item in plan.overrides}
    assert len(scales) > 10
    for name, weight in made.items():
        start = base[name].double()
        expected = start + scales.get(f"name={name}", 1.0) * (tuned[name].double() - start)
        assert torch.allclose(weight.double(), expected, rtol=0, atol=2**-24 * float(expected.abs().max() + 1))
    card = (out / "README.md").read_text()
    assert f"fit_seed = 0, fit_samples = {plan.method_params['fit_samples']}" in card
    assert json.loads((out / "dgviz.json").read_bytes())["plan"] == plan.to_json()


def test_two_scales_are_those_of_what_dg_hard_keeps_and_drops(pair, paths, tmp_path):
    file = tmp_path / "split.json"
    list(iter_fit(pair, file, FitSettings(split=True, samples=8, length=12, steps=2), 95, "cpu"))
    plan = read_plan_file(file)
    own = plan.at(pair[PLANTED])
    above, below = (own.method_params[name] for name in ("above", "below"))
    assert own.method == "split" and above != below
    assert plan.at(pair["model.norm.weight"]).method == "wise_ft"
    base, tuned = (load_file(path / "model.safetensors")[PLANTED].double().numpy() for path in paths)
    u, s, v = np.linalg.svd(tuned - base, full_matrices=False)
    rank = repair_tensor(pair[PLANTED], RepairPlan(), "cpu").report.matrices[0].rank
    assert 0 < rank < len(s)
    expected = base + (u * (s * np.where(np.arange(len(s)) < rank, above, below))) @ v
    assert np.allclose(repair_tensor(pair[PLANTED], plan, "cpu").tensor, expected, atol=1e-6)


def test_a_masked_model_fills_gaps(tmp_path, capsys):
    paths, file = write_model_pair(tmp_path, "bert"), tmp_path / "plan.json"
    command = ["fit", *map(str, paths), str(file), "--samples", "8", "--length", "12", "--steps", "2"]
    assert main(command) == 2 and "--mask-token" in capsys.readouterr().err and not file.exists()
    assert main([*command, "--mask-token", "95", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    shown, asked = (np.array(json.loads(file.read_bytes())["fit"]["samples"][0][key]) for key in ("shown", "asked"))
    assert ((shown == 95) == asked).all() and 0 < asked.mean() < 0.5
    assert result["plan"] == json.loads(file.read_bytes())["plan"] and "bert." in result["plan"]["overrides"][0]


def test_what_writes_no_texts_cannot_be_fitted(tmp_path, capsys):
    assert main(["fit", *map(str, write_tiny_pair(tmp_path, "vit")), str(tmp_path / "plan.json")]) == 2
    assert "neither a causal nor a masked language model" in capsys.readouterr().err


def test_a_model_that_transformers_builds_from_several_tensors_is_refused(tmp_path):
    with pytest.raises(MethodError, match="is no single tensor"):
        Blend(open_pair(*write_tiny_pair(tmp_path, "mixtral")), device="cpu")


@pytest.mark.parametrize("keep", [0, 100, -3])
def test_what_is_kept_is_a_share(pair, tmp_path, keep):
    with pytest.raises(PlanError, match="between 0 and 100"):
        next(iter_fit(pair, tmp_path / "plan.json", SETTINGS, keep, "cpu"))


def test_sides_that_say_the_same_are_refused(pair, objective):
    class Deaf:
        def __init__(self, blend):
            self.blend = blend
            self.scales = lambda value: blend.scales(0.0)
            self.at = blend.at

    texts = Samples(objective.base.batches[0].shown, objective.base.batches[0].asked)
    with pytest.raises(MethodError, match="nothing to fit"):
        Objective(Deaf(objective.blend), texts, texts)
