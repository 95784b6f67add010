"""decompose against float64 SVD: values, threshold, rank and repaired matrix over many families; and its contract."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgviz.errors import SpectrumError
from dgviz.spectra.svd.decompose import decompose, decompose_stack, list_devices, resolve_device
from dgviz.spectra.svd.solve import ROUTES, solve, solve_batch
from tests.deltas import EPS, FAMILIES, compare, low_rank, noise, orthonormal, spiked, with_values


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small decompositions gain nothing from threads, and lose much where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_agrees(delta, found):
    """Tau to 1e-6, the same rank unless a value lies within 1e-5 of tau, and D* to 2e-5, against float64 SVD."""
    m, n = delta.shape
    assert found.s.shape == (min(m, n),) and found.s.dtype == torch.float64 and found.s.device.type == "cpu"
    assert bool((found.s[:-1] >= found.s[1:]).all()) and float(found.s[-1]) >= 0
    result = compare(delta, found)
    assert result.value_error <= 2e-4
    assert result.tau_error is None or result.tau_error <= 1e-6
    assert result.same_rank
    assert result.repaired_error <= 2e-5
    left, right = found.triplets(result.expected_rank)
    assert left.shape == (m, result.expected_rank) and right.shape == (result.expected_rank, n)
    rows = right.cpu()[found.s[: result.expected_rank] > 64 * EPS * found.s[0]].double()
    assert torch.allclose(rows @ rows.T, torch.eye(rows.shape[0]).double(), atol=1e-4)
    assert found.certificate.route in ROUTES
    assert all(check.passed for check in found.certificate.checks) or found.certificate.rejected


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_square_beyond_the_small_sizes(family):
    delta = FAMILIES[family](656, 656).float()
    assert_agrees(delta, decompose(delta, "cpu"))


LONG = [
    "30 spikes to 12",
    "30 spikes to 1e3",
    "30 spikes to 1e6",
    "uneven rows and spikes",
    "through bfloat16",
    "LoRA",
]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1500, 656), (656, 1500)])
@pytest.mark.parametrize("family", LONG)
def test_tall_and_wide_beyond_the_small_sizes(shape, family):
    delta = FAMILIES[family](*shape).float()
    assert_agrees(delta, decompose(delta, "cpu"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (17, 5), (64, 64), (40, 200), (280, 300)])
def test_every_family_at_small_sizes(shape):
    for family in FAMILIES.values():
        delta = family(*shape).float()
        assert_agrees(delta, decompose(delta, "cpu"))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    m=st.integers(1, 90),
    n=st.integers(1, 90),
    decades=st.lists(st.floats(-5, 5), min_size=1, max_size=12),
    level=st.sampled_from([0.0, 1e-6, 1.0]),
    exponent=st.integers(-25, 25),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_spectrum(m, n, decades, level, exponent, seed):
    values = sorted((10.0**d for d in decades), reverse=True)[: min(m, n)]
    delta = 10.0**exponent * (with_values(m, n, values, seed) + level * noise(m, n, seed))
    delta = delta.float()
    found = decompose(delta, "cpu")
    assert_agrees(delta, found)
    energy = torch.linalg.norm(found.s / float(found.s[0]))
    unit = float(found.s[0])
    assert abs(float(energy) / float(torch.linalg.norm(delta.double() / unit)) - 1) < 1e-6


LARGE = [pytest.param(shape, marks=pytest.mark.slow) for shape in ((700, 660), (660, 700))]


@pytest.mark.parametrize("shape", [(50, 30), (30, 50), (300, 270), *LARGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triplets_of_any_rank_in_any_order(shape, dtype):
    delta = spiked(*shape, 8, 20).to(dtype)
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    found = decompose(delta, "cpu")
    p = min(shape)
    for rank in (0, 3, 1, p // 8, p // 2, p, 5):
        left, right = found.triplets(rank)
        assert left.dtype == right.dtype == dtype
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        # Inside the bulk neighbours are 1e-4 apart, and float32 tells directions apart only as well as that allows.
        tolerance = 1e-9 if dtype == torch.float64 else 2e-5 if rank in (3, 5, p) else 3e-4
        error = torch.linalg.norm(left.double() @ right.double() - best)
        assert float(error) <= tolerance * float(torch.linalg.norm(s))
        norms = torch.linalg.vector_norm(left.double(), dim=0)
        assert torch.allclose(norms, s[:rank], rtol=1e-4, atol=1e-4 * float(s[0]))
    left, right = found.triplets(p)
    assert torch.allclose(left @ right, delta, atol=1e-5 * float(s[0]))


@pytest.mark.parametrize("shape", [(64, 40), (700, 656)])
def test_float64_stays_float64(shape):
    delta = spiked(*shape, 5, 50)
    found = decompose(delta, "cpu")
    s = torch.linalg.svdvals(delta)
    assert float((found.s - s).abs().max()) <= 1e-10 * float(s[0])


def test_low_rank_is_not_blurred():
    # torch.linalg.svd in float32 finds hundreds of values above 64 eps s_1 / 64 here.
    delta = low_rank(700, 660).float()
    found = decompose(delta, "cpu")
    assert int((found.s > EPS * found.s[0]).sum()) == 16
    left, right = found.triplets(16)
    assert torch.allclose(left @ right, delta, atol=1e-6 * float(found.s[0]))


def test_values_and_triplets_do_not_depend_on_the_machine_wide_precision():
    delta = spiked(700, 660, 20, 30).float()
    expected = decompose(delta, "cpu")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = decompose(delta, "cpu")
        assert torch.equal(found.s, expected.s)
        assert torch.equal(found.triplets(20)[0], expected.triplets(20)[0])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (5, 30), (30, 5), (700, 656), (656, 700), (5000, 100)])
@pytest.mark.parametrize("rows", [1, 64])
def test_direction_maps_are_block_maxima(shape, rows):
    # Values far apart, so that directions are defined one by one.
    p = min(shape)
    delta = with_values(*shape, 1.004 ** -torch.arange(p, dtype=torch.float64)).float()
    u, s, _ = torch.linalg.svd(delta.double(), full_matrices=False)
    blocks = min(rows, shape[0])
    edges = [b * shape[0] // blocks for b in range(blocks + 1)]
    expected = np.maximum.reduceat((u * s).abs().numpy(), edges[:-1], axis=0)
    maps = decompose(delta, "cpu").direction_maps(rows)
    assert maps.shape == (blocks, p) and maps.dtype == torch.float32 and maps.device.type == "cpu"
    # Float32 mixes the weakest directions with one another, by less than a thousandth of the strongest.
    assert np.allclose(maps.numpy(), expected, rtol=2e-3, atol=1e-3 * expected.max() if p > 500 else 1e-5)


def test_direction_maps_of_a_strong_spike_leave_the_weak_alone():
    m, n = 800, 660
    values = torch.cat([torch.tensor([1e6]), 1.01 ** -torch.arange(n - 1)]).double()
    delta = with_values(m, n, values).float()
    u, s, _ = torch.linalg.svd(delta.double(), full_matrices=False)
    expected = (u * s)[:, :50].abs().amax(dim=0)
    assert torch.allclose(decompose(delta, "cpu").direction_maps(1)[0, :50].double(), expected, rtol=2e-2)


@pytest.mark.parametrize("magnitude", [1e-44, 1e-30, 1e-12, 1e12, 1e30])
def test_extreme_magnitudes_are_rescaled_exactly(magnitude):
    delta = (noise(48, 20) * magnitude).float()
    found = decompose(delta, "cpu")
    expected = torch.linalg.svdvals(delta.double())
    assert torch.allclose(found.s, expected, rtol=0, atol=1e-7 * float(expected[0]))
    left, right = found.triplets(20)
    # Below 1e-38 the result itself is subnormal and holds few bits.
    assert torch.allclose(left @ right, delta, rtol=0, atol=1e-5 * float(delta.abs().max()) + 5e-45)
    assert torch.isfinite(found.direction_maps(4)).all()


@pytest.mark.parametrize("exponent", [-100, -31, -29, 20, 22, 100])
def test_any_magnitude_gives_the_same_to_rounding(exponent):
    delta = spiked(700, 660, 20, 60).float()
    expected, found = decompose(delta, "cpu"), decompose(delta * 2.0**exponent, "cpu")
    assert torch.allclose(found.s / 2.0**exponent, expected.s, rtol=1e-6, atol=1e-3)
    left, right = found.triplets(18)
    assert torch.allclose(left / 2.0**exponent @ right, torch.mm(*expected.triplets(18)), atol=1e-3)


@pytest.mark.parametrize("shape", [(5, 9), (300, 290), (700, 660)])
def test_zero_matrix(shape):
    found = decompose(torch.zeros(shape), "cpu")
    assert not found.s.any() and found.certificate.route == "zero"
    left, right = found.triplets(3)
    assert left.shape == (shape[0], 3) and not left.any() and torch.isfinite(right).all()
    assert not found.direction_maps(2).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    delta = noise(40, 24).to(dtype)
    found = decompose(delta, "cpu")
    assert torch.allclose(found.s, torch.linalg.svdvals(delta.double()), rtol=1e-9)
    assert found.triplets(2)[0].dtype == torch.float32


def test_views_and_strides():
    whole = spiked(700, 1400, 20, 12).float()
    for view in (whole[:, ::2], whole[::2].T, whole[3:, 5:690]):
        expected = decompose(view.contiguous(), "cpu")
        found = decompose(view, "cpu")
        assert torch.allclose(found.s, expected.s, rtol=1e-5, atol=1e-5)
        assert torch.allclose(torch.mm(*found.triplets(10)), torch.mm(*expected.triplets(10)), atol=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_named(value):
    delta = noise(6, 4).float()
    delta[2, 3] = value
    delta[5, 0] = math.nan
    with pytest.raises(SpectrumError, match=rf"layers\.3\.q: entry \[2, 3\] of \(6, 4\) is {value}"):
        decompose(delta, "cpu", name="layers.3.q")


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(2, 2, 2), torch.zeros(0, 4), torch.ones(3, 3).int()])
def test_not_a_floating_matrix(bad):
    with pytest.raises(SpectrumError, match="layers.0"):
        decompose(bad, "cpu", name="layers.0")


@pytest.mark.parametrize("shape", [(30, 30), (700, 660), (660, 700)])
def test_input_is_left_alone(shape):
    delta = spiked(*shape, 5, 1e4).float()
    copy = delta.clone()
    found = decompose(delta, "cpu")
    first = found.triplets(5)
    kept = [part.clone() for part in first]
    for part in first:
        part.zero_()  # what a caller does to its factors is its own affair
    found.direction_maps(3)
    assert torch.equal(delta, copy)
    assert all(torch.equal(a, b) for a, b in zip(found.triplets(5), kept, strict=True))


def test_ranks_and_rows_out_of_range():
    found = decompose(noise(6, 4).float(), "cpu")
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


@pytest.mark.cuda
@pytest.mark.parametrize("family", FAMILIES)
def test_cuda_gives_what_the_cpu_gives(family):
    delta = FAMILIES[family](700, 656).float()
    found = decompose(delta.cuda(), "cuda")
    assert found.s.device.type == "cpu"
    assert all(part.device.type == "cuda" for part in found.triplets(3))
    assert_agrees(delta, found)


def test_random_orthogonal_factors_are_found():
    m, n, k = 900, 660, 12
    values = torch.linspace(500, 100, k).double()
    u, v = orthonormal(m, k, 21), orthonormal(n, k, 22)
    delta = ((u * values) @ v.T + 0.01 * noise(m, n)).float()
    left, right = decompose(delta, "cpu").triplets(k)
    assert torch.allclose((right.double() @ v).abs().diag(), torch.ones(k).double(), atol=1e-4)
    assert torch.allclose((left.double().T @ u).abs().diag(), values, rtol=1e-3)


BATCH = ["30 spikes to 12", "30 spikes to 1e3", "LoRA", "zero", "one row"]


@pytest.mark.parametrize("shape", [(300, 130), (900, 656)])
def test_a_batch_of_matrices_is_solved_like_each_of_them(shape):
    deltas = [FAMILIES[family](*shape).float() for family in BATCH]
    for family, delta, solution in zip(BATCH, deltas, solve_batch(torch.stack(deltas)), strict=True):
        exact = torch.linalg.svdvals(delta.double())
        top = float(exact[0])
        assert torch.allclose(solution.values, solve(delta).values, rtol=1e-6, atol=2e-7 * top), family
        strong = exact > 1e-5 * top if top else exact > 0
        assert torch.allclose(solution.values[strong], exact[strong], rtol=2e-6), family
        assert (solution.certificate.route == "zero") == (family == "zero")
        assert all(check.passed for check in solution.certificate.checks)


@pytest.mark.parametrize("shape", [(96, 40), (40, 96)])
def test_a_stack_is_decomposed_matrix_by_matrix(shape):
    deltas = [noise(*shape, seed).float() for seed in range(3)]
    deltas[1] *= 1e30
    found = decompose_stack(deltas, "cpu", ["a", "b", "c"])
    for delta, decomposition, name in zip(deltas, found, "abc", strict=True):
        assert decomposition.name == name and decomposition.shape == shape
        assert torch.equal(decomposition.s, decompose(delta, "cpu").s)
    deltas[2][3, 4] = math.inf
    with pytest.raises(SpectrumError, match=r"c: entry \[3, 4\]"):
        decompose_stack(deltas, "cpu", ["a", "b", "c"])


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(300, 130), (130, 300), (900, 656)])
def test_a_stack_on_cuda_gives_what_the_cpu_gives(shape):
    deltas = [FAMILIES[family](*shape).float() for family in BATCH]
    on_gpu = decompose_stack([delta.cuda() for delta in deltas], "cuda", BATCH)
    for delta, found in zip(deltas, on_gpu, strict=True):
        assert_agrees(delta, found)
