"""Moments of a delta against plain numpy in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgviz.spectra import moments
from dgviz.spectra.moments import Moments, compute_moments, frobenius_norm

FIGURES = [field.name for field in dataclasses.fields(Moments)]


def reference(delta: np.ndarray, base_norm: float, strong: np.ndarray | None = None) -> dict[str, float | None]:
    """The docstring of Moments, word for word."""
    d = delta.astype(np.float64)
    rows, columns = (d != 0).any(axis=1), (d != 0).any(axis=0)
    figures = dict.fromkeys(FIGURES) | {
        "relative_size": np.linalg.norm(d) / base_norm if base_norm else None,
        "zero_share": (d == 0).mean(),
        "zero_row_share": (~rows).mean(),
        "zero_column_share": (~columns).mean(),
        "live_rows": rows.sum(),
        "live_columns": columns.sum(),
        "strong": 0 if strong is None else np.linalg.matrix_rank(strong),
        "strong_concentrated": 0,
    }
    if not rows.any():
        return figures
    x = (d if strong is None else d - strong)[np.ix_(rows, columns)]
    x = x - x.mean()
    variance = (x**2).mean()
    if variance < 1e-28 * (d**2).max():
        return figures
    by_row, by_column = x.var(axis=1), x.var(axis=0)
    figures["kurtosis"] = (x**4).mean() / variance**2
    figures["row_variance_cv"] = by_row.std() / by_row.mean() if by_row.any() else None
    figures["column_variance_cv"] = by_column.std() / by_column.mean() if by_column.any() else None
    if x.shape[0] > 1:
        figures["row_autocorrelation"] = (x[1:] * x[:-1]).mean() / variance
    if x.shape[1] > 1:
        figures["column_autocorrelation"] = (x[:, 1:] * x[:, :-1]).mean() / variance
    return figures


def compared(delta: torch.Tensor, base_norm: float = 2.5) -> Moments:
    """Compute the moments, compare all of them with the reference, and return them."""
    found = compute_moments(delta, base_norm)
    for name, expected in reference(delta.numpy(), base_norm).items():
        value = getattr(found, name)
        assert (value is None) == (expected is None), (name, value, expected)
        if expected is not None:
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    return found


def noise(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(300, 200), (7, 900), (1500, 300), (1, 40), (40, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_figure_equals_numpy(shape, dtype):
    compared(1e-3 * noise(*shape, dtype=dtype))


def test_blocks_meet_without_a_seam(monkeypatch):
    monkeypatch.setattr(moments, "_CPU_BLOCK", 7 * 64)
    delta = noise(100, 64).cumsum(dim=0)  # neighbours that move together, also across the border of two blocks
    assert compared(delta).row_autocorrelation > 0.5
    monkeypatch.setattr(moments, "_CPU_BLOCK", 1)
    compared(delta)


def test_zero_rows_and_columns_are_counted_and_left_out():
    delta = noise(64, 48)
    delta[::3] = 0
    delta[:, 40:] = 0
    delta[1, 5:9] = 0
    found = compared(delta)
    assert found.zero_row_share == pytest.approx(22 / 64) and found.zero_column_share == pytest.approx(1 / 6)
    live = delta[delta.any(dim=1)][:, :40]
    assert found.kurtosis == pytest.approx(compute_moments(live, 1.0).kurtosis)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_magnitude_matters_to_size_alone(scale):
    delta = noise(60, 50)
    small, large = compute_moments(delta, 1.0), compute_moments(delta * scale, 1.0)
    assert large.relative_size == pytest.approx(scale * small.relative_size, rel=1e-6)
    for name in FIGURES[1:]:
        assert getattr(large, name) == pytest.approx(getattr(small, name), rel=1e-5)
    compute_moments(delta.double() * 1e250, 1.0)


def test_a_mean_far_from_zero_does_not_spoil_the_rest():
    compared(1.0 + 1e-3 * noise(200, 100, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-3])
@pytest.mark.parametrize("side", [512, 1024])
def test_a_large_constant_has_no_variance(value, side):
    """Its mean is exact, or what is left of it would be taken for entries."""
    found = compute_moments(torch.full((side, side), value), 1.0)
    assert found.kurtosis is None and found.row_autocorrelation is None


def test_nothing_and_a_constant():
    found = compared(torch.zeros(30, 20))
    assert found.relative_size == 0.0 and found.zero_share == 1.0 and found.kurtosis is None
    assert compared(torch.full((30, 20), 0.1)).kurtosis is None
    assert compute_moments(torch.ones(4, 4), 0.0).relative_size is None


@pytest.mark.parametrize("trimmed", [False, True])
def test_strong_directions_are_taken_out_of_the_variances_and_not_of_the_size(trimmed):
    left, right = 3 * noise(120, 2, 1, torch.float64), noise(2, 90, 2, torch.float64)
    delta = noise(120, 90, dtype=torch.float64) + left @ right
    if trimmed:
        delta[::3], left[::3] = 0, 0
        delta[:, 80:], right[:, 80:] = 0, 0
    found = compute_moments(delta, 2.5, strong=(left, right))
    for name, expected in reference(delta.numpy(), 2.5, (left @ right).numpy()).items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    assert found.row_variance_cv < 0.3 < compute_moments(delta, 2.5).row_variance_cv


def test_a_direction_of_one_row_or_one_column_is_told_from_one_of_many():
    left, right = noise(50, 3, 1), noise(3, 40, 2)
    left[7, 0] = 40.0
    right[1, 5] = 40.0
    assert compute_moments(noise(50, 40), 1.0, strong=(left, right)).strong_concentrated == 2


def test_what_the_figures_are_for():
    """Each kind of noise that the law does not describe shows in its own figure, and in no other."""
    generator = torch.Generator().manual_seed(1)
    iid = noise(1024, 512)
    rows = iid * torch.exp(0.5 * torch.randn(1024, 1, generator=generator))
    tails = iid * (torch.rand(1024, 512, generator=generator) < 0.05)
    smooth = iid.clone()
    for column in range(1, 512):
        smooth[:, column] = 0.5 * smooth[:, column - 1] + 0.75**0.5 * iid[:, column]
    figures = {"iid": iid, "rows": rows, "tails": tails, "smooth": smooth}
    found = {name: compute_moments(delta, 1.0) for name, delta in figures.items()}
    assert found["iid"].row_variance_cv < 0.1 and found["iid"].kurtosis == pytest.approx(3, abs=0.1)
    assert found["rows"].row_variance_cv > 0.5 and found["rows"].column_variance_cv < 0.2
    assert found["tails"].kurtosis > 30 and found["tails"].zero_share == pytest.approx(0.95, abs=0.01)
    assert found["smooth"].column_autocorrelation == pytest.approx(0.5, abs=0.02)
    assert abs(found["smooth"].row_autocorrelation) < 0.02


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6), st.floats(0, 1), st.integers(1, 40))
def test_any_small_matrix(rows, columns, seed, density, block):
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randint(-3, 4, (rows, columns), generator=generator).double()
    delta *= torch.rand(rows, columns, generator=generator) < density
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "_CPU_BLOCK", block)
        compared(delta)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_norm_of_a_stored_tensor(dtype):
    tensor = (100 * noise(700, 500)).to(dtype)  # squares overflow float16
    assert frobenius_norm(tensor) == pytest.approx(np.linalg.norm(tensor.double().numpy()), rel=1e-12)
    assert frobenius_norm(torch.empty(0, 3)) == 0.0


@pytest.mark.cuda
def test_cuda_equals_the_cpu():
    delta = noise(700, 500).cumsum(dim=1)
    delta[5] = 0
    on_cpu, on_cuda = compute_moments(delta, 1.0), compute_moments(delta.cuda(), 1.0)
    for name in FIGURES:
        assert getattr(on_cuda, name) == pytest.approx(getattr(on_cpu, name), rel=1e-9)
