"""One weight under one method: map, figures and sparsity against a float64 SVD of the exact update."""

import numpy as np
import pytest
import torch

from dgviz.analysis.effect import spectral_effect, yardstick
from dgviz.checkpoint import open_pair, read_tensor
from dgviz.figures.figure4.contrast import compute_method_panel, compute_side
from dgviz.figures.figure4.panels import compute_entry_panels, pooled_magnitudes
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.repair.update import TensorUpdate, edited_blocks
from dgviz.repair.whole_model import prepare_method
from dgviz.rmt.law import mp_fit
from dgviz.rmt.spectrum import Spectrum, effective_rank
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight
from tests.checkpoints import write_checkpoint, write_pair

EMBEDDING, EXPERTS = "model.embed_tokens.weight", "model.layers.2.mlp.experts.gate_up_proj"
SETTINGS = {
    "dg_hard": {"alpha": 0.7},
    "rank_r": {"rank": 2},
    "wise_ft": {"alpha": 0.3},
    "lines": {"alpha": 0.2, "last": 0.9},
    "magnitude": {"density": 0.25},
    "ties": {"density": 0.3, "scale": 1.5},
    "ties_per_tensor": {"density": 0.3},
    "dare": {"p": 0.6, "seed": 3},
    "fapm": {"density": 0.4},
    "flat_fro": {"alpha": 0.8},
    "norm_capped": {"cap": 0.3},
    "base_damping": {"damping": 0.7, "energy": 0.6},
    "breadcrumbs": {"density": 0.4, "top": 0.05},
    "della": {"p": 0.4, "seed": 3},
    "random_k": {"seed": 3},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return open_pair(*write_pair(tmp_path_factory.mktemp("pair")))


def panel_of(pair, name, plan, index=None):
    weight = OpenWeight(Weight(pair[name], index), "cpu", SpectrumStore(pair.tuned.path / "store"))
    scale = compute_entry_panels(weight.decomposition, weight.delta, 0).scale
    facts = prepare_method(pair, plan, "cpu")
    return compute_method_panel(weight, plan, facts, scale), weight.delta.double(), scale


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "index"), [(EMBEDDING, None), (EXPERTS, 2)])
def test_a_panel_is_what_the_repair_writes(pair, method, name, index):
    plan = RepairPlan(method=method, method_params=SETTINGS.get(method, {}))
    panel, delta, scale = panel_of(pair, name, plan, index)
    done = repair_tensor(pair[name], plan, "cpu", facts=prepare_method(pair, plan, "cpu"))
    written = done.tensor if done.tensor is not None else read_tensor(done.source)
    both = [side.double().reshape(-1, *delta.shape)[index or 0] for side in (written, read_tensor(pair[name].base))]
    update = both[0] - both[1]
    assert panel.sparsity == pytest.approx(float((update == 0).double().mean()), abs=2e-3)
    values, removed = (torch.linalg.svdvals(part).numpy() for part in (update, delta - update))
    s = torch.linalg.svdvals(delta).numpy()
    effect = panel.effect
    assert np.sort(effect.values)[::-1] == pytest.approx(values, abs=2e-5 * s[0])
    assert effect.norm_kept == pytest.approx(float(update.norm() / delta.norm()), rel=1e-4)
    kept = values[values > 1e-4 * s[0]]
    assert effect.effective_rank == pytest.approx(effective_rank(kept), rel=1e-2)
    assert panel.peak == pytest.approx(float(update.abs().max()), rel=1e-3, abs=1e-9)
    codes = scale.encode(pooled_magnitudes(update))
    assert np.abs(panel.codes.astype(int) - codes).max() <= 2
    sigma = yardstick(s, delta.shape).sigma
    assert effect.mp_removed == pytest.approx(mp_fit(removed, sigma, delta.shape), abs=1.0)


@pytest.mark.parametrize("method", ["magnitude", "dare", "fapm", "ties"])
def test_the_subspace_kept_is_that_of_a_plain_svd(pair, method):
    plan = RepairPlan(method=method, method_params=SETTINGS[method])
    panel, delta, _ = panel_of(pair, EMBEDDING, plan)
    blocks = edited_blocks(TensorUpdate(pair[EMBEDDING], "cpu"), plan, prepare_method(pair, plan, "cpu"))
    update = torch.cat(list(blocks)).reshape(delta.shape).double()
    k = yardstick(torch.linalg.svdvals(delta).numpy(), delta.shape).leading
    (u, _, v), (a, _, b) = torch.linalg.svd(delta), torch.linalg.svd(update)
    left, right = (u[:, :k].T @ a[:, :k]).square().sum(), (v[:k] @ b[:k].T).square().sum()
    assert panel.effect.subspace == pytest.approx(float(left + right) / (2 * k), abs=1e-3)
    assert 0 < panel.effect.subspace <= 1


