"""The distance of noise from its law: the quick model of it against matrices, the law against simulation."""

import numpy as np
import pytest

from dgviz.rmt.law import mp_distance, sigma_from_median
from dgviz.rmt.null import SIMULATED_UP_TO, distance_law, noise_distance, noise_spectrum


def distances(shape, count, draw):
    found = []
    for seed in range(count):
        s = draw(np.random.default_rng(seed))
        found.append(mp_distance(s, sigma_from_median(float(np.median(s)), shape), shape))
    return np.array(found)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (20, 20)])
def test_the_bidiagonal_model_has_the_spectrum_of_a_gaussian_matrix(shape):
    generator = np.random.default_rng(1)
    model = np.array([noise_spectrum(shape, generator) for _ in range(2000)])
    matrices = np.linalg.svd(generator.standard_normal((2000, *shape)), compute_uv=False)
    assert (np.diff(model) <= 0).all()
    error = np.sqrt((model.var(0) + matrices.var(0)) / 2000)
    assert np.abs(model.mean(0) - matrices.mean(0)).max() < 5 * error.max()
    np.testing.assert_allclose(model.std(0), matrices.std(0), rtol=0.12)


@pytest.mark.parametrize("shape", [(50, 80), (64, 64)])
def test_simulated_and_repeatable(shape):
    found = noise_distance(shape)
    assert found == noise_distance(shape[::-1])
    direct = distances(
        shape, 150, lambda generator: np.linalg.svd(generator.standard_normal(shape), compute_uv=False)
    )
    assert found.median == pytest.approx(np.median(direct), rel=0.12)
    assert found.median < found.high < 0.1
    assert found.fit == 100 * (1 - found.median)


@pytest.mark.parametrize("shape", [(128, 128), (256, 512)])
def test_the_law_where_nothing_is_simulated(shape):
    direct = distances(shape, 60, lambda generator: noise_spectrum(shape, generator))
    law = noise_distance(shape)
    assert law == distance_law(min(shape))
    assert law.median == pytest.approx(np.median(direct), rel=0.1)
    assert law.high == pytest.approx(np.quantile(direct, 0.95), rel=0.2)


def test_law_and_simulation_meet():
    assert distance_law(SIMULATED_UP_TO).median == pytest.approx(
        noise_distance((SIMULATED_UP_TO, 128)).median, rel=0.1
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2)])
def test_the_smallest_shapes_have_a_distance(shape):
    found = noise_distance(shape)
    assert 0 < found.median <= found.high <= 1


def test_an_empty_shape_is_refused():
    with pytest.raises(ValueError):
        noise_distance((0, 4))
