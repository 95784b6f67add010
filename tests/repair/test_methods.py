"""Repair methods: their identities, the vectors, plain numpy versions of each, seeds, kernels, stacks and ties."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dgviz.checkpoint import open_pair, read_tensor
from dgviz.checkpoint.module_path import block_depths
from dgviz.errors import MethodError, ThresholdError
from dgviz.repair.methods import METHODS, find_method
from dgviz.repair.methods.trim import find_cut, magnitude_keys, score_keys
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.repair.tensor import TensorRepairs, factor_tensor, repair_tensor, reshape_weight
from dgviz.repair.update import TensorUpdate, add_edited
from dgviz.repair.whole_model import prepare_method
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import Weight
from tests.checkpoints import planted_update, random_tensors, write_checkpoint, write_pair

VECTORS = json.loads((Path(__file__).parents[1] / "rmt" / "theory_vectors.json").read_text())["baselines"]
EXPERTS, KERNEL = "model.layers.2.mlp.experts.gate_up_proj", "model.conv.weight"
MATRIX, VECTOR = "model.embed_tokens.weight", "model.norm.weight"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return open_pair(*write_pair(tmp_path_factory.mktemp("pair")))


@pytest.fixture(scope="module")
def sides(pair):
    return [load_file(side.path / "model.safetensors") for side in (pair.base, pair.tuned)]


def plan_of(method, **params):
    return RepairPlan(method=method, method_params=params)


def repaired_values(pair, plan, names=None):
    """Every tensor of the result, computed or copied, by name."""
    facts = prepare_method(pair, plan, "cpu")
    out = {}
    for paired in pair.tensors:
        if names is None or paired.name in names:
            done = repair_tensor(paired, plan, "cpu", facts=facts)
            out[paired.name] = done.tensor if done.tensor is not None else read_tensor(done.source)
    return out


def write_one(directory, base, tuned, name="layers.0.weight"):
    """A pair that holds one tensor beside a matrix, without which nothing could be repaired."""
    ballast = {"ballast.weight": torch.ones(64, 64)}
    return open_pair(
        write_checkpoint(directory / "base", {name: base, **ballast}),
        write_checkpoint(directory / "tuned", {name: tuned, **{key: 2 * value for key, value in ballast.items()}}),
    )


def is_same(found, expected):
    return found.dtype == expected.dtype and torch.equal(found, expected)


TUNED = [
    plan_of("wise_ft", alpha=1),
    plan_of("dare", p=0),
    plan_of("ties", density=1),
    plan_of("ties_per_tensor", density=1),
    plan_of("magnitude", density=1),
    plan_of("fapm", density=1),
    plan_of("lines", alpha=1, last=1),
    RepairPlan(params={"scale": 0}),
    RepairPlan(params={"scale": 0}, method="norm_matched"),
    RepairPlan(params={"scale": 0}, method="norm_matched_global"),
    plan_of("rank_r", rank=10_000),
    plan_of("norm_capped", cap=100),
    plan_of("base_damping", damping=0),
    plan_of("breadcrumbs", density=1),
    plan_of("della", p=0),
    *(RepairPlan(params={"scale": 0}, method=name) for name in ("random_k", "bottom_k")),
]
BASE = [
    plan_of("wise_ft", alpha=0),
    plan_of("ties", density=0),
    plan_of("ties_per_tensor", density=0),
    plan_of("magnitude", density=0),
    plan_of("fapm", density=0),
    plan_of("lines", alpha=0, last=0),
    RepairPlan(params={"scale": 1000}),
    plan_of("dg_hard", alpha=0),
    RepairPlan(params={"scale": 1000}, method="norm_matched"),
    RepairPlan(params={"scale": 1000}, method="norm_matched_global"),
    RepairPlan(params={"scale": 0}, method="complement"),
    plan_of("rank_r", rank=0),
    plan_of("norm_capped", cap=0),
    plan_of("breadcrumbs", density=0),
    plan_of("flat_fro", alpha=0),
    *(RepairPlan(params={"scale": 1000}, method=name) for name in ("flat_nuclear", "random_k", "bottom_k")),
]
CHOOSING = ("dg_hard", "rank_r", "complement", "flat_fro", "flat_nuclear", "random_k", "bottom_k")


@pytest.mark.parametrize("plan", TUNED, ids=lambda plan: plan.method)
def test_one_end_of_every_method_is_tuned_bit_for_bit(pair, sides, plan):
    for name, found in repaired_values(pair, plan).items():
        assert is_same(found, sides[1][name]), name


@pytest.mark.parametrize("plan", BASE, ids=lambda plan: plan.method)
def test_the_other_end_is_base_bit_for_bit(pair, sides, plan):
    for name, found in repaired_values(pair, plan).items():
        changed = plan.changes(pair[name])
        assert is_same(found, sides[0 if changed else 1][name]), name


@pytest.mark.parametrize("method", METHODS)
def test_scope_is_what_the_registry_says(pair, sides, method):
    plan = plan_of(method)
    values = repaired_values(pair, plan)
    every = find_method(method).every_tensor
    for paired in pair.tensors:
        floating = paired.tuned.is_floating
        changed = paired.action == "repair" or (every and floating)
        assert plan.changes(paired) == changed
        if not changed:
            assert is_same(values[paired.name], sides[1][paired.name])
            continue
        report = repair_tensor(paired, plan, "cpu", facts=prepare_method(pair, plan, "cpu")).report
        assert report.method == method and report.action == "repair"
        assert ("acts on every tensor" in report.reason) == (paired.action == "keep")
        assert (report.matrices[0].rank is not None) == (method in CHOOSING)


@pytest.mark.parametrize("method", METHODS)
def test_masks_hold_for_every_method(pair, sides, method):
    masked = open_pair(pair.base.path, pair.tuned.path, include="mlp", exclude="experts")
    plan = RepairPlan(include="mlp", exclude="experts", method=method)
    for name, found in repaired_values(masked, plan).items():
        if "mlp" not in name or "experts" in name:
            assert is_same(found, sides[1][name])
        elif method not in ("lines", "norm_capped") or "layers.10" not in name:  # whose factor is 1
            assert not torch.equal(found, sides[1][name])


def test_complement_and_repaired_add_up(pair, sides):
    for plan in (RepairPlan(), RepairPlan(shrinker="frobenius", rule="mp_edge")):
        kept = repaired_values(pair, plan)
        dropped = repaired_values(pair, dataclasses.replace(plan, method="complement", method_params={}))
        for paired in pair.repairable:
            both = kept[paired.name].double() + dropped[paired.name].double()
            expected = sides[0][paired.name].double() + sides[1][paired.name].double()
            torch.testing.assert_close(both, expected, rtol=0, atol=3e-7)


def test_controls_are_as_long_as_dg_hard(pair, sides):
    def length(values, names):
        deltas = [(values[name].double() - sides[0][name].double()).flatten() for name in names]
        return float(torch.cat(deltas).norm())

    names = [paired.name for paired in pair.repairable]
    dg_hard = repaired_values(pair, RepairPlan())
    per_matrix, together = (repaired_values(pair, plan_of(f"norm_matched{end}")) for end in ("", "_global"))
    assert length(together, names) == pytest.approx(length(dg_hard, names), rel=1e-4)
    for name in names:
        assert length(per_matrix, [name]) == pytest.approx(length(dg_hard, [name]), rel=1e-4)
    # One factor for all: every update is the tuned one, shortened alike.
    ratios = [length(together, [name]) / length(sides[1], [name]) for name in names]
    assert max(ratios) - min(ratios) < 1e-4


@pytest.mark.parametrize("shrinker", SHRINKERS)
def test_shrinkers_and_scale_against_a_plain_svd(pair, sides, shrinker):
    plan = RepairPlan("mp_edge", shrinker=shrinker, method_params={"alpha": 0.7})
    base, tuned = (side[MATRIX].double() for side in sides)
    u, s, vh = torch.linalg.svd(tuned - base, full_matrices=False)
    done = repair_tensor(pair[MATRIX], plan, "cpu")
    values = s.clone()
    if shrinker != "hard":
        values = torch.from_numpy(SHRINKERS[shrinker].apply(s.numpy(), (96, 32), done.report.matrices[0].sigma))
    values[done.report.matrices[0].rank :] = 0
    torch.testing.assert_close(done.tensor.double(), base + 0.7 * (u * values) @ vh, rtol=0, atol=1e-7)
    assert done.report.matrices[0].norm_kept == pytest.approx(float(0.7 * values.norm() / s.norm()), rel=1e-4)
    ((left, right),), report = factor_tensor(pair[MATRIX], plan, "cpu")
    assert left.shape[1] == np.count_nonzero(values) == report.matrices[0].factor_rank
    torch.testing.assert_close((left @ right).double(), 0.7 * (u * values) @ vh, rtol=0, atol=1e-7)


def test_only_methods_that_keep_directions_have_factors(pair):
    (factors,), _ = factor_tensor(pair[MATRIX], plan_of("rank_r", rank=2), "cpu")
    assert [tuple(factor.shape) for factor in factors] == [(96, 2), (2, 32)]
    with pytest.raises(MethodError, match="wise_ft keeps no directions.*dg_hard, rank_r"):
        factor_tensor(pair[MATRIX], plan_of("wise_ft"), "cpu")


class TestVectors:
    """The worked examples, entry by entry."""

    W, D = (np.array(VECTORS[name]) for name in ("W", "delta"))

    def edited(self, tmp_path, plan):
        """The update a method leaves of the vectors' matrix, which is too small to be repaired as one."""
        w = torch.tensor(self.W)
        pair = write_one(tmp_path, w, w + torch.tensor(self.D))
        update = TensorUpdate(pair["layers.0.weight"], "cpu")
        summed, _ = add_edited(update, plan, "float64")
        return (summed.tensor.reshape(w.shape) - w).numpy()

    def test_fapm(self, tmp_path):
        expected = VECTORS["fapm_keep50_delta"]
        np.testing.assert_allclose(self.edited(tmp_path, plan_of("fapm", density=0.5)), expected, atol=1e-12)

    def test_magnitude(self, tmp_path):
        expected = VECTORS["magnitude_keep50_delta(<=kth removed, MergeLM)"]
        np.testing.assert_allclose(self.edited(tmp_path, plan_of("magnitude", density=0.5)), expected, atol=1e-12)

    def test_wise_ft(self, tmp_path):
        found = self.edited(tmp_path, plan_of("wise_ft", alpha=0.4)) + self.W
        np.testing.assert_allclose(found, VECTORS["wise_alpha_0.4"], atol=1e-12)


