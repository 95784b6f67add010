"""The closed forms against published vectors, 40-digit arithmetic and quadrature."""

import itertools
import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from dgviz.rmt import law as theory
from dgviz.rmt.null import mp_fits

VECTORS = json.loads((Path(__file__).parent / "theory_vectors.json").read_text())
BETAS = [1e-4, 1e-3, 0.05, 0.25, 0.375, 0.5, 0.75, 0.9, 0.999, 0.9999999, 1.0]


@pytest.mark.parametrize("name", ["lambda_star", "mp_median_eig", "mp_median_sv", "svht_coef"])
def test_constants_match_the_vectors(name):
    betas = np.array([float(row["beta"]) for row in VECTORS["constants"]])
    expected = np.array([float(row[name]) for row in VECTORS["constants"]])
    np.testing.assert_allclose(getattr(theory, name)(betas), expected, rtol=0, atol=1e-12)


def test_cdf_and_quantile_match_the_vectors():
    for row in VECTORS["mp_singular_cdf"]:
        assert theory.mp_sv_cdf(float(row["y"]), float(row["beta"])) == pytest.approx(float(row["cdf"]), abs=1e-12)
    for row in VECTORS["mp_singular_quantile"]:
        found = theory.mp_sv_quantile(float(row["u"]), float(row["beta"]))
        assert found == pytest.approx(float(row["y"]), abs=1e-12)


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=60), st.booleans())
def test_the_median_of_values_in_order_is_numpys(values, descending):
    ordered = np.array(sorted(values, reverse=descending))
    assert theory.sorted_median(ordered) == float(np.median(values))


def mp_cdf_by_40_digits(y, beta):
    """Integrate the eigenvalue density in the angle that removes both square-root ends."""
    with mpmath.workdps(40):
        b = mpmath.mpf(beta)
        low, high = (1 - mpmath.sqrt(b)) ** 2, (1 + mpmath.sqrt(b)) ** 2
        middle, half = (low + high) / 2, (high - low) / 2
        x = mpmath.mpf(y) ** 2
        end = mpmath.acos(min(max((middle - x) / half, -1), 1))

        def density(t):
            """Density times the Jacobian of x = middle - half cos t."""
            if b == 1:  # the same, with the common factor 1 - cos t divided out
                return half * (1 + mpmath.cos(t)) / (2 * mpmath.pi)
            return (half * mpmath.sin(t)) ** 2 / (2 * mpmath.pi * b * (middle - half * mpmath.cos(t)))

        return float(mpmath.quad(density, mpmath.linspace(0, end, 9)))


@pytest.mark.parametrize("beta", [1e-4, 0.01, 0.375, 0.9, 1.0])
@pytest.mark.parametrize("position", [1e-7, 1e-3, 0.2, 0.5, 0.8, 0.999, 1 - 1e-7])
def test_cdf_against_40_digit_integration(beta, position):
    low, high = theory.mp_sv_support(beta)
    y = low + position * (high - low)
    assert theory.mp_sv_cdf(y, beta) == pytest.approx(mp_cdf_by_40_digits(y, beta), abs=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_median_halves_the_law(beta):
    assert mp_cdf_by_40_digits(theory.mp_median_sv(beta), beta) == pytest.approx(0.5, abs=1e-10)
    assert theory.mp_median_eig(beta) == pytest.approx(theory.mp_median_sv(beta) ** 2, rel=1e-15)


@pytest.mark.parametrize("beta", BETAS)
def test_density_is_the_derivative_and_integrates_to_one(beta):
    low, high = theory.mp_sv_support(beta)
    # y = middle - half cos t removes the square-root ends.
    middle, half = (low + high) / 2, (high - low) / 2

    def integrand(t):
        return theory.mp_sv_pdf(middle - half * math.cos(t), beta) * half * math.sin(t)

    def integral(end):
        """Add up pieces: near beta = 1 the density falls to zero within 1e-7 of the lower end."""
        cuts = [0, *(cut for cut in (1e-5, 1e-3, 1e-1) if cut < end), end]
        return sum(integrate.quad(integrand, a, b, limit=200)[0] for a, b in itertools.pairwise(cuts))

    total = integral(math.pi)
    assert total == pytest.approx(1.0, abs=1e-9)
    y = low + 0.37 * (high - low)
    part = integral(math.acos((middle - y) / half))
    assert part == pytest.approx(theory.mp_sv_cdf(y, beta), abs=1e-9)


@given(st.floats(1e-4, 1.0), st.floats(0.0, 1.0))
def test_quantile_inverts_the_cdf(beta, u):
    assert theory.mp_sv_cdf(theory.mp_sv_quantile(u, beta), beta) == pytest.approx(u, abs=1e-10)


def test_everything_is_vectorised():
    betas = np.linspace(0.01, 1, 7)
    for function in (theory.lambda_star, theory.mp_median_sv, theory.mp_median_eig, theory.svht_coef):
        np.testing.assert_array_equal(function(betas), [function(b) for b in betas])
        assert isinstance(function(0.5), float)
    grid = np.linspace(0, 2.5, 11)
    for function in (theory.mp_sv_pdf, theory.mp_sv_cdf):
        assert function(grid[:, None], betas).shape == (11, 7)
        assert function(grid[:, None], betas)[3, 2] == function(grid[3], betas[2])
    assert theory.mp_sv_quantile(np.array([0.1, 0.9])[:, None], betas).shape == (2, 7)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.0000001, math.nan, math.inf])
