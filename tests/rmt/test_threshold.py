"""Threshold rules against worked examples, planted spikes and their own promises."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dgviz.errors import ThresholdError
from dgviz.rmt.threshold import RULES, find_rule
from dgviz.rmt.threshold.screenot import screenot_exceeds, screenot_tau

VECTORS = json.loads((Path(__file__).parent / "theory_vectors.json").read_text())
spectra = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=40)


@pytest.mark.parametrize("example", VECTORS["threshold_examples"], ids=lambda example: example["name"])
def test_worked_examples(example):
    for result in example["results"]:
        rule = {"mean": "dg_hard", "lower": "reference"}[result["median_rule"]]
        found = RULES[rule].apply(example["s"], (example["m"], example["n"]))
        assert found.tau == pytest.approx(float(result["tau"]), abs=1e-9)
        for name in ("sigma", "edge"):
            if name in result:
                assert getattr(found, name) == pytest.approx(float(result[name]), abs=1e-9)
        assert found.rank == result["kept"]


@pytest.mark.parametrize("shape", [(400, 300), (200, 800), (300, 300)])
def test_planted_rank_and_sigma_are_recovered(shape):
    rng = np.random.default_rng(7)
    sigma, spikes = 0.02, 5
    noise = sigma * rng.standard_normal(shape)
    left = np.linalg.qr(rng.standard_normal((shape[0], spikes)))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], spikes)))[0]
    edge = sigma * (math.sqrt(shape[0]) + math.sqrt(shape[1]))
    delta = noise + (left * np.linspace(2, 10, spikes) * edge) @ right.T
    found = RULES["dg_hard"].apply(np.linalg.svd(delta, compute_uv=False), shape)
    assert found.rank == spikes
    assert found.sigma == pytest.approx(sigma, rel=0.03)
    assert found.edge == pytest.approx(edge, rel=0.03)
    assert found.edge < found.tau
    assert found.warnings == () and not found.degenerate


def test_a_low_rank_delta_is_said_to_be_one():
    found = RULES["dg_hard"].apply([3.0, 1.0, 0, 0, 0, 0], (6, 16))
    assert (found.sigma, found.tau, found.rank, found.degenerate) == (0.0, 0.0, 2, True)
    assert "only 2 of 6 singular values are above rounding level" in found.warnings[0]
    # float32 arithmetic leaves values near 1e-7 s_1 where exact arithmetic has zeros
    rounded = np.concatenate([np.linspace(3, 1, 16), np.full(240, 3e-7)])
    found = RULES["dg_hard"].apply(rounded, (256, 512))
    assert found.degenerate and found.rank == 16


def test_an_exactly_zero_delta_keeps_nothing_and_says_so():
    for name in ("dg_hard", "reference", "mp_edge", "energy", "fixed_rank"):
        found = RULES[name].apply(np.zeros(6), (6, 16))
        assert found.rank == 0
        assert "exactly zero" in found.warnings[0]


def test_kept_values_are_strictly_above_tau():
    assert RULES["manual"].apply([3.0, 2.0, 2.0, 1.0], (4, 9), tau=2.0).rank == 1
    assert RULES["manual"].apply([3.0, 2.0, 2.0, 1.0], (4, 9), tau=0).rank == 4
    assert RULES["manual"].apply([3.0, 2.0, 2.0, 1.0], (4, 9), tau=math.inf).rank == 0


@given(spectra, st.integers(0, 50))
def test_fixed_rank_keeps_that_many_but_for_ties_and_zeros(values, rank):
    s = np.sort(values)[::-1]
    found = RULES["fixed_rank"].apply(s, (s.size, s.size + 3), rank=rank)
    asked = min(rank, np.count_nonzero(s))
    assert found.rank >= asked
    if found.rank > asked:  # only a tie at the cut may raise it
        assert s[found.rank - 1] == s[asked - 1]
        assert "were asked for" in found.warnings[-1]


@given(spectra, st.floats(0, 1))
def test_energy_keeps_the_smallest_sufficient_rank(values, fraction):
    s = np.sort(values)[::-1]
    rank = RULES["energy"].apply(s, (s.size, s.size), fraction=fraction).rank
    total = float(np.sum(s**2))
    if total > 1e-200:
        assert np.sum(s[:rank] ** 2) >= fraction * total * (1 - 1e-9)
        smaller = np.count_nonzero(s > s[rank - 1]) if rank else 0
        assert rank == 0 or np.sum(s[:smaller] ** 2) <= fraction * total * (1 + 1e-9)


def test_ties_are_kept_whole_and_all_the_energy_is_all_of_it():
    s = np.full(64, 0.01)
    assert RULES["energy"].apply(s, (64, 64), fraction=0.9).rank == 64
    assert RULES["fixed_rank"].apply(s, (64, 64), rank=16).rank == 64
    s = np.concatenate([[1e9], np.ones(63)])
    assert RULES["energy"].apply(s, (64, 64), fraction=1.0).rank == 64


def test_the_reference_codes_other_level_keeps_more_than_half_of_square_noise():
    s = np.linalg.svd(np.random.default_rng(0).standard_normal((300, 300)), compute_uv=False)
    found = RULES["q25_mad"].apply(s, (300, 300))
    assert found.rank / 300 == pytest.approx(0.58, abs=0.02)
    assert found.tau == pytest.approx(4 / math.sqrt(3) * np.sort(s)[:75].mean() / 0.6745)


@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.floats(0.1, 0.49), st.floats(0.5, 2), st.floats(1e-30, 1e30))
def test_one_look_tells_whether_screenot_exceeds_a_level(seed, p, share, factor, scale):
    draw = np.random.default_rng(seed)
    s = scale * np.linalg.svd(draw.standard_normal((p, 2 * p)) + draw.integers(4), compute_uv=False)
    tau = screenot_tau(s, 0.5, share)
    assume(abs(factor - 1) > 1e-4)
    for level in (factor * tau, (1 + 1e-4) * tau, (1 - 1e-4) * tau, 100 * s[0], s[-1] / 2):
        assert screenot_exceeds(s, 0.5, share, level) == (tau > level)


@given(st.floats(1e-30, 1e30))
def test_rules_are_scale_equivariant(scale):
    s = np.linspace(5, 0.3, 24)
    for name in ("dg_hard", "reference", "mp_edge", "energy", "fixed_rank"):
        plain, scaled = RULES[name].apply(s, (24, 50)), RULES[name].apply(scale * s, (24, 50))
        assert scaled.rank == plain.rank
        assert scaled.tau == pytest.approx(scale * plain.tau, rel=1e-12)


def test_every_rule_says_what_it_is():
    noisy = ["dg_hard", "reference", "mp_edge", "mp_edge_tw", "known_sigma", "screenot", "flip_pa", "iqr", "q25_mad"]
    assert list(RULES) == [*noisy, "energy", "fixed_rank", "manual"]
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.title and rule.formula and rule.citation
        for parameter in rule.parameters:
            assert parameter.description


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_rule("dg_soft"), "no threshold rule 'dg_soft'; there are dg_hard, reference"),
        (lambda: RULES["dg_hard"].apply([1.0], (1, 4), tau=3), "has no parameter 'tau'; it takes scale"),
        (lambda: RULES["manual"].apply([1.0], (1, 4)), "rule 'manual' needs 'tau'"),
        (lambda: RULES["manual"].apply([1.0], (1, 4), tau=-1), r"must lie in \[0, inf\]; got -1"),
        (lambda: RULES["manual"].apply([1.0], (1, 4), tau="x"), "must be a number; got 'x'"),
        (lambda: RULES["manual"].apply([1.0], (1, 4), tau=math.nan), "must lie in"),
        (lambda: RULES["energy"].apply([1.0], (1, 4), fraction=1.5), r"must lie in \[0, 1\]; got 1.5"),
        (lambda: RULES["fixed_rank"].apply([1.0], (1, 4), rank=1.5), "must be a whole number; got 1.5"),
        (lambda: RULES["dg_hard"].apply([1.0, 2.0], (1, 4)), "has 1 singular values"),
        (lambda: RULES["dg_hard"].apply([1.0, math.nan], (2, 4)), "must be finite"),
        (lambda: RULES["dg_hard"].apply([1.0], (1, 4, 2)), "one non-empty matrix"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ThresholdError, match=message):
        call()


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.noise_based])
def test_the_multiplier_moves_tau_and_nothing_else(name):
    s = np.linalg.svd(np.random.default_rng(3).standard_normal((60, 40)), compute_uv=False)
    plain, scaled = RULES[name].apply(s, (60, 40)), RULES[name].apply(s, (60, 40), scale=0.5)
    assert scaled.tau == pytest.approx(0.5 * plain.tau, rel=1e-12)
    assert (scaled.sigma, scaled.edge) == (plain.sigma, plain.edge)
    assert scaled.rank == np.count_nonzero(s > 0.5 * plain.tau) > plain.rank
    assert RULES[name].changed(scaled.params) == {"scale": 0.5}
    assert RULES[name].changed(plain.params) == {}


def test_every_rule_made_from_noise_keeps_an_exact_low_rank_whole():
    """As a merged LoRA in float64; ScreeNOT's search for a threshold has no end there."""
    s = np.concatenate([np.linspace(9.0, 1.0, 40), np.full(88, 1e-16)])
    for name, rule in RULES.items():
        if not rule.noise_based or rule.needs_delta:
            continue
        found = rule.apply(s, (128, 128), **({"sigma": 1.0} if name == "known_sigma" else {}))
        assert (found.whole, found.degenerate, found.rank) == (True, True, 40), name
    assert not find_rule("fixed_rank").apply(s, (128, 128), rank=3).whole