def flat_deltas(sides, names):
    return {name: (sides[1][name] - sides[0][name]).flatten() for name in names}


def test_ties_over_the_model_is_the_published_cut(pair, sides):
    names = [paired.name for paired in pair.repairable]
    deltas = flat_deltas(sides, names)
    everything = torch.cat(list(deltas.values())).abs()
    n = everything.numel()
    cut = everything.kthvalue(n - int(n * 0.2)).values
    found = repaired_values(pair, plan_of("ties", density=0.2, scale=1.5))
    for name in names:
        delta = deltas[name]
        expected = sides[0][name].flatten() + torch.where(delta.abs() >= cut, 1.5 * delta, 0.0)
        torch.testing.assert_close(found[name].flatten(), expected, rtol=0, atol=1e-8)


def test_ties_and_fapm_per_tensor_keep_exactly_so_many(pair, sides):
    for method, density in (("ties_per_tensor", 0.2), ("fapm", 0.1)):
        found = repaired_values(pair, plan_of(method, density=density), (MATRIX, EXPERTS, KERNEL))
        for name, values in found.items():
            assert int((values != sides[0][name]).sum()) == int(values.numel() * density), (method, name)
            changed = values != sides[0][name]
            assert torch.equal(values[changed], sides[1][name][changed])  # tuned's own values, to the bit