def test_the_spectrum_alone_says_which_directions_stay(pair):
    s = torch.linalg.svdvals(compute_delta(Weight(pair[EMBEDDING]), "cpu").double()).numpy()
    spectrum = Spectrum(s, (96, 32), {})
    assert yardstick(s, (96, 32)).leading == 3
    kept = spectral_effect(RepairPlan(), spectrum)
    assert kept.subspace == 1 and np.count_nonzero(kept.values) == 3
    rank_one = spectral_effect(RepairPlan(method="rank_r", method_params={"rank": 1}), spectrum)
    assert rank_one.subspace == pytest.approx(1 / 3)
    dropped = spectral_effect(RepairPlan(method="complement"), spectrum)
    assert dropped.subspace == 0
    matched = spectral_effect(RepairPlan(method="norm_matched"), spectrum)
    assert matched.norm_kept == pytest.approx(kept.norm_kept) and matched.subspace == 1
    tuned = spectral_effect(RepairPlan(method="wise_ft", method_params={"alpha": 1}), spectrum)
    assert tuned.mp_removed is None and tuned.norm_kept == 1


def test_nothing_is_claimed_where_the_median_measures_no_noise(tmp_path):
    base = torch.randn(64, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low = torch.outer(torch.arange(64.0), torch.arange(48.0)).double()
    sides = {"base": {"w": base}, "tuned": {"w": base + low / 2000}}
    pair = open_pair(*(write_checkpoint(tmp_path / name, tensors) for name, tensors in sides.items()))
    for method in ("dg_hard", "magnitude"):
        panel, _, _ = panel_of(pair, "w", RepairPlan(method=method))
        effect = panel.effect
        assert (effect.mp_kept, effect.mp_removed, effect.subspace) == (None, None, None)


def test_rounding_counts_as_left_at_base(tmp_path):
    """In bfloat16 a small multiple of the update mostly rounds away."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(64, 48, generator=generator).bfloat16()
    tuned = (base.float() + 0.02 * torch.randn(64, 48, generator=generator)).bfloat16()
    pair = open_pair(
        write_checkpoint(tmp_path / "base", {"w": base}), write_checkpoint(tmp_path / "tuned", {"w": tuned})
    )
    whole, _, _ = panel_of(pair, "w", RepairPlan(method="wise_ft", method_params={"alpha": 1}))
    assert whole.sparsity == pytest.approx(float((base == tuned).double().mean()))
    small = RepairPlan(method="wise_ft", method_params={"alpha": 0.1})
    panel, _, _ = panel_of(pair, "w", small)
    expected = (base.float() + 0.1 * (tuned.float() - base.float())).bfloat16() == base
    assert panel.sparsity == pytest.approx(float(expected.double().mean()))
    assert panel.sparsity > whole.sparsity + 0.1


def test_a_control_follows_the_threshold_of_its_plan(pair):
    plan = RepairPlan(rule="energy", params={"fraction": 0.5}, method="complement")
    panel, _, _ = panel_of(pair, EMBEDDING, plan)
    kept, _, _ = panel_of(pair, EMBEDDING, RepairPlan(rule="energy", params={"fraction": 0.5}))
    assert panel.effect.norm_kept**2 + kept.effect.norm_kept**2 == pytest.approx(1, abs=1e-6)


SIDES = [RepairPlan(method=name, method_params=SETTINGS.get(name, {})) for name in METHODS]
SIDES += [RepairPlan(shrinker="frobenius"), RepairPlan(keep="base"), RepairPlan(rule="energy")]


@pytest.mark.parametrize("plan", SIDES, ids=lambda plan: plan.keep or plan.label)
def test_a_side_of_a_comparison_is_the_update_and_the_rest_of_it(pair, plan):
    weight = OpenWeight(Weight(pair[EMBEDDING]), "cpu", SpectrumStore(pair.tuned.path / "store"))
    scale = compute_entry_panels(weight.decomposition, weight.delta, 0).scale
    side, _ = compute_side(weight, plan, prepare_method(pair, plan, "cpu"), scale, sigma=1e-3)
    done = repair_tensor(pair[EMBEDDING], plan, "cpu", facts=prepare_method(pair, plan, "cpu"))
    written = done.tensor if done.tensor is not None else read_tensor(done.source)
    delta, update = weight.delta.double(), written.double() - read_tensor(pair[EMBEDDING].base).double()
    for codes, part in ((side.repaired, update), (side.discarded, delta - update)):
        assert np.abs(codes.astype(int) - scale.encode(pooled_magnitudes(part))).max() <= 3
    assert side.energy == pytest.approx(float((update.norm() / delta.norm()) ** 2), rel=1e-3, abs=1e-9)
    if side.gain is None:
        assert not plan.recipe.spectral and side.rank is None and side.missing["directions"]
        return
    left, s, right = torch.linalg.svd(delta, full_matrices=False)
    along = torch.einsum("ir,ij,rj->r", left, update, right).numpy()  # D' in the singular vectors of D
    assert side.gain * s.numpy() == pytest.approx(along, abs=1e-4 * float(s[0]))
    assert (side.tau is None) == ("tau" in side.missing) and (side.rank is None) == ("rank" in side.missing)
    assert side.rank in (None, np.count_nonzero(side.gain))
