"""Sign flips where they hold, and where entries depend on each other and they must say that they do not."""

import numpy as np
import pytest

from dgviz.rmt.threshold import RULES
from dgviz.rmt.threshold.flips import unsettled

SHAPE = (240, 160)


def autoregressive(strength, seed=0):
    """Noise whose neighbouring columns move together."""
    matrix = np.random.default_rng(seed).standard_normal(SHAPE)
    for column in range(1, SHAPE[1]):
        matrix[:, column] += strength * matrix[:, column - 1]
    return matrix


def applied(matrix, **params):
    s = np.linalg.svd(matrix, compute_uv=False)
    return RULES["flip_pa"].apply(s, SHAPE, delta=matrix, trials=4, **params), s


def test_dependent_entries_end_in_a_warning_and_not_in_everything_kept():
    found, s = applied(autoregressive(0.7))
    assert unsettled(found.rank, s.size) and found.rank < s.size
    assert any("sign flips did not settle" in warning and "undefined" in warning for warning in found.warnings)
    # The same from the stored tau, and whatever multiplier is set.
    again = RULES["flip_pa"].apply_at(found.tau, s, SHAPE, trials=4)
    assert again.warnings == found.warnings
    scaled = RULES["flip_pa"].apply_at(found.tau, s, SHAPE, trials=4, scale=3.0)
    assert scaled.rank < found.rank and scaled.warnings == found.warnings


@pytest.mark.parametrize("seed", range(3))
def test_independent_noise_and_signals_settle(seed):
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(SHAPE) * np.geomspace(0.3, 3, SHAPE[0])[:, None]
    assert applied(noise)[0].rank <= 1 and applied(noise)[0].warnings == ()
    left, right = (np.linalg.qr(generator.standard_normal((length, 5)))[0] for length in SHAPE)
    found, _ = applied(noise + 300 * left @ right.T)
    assert 5 <= found.rank <= 6 and found.warnings == ()