def test_equal_magnitudes_are_trimmed_as_published(tmp_path):
    """All entries equal: TIES keeps them all, MergeLM's pruning none, the per-tensor trims the first so many."""
    base = torch.zeros(40, 40)
    pair = write_one(tmp_path, base, base + 0.5)
    name = "layers.0.weight"
    kept = {
        method: int((repaired_values(pair, plan_of(method, density=0.25), [name])[name] != 0).sum())
        for method in ("magnitude", "ties_per_tensor")
    }
    assert kept == {"magnitude": 0, "ties_per_tensor": 400}
    first = repaired_values(pair, plan_of("ties_per_tensor", density=0.25), [name])[name].flatten()
    assert bool((first[:400] != 0).all())
    only = open_pair(pair.base.path, pair.tuned.path, include="layers")
    plan = RepairPlan(include="layers", method="ties", method_params={"density": 0.25})
    assert bool((repaired_values(only, plan, [name])[name] != 0).all())


def test_equal_magnitudes_across_blocks(tmp_path, monkeypatch):
    base = torch.zeros(40, 40)
    pair = write_one(tmp_path, base, base + 0.5)
    name = "layers.0.weight"
    methods = ("ties_per_tensor", "dare", "fapm", "della", "breadcrumbs")
    whole = {m: repaired_values(pair, plan_of(m), [name])[name] for m in methods}
    monkeypatch.setattr("dgviz.repair.rounding.BLOCK_ELEMENTS", 128)
    for method, expected in whole.items():
        assert torch.equal(repaired_values(pair, plan_of(method), [name])[name], expected), method


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("alpha", [0.3, 1 + 2**-30, 1e-60, 1.5])
def test_scaling_keeps_what_is_equal_bit_for_bit(tmp_path, dtype, zero, alpha):
    """Entry by entry: tuned's own value where the update stays as it was, base's where nothing of it is left."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(30, 40, generator=generator).to(dtype)
    tuned = (0.7 * base + torch.randn(30, 40, generator=generator)).to(dtype)
    base[0, :4] = torch.tensor([zero, 0.0, zero, torch.inf])
    tuned[0, :4] = torch.tensor([zero, zero, 1.0, torch.inf])
    tuned[1] = base[1]
    pair = write_one(tmp_path, base, tuned)
    found = repaired_values(pair, plan_of("wise_ft", alpha=alpha), ["layers.0.weight"])["layers.0.weight"]
    work = torch.float64 if dtype == torch.float64 else torch.float32
    delta = torch.where(base == tuned, 0.0, tuned.to(work) - base.to(work))
    edited = delta * alpha
    added = torch.where(edited == 0, base.to(work), base.to(work) + edited)
    expected = torch.where(edited == delta, tuned.to(work), added).to(dtype)
    assert torch.equal(found, expected) and torch.equal(found.signbit(), expected.signbit())


def test_fapm_where_base_is_zero(tmp_path):
    generator = torch.Generator().manual_seed(0)
    update = torch.randn(40, 40, generator=generator)
    name = "layers.0.weight"
    nothing = write_one(tmp_path / "nothing", torch.zeros(40, 40), update)
    found = repaired_values(nothing, plan_of("fapm"), [name])[name]
    assert torch.equal(found, torch.where(update.abs() >= update.abs().flatten().topk(160).values[-1], update, 0.0))
    base = torch.ones(40, 40)
    base[0] = 0
    half = write_one(tmp_path / "half", base, base + update)
    found = repaired_values(half, plan_of("fapm", density=0.9), [name])[name]
    assert torch.equal(found[0], base[0])  # changing these would be the worst there is
    assert bool(torch.isfinite(found).all())


SPECTRAL = ("flat_fro", "flat_nuclear", "random_k", "bottom_k")


def plain_svd(sides, name):
    """The update of a tensor and its factorisation, in float64."""
    base, tuned = (side[name].double().reshape(-1, *side[name].shape[-2:]).numpy() for side in sides)
    return tuned - base, np.linalg.svd(tuned - base, full_matrices=False)


@pytest.mark.parametrize("shrinker", ["hard", "nuclear"])
def test_flattening_against_a_plain_svd(pair, sides, shrinker):
    delta, (u, s, vh) = plain_svd(sides, EXPERTS)
    plans = {
        "flat_fro": lambda kept: np.sqrt(np.mean(kept**2)),
        "flat_nuclear": lambda kept: np.mean(kept),
    }
    for method, level in plans.items():
        plan = RepairPlan("mp_edge", method=method, shrinker=shrinker, method_params={"alpha": 0.8})
        done = repair_tensor(pair[EXPERTS], plan, "cpu")
        for matrix, figures in enumerate(done.report.matrices):
            kept = s[matrix][s[matrix] > figures.tau]
            if shrinker != "hard":
                kept = SHRINKERS[shrinker].apply(kept, delta[matrix].shape, figures.sigma)
            kept = kept[kept > 0]
            assert figures.rank == kept.size > 1
            expected = 0.8 * level(kept) * u[matrix][:, : kept.size] @ vh[matrix][: kept.size]
            found = done.tensor[matrix].double().numpy() - sides[0][EXPERTS][matrix].double().numpy()
            np.testing.assert_allclose(found, expected, atol=1e-7)


def test_flattening_a_merged_adapter_takes_all_its_directions(tmp_path):
    """DG-Hard is the identity there, and so are the controls of its rank."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(80, 48, generator=generator) / 50
    left, right = torch.randn(80, 4, generator=generator), torch.randn(4, 48, generator=generator)
    pair = write_one(tmp_path, base, base + (left * torch.tensor([1.0, 2.0, 4.0, 8.0])) @ right / 2000)
    name = "layers.0.weight"
    _, (u, s, vh) = plain_svd([load_file(side.path / "model.safetensors") for side in (pair.base, pair.tuned)], name)
    for method, level in (("flat_fro", np.linalg.norm(s[0, :4]) / 2), ("flat_nuclear", s[0, :4].mean())):
        done = repair_tensor(pair[name], plan_of(method), "cpu")
        assert done.report.matrices[0].rank == 4
        found = done.tensor.double().numpy() - base.double().numpy()
        np.testing.assert_allclose(found, level * u[0, :, :4] @ vh[0, :4], atol=3e-7)
        ((factors,), _) = factor_tensor(pair[name], plan_of(method), "cpu")
        assert factors[0].shape == (80, 4)
    for method in ("dg_hard", "random_k", "bottom_k"):
        assert repair_tensor(pair[name], plan_of(method), "cpu").report.written == "tuned bytes"


