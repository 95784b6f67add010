"""Pooled maps and colour scales: exact against naive loops, monotone, bounded."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgviz.errors import SpectrumError
from dgviz.figures.figure4 import panels
from dgviz.figures.figure4.maps import EntryPanels, Scale, Window, block_edges, choose_scale, nice_step
from dgviz.figures.figure4.panels import (
    MAX_COLUMNS,
    MAX_DIRECTION_BYTES,
    MAX_ROWS,
    TWIN_SEED,
    compute_between,
    compute_entry_panels,
    compute_spectrum_panels,
    compute_twin,
    direction_rows,
    pooled_magnitudes,
)
from dgviz.rmt.law import bulk_edge, mp_fit
from dgviz.spectra.svd.decompose import decompose

SCALES = [Scale("linear", 0.0, 3.0), Scale("sqrt", 0.0, 2e-5), Scale("log", 1e-3, 7e4)]


def test_a_noise_twin_follows_the_law_and_is_the_same_every_time():
    shape, sigma = (120, 90), 0.02
    scale = choose_scale(0.1, 0.02)
    tau, nothing = 1.2 * bulk_edge(sigma, shape), np.zeros(shape, dtype=np.uint8)
    own = EntryPanels(shape, 0, scale, nothing, nothing, nothing)
    twin, again = (compute_twin(own, sigma, tau, "cpu") for _ in range(2))
    assert np.array_equal(twin.s, again.s) and twin.entries.rank == 0 and not twin.entries.repaired.any()
    assert np.array_equal(twin.entries.discarded, twin.entries.tuned) and twin.entries.scale == scale
    assert mp_fit(twin.s, sigma, shape) > 95
    low = compute_twin(own, sigma, float(twin.s[4]), "cpu")
    assert low.entries.rank == 4 and low.entries.repaired.any() and low.compared is None
    other, between = compute_twin(own, sigma, float(twin.s[4]), "cpu", against=float(twin.s[1])).compared
    assert other.rank == 1 and np.array_equal(other.tuned, low.entries.tuned)
    noise = sigma * torch.randn(shape, generator=torch.Generator().manual_seed(TWIN_SEED))
    left, s, right = torch.linalg.svd(noise.double(), full_matrices=False)
    expected = scale.encode(pooled_magnitudes((left[:, 1:4] * s[1:4]) @ right[1:4]))
    assert np.abs(between.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("pooling", ["max", "rms"])
def test_a_window_holds_the_very_entries_and_their_parts(pooling, small_maps):
    delta = planted(60, 50, [3.0, 6.0, 9.0])
    found, window = decompose(delta, "cpu"), Window((10, 41), (7, 47), pooling)
    shown = compute_entry_panels(found, delta, 2, window=window)
    left, s, right = torch.linalg.svd(delta, full_matrices=False)
    kept = (left[:, :2] * s[:2]) @ right[:2]
    parts = [whole[10:41, 7:47].numpy() for whole in (delta, kept, delta - kept)]
    for exact, expected in zip(shown.exact, parts, strict=False):
        np.testing.assert_allclose(exact, expected, atol=1e-5)
    pool = naive_pool if pooling == "max" else naive_mean_square
    for codes, part in zip((shown.tuned, shown.repaired, shown.discarded), parts, strict=True):
        expected = shown.scale.encode(pool(part, 12, 9))
        assert codes.shape == (12, 9) and np.abs(codes.astype(int) - expected.astype(int)).max() <= 1
    moved = compute_entry_panels(found, delta, 50, shown, window)
    assert np.array_equal(moved.tuned, shown.tuned) and not moved.discarded.any()
    assert compute_twin(shown, 1.0, 5.0, "cpu").entries.window == window


def test_a_window_outside_the_matrix_is_refused():
    delta = planted(20, 10, [3.0])
    for rows, columns in (((0, 21), None), (None, (4, 4)), ((-1, 5), None)):
        with pytest.raises(ValueError, match="lies outside"):
            compute_entry_panels(decompose(delta, "cpu"), delta, 1, window=Window(rows, columns))


def naive_mean_square(matrix, rows, columns):
    edges = [block_edges(length, blocks) for length, blocks in zip(matrix.shape, (rows, columns), strict=True)]
    return np.array(
        [
            [np.sqrt(np.mean(matrix[a:b, c:d] ** 2)) for c, d in itertools.pairwise(edges[1])]
            for a, b in itertools.pairwise(edges[0])
        ]
    )


def test_what_lies_between_two_ranks_is_what_one_keeps_beyond_the_other():
    generator = torch.Generator().manual_seed(3)
    delta = torch.randn(90, 70, generator=generator, dtype=torch.float64)
    found = decompose(delta, "cpu")
    entries = compute_entry_panels(found, delta, 4)
    left, s, right = torch.linalg.svd(delta, full_matrices=False)
    for low, high in ((4, 9), (0, 3), (4, 70)):
        exact = (left[:, low:high] * s[low:high]) @ right[low:high]
        codes = compute_between(found, low, high, entries.scale)
        assert np.abs(codes.astype(int) - entries.scale.encode(pooled_magnitudes(exact)).astype(int)).max() <= 1
    assert not compute_between(found, 5, 5, entries.scale).any()


def planted(m, n, spikes, seed=0, sigma=1.0, dtype=torch.float64):
    """Noise of std sigma plus spikes given in units of its bulk edge."""
    generator = torch.Generator().manual_seed(seed)
    noise = sigma * torch.randn(m, n, generator=generator, dtype=dtype)
    u = torch.linalg.qr(torch.randn(m, len(spikes), generator=generator, dtype=dtype))[0]
    v = torch.linalg.qr(torch.randn(n, len(spikes), generator=generator, dtype=dtype))[0]
    return noise + (u * (bulk_edge(sigma, (m, n)) * torch.tensor(spikes, dtype=dtype))) @ v.T


def naive_pool(matrix, rows, columns):
    """Block maxima, one block at a time."""
    m, n = matrix.shape
    pooled = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            block = matrix[i * m // rows : (i + 1) * m // rows, j * n // columns : (j + 1) * n // columns]
            pooled[i, j] = np.abs(block).max()
    return pooled


@given(st.integers(1, 5000), st.integers(1, 600))
def test_block_edges_cut_everything_into_non_empty_nearly_equal_runs(length, blocks):
    if blocks > length:
        with pytest.raises(ValueError, match="non-empty"):
            block_edges(length, blocks)
        return
    sizes = np.diff(block_edges(length, blocks))
    assert sizes.sum() == length
    assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


@pytest.fixture
def small_maps(monkeypatch):
    """Maps of at most 12 x 9 blocks made in several runs of rows, so that a naive loop can check them."""
    monkeypatch.setattr(panels, "MAX_ROWS", 12)
    monkeypatch.setattr(panels, "MAX_COLUMNS", 9)
    monkeypatch.setattr(panels, "_CHUNK_ENTRIES", 900)


@pytest.mark.parametrize("shape", [(5, 3), (1, 70), (25, 19), (12, 9), (33, 103), (400, 2)])
def test_pooling_is_the_block_maximum_of_magnitudes(shape, small_maps):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pooled = pooled_magnitudes(matrix)
    assert np.array_equal(pooled, naive_pool(matrix.numpy(), min(shape[0], 12), min(shape[1], 9)))


@pytest.mark.parametrize("chunk", [1, 100_000, 10_000_000])
def test_runs_of_rows_of_any_length_give_the_same_map(chunk, monkeypatch):
    matrix = torch.randn(777, 1030, generator=torch.Generator().manual_seed(1))
    usual = pooled_magnitudes(matrix)
    monkeypatch.setattr(panels, "_CHUNK_ENTRIES", chunk)
    assert usual.shape == (MAX_ROWS, MAX_COLUMNS) and np.array_equal(pooled_magnitudes(matrix), usual)


@pytest.mark.parametrize("shape", [(700, 90), (90, 700), (60, 60)])
def test_entry_panels_show_tuned_repaired_and_discarded_on_one_scale(shape, small_maps):
    delta = planted(*shape, [3.0, 6.0, 9.0])
    decomposition = decompose(delta, "cpu")
    got = compute_entry_panels(decomposition, delta, 2)
    left, right = decomposition.triplets(2)
    kept = (left @ right).numpy()
    rows, columns = got.tuned.shape
    assert (rows, columns) == (12, 9)
    assert got.rank == 2 and got.shape == shape
    assert np.array_equal(got.tuned, got.scale.encode(naive_pool(delta.numpy(), rows, columns)))
    assert np.array_equal(got.repaired, got.scale.encode(naive_pool(kept, rows, columns)))
    assert np.array_equal(got.discarded, got.scale.encode(naive_pool(delta.numpy() - kept, rows, columns)))
    assert got.tuned.max() == 255


def test_a_second_rank_takes_over_the_tuned_map_and_its_scale():
    delta = planted(64, 40, [4.0, 5.0])
    decomposition = decompose(delta, "cpu")
    first = compute_entry_panels(decomposition, delta, 1)
    second = compute_entry_panels(decomposition, delta, 2, previous=first)
    fresh = compute_entry_panels(decomposition, delta, 2)
    assert second.tuned is first.tuned and second.scale == fresh.scale
    assert np.array_equal(second.repaired, fresh.repaired) and np.array_equal(second.discarded, fresh.discarded)


def test_nothing_kept_and_everything_kept_are_exact():
    delta = planted(50, 30, [4.0], dtype=torch.float32)
    decomposition = decompose(delta, "cpu")
    nothing, everything = (compute_entry_panels(decomposition, delta, rank) for rank in (0, 30))
    assert not nothing.repaired.any() and np.array_equal(nothing.discarded, nothing.tuned)
    assert not everything.discarded.any() and np.array_equal(everything.repaired, everything.tuned)


def test_entry_panels_refuse_what_does_not_belong_together():
    delta = planted(20, 10, [4.0])
    decomposition = decompose(delta, "cpu")
    with pytest.raises(ValueError, match="lies in 0 to 10; got 11"):
        compute_entry_panels(decomposition, delta, 11)
    with pytest.raises(ValueError, match=r"20 x 10 delta, the delta given is \(10, 20\)"):
        compute_entry_panels(decomposition, delta.T, 1)
    other = planted(12, 10, [4.0])
    previous = compute_entry_panels(decompose(other, "cpu"), other, 1)
    with pytest.raises(ValueError, match="previous panels"):
        compute_entry_panels(decomposition, delta, 1, previous=previous)


@pytest.mark.parametrize("shape", [(700, 60), (60, 700), (40, 40)])
def test_spectrum_panels_hold_every_direction_with_rows_pooled(shape):
    delta = planted(*shape, [3.0, 6.0])
    decomposition = decompose(delta, "cpu")
    got = compute_spectrum_panels(decomposition)
    u, s, _ = torch.linalg.svd(delta, full_matrices=False)
    rows = min(shape[0], MAX_ROWS)
    edges = block_edges(shape[0], rows)
    expected = np.maximum.reduceat(np.abs((u * s).numpy()), edges[:-1], axis=0)
    assert got.directions.shape == (rows, min(shape)) and got.directions.dtype == np.uint8
    # The map is float32: a value on the border between two codes may fall to either side.
    assert np.abs(got.directions.astype(int) - got.scale.encode(expected)).max() <= 1
    assert np.allclose(got.s, s.numpy())


def test_a_direction_map_that_is_not_one_column_per_value_is_an_error():
    decomposition = decompose(planted(30, 20, [4.0]), "cpu")
    decomposition.s = decomposition.s[:-1]
    with pytest.raises(SpectrumError, match=r"30 x 20 delta has shape \(30, 20\), expected \(30, 19\)"):
        compute_spectrum_panels(decomposition)


@pytest.mark.parametrize("directions", [1, 768, 3072, 6250, 6251, 16384, 65536, 10**7])
def test_the_direction_map_stays_bounded(directions):
    rows = direction_rows(directions)
    assert rows >= 1 and MAX_ROWS % rows == 0
    assert rows * directions <= MAX_DIRECTION_BYTES or rows == 1


def test_panels_travel_between_processes_small_and_whole():
    delta = planted(1000, 600, [4.0], dtype=torch.float32)
    decomposition = decompose(delta, "cpu")
    entries, spectrum = compute_entry_panels(decomposition, delta, 1), compute_spectrum_panels(decomposition)
    message = pickle.dumps((entries, spectrum))
    assert len(message) < 3 * MAX_ROWS * MAX_COLUMNS + MAX_ROWS * 600 + 8 * 600 + 4096
    back, _ = pickle.loads(message)
    assert back.scale == entries.scale and np.array_equal(back.tuned, entries.tuned)


def test_spikes_a_million_times_the_bulk_leave_both_visible():
    delta = planted(400, 300, [1e6, 10.0])
    decomposition = decompose(delta, "cpu")
    entries, spectrum = compute_entry_panels(decomposition, delta, 2), compute_spectrum_panels(decomposition)
    assert entries.scale.kind == spectrum.scale.kind == "log"
    assert entries.tuned.max() == 255 and np.median(entries.discarded) >= 15
    assert spectrum.directions[:, 0].max() == 255 and np.median(spectrum.directions[:, 2:]) >= 15
    assert np.median(spectrum.directions[:, 0]) - np.median(spectrum.directions[:, 2:]) > 100


@pytest.mark.parametrize("power", [-30, 30])
def test_extreme_magnitudes_are_drawn_as_any_other(power):
    delta = planted(60, 40, [5.0], dtype=torch.float32)
    usual = compute_entry_panels(decompose(delta, "cpu"), delta, 1)
    scaled = delta * 10.0**power
    decomposition = decompose(scaled, "cpu")
    got = compute_entry_panels(decomposition, scaled, 1)
    assert got.scale.high == pytest.approx(usual.scale.high * 10.0**power)
    assert np.abs(got.repaired.astype(int) - usual.repaired).max() <= 1
    assert compute_spectrum_panels(decomposition).directions.max() == 255
    assert len(got.scale.ticks()) >= 3


def test_a_zero_delta_and_a_low_rank_one_have_maps():
    zero = torch.zeros(30, 20)
    entries = compute_entry_panels(decompose(zero, "cpu"), zero, 0)
    assert not entries.tuned.any() and entries.scale.high == 0 and entries.scale.ticks() == [(0.0, "0")]
    assert not compute_spectrum_panels(decompose(zero, "cpu")).directions.any()
    lora = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) @ torch.randn(4, 100)
    assert compute_spectrum_panels(decompose(lora, "cpu")).scale.kind == "linear"


magnitudes = st.floats(0, 1e5, allow_nan=False, allow_subnormal=False)


@pytest.mark.parametrize("scale", SCALES)
@given(values=st.lists(magnitudes, min_size=1, max_size=40))
def test_codes_are_monotone_and_commute_with_maxima(scale, values):
    codes = scale.encode(np.sort(values))
    assert (np.diff(codes.astype(int)) >= 0).all()
    assert codes.max() == scale.encode(max(values))
    assert ((codes == 0) == (np.sort(values) == 0)).all()


@pytest.mark.parametrize("scale", SCALES)
def test_a_code_stands_for_its_own_value(scale):
    table = scale.decode()
    assert table[0] == 0 and table[255] == pytest.approx(scale.high)
    assert (np.diff(table) > 0).all()
    assert np.array_equal(scale.encode(table), np.arange(256))


@pytest.mark.parametrize("scale", [*SCALES, Scale("log", 0.3, 4.0), Scale("linear", 0.0, 8.0e3)])
def test_colour_bar_numbers_stand_where_their_values_are(scale):
    ticks = scale.ticks()
    places = [where for where, _ in ticks]
    assert ticks[0] == (0.0, "0") and 3 <= len(ticks) <= 14
    assert min(np.diff(places)) > 0.06
    assert np.allclose(scale.position([float(label) for _, label in ticks[1:]]), places[1:])


def test_the_scale_follows_the_ratio_of_peak_to_bulk():
    assert choose_scale(2.5, 1.0).kind == "linear"
    assert choose_scale(8.0, 1.0).kind == "sqrt"
    assert choose_scale(1e6, 1.0) == Scale("log", 1 / 6, 1e6)
    assert choose_scale(1.0, 0.0).kind == "linear"
    assert choose_scale(0.0, 0.0).high == 0


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_map_of_anything_but_magnitudes_is_refused(bad):
    with pytest.raises(ValueError, match="finite magnitudes"):
        SCALES[0].encode([1.0, bad])


@pytest.mark.parametrize(("rough", "step"), [(0.9, 1), (1.3, 1), (1.5, 2), (3.5, 5), (8, 10), (0.00021, 0.0002)])
def test_nice_steps(rough, step):
    assert nice_step(rough) == pytest.approx(step)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_panels_on_cuda_agree_with_the_cpu():
    delta = planted(700, 600, [4.0, 8.0])
    on_cpu = compute_entry_panels(decompose(delta, "cpu"), delta, 2)
    on_gpu = compute_entry_panels(decompose(delta.cuda(), "cuda"), delta.cuda(), 2)
    assert on_gpu.scale.high == pytest.approx(on_cpu.scale.high)
    assert np.abs(on_gpu.repaired.astype(int) - on_cpu.repaired).max() <= 1