def test_beta_outside_the_domain_is_named(bad):
    for function in (theory.lambda_star, theory.mp_median_sv, theory.mp_median_eig, theory.svht_coef):
        with pytest.raises(ValueError, match=r"beta must lie in \(0, 1\]") as error:
            function([0.5, bad])
        assert repr(np.float64(bad)) in str(error.value)
    for function in (theory.mp_sv_pdf, theory.mp_sv_cdf, theory.mp_sv_quantile):
        with pytest.raises(ValueError, match="beta must lie"):
            function(0.5, bad)


def test_other_arguments_outside_the_domain_are_named():
    with pytest.raises(ValueError, match=r"u must lie in \[0, 1\].*1\.5"):
        theory.mp_sv_quantile(1.5, 0.5)
    with pytest.raises(ValueError, match=r">= 0.*-1"):
        theory.mp_sv_cdf(-1.0, 0.5)
    with pytest.raises(ValueError, match="two positive dimensions"):
        theory.aspect_ratio((3, 0))
    with pytest.raises(ValueError, match="sigma > 0"):
        theory.mp_distance([1.0], 0.0, (1, 1))


def test_threshold_grows_over_the_edge_but_not_in_itself():
    betas = np.linspace(1e-3, 1, 50)
    assert (np.diff(theory.lambda_star(betas)) > 0).all()  # falls from 2.309 (square) to 1.414 (long)
    assert theory.lambda_star(1.0) == pytest.approx(4 / math.sqrt(3), abs=1e-15)
    assert (np.diff(theory.lambda_star(betas) / (1 + np.sqrt(betas))) < 0).all()


def test_mp_fit_worked_example():
    worked = VECTORS["mp_fit_ks"]["worked_p100"]
    beta, rows = worked["beta"], 100
    bulk = theory.mp_sv_quantile((np.arange(96) + 0.5) / 96, beta)
    s = np.concatenate([worked["spikes"][::-1], bulk[::-1]])
    shape = (rows, int(rows / beta))
    sigma = worked["sigma_sqrtN"] / math.sqrt(max(shape))
    # 100 / .375 is not whole, so score against the law of the vector's own beta.
    shape_beta = theory.aspect_ratio(shape)
    assert abs(shape_beta - beta) < 0.002
    triple = mp_fits(s, np.where(np.arange(len(s)) < 4, s, 0.0), sigma, shape)
    assert triple["tuned"] == pytest.approx(worked["score_tuned"], abs=0.2)
    assert triple["repaired"] == pytest.approx(4.0, abs=1e-9)
    assert triple["discarded"] == pytest.approx(worked["score_discarded_zero_padded"], abs=0.2)


@pytest.mark.parametrize("row", VECTORS["mp_fit_ks"]["rank_k"])
def test_rank_k_scores_exactly_100_k_over_p(row):
    p, k = row["p"], row["k"]
    shape = (p, round(p / row["beta"]))
    s = np.zeros(p)
    s[:k] = 10.0 * math.sqrt(max(shape))
    assert theory.mp_fit(s, 1.0, shape) == pytest.approx(100 * k / p, abs=1e-12)


def test_noise_scores_as_rigid_eigenvalues_do():
    shape = (768, 512)
    noise = np.random.default_rng(0).standard_normal(shape)
    s = np.linalg.svd(noise, compute_uv=False)
    sigma = theory.sigma_from_median(float(np.median(s)), shape)
    assert sigma == pytest.approx(1.0, rel=0.01)
    assert theory.mp_distance(s, sigma, shape) < 8 / 512  # 1 / sqrt(p) would be 0.044


def test_undefined_noise_has_no_score():
    found = mp_fits([3.0, 0.0], [3.0, 0.0], 0.0, (2, 5))
    assert list(found) == ["tuned", "repaired", "discarded", "discarded_own", "noise"]
    assert set(found.values()) == {None}


def test_the_discarded_part_alone_and_the_noise_of_the_shape_stand_beside():
    shape = (256, 64)
    s = np.linalg.svd(np.random.default_rng(2).standard_normal(shape), compute_uv=False)
    s[:6] += 30.0
    found = mp_fits(s, np.where(np.arange(64) < 6, s, 0.0), 1.0, shape)
    assert found["noise"] == pytest.approx(96.4, abs=0.2)
    assert found["discarded_own"] == theory.mp_fit(s[6:], 1.0, shape)
    assert found["discarded_own"] > found["discarded"]