@pytest.mark.parametrize("method", ["random_k", "bottom_k"])
def test_controls_of_the_same_rank_keep_directions_as_they_are(pair, sides, method):
    _, (u, s, vh) = plain_svd(sides, EXPERTS)
    done = repair_tensor(pair[EXPERTS], RepairPlan(method=method), "cpu")
    factors, _ = factor_tensor(pair[EXPERTS], RepairPlan(method=method), "cpu")
    kept = repair_tensor(pair[EXPERTS], RepairPlan(), "cpu").report.matrices
    for matrix, figures in enumerate(done.report.matrices):
        update = done.tensor[matrix].double().numpy() - sides[0][EXPERTS][matrix].double().numpy()
        along = np.einsum("ir,ij,rj->r", u[matrix], update, vh[matrix])
        places = np.flatnonzero(along > 1e-5)
        assert places.size == figures.rank == kept[matrix].rank > 0
        if method == "bottom_k":
            assert list(places) == list(range(32 - places.size, 32))
        np.testing.assert_allclose(update, (u[matrix][:, places] * s[matrix][places]) @ vh[matrix][places], atol=2e-7)
        np.testing.assert_allclose((factors[matrix][0] @ factors[matrix][1]).numpy(), update, atol=2e-7)


def test_random_directions_depend_on_seed_and_name_only(pair):
    def picked(seed, name=MATRIX, scale=1.0):
        plan = RepairPlan(method="random_k", method_params={"seed": seed}, params={"scale": scale})
        reshaped = reshape_weight(OpenWeight(Weight(pair[name]), "cpu"), plan)
        return set(np.flatnonzero(reshaped.values))

    assert picked(1) == picked(1) and len({frozenset(picked(seed)) for seed in range(8)}) > 4
    assert picked(1, scale=0.7) > picked(1)
    assert len({frozenset(picked(seed, "model.layers.2.mlp.up.weight")) ^ picked(seed) for seed in range(4)}) > 1


