"""Shrinkers against the vectors, against what they minimise, and at their ends."""

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgviz.errors import ThresholdError
from dgviz.rmt.law import bulk_edge, optimal_threshold
from dgviz.rmt.shrinkage import SHRINKERS, find_shrinker

VECTORS = json.loads((Path(__file__).parent / "theory_vectors.json").read_text())["shrinkers_unit_sigma"]["cases"]
NAMES = {"hard": "hard", "frobenius": "fro", "operator": "x_op", "nuclear": "nuc"}


def shape_of(beta):
    return round(1600 * beta), 1600


@pytest.mark.parametrize("name", SHRINKERS)
def test_the_vectors(name):
    for row in VECTORS:
        shape = shape_of(float(row["beta"]))
        for sigma in (1.0, 3e-5):
            unit = sigma * 40
            (found,) = SHRINKERS[name].apply([float(row["y"]) * unit], shape, sigma)
            assert found / unit == pytest.approx(float(row[NAMES[name]]), abs=1e-11), row


@pytest.mark.parametrize("beta", [0.01, 0.375, 1.0])
def test_just_above_the_edge_no_digit_is_lost(beta):
    high = 1 + np.sqrt(beta)
    for gap in (1e-9, 1e-6, 1e-3):
        y = high + gap
        with mpmath.workdps(50):
            v, b = mpmath.mpf(float(y)), mpmath.mpf(beta)
            exact = float(mpmath.sqrt((v * v - b - 1) ** 2 - 4 * b) / v)
        (found,) = SHRINKERS["frobenius"].apply([40 * y], shape_of(beta), 1.0)
        # The edge itself is known to a rounding of y, which the gap to it feels.
        assert found / 40 == pytest.approx(exact, rel=1e-15 / gap + 1e-12)


@given(
    y=st.floats(0, 1e6),
    beta=st.sampled_from([0.01, 0.25, 0.375, 0.9, 1.0]),
    name=st.sampled_from(["frobenius", "operator", "nuclear"]),
)
def test_optimal_shrinkers_shrink_in_order_and_end_at_the_edge(y, beta, name):
    shape = shape_of(beta)
    values = {other: float(SHRINKERS[other].apply([y], shape, 1.0)[0]) for other in SHRINKERS}
    assert 0 <= values[name] <= y * (1 + 1e-12)
    assert values["nuclear"] <= values["frobenius"] * (1 + 1e-9) + 1e-9
    assert values["frobenius"] <= values["operator"] * (1 + 1e-9) + 1e-9
    if y <= bulk_edge(1.0, shape):
        assert values[name] == 0


def test_hard_keeps_strictly_above_the_optimal_threshold():
    tau = optimal_threshold(0.5, (64, 32))
    above = np.nextafter(tau, np.inf) * (1 + 1e-12)
    assert SHRINKERS["hard"].apply([above, tau * (1 - 1e-12)], (64, 32), 0.5).tolist() == [above, 0]


def test_frobenius_has_the_smallest_squared_error_of_all():
    """Measured on signal plus noise: no shrinker and no threshold comes nearer to the planted signal."""
    rng = np.random.default_rng(5)
    m, n = 300, 120
    left, right = (np.linalg.qr(rng.standard_normal((size, 6)))[0] for size in (m, n))
    signal = (left * np.linspace(1.2, 3.0, 6) * bulk_edge(1.0, (m, n))) @ right.T
    u, s, vh = np.linalg.svd(signal + rng.standard_normal((m, n)), full_matrices=False)
    losses = {
        name: np.linalg.norm((u * shrinker.apply(s, (m, n), 1.0)) @ vh - signal)
        for name, shrinker in SHRINKERS.items()
    }
    assert min(losses, key=losses.get) == "frobenius"


def test_without_noise_nothing_changes():
    for shrinker in SHRINKERS.values():
        assert shrinker.apply([3.0, 1.0, 0.0], (4, 3), 0.0).tolist() == [3.0, 1.0, 0.0]


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_a_noise_level_that_is_none_is_refused(sigma):
    with pytest.raises(ThresholdError, match="finite noise level"):
        SHRINKERS["frobenius"].apply([1.0], (4, 4), sigma)


def test_values_that_are_none_are_refused():
    with pytest.raises(ThresholdError, match="finite and >= 0"):
        SHRINKERS["nuclear"].apply([float("nan")], (4, 4), 1.0)


def test_an_unknown_shrinker_is_named():
    with pytest.raises(ThresholdError, match="no shrinker 'soft'; there are hard, frobenius"):
        find_shrinker("soft")
