"""Rules side by side over a model: every figure against a plain recomputation from the singular values."""

import json

import numpy as np
import pytest

from dgviz.analysis.model_spectra import read_spectra
from dgviz.analysis.rules import (
    MULTIPLIERS,
    compare_cuts,
    cut_model,
    read_rule,
    rule_label,
    scaled_plan,
    sum_up,
    trace_tau,
)
from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import DgvizError, ThresholdError
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.law import mp_fit
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.threshold import RULES
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.scan import scan_weights
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.checkpoints import random_tensors, write_checkpoint, write_pair

TEXTS = "dg_hard", "reference", "mp_edge", "energy:fraction=0.8", "fixed_rank:rank=3", "mp_edge:shrinker=frobenius"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), shards=2, config={"model_type": "synthetic"})


def scan(paths, store, leave=()):
    """Store every spectrum but those to leave, and return what is stored."""
    pair = open_pair(*paths)
    for weight in weights_of(pair):
        if (weight.tensor.name, weight.index) not in leave:
            OpenWeight(weight, "cpu", store).spectrum()
    return read_spectra(pair, store)


@pytest.fixture(scope="module")
def matrices(paths, tmp_path_factory):
    return scan(paths, SpectrumStore(tmp_path_factory.mktemp("store"))).weights


@pytest.mark.parametrize("text", ["dg_hard", "mp_edge:scale=1.1", "energy:fraction=0.8", "fixed_rank:rank=3"])
def test_totals_of_a_rule_are_sums_over_its_matrices(matrices, text):
    plan = read_rule(text)
    found = sum_up(cut_model(matrices, plan))
    thresholds = [
        RULES[plan.rule].apply(m.spectrum.nonzero_s, m.spectrum.nonzero_shape, **plan.params) for m in matrices
    ]
    sizes = [m.spectrum.shape[0] * m.spectrum.shape[1] for m in matrices]
    ranks = [t.rank for t in thresholds]
    kept = sum(r * (m.spectrum.shape[0] + m.spectrum.shape[1]) for r, m in zip(ranks, matrices, strict=True))
    energies = [np.sum(m.spectrum.s[:r] ** 2) for r, m in zip(ranks, matrices, strict=True)]
    fits = [
        mp_fit(np.where(m.spectrum.nonzero_s > t.tau, 0.0, m.spectrum.nonzero_s), t.sigma, m.spectrum.nonzero_shape)
        for t, m in zip(thresholds, matrices, strict=True)
    ]
    assert (found.label, found.rank, found.kept_parameters, found.parameters) == (text, sum(ranks), kept, sum(sizes))
    assert found.kept_share == kept / sum(sizes)
    assert found.energy_kept == pytest.approx(sum(energies) / sum(np.sum(m.spectrum.s**2) for m in matrices))
    assert found.residual_fit == pytest.approx(np.average(fits, weights=sizes)) and found.residual_matrices == 9
    shares = [r / m.spectrum.s.size for r, m in zip(ranks, matrices, strict=True)]
    assert found.rank_share == pytest.approx(
        dict(zip(found.rank_share, np.percentile(shares, [0, 5, 25, 50, 75, 95, 100]), strict=True))
    )
    assert found.lowest == matrices[int(np.argmin(shares))].weight.name
    assert found.emptied == sum(r == 0 for r in ranks)


@pytest.mark.parametrize("rule", ["dg_hard", "mp_edge"])
@pytest.mark.parametrize("shrinker", [name for name in SHRINKERS if name != "hard"])
def test_shrunk_values_are_those_of_the_repair(matrices, rule, shrinker):
    plan = RepairPlan(rule, shrinker=shrinker)
    cut = cut_model(matrices, plan)
    for i, matrix in enumerate(matrices):
        repaired = plan.recipe.reshape(plan, matrix.spectrum)
        assert cut.rows[i].rank == np.count_nonzero(repaired.values)
        assert cut.rows[i].energy_kept == pytest.approx(repaired.norm_kept**2)
    assert sum_up(cut).energy_kept < sum_up(cut_model(matrices, RepairPlan(rule))).energy_kept


def test_rules_that_decide_alike_agree(matrices):
    cuts = [cut_model(matrices, read_rule(text)) for text in TEXTS]
    found = compare_cuts(cuts)
    directions = [np.arange(m.spectrum.s.size) for m in matrices]
    for i, one in enumerate(cuts):
        for j, other in enumerate(cuts):
            ranks = [[row.rank for row in cut.rows] for cut in (one, other)]
            alike = [(at < a) == (at < b) for at, a, b in zip(directions, *ranks, strict=True)]
            assert found.directions[i, j] == pytest.approx(np.concatenate(alike).mean())
            assert found.same_rank[i, j] == np.mean([part.all() for part in alike])
    assert np.all(np.diag(found.directions) == 1) and np.all(found.directions <= 1)
    assert 0 < found.directions.min() < 1


@pytest.mark.parametrize("text", ["dg_hard", "reference", "manual:tau=0.05", "dg_hard:shrinker=nuclear"])
def test_the_curve_over_tau_is_the_rule_at_every_multiplier(matrices, text):
    plan = read_rule(text)
    curve = trace_tau(cut_model(matrices, plan))
    assert MULTIPLIERS[[0, 32, 64]].tolist() == [0.25, 1, 4]
    for at in range(0, 65, 8):
        there = sum_up(cut_model(matrices, scaled_plan(plan, MULTIPLIERS[at])))
        assert (curve.rank[at], curve.kept_parameters[at]) == (there.rank, there.kept_parameters)
        assert curve.energy_kept[at] == pytest.approx(there.energy_kept)
    assert np.all(np.diff(curve.rank) <= 0)
    assert curve.rank[0] > curve.rank[-1] or plan.shrinker != "hard"
    assert curve.parameters == sum(matrix.weight.parameters for matrix in matrices)