def test_single_directions_are_decided_after_the_choice(pair):
    """What is named alone is kept or dropped itself, and flattened with the others."""
    weight = OpenWeight(Weight(pair[MATRIX]), "cpu")
    for method in SPECTRAL:
        plain = reshape_weight(weight, RepairPlan(method=method)).values
        first, last = np.flatnonzero(plain)[[0, -1]]
        other = int(np.flatnonzero(plain == 0)[0])
        own = RepairPlan(method=method, keep_directions=str(other + 1), drop_directions=str(first + 1))
        found = reshape_weight(weight, own)
        assert found.values[first] == 0 < found.values[other] and found.rank == np.count_nonzero(plain)
        if method.startswith("flat"):
            assert found.values[other] == found.values[last]


def test_norm_capped_against_plain_norms(pair, sides):
    names = [paired.name for paired in pair.repairable]
    base = {name: sides[0][name].double().norm() for name in names}
    delta = {name: (sides[1][name].double() - sides[0][name].double()).norm() for name in names}
    whole = math.hypot(*delta.values()) / math.hypot(*base.values())
    found = repaired_values(pair, plan_of("norm_capped", cap=0.2))
    factors = {name: min(1.0, 0.2 * whole / float(delta[name] / base[name])) for name in names}
    assert len(set(factors.values())) > 2
    for name, factor in factors.items():
        expected = sides[0][name] + factor * (sides[1][name] - sides[0][name])
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("block", [2**20, 100])
def test_damping_against_a_plain_svd(pair, sides, monkeypatch, block):
    monkeypatch.setattr("dgviz.repair.rounding.BLOCK_ELEMENTS", block)
    found = repaired_values(pair, plan_of("base_damping", damping=0.7, energy=0.6), (MATRIX, EXPERTS, KERNEL))
    for name, values in found.items():
        columns = pair[name].layout.cols
        rows = pair[name].layout.rows
        base, tuned = (side[name].double().reshape(-1, rows, columns).numpy() for side in sides)
        for matrix, own in enumerate(values.double().reshape(-1, rows, columns).numpy()):
            _, s, vh = np.linalg.svd(base[matrix], full_matrices=False)
            k = int(np.argmax(np.cumsum(s**2) >= 0.6 * np.sum(s**2))) + 1
            assert 1 < k < s.size
            delta = tuned[matrix] - base[matrix]
            expected = delta @ (np.eye(columns) - 0.7 * vh[:k].T @ vh[:k])
            np.testing.assert_allclose(own - base[matrix], expected, atol=1e-7)


