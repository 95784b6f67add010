"""The steps of the engine one by one, and what happens when one of them goes wrong."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dgviz.errors import SpectrumError
from dgviz.spectra.svd import products, solve, triplets
from dgviz.spectra.svd.gram import (
    Spikes,
    bulk_eigenvalues,
    deflated_gram,
    deflated_runs,
    gram_dtype,
    mirrored,
    no_spikes,
)
from dgviz.spectra.svd.products import (
    converted_runs,
    full_float32,
    inner_products,
    orthonormalise,
    sum_of_squares,
    times,
    transposed_times,
)
from dgviz.spectra.svd.subspace import (
    all_directions,
    filter_plan,
    find_spikes,
    leading_directions,
    rayleigh_ritz,
    residual,
    svd_float64,
)
from tests.deltas import edge, noise, orthonormal, spiked, with_values


def energy(matrix):
    return float(matrix.double().square().sum())


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_stored(matrix, stored):
    """The matrix contiguous by rows or by columns, as the transpose of a wide delta is."""
    return matrix.contiguous() if stored == "rows" else matrix.T.contiguous().T


STORED = pytest.mark.parametrize("stored", ["rows", "columns"])


@pytest.fixture
def short_runs(monkeypatch):
    """Runs of a hundred rows, so that small matrices are cut into several, the last one shorter."""
    monkeypatch.setattr(products, "RUN_ELEMENTS", 1)
    monkeypatch.setattr(products, "_RUN_ROWS", 100)
    monkeypatch.setattr(converted_runs, "__defaults__", (100,))


@STORED
def test_exactrun_by_run(stored, short_runs):
    tall = as_stored(noise(730, 40).float(), stored)
    runs = list(converted_runs(tall, torch.float64))
    assert [rows.start for rows, _ in runs] == list(range(0, 730, 100)) and runs[-1][0].stop == 730
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-11)):
        x, y = noise(40, 5, 1).to(dtype), noise(730, 5, 2).to(dtype)
        assert times(tall, x).dtype == dtype and times(tall, x).shape == (730, 5)
        assert torch.allclose(times(tall, x).double(), tall.double() @ x.double(), atol=tolerance)
        assert torch.allclose(transposed_times(tall, y).double(), tall.double().T @ y.double(), atol=10 * tolerance)
    assert torch.allclose(inner_products(tall), tall.double().T @ tall.double(), rtol=1e-12)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        assert sum_of_squares(tall, dtype) == pytest.approx(float(tall.double().square().sum()), rel=tolerance)


def test_a_run_of_the_same_precision_is_the_matrix_itself():
    tall = noise(50, 10)
    assert all(block.data_ptr() == tall[rows].data_ptr() for rows, block in converted_runs(tall, torch.float64))


def test_orthonormalise_survives_dependent_and_zero_columns():
    x = noise(30, 6)
    x[:, 3], x[:, 4] = x[:, 0], 0
    q = orthonormalise(x.float())
    assert torch.allclose(q.T @ q, torch.eye(6).double(), atol=1e-12)
    assert torch.allclose(q @ (q.T @ x), x, atol=1e-6)


def test_full_float32_restores_what_was_set_even_after_an_error():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(RuntimeError, match="inside"), full_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            raise RuntimeError("inside")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_cpu_squares_in_float32():
    assert gram_dtype("cpu") == torch.float32


@STORED
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 7])
def test_deflated_gram(stored, precision, dtype, count, short_runs):
    tall = as_stored(noise(730, 600).float(), stored)
    vectors = orthonormal(600, 7, 5)[:, :count].to(precision)
    spikes = Spikes(vectors, torch.ones(count).double(), 0.0)
    left = tall.double() - tall.double() @ vectors.double() @ vectors.double().T
    rows = torch.cat([block.double().clone() for _, block in deflated_runs(tall, spikes, dtype)])
    assert torch.allclose(rows, left, atol=1e-5)
    gram = mirrored(deflated_gram(tall, spikes, dtype)).double()
    expected = left.T @ left
    shift = expected.trace() / 600 * 0.01
    assert torch.allclose(gram, expected - shift * vectors.double() @ vectors.double().T, atol=2e-3, rtol=1e-4)
    eigenvalues = bulk_eigenvalues(gram, spikes)
    assert eigenvalues.shape == (600 - count,)
    # What was taken out is below everything, also below the small eigenvalues of a nearly square matrix.
    assert torch.allclose(eigenvalues, torch.linalg.eigvalsh(expected).flip(0)[: 600 - count], atol=2e-2)


@pytest.mark.parametrize("p", [1, 255, 256, 257, 1100])
def test_mirrored(p):
    symmetric = noise(p, p)
    symmetric = symmetric + symmetric.T
    damaged = symmetric.tril() + noise(p, p, 1).triu(1)
    assert torch.equal(mirrored(damaged), symmetric)


@pytest.mark.parametrize("strongest", [30, 1e3, 1e5, 1e6])
def test_spikes_are_found_and_leave_the_bulk_unmoved(strongest):
    m, n = 1100, 700
    values = edge(m, n) * torch.tensor([strongest, strongest / 2, 25, 20, 1.5])
    delta = (noise(m, n) + with_values(m, n, values)).float()
    exact = torch.linalg.svdvals(delta.double())
    spikes = find_spikes(delta, energy(delta))
    assert spikes.count == 4
    assert torch.allclose(spikes.values, exact[:4], rtol=1e-6)
    q = spikes.vectors.double()
    assert torch.allclose(q.T @ q, torch.eye(4).double(), atol=1e-6)
    left = torch.linalg.svdvals(delta.double() - delta.double() @ q @ q.T)
    assert torch.allclose(left[: 700 - 4], exact[4:], rtol=1e-6)
    assert spikes.vectors.dtype == (torch.float64 if strongest > 100 else torch.float32)


def test_noise_has_no_spikes():
    calm = noise(900, 700).float()
    assert find_spikes(calm, energy(calm)).count == 0


def test_more_spikes_than_the_first_block_holds():
    # The block is doubled where the matrix is wide enough for that to pay; elsewhere the checks refuse what is left.
    wide, narrow = (spiked(1200, n, 40, 1e3, weakest=1e3).float() for n in (1100, 700))
    assert find_spikes(wide, energy(wide)).count == 40
    solution = solve.solve(narrow)
    assert solution.certificate.route == "gram64" and solution.certificate.rejected
    assert torch.allclose(solution.values, torch.linalg.svdvals(narrow.double()), rtol=1e-7)


def test_low_rank_without_any_noise():
    delta = with_values(800, 700, [5.0, 3.0, 1e-3]).float()
    spikes = find_spikes(delta, energy(delta))
    assert spikes.count == 3 and spikes.vectors.dtype == torch.float64
    # The third is known as well as its rounded entries allow.
    assert torch.allclose(spikes.values, torch.tensor([5.0, 3.0, 1e-3]).double(), rtol=1e-4)


@given(decades=st.floats(0, 6), count=st.integers(1, 60), seed=st.integers(0, 99))
@example(decades=5.0, count=28, seed=2)
def test_leading_directions_hold_the_leading_eigenvectors(decades, count, seed):
    p = 300
    values = torch.cat(
        [10 ** torch.linspace(decades / 2 + 1, 0.6, count), torch.linspace(2.0, 0.1, p - count)]
    ).double()
    vectors = orthonormal(p, p, seed)
    gram = (vectors * values) @ vectors.T
    block = leading_directions(gram.float(), values, count)
    assert block.shape[1] > count
    assert torch.allclose(block.T @ block, torch.eye(block.shape[1]).double(), atol=1e-6)
    wanted = vectors[:, :count]
    # A weak direction is known to the rounding of the strongest one, over the gap to what is not wanted.
    rounding = torch.finfo(torch.float32).eps * float(values[0] / (values[count - 1] - values[count]))
    lost = float(torch.linalg.norm(wanted - block @ (block.T @ wanted), dim=0).max())
    assert lost < max(2e-4, 5 * rounding)


def test_a_filter_costs_less_only_while_few_directions_are_wanted():
    values = torch.cat([torch.linspace(50, 4, 40), torch.linspace(2.5, 0.1, 960)]).double()
    width, degree, runs = filter_plan(values, 40)
    cut = float(values[width])
    growth = math.acosh(2 * float(values[39]) / cut - 1)
    assert 40 < width < 100 and runs >= 2
    assert runs * math.log(math.cosh(degree * growth)) >= math.log(1e7)
    assert filter_plan(values, 500) is None
    assert filter_plan(torch.ones(500).double(), 10) is None  # no gap anywhere


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rayleigh_ritz_and_residual(dtype):
    delta = spiked(400, 300, 6, 30).float()
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    turned = vh[:9].T @ orthonormal(9, 9, 8)
    left, vectors, values = rayleigh_ritz(delta, turned.to(dtype), 6)
    assert left.dtype == torch.float32 and torch.allclose(values, s[:6], rtol=1e-6)
    assert torch.allclose(left.double() @ vectors.T, (u[:, :6] * s[:6]) @ vh[:6], atol=1e-4)
    assert float(residual(delta, left, vectors, values).max()) < 1e-5
    tilted = orthonormalise(vectors + 1e-2 * orthonormal(300, 6, 2))
    lack = residual(delta, (delta.double() @ tilted).float(), tilted, values)
    assert float(lack.min()) > 1e-4


def test_all_directions_are_orthonormal_also_where_small_values_meet_what_was_taken_out():
    delta = spiked(700, 660, 8, 100).float()
    spikes = find_spikes(delta, energy(delta))
    vectors = all_directions(deflated_gram(delta, spikes, torch.float32), spikes).double()
    assert spikes.count > 0
    assert float((vectors.T @ vectors - torch.eye(660)).abs().max()) < 5e-3
    assert float((vectors[:, :8].T @ vectors[:, 8:]).abs().max()) < 1e-5


@STORED
def test_svd_float64_by_runs(stored):
    delta = as_stored(spiked(900, 80, 5, 1e6).float(), stored)
    values, vectors = svd_float64(delta)
    _, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    assert torch.allclose(values, s, rtol=0, atol=1e-13 * float(s[0]))
    assert torch.allclose((vectors.T @ vh.T).abs(), torch.eye(80).double(), atol=1e-6)


@pytest.mark.parametrize(("route", "spikes", "strongest"), [("gram32", 10, 50), ("gram64", 200, 1e3), ("zero", 0, 0)])
def test_routes(route, spikes, strongest):
    delta = spiked(900, 660, spikes, strongest) if spikes else torch.zeros(900, 660)
    solution = solve.solve(delta.float())
    assert solution.certificate.route == route
    assert all(check.passed for check in solution.certificate.checks)
    assert bool(solution.certificate.rejected) == (route == "gram64")


def test_float64_input_whose_range_no_gram_matrix_holds():
    delta = with_values(700, 660, 10.0 ** -torch.linspace(0, 12, 660).double())
    solution = solve.solve(delta)
    assert solution.certificate.route == "svd64" and len(solution.certificate.rejected) == 1
    assert "gram64" in solution.certificate.rejected[0]
    assert torch.allclose(solution.values, torch.linalg.svdvals(delta), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("breakage", "words"),
    [("scaled", "energy"), ("flat", "median"), ("singular", "rounding"), ("diverging", "converge")],
)
def test_a_gram_matrix_that_is_wrong_is_refused(breakage, words, monkeypatch):
    delta = spiked(800, 660, 3, 3).float()

    def broken(tall, spikes, dtype):
        gram = deflated_gram(tall, spikes, dtype)
        if dtype == torch.float64:
            return gram
        if breakage == "diverging":
            raise torch.linalg.LinAlgError("linalg.eigh: failed to converge")
        if breakage == "scaled":  # products of ten bits, as TF32 gives, or worse
            return gram * (1 + 2e-5)
        lowest = float(torch.linalg.eigvalsh(gram)[400 if breakage == "flat" else 30])
        values, vectors = torch.linalg.eigh(gram)
        values = torch.where(values < lowest, 0.0, values) * float(values.sum() / values[values >= lowest].sum())
        return (vectors * values) @ vectors.T

    monkeypatch.setattr(solve, "deflated_gram", broken)
    solution = solve.solve(delta)
    assert solution.certificate.route == "gram64" and len(solution.certificate.rejected) == 1
    assert words in solution.certificate.rejected[0]
    assert torch.allclose(solution.values, torch.linalg.svdvals(delta.double()), rtol=1e-9)


def test_triplets_from_a_damaged_gram_matrix_come_from_the_last_resort():
    delta = spiked(800, 660, 10, 3).float()
    solution = solve.solve(delta)
    solution.gram = solution.gram + 300 * noise(660, 660).float()
    left, vectors = triplets.leading_triplets(delta, solution, 10)
    assert solution.certificate.route == "svd64"
    assert any("triplets is" in sentence for sentence in solution.certificate.rejected)
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    assert torch.allclose(left.double() @ vectors.T.double(), (u[:, :10] * s[:10]) @ vh[:10], atol=1e-4)


@pytest.mark.parametrize("rank", [10, 400])
def test_values_that_no_svd_confirms_are_an_error(rank):
    delta = spiked(800, 660, 10, 3).float()
    solution = solve.solve(delta)
    solution.values = solution.values * 1.05
    with pytest.raises(SpectrumError, match="choose another device"):
        triplets.leading_triplets(delta, solution, rank)


def test_near_equal_values_around_the_cut_are_told_apart():
    m, n = 900, 660
    values = edge(m, n) * torch.tensor([9.0, 4.0, 2.0 * (1 + 2e-5), 2.0, 1.8]).double()
    u, v = orthonormal(m, 5, 31), orthonormal(n, 5, 32)
    delta = ((u * values) @ v.T + 1e-3 * noise(m, n)).float()
    exact_u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    left, vectors = triplets.leading_triplets(delta, solve.solve(delta), 3)
    best = (exact_u[:, :3] * s[:3]) @ vh[:3]
    error = torch.linalg.norm(left.double() @ vectors.T.double() - best) / torch.linalg.norm(best)
    assert float(error) < 2e-5


def test_weak_triplets_of_a_low_rank_matrix_need_no_last_resort():
    delta = with_values(800, 660, torch.linspace(5, 1, 16)).float()
    solution = solve.solve(delta)
    left, vectors = triplets.leading_triplets(delta, solution, 40)
    assert solution.certificate.route == "gram32"
    assert torch.allclose(left @ vectors.T.float(), delta, atol=1e-6)


def test_direction_maps_across_runs(short_runs, monkeypatch):
    monkeypatch.setattr(triplets, "_ROWS_AT_ONCE", 70)
    delta = spiked(731, 660, 5, 1e3).float()
    solution = solve.solve(delta)
    edges = [0, 3, 250, 251, 700, 731]
    maps = triplets.pooled_products(delta, solution, edges)
    exact = (delta.double() @ solution.directions().double()).abs()
    expected = torch.stack([exact[a:b].amax(dim=0) for a, b in pairwise(edges)])
    assert solution.spikes.count > 0
    assert torch.allclose(maps.double(), expected, rtol=1e-4, atol=2e-4 * float(expected.max()))
    assert torch.allclose(maps[:, :600].double(), expected[:, :600], rtol=2e-2)


def test_no_spikes_is_empty():
    assert no_spikes(noise(5, 3)).count == 0