def test_a_rule_without_a_multiplier_has_no_curve(matrices):
    assert trace_tau(cut_model(matrices, read_rule("energy"))) is None
    assert scaled_plan(read_rule("fixed_rank"), 2.0) is None


def test_a_rule_that_needs_the_weights_takes_what_a_scan_stored_or_is_refused(paths, matrices, tmp_path):
    plan = read_rule("flip_pa:trials=2")
    with pytest.raises(
        ThresholdError,
        match=r"9 of 9 matrices, such as .*; first run: .* scan BASE TUNED --rule flip_pa --rule-param trials=2$",
    ):
        cut_model(matrices, plan)
    store = SpectrumStore(tmp_path / "store")
    pair = open_pair(*paths)
    rows = [
        scan_weights([weight], [(plan.rule, plan.params)], "cpu", 1, store.root)[0] for weight in weights_of(pair)
    ]
    known = read_spectra(pair, store).weights
    cut = cut_model(known, plan)
    assert [row.rank for row in cut.rows] == [row["rank"] for row in rows] and sum_up(cut).rank > 9
    doubled = [int(np.sum(m.spectrum.s > 2 * row["tau"])) for m, row in zip(known, rows, strict=True)]
    assert trace_tau(cut).rank[48] == sum(doubled)


def test_updates_of_low_rank_and_of_zero(tmp_path):
    tensors = random_tensors()
    tuned = {name: tensor + (0 if "layers.2" in name else 1e-3) for name, tensor in tensors.items()}
    paths = write_checkpoint(tmp_path / "base", tensors), write_checkpoint(tmp_path / "tuned", tuned)
    matrices = scan(paths, SpectrumStore(tmp_path / "store")).weights
    for text in ("dg_hard", "mp_edge:shrinker=frobenius"):
        cut = cut_model(matrices, read_rule(text))
        found, curve = sum_up(cut), trace_tau(cut)
        assert found.residual_fit is None and found.residual_matrices == 0
        assert found.energy_kept == pytest.approx(1) and found.emptied == 0
        assert curve.rank.tolist() == [found.rank] * 65  # rounding is no direction at any multiplier
    zero = [m for m in matrices if m.spectrum.energy == 0]
    assert zero and sum_up(cut_model(zero, read_rule("dg_hard"))).energy_kept == 1
    assert trace_tau(cut_model(zero, read_rule("dg_hard"))).energy_kept.tolist() == [1.0] * 65


def test_rules_as_text():
    for text in TEXTS:
        assert rule_label(read_rule(text)) == text
    assert read_rule("energy:fraction=0.8").rule_title == "Energy fraction, fraction 0.8"
    assert read_rule("mp_edge:shrinker=frobenius").rule_title == "Marchenko-Pastur edge, frobenius shrinker"
    assert RepairPlan(method="wise_ft").title == "WiSE-FT, alpha 0.5"  # its strength, though that is the default
    assert RepairPlan(rule="mp_edge", method_params={"alpha": 0.7}).title == "Marchenko-Pastur edge, alpha 0.7"
    for text, message in {
        "none": "no threshold rule 'none'",
        "dg_hard:alpha=0.5": "parameter of a method",
        "energy:fraction=2": r"must lie in \[0, 1\]",
        "manual": "needs 'tau'",
        "mp_edge:shrinker=none": "no shrinker 'none'",
    }.items():
        with pytest.raises(DgvizError, match=message):
            read_rule(text)
    with pytest.raises(ThresholdError, match="no parameter 'rank'"):
        read_rule("dg_hard:rank=4")


def test_the_command_prints_the_comparison(capsys, paths, tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path))
    arguments = ["thresholds", *map(str, paths), "--rules", "dg_hard,energy:fraction=0.8"]
    assert main([*arguments, "--json"]) == 1
    nothing = capsys.readouterr()
    assert json.loads(nothing.out)["rules"] == [] and len(json.loads(nothing.out)["missing"]) == 9
    assert (
        "no spectrum of 9 of 9 matrices is stored" in nothing.err
        and "first run: python -m dgviz scan " in nothing.err
    )
    left = ("model.layers.2.mlp.experts.gate_up_proj", 2)
    scan(paths, SpectrumStore(), leave={left})
    assert main([*arguments, "--json"]) == 1
    partly = capsys.readouterr()
    assert json.loads(partly.out)["missing"] == ["model.layers.2.mlp.experts.gate_up_proj[2]"]
    assert json.loads(partly.out)["rules"][0]["matrices"] == 8
    matrices = scan(paths, SpectrumStore()).weights
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rules"] == [vars(sum_up(cut_model(matrices, read_rule(t)))) for t in arguments[-1].split(",")]
    assert found["agreement"]["labels"] == arguments[-1].split(",") and found["missing"] == []
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{found['rules'][0]['kept_parameters']:,} ") and lines[1].endswith(" dg_hard")
    assert lines[-1].endswith("dg_hard and energy:fraction=0.8")
    assert main([*arguments[:-1], "none"]) == 2
    assert "no threshold rule 'none'" in capsys.readouterr().err