def test_damping_all_that_base_uses_leaves_base(tmp_path):
    base = torch.randn(60, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair = write_one(tmp_path, base, base + 0.1)
    found = repaired_values(pair, plan_of("base_damping", damping=1, energy=1), ["layers.0.weight"])
    torch.testing.assert_close(found["layers.0.weight"], base, rtol=0, atol=1e-10)


def test_breadcrumbs_keep_the_middle(pair, sides):
    found = repaired_values(pair, plan_of("breadcrumbs", density=0.3, top=0.05, scale=1.5), (MATRIX, EXPERTS, KERNEL))
    for name, values in found.items():
        delta = (sides[1][name] - sides[0][name]).flatten()
        n = delta.numel()
        ranked = delta.abs().argsort(descending=True)[int(0.05 * n) : int(0.05 * n) + int(0.3 * n)]
        expected = sides[0][name].flatten().clone()
        expected[ranked] += 1.5 * delta[ranked]
        torch.testing.assert_close(values.flatten(), expected, rtol=0, atol=1e-8)
    whole = repaired_values(pair, plan_of("breadcrumbs", density=0.97, top=0.5), [MATRIX])[MATRIX]
    assert int((whole != sides[0][MATRIX]).sum()) == int(0.97 * whole.numel())  # what is asked for stays


class TestDella:
    def test_against_plain_numpy(self, pair, sides):
        p, window = 0.4, 0.3
        found = repaired_values(pair, plan_of("della", p=p, window=window, seed=3), (MATRIX, EXPERTS, KERNEL))
        for name, values in found.items():
            base, tuned = (side[name].numpy().reshape(-1, pair[name].layout.cols) for side in sides)
            delta, n = (tuned - base).astype(np.float64), base.shape[1]
            ranks = np.abs(delta).argsort(axis=1, kind="stable").argsort(axis=1)
            keep = 1 - p - window / 2 + window * ranks / (n - 1)
            key = hashlib.sha256(f"3\n{name}".encode()).digest()[:16]
            bits = np.random.Philox(key=int.from_bytes(key, "little"))
            drawn = bits.random_raw(delta.size // 2).view(np.uint32).reshape(delta.shape) / 2**32
            expected = base + np.where(drawn < keep, delta / keep, 0.0)
            np.testing.assert_allclose(values.numpy().reshape(base.shape), expected, atol=1e-8)

    def test_small_entries_go_more_often_and_the_mean_stays(self, tmp_path):
        base = torch.zeros(400, 50)
        pair = write_one(tmp_path, base, base + torch.arange(1, 51.0))
        found = repaired_values(pair, plan_of("della", p=0.5, window=0.8), ["layers.0.weight"])["layers.0.weight"]
        gone = (found == 0).double().mean(dim=0).numpy()
        expected = 0.9 - 0.8 * np.arange(50) / 49
        assert np.abs(gone - expected).max() < 5 * math.sqrt(0.25 / 400)
        ratio = found.double().mean(dim=0).numpy() / np.arange(1, 51)
        spread = np.sqrt(expected / (1 - expected) / 400)
        assert np.all(np.abs(ratio - 1) < 5 * spread)


class TestDare:
    def test_share_scale_and_mean(self, pair, sides):
        found = repaired_values(pair, plan_of("dare", p=0.75), (MATRIX, EXPERTS, KERNEL))
        for name, values in found.items():
            moved = values.double() - sides[0][name].double()
            share = float((moved != 0).double().mean())
            assert share == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / moved.numel()))
            delta = sides[1][name].double() - sides[0][name].double()
            torch.testing.assert_close(moved[moved != 0], 4 * delta[moved != 0], rtol=1e-4, atol=1e-8)

    def test_the_mask_depends_on_seed_and_name_only(self, pair, sides, tmp_path):
        first, again, other = (
            repaired_values(pair, plan_of("dare", seed=seed), [MATRIX])[MATRIX] for seed in (1, 1, 2)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)
        sharded = [
            write_checkpoint(tmp_path / f"{side}", dict(reversed(values.items())), shards=4)
            for side, values in enumerate(sides)
        ]
        elsewhere = repaired_values(open_pair(*sharded), plan_of("dare", seed=1), [MATRIX])[MATRIX]
        assert torch.equal(first, elsewhere)

    def test_the_stream_is_pinned(self, tmp_path):
        """The same checkpoint comes out on every machine and in every later version."""
        base = torch.zeros(40, 40)
        pair = write_one(tmp_path, base, base + 1)
        found = repaired_values(pair, plan_of("dare", p=0.5), ["layers.0.weight"])["layers.0.weight"]
        assert (found.flatten()[:16] != 0).int().tolist() == PINNED


