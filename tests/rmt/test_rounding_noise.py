"""Rounding in an update: predicted from the steps, compared with the rounding of updates that are known."""

import math

import numpy as np
import pytest
import torch

from dgviz.rmt.rounding_noise import rounding_noise, rounding_returned, rounding_spectrum
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.entries import describe_entries
from dgviz.spectra.moments import find_nonzero
from dgviz.spectra.steps import measure_steps
from dgviz.spectra.svd.decompose import decompose
from tests.deltas import noise, orthonormal

M, N = 480, 256
BASE = (0.02 * noise(M, N, 9)).bfloat16()


def looked_at(base, tuned):
    delta = tuned.float() - base.float()
    found = decompose(delta, "cpu")
    summary = describe_entries(delta, found, base, tuned)
    return Spectrum(found.s.numpy(), tuple(delta.shape), {}, summary), found


def low_rank(rank):
    return noise(M, rank, 3) @ noise(rank, N, 4) / math.sqrt(rank)


def true_rounding(base, tuned, update):
    """Standard deviation of what is stored of an update less the best multiple of it."""
    stored = tuned.double() - base.double()
    gain = float((stored * update).sum() / (update * update).sum())
    return float((stored - gain * update).square().mean().sqrt()), gain


@pytest.mark.parametrize("relative", [1e-1, 1e-2, 3e-3, 1e-3, 2.5e-4])
@pytest.mark.parametrize("rank", [0, 16])
def test_the_floor_is_the_rounding_of_a_known_update(relative, rank):
    update = 0.02 * relative * (low_rank(rank) if rank else noise(M, N, 1))
    tuned = (BASE.double() + update).float().bfloat16()
    rounding = rounding_noise(looked_at(BASE, tuned)[0])
    expected, gain = true_rounding(BASE, tuned, update)
    assert rounding.sigma == pytest.approx(expected, rel=0.03)
    assert rounding.gain == pytest.approx(gain, abs=0.04)
    assert (rounding.format, rounding.side) == ("bfloat16", "tuned")


@pytest.mark.parametrize("relative", [1e-1, 3e-3, 2.5e-4])
def test_where_base_was_not_rounded_every_entry_is_rounded_at_random(relative):
    base = (0.02 * noise(M, N, 9)).float()
    update = 0.02 * relative * noise(M, N, 1)
    tuned = (base.double() + update).float().bfloat16()
    rounding = rounding_noise(looked_at(base, tuned)[0])
    error = tuned.double() - base.double() - update
    assert rounding.sigma == rounding.sigma_most == pytest.approx(float(error.square().mean().sqrt()), rel=0.01)


@pytest.mark.parametrize("relative", [1e-1, 3e-3, 2.5e-4])
def test_the_most_is_that_of_both_sides_rounded(relative):
    start = 0.02 * noise(M, N, 9)
    update = 0.02 * relative * noise(M, N, 1)
    base, tuned = start.float().bfloat16(), (start + update).float().bfloat16()
    rounding = rounding_noise(looked_at(base, tuned)[0])
    expected = float((tuned.double() - base.double() - update).square().mean().sqrt())
    assert rounding.sigma < rounding.sigma_most == pytest.approx(expected, rel=0.03)


def test_the_line_is_the_spectrum_of_the_rounding():
    update = 1e-3 * noise(M, N, 1)
    tuned = (BASE.double() + update).float().bfloat16()
    rounding = rounding_noise(looked_at(BASE, tuned)[0])
    expected = torch.linalg.svdvals(tuned.double() - BASE.double() - update).numpy()
    assert rounding_spectrum(rounding, (M, N)) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_are_those_of_the_format(dtype):
    values = torch.tensor([1.0, 1.5, 2.0, -3.5, 0.25, 0.0]).to(dtype).reshape(2, 3)
    delta = torch.ones(2, 3)
    steps = measure_steps(values, values, find_nonzero(delta))
    bits = {torch.bfloat16: 7, torch.float16: 10}[dtype]
    counts = dict(steps.classes)
    assert counts == {-bits: 2, 1 - bits: 2, -2 - bits: 1}  # zero's own step is of no account


def test_a_float32_file_of_bfloat16_numbers_counts_as_bfloat16_and_finer_ones_do_not():
    nonzero = find_nonzero(torch.ones(M, N))
    fine = (0.02 * noise(M, N, 9)).float()
    steps = measure_steps(BASE.float(), (BASE + 1).float(), nonzero)
    assert (steps.format, steps.side, steps.stored, steps.on_grid) == ("bfloat16", "tuned", "float32", True)
    assert measure_steps(fine, 2 * fine, nonzero) is None
    assert measure_steps(BASE, fine, nonzero).side == "base"
    assert not measure_steps(fine, BASE, nonzero).on_grid


def test_only_live_rows_and_columns_count():
    tuned = (BASE.double() + 0.01 * noise(M, N, 1)).bfloat16()
    tuned[::2] = BASE[::2]
    whole = rounding_noise(looked_at(BASE, tuned)[0])
    part = rounding_noise(looked_at(BASE[1::2], tuned[1::2])[0])
    assert whole.sigma == pytest.approx(part.sigma, rel=1e-6)


def test_uneven_rounding_is_seen():
    base = (BASE.double() * torch.exp(noise(M, 1, 2))).bfloat16()
    tuned = (base.double() + 0.01 * noise(M, N, 1)).bfloat16()
    uneven, even = (rounding_noise(looked_at(b, t)[0]) for b, t in ((base, tuned), (BASE, (BASE + 1e-2))))
    assert uneven.uneven_rows > 0.6 > 0.2 > even.uneven_rows


@pytest.mark.parametrize("strength", [3e-1, 3e-2, 3e-3])
def test_what_rounding_returns_is_what_writing_the_repair_returns(strength):
    signal = strength * (orthonormal(M, 8, 1) @ orthonormal(N, 8, 2).T)
    tuned = (BASE.double() + signal + 3e-4 * noise(M, N, 1)).float().bfloat16()
    spectrum, found = looked_at(BASE, tuned)
    left, right = found.triplets(8)
    repaired = (left @ right).double()
    written = (BASE.double() + repaired).float().bfloat16().double() - BASE.double()
    removed = float(np.linalg.norm(spectrum.s[8:]))
    returned = float(torch.linalg.norm(written - repaired)) / removed
    assert rounding_returned(spectrum, 8) == pytest.approx(returned, rel=0.15)


def test_nothing_returns_where_the_output_is_float32_or_base():
    tuned = (BASE.double() + 1e-3 * noise(M, N, 1)).float()
    spectrum, _ = looked_at(BASE, tuned)
    assert rounding_returned(spectrum, 8) is None
    spectrum, _ = looked_at(BASE, tuned.bfloat16())
    assert rounding_returned(spectrum, 0) is None and rounding_returned(spectrum, N) is None


def test_nothing_is_said_where_nothing_changed_or_nobody_looked():
    assert rounding_noise(looked_at(BASE, BASE)[0]) is None
    assert rounding_noise(Spectrum(np.ones(3), (3, 4), {})) is None
