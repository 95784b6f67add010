"""decompose and its contract: shapes, errors, extreme magnitudes, triplets of any rank, direction maps."""

import itertools
import math

import numpy as np
import pytest
import torch

from dgviz.errors import SpectrumError
from dgviz.spectrum import decompose, list_devices, resolve_device


def random_matrix(m, n, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, n, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (40, 24), (24, 40), (32, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_values_and_triplets_of_every_rank(shape, dtype):
    delta = random_matrix(*shape, dtype=dtype)
    found = decompose(delta, "cpu")
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert found.s.dtype == torch.float64 and found.s.device.type == "cpu" and found.shape == shape
    assert torch.allclose(found.s, s, rtol=0, atol=tolerance * float(s[0]))
    for rank in range(min(shape) + 1):
        left, right = found.triplets(rank)
        assert left.shape == (shape[0], rank) and right.shape == (rank, shape[1])
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        assert torch.linalg.norm(left.double() @ right.double() - best) <= 20 * tolerance * float(s[0])


@pytest.mark.parametrize("magnitude", [1e-44, 1e-30, 1e-12, 1e12, 1e30])
def test_extreme_magnitudes_are_rescaled_exactly(magnitude):
    delta = (random_matrix(48, 20).double() * magnitude).float()
    found = decompose(delta, "cpu")
    expected = torch.linalg.svdvals(delta.double())
    assert torch.allclose(found.s, expected, rtol=0, atol=2e-6 * float(expected[0]))
    left, right = found.triplets(20)
    # Below 1e-38 the result itself is subnormal and holds few bits.
    assert torch.allclose(left @ right, delta, rtol=0, atol=1e-5 * float(delta.abs().max()) + 5e-45)


def test_zero_matrix():
    found = decompose(torch.zeros(5, 9), "cpu")
    assert found.s.tolist() == [0.0] * 5
    assert not found.triplets(3)[0].any()
    assert not found.direction_maps(2).any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_named(value):
    delta = random_matrix(6, 4)
    delta[2, 3] = value
    delta[5, 0] = math.nan
    with pytest.raises(SpectrumError, match=rf"layers\.3\.q: entry \[2, 3\] of \(6, 4\) is {value}"):
        decompose(delta, "cpu", name="layers.3.q")


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(2, 2, 2), torch.zeros(0, 4), torch.ones(3, 3).int()])
def test_not_a_floating_matrix(bad):
    with pytest.raises(SpectrumError, match="layers.0"):
        decompose(bad, "cpu", name="layers.0")


def test_input_is_left_alone():
    delta = random_matrix(30, 30) * 1e-20
    copy = delta.clone()
    decompose(delta, "cpu").triplets(5)[0].zero_()
    assert torch.equal(delta, copy)


@pytest.mark.parametrize(("shape", "rows"), [((50, 20), 7), ((20, 50), 7), ((5, 30), 64), ((30, 5), 1)])
def test_direction_maps_are_block_maxima(shape, rows):
    delta = random_matrix(*shape, seed=3)
    found = decompose(delta, "cpu")
    u, s, _ = np.linalg.svd(delta.double().numpy(), full_matrices=False)
    m, blocks = shape[0], min(rows, shape[0])
    edges = [b * m // blocks for b in range(blocks + 1)]
    expected = np.stack([np.abs(u[a:b] * s).max(axis=0) for a, b in itertools.pairwise(edges)])
    maps = found.direction_maps(rows)
    assert maps.shape == (blocks, min(shape)) and maps.dtype == torch.float32 and maps.device.type == "cpu"
    assert np.allclose(maps.numpy(), expected, atol=1e-4 * s[0])


def test_ranks_and_rows_out_of_range():
    found = decompose(random_matrix(6, 4), "cpu")
    for rank in (-1, 5):
        with pytest.raises(ValueError, match=f"got {rank}"):
            found.triplets(rank)
    with pytest.raises(ValueError, match="got 0"):
        found.direction_maps(0)


def test_devices():
    ids = [device.id for device in list_devices()]
    assert ids[-1] == "cpu" and all(device.label for device in list_devices())
    assert resolve_device("auto") == ids[0] and resolve_device("cpu") == "cpu"
    with pytest.raises(SpectrumError, match="cuda:99"):
        resolve_device("cuda:99")
