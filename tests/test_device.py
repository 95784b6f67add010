"""What devices want: sums in runs."""

import math

import pytest
import torch

from dgviz.device import sum_double


@pytest.mark.parametrize("count", [0, 1, 257, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_is_that_of_float64(count, dtype):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=dtype)
    exact, size = math.fsum(values.tolist()), math.fsum(values.abs().tolist())
    found = sum_double(values)
    assert found.dtype == torch.float64
    assert abs(float(found) - exact) <= 1e-9 * size


def test_entries_that_are_not_finite_are_seen_and_any_shape_is_summed():
    assert math.isinf(sum_double(torch.full((3, 300), math.inf)))
    assert math.isnan(sum_double(torch.tensor([math.nan]).expand(1000)))
    assert float(sum_double(torch.ones(40, 50).T)) == 2000
