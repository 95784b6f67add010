"""Direction maps with the bulk sketched, against float64: exact where directions are kept, else right in the mean."""

from itertools import pairwise

import pytest
import torch

from dgviz.spectra.svd import decompose as engine
from dgviz.spectra.svd.decompose import decompose
from dgviz.spectra.svd.sketch import BANDS
from tests.deltas import noise, power_law, spiked, with_values

BLOCKS, SPIKES = 20, 5


@pytest.fixture(autouse=True)
def small_is_sketched(monkeypatch):
    monkeypatch.setattr(engine, "_SKETCHED", 660)


@pytest.mark.parametrize("shape", [(1000, 660), (660, 1000)])
def test_bands_of_the_bulk_have_the_energy_that_float64_finds_in_each_block_of_rows(shape):
    m, p = shape[0], min(shape)
    delta = noise(*shape) * torch.linspace(0.5, 1.5, m)[:, None] + with_values(*shape, [400, 300, 250, 200, 180])
    u, s, _ = torch.linalg.svd(delta, full_matrices=False)
    edges = [block * m // BLOCKS for block in range(BLOCKS + 1)]
    exact = torch.stack([(u * s)[a:b].abs().amax(dim=0) for a, b in pairwise(edges)])
    found = decompose(delta.float(), "cpu")
    assert found.sketches(SPIKES)
    maps = found.direction_maps(BLOCKS, SPIKES).double()
    assert maps.shape == exact.shape
    assert torch.allclose(maps[:, :SPIKES], exact[:, :SPIKES], rtol=1e-3, atol=1e-3 * float(exact.max()))
    band = torch.arange(p - SPIKES) * BANDS // (p - SPIKES)
    errors = []
    for number in range(BANDS):
        own, expected = (side[:, SPIKES:][:, band == number].square().mean(dim=1).sqrt() for side in (maps, exact))
        assert float(own.mean() / expected.mean()) == pytest.approx(1, abs=0.05)
        errors.append((own / expected - 1).abs())
    errors = torch.stack(errors)
    assert float(errors.max()) < 0.3 and float(errors.mean()) < 0.06


def test_what_cannot_be_sketched_is_computed_one_by_one():
    steep, few = decompose(power_law(800, 660, 1.0).float(), "cpu"), decompose(spiked(800, 660, 5, 6).float(), "cpu")
    assert not steep.sketches(5) and few.sketches(5) and not few.sketches(200)
    assert torch.equal(few.direction_maps(4, 200), few.direction_maps(4))
    assert not few.sketches(5)  # every direction is known now


def test_nothing_kept_is_all_sketched():
    maps = decompose(noise(800, 660).float(), "cpu").direction_maps(4, 0)
    assert maps.shape == (4, 660) and torch.isfinite(maps).all() and (maps > 0).all()