PINNED = [0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1]


def test_lines_scales_by_depth(pair, sides):
    found = repaired_values(pair, plan_of("lines", alpha=0.25))
    for name, factor in ((MATRIX, 0.25), ("model.layers.2.mlp.up.weight", 0.4), ("model.layers.10.mlp.up.weight", 1)):
        expected = sides[0][name] + factor * (sides[1][name] - sides[0][name])
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-8)


def test_depths_of_two_stacks_and_one_block():
    depths = block_depths(["enc.layers.0.w", "enc.layers.4.w", "dec.layers.0.w", "one.0.w", "lm_head.w", "wte.w"])
    assert depths == {
        "enc.layers.0.w": 0, "enc.layers.4.w": 1, "dec.layers.0.w": 1, "one.0.w": 1, "lm_head.w": 1, "wte.w": 0,
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_an_unchanged_tensor_stays_as_it_is(tmp_path, method):
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(40, 40, generator=generator)
    same[0, 0] = math.inf  # as in a mask
    pair = write_one(tmp_path, same, same.clone())
    found = repaired_values(pair, plan_of(method), ["layers.0.weight"])
    assert torch.equal(found["layers.0.weight"], same)


@pytest.mark.parametrize("method", ["wise_ft", "dare", "ties_per_tensor", "fapm"])
def test_an_infinite_update_is_named(tmp_path, method):
    base = torch.ones(40, 40)
    tuned = base + 1
    tuned[3, 3] = math.nan
    pair = write_one(tmp_path, base, tuned)
    with pytest.raises(
        MethodError, match=r"layers\.0\.weight: the update holds a value that is not finite.*--exclude"
    ):
        repaired_values(pair, plan_of(method), ["layers.0.weight"])


def test_several_plans_share_one_decomposition(pair, monkeypatch):
    calls = []
    from dgviz.spectra import open_weight

    decompose = open_weight.decompose
    counted = lambda *args, **kwargs: calls.append(1) or decompose(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(open_weight, "decompose", counted)
    plans = [
        RepairPlan(), plan_of("wise_ft"), plan_of("complement"), RepairPlan("mp_edge", shrinker="nuclear"),
        plan_of("norm_matched"), plan_of("rank_r", rank=3), plan_of("ties_per_tensor"),
    ]  # fmt: skip
    for name, decompositions in ((MATRIX, 1), (EXPERTS, 4), (VECTOR, 0)):
        calls.clear()
        shared = TensorRepairs(pair[name], [(plan, prepare_method(pair, plan, "cpu")) for plan in plans], "cpu")
        together = [shared.repair(number) for number in range(len(plans))]
        assert len(calls) == decompositions
        for done, plan in zip(together, plans, strict=True):
            alone = repair_tensor(pair[name], plan, "cpu", facts=prepare_method(pair, plan, "cpu"))
            assert (done.tensor is None) == (alone.tensor is None)
            assert done.tensor is None or torch.equal(done.tensor, alone.tensor)


def test_bfloat16_output_of_every_method_is_rounded_once(tmp_path):
    tensors = random_tensors(dtype=torch.bfloat16)
    base = write_checkpoint(tmp_path / "base", tensors)
    pair = open_pair(base, write_checkpoint(tmp_path / "tuned", planted_update(tensors, noise=1e-2)))
    for method in METHODS:
        found = repaired_values(pair, plan_of(method), [MATRIX])[MATRIX]
        exact = repaired_values(pair, RepairPlan(method=method, dtype="float32"), [MATRIX])[MATRIX]
        assert found.dtype == torch.bfloat16 and torch.equal(found, exact.to(torch.bfloat16)), method


def test_a_plan_survives_json_and_an_old_one_still_loads():
    plan = RepairPlan("mp_edge", {"scale": 2}, shrinker="frobenius", method="dg_hard", method_params={"alpha": 0.5})
    assert RepairPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    old = {"rule": "dg_hard", "params": {}, "include": None, "exclude": None, "dtype": "auto", "method": "dg_hard"}
    assert RepairPlan.from_json(old) == RepairPlan()


def test_labels_name_what_is_not_usual_and_are_read_back():
    for plan, label in (
        (RepairPlan(), "dg_hard"),
        (plan_of("ties", density=0.5), "ties:density=0.5"),
        (RepairPlan("manual", {"tau": math.inf}, shrinker="nuclear"), "dg_hard:rule=manual:tau=inf:shrinker=nuclear"),
        (RepairPlan("energy", {"fraction": 0.8}, method="complement"), "complement:rule=energy:fraction=0.8"),
    ):
        assert plan.label == label and read_plan(label) == plan
    with pytest.raises(MethodError, match="NAME=VALUE with colons between; got 'half' in 'wise_ft:half'"):
        read_plan("wise_ft:half")
    with pytest.raises(MethodError, match="'wise_ft' has no parameter 'rule'; it takes alpha"):
        read_plan("wise_ft:rule=mp_edge")
    with pytest.raises(ThresholdError, match="'dg_hard' has no parameter 'p'"):
        read_plan("dg_hard:p=1")


def test_wrong_methods_and_parameters_are_named():
    with pytest.raises(MethodError, match="no repair method 'soup'; there are dg_hard, rank_r"):
        RepairPlan(method="soup")
    with pytest.raises(MethodError, match="method 'dare' has no parameter 'q'; it takes p, seed"):
        plan_of("dare", q=1)
    with pytest.raises(MethodError, match=r"'p' of method 'dare' must lie in \[0, 0.999\]; got 1"):
        plan_of("dare", p=1)
    with pytest.raises(ThresholdError, match="no shrinker 'soft'"):
        RepairPlan(shrinker="soft")


@pytest.mark.parametrize("method", ["ties", "lines", "norm_matched_global"])
def test_a_method_without_its_facts_says_so(pair, method):
    with pytest.raises(MethodError, match="from the whole model"):
        repair_tensor(pair[MATRIX], plan_of(method), "cpu")


class TestCut:
    def test_against_sorting(self):
        generator = torch.Generator().manual_seed(4)
        values = torch.cat([torch.randn(999, generator=generator), torch.zeros(40), torch.full((60,), 0.25)])
        for keys, order in ((magnitude_keys, values.abs()), (score_keys, values)):
            ranked = order.sort().values
            for place in (1, 30, 500, 700, order.numel()):
                cut = find_cut(lambda keys=keys: (keys(part) for part in values.split(100)), place)
                assert cut.key == int(keys(ranked[place - 1 : place])), place
                assert cut.above == int((order > ranked[place - 1]).sum())
                assert cut.equal == int((order == ranked[place - 1]).sum())

    def test_keys_are_ordered_as_the_values(self):
        values = torch.tensor([-math.inf, -2.0, -1e-40, -0.0, 0.0, 1e-40, 3.0, math.inf])
        keys = score_keys(values)
        assert keys.min() > -(2**31) and keys.max() < 2**31 - 1
        assert bool((keys.diff() >= 0).all()) and int((keys.diff() == 0).sum()) == 1  # the two zeros are one

    def test_a_place_outside_is_refused(self):
        with pytest.raises(ValueError, match="place 4 lies outside the 3 keys"):
            find_cut(lambda: iter([torch.arange(3, dtype=torch.int32)]), 4)


def test_every_method_describes_itself():
    for name, method in METHODS.items():
        assert name == method.name and method.title and method.formula and method.citation and method.scope
        names = [parameter.name for parameter in method.parameters]
        for strength in method.strengths:
            assert strength.parameter in names or (method.thresholded and strength.parameter == "scale")
            for point in strength.points:
                plan = read_plan(f"{name}:{strength.parameter}={point}")
                assert read_plan(plan.label) == plan
    assert [name for name, method in METHODS.items() if method.seeded] == ["dare", "della", "random_k"]
