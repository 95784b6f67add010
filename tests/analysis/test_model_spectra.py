"""All weights of a pair from the store: complete, the same as one by one, and honest about what is missing."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_map import expert_modules, map_tower, towers
from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.analysis.noise_table import noise_csv, noise_table
from dgviz.analysis.rules import ModelCut, cut_model, sum_up
from dgviz.checkpoint import fingerprint, open_pair
from dgviz.checkpoint.fingerprint import content_hash, known_hashes
from dgviz.errors import ThresholdError
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import matrix_row
from dgviz.rmt.law import mp_fit
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight, known_keys, weights_of
from tests.checkpoints import random_tensors, write_checkpoint, write_pair, write_tiny_pair


def scanned(paths, store, leave=()):
    """Store every spectrum of a pair but those to leave, one by one."""
    pair = open_pair(*paths)
    for weight in weights_of(pair):
        if (weight.tensor.name, weight.index) not in leave:
            OpenWeight(weight, "cpu", store).spectrum()
    return pair


@pytest.fixture(scope="module")
def pair_and_store(tmp_path_factory):
    store = SpectrumStore(tmp_path_factory.mktemp("store"))
    return scanned(write_pair(tmp_path_factory.mktemp("pair"), shards=2), store), store


def test_every_matrix_is_read_as_one_by_one(pair_and_store):
    pair, store = pair_and_store
    spectra = read_spectra(pair, store)
    assert spectra.missing == ()
    assert [(matrix.weight.tensor.name, matrix.weight.index) for matrix in spectra.weights] == [
        (weight.tensor.name, weight.index) for weight in weights_of(pair)
    ]
    assert sum(matrix.weight.index is not None for matrix in spectra.weights) == 4
    for matrix in spectra.weights:
        alone = OpenWeight(Weight(pair[matrix.weight.tensor.name], matrix.weight.index), "cpu", store).spectrum()
        assert np.array_equal(matrix.spectrum.s, alone.s) and matrix.spectrum.shape == alone.shape
        assert matrix.spectrum.energy == pytest.approx(float(np.sum(alone.s**2)))


def test_what_is_not_stored_is_named_and_found_later(tmp_path):
    store = SpectrumStore(tmp_path / "store")
    left = ("model.layers.2.mlp.experts.gate_up_proj", 2)
    pair = scanned(write_pair(tmp_path), store, leave={left, ("model.pos", None)})
    first = read_spectra(pair, store)
    assert {(w.tensor.name, w.index) for w in first.missing} == {left, ("model.pos", None)}
    OpenWeight(Weight(pair[left[0]], 2), "cpu", store).spectrum()
    second = read_spectra(pair, store, first)
    assert [weight.name for weight in second.missing] == ["model.pos"]
    kept = {matrix.weight: matrix for matrix in first.weights}
    assert all(kept.get(matrix.weight, matrix) is matrix for matrix in second.weights)  # nothing is read twice


def test_a_large_pair_that_nobody_hashed_is_not_read(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    known = read_spectra(pair, SpectrumStore(tmp_path / "store"), hash_bytes=1000)
    assert known.missing == tuple(weights_of(pair))
    assert not any(weight.is_hashed for weight in weights_of(pair))


@pytest.mark.parametrize("many", [1, 1024])
def test_known_hashes_are_those_of_each_tensor(tmp_path, later, many, monkeypatch):
    monkeypatch.setattr(fingerprint, "_MANY", many)
    pair = open_pair(*write_pair(tmp_path, shards=2))
    infos = [info for paired in pair.repairable for info in (paired.base, paired.tuned)]
    assert known_hashes(infos) == [None] * len(infos)
    hashes = {info: content_hash(info) for info in infos[::2]}
    assert known_hashes(infos) == [hashes.get(info) for info in infos]
    matrices = [Weight(paired) for paired in pair.repairable if paired.name.endswith("up.weight")]
    assert known_keys(matrices) == [None] * len(matrices)
    key = matrices[0].key
    assert known_keys(matrices[:1] * 2) == [key, key]
    file = infos[0].file
    os.utime(file, (0, 0))  # changed: nothing of it is known any more
    left = dict(zip(infos, known_hashes(infos), strict=True))
    assert not any(own for info, own in left.items() if info.file == file) and any(left.values())


def test_figures_of_a_matrix_are_those_of_its_spectrum(pair_and_store):
    pair, store = pair_and_store
    matrix = next(m for m in read_spectra(pair, store).weights if m.weight.name == "model.embed_tokens.weight")
    row = assess(matrix, "fixed_rank", {"rank": 5})
    s, (rows, columns) = matrix.spectrum.s, matrix.spectrum.shape
    assert (row.rank, row.rank_share) == (5, 5 / s.size)
    assert row.energy_kept == pytest.approx(np.sum(s[:5] ** 2) / np.sum(s**2))
    assert row.noise_share == pytest.approx(np.sum(s[5:] ** 2) / np.sum(s**2))
    assert row.dropped_energy == pytest.approx(np.sum(s[5:] ** 2))
    assert row.kept_parameters == 5 * (rows + columns)
    assert row.spectrum.stable_rank == pytest.approx(np.sum(s**2) / s[0] ** 2)
    rest = np.concatenate([np.zeros(5), s[5:]])
    assert row.mp_fit == mp_fit(s, row.threshold.sigma, (rows, columns))
    assert row.residual_fit == mp_fit(rest, row.threshold.sigma, (rows, columns))
    with pytest.raises(ThresholdError, match="no threshold rule 'none'"):
        assess(matrix, "none", {})


def test_a_frozen_weight_is_zero_and_nothing_else(tmp_path):
    tensors = random_tensors()
    tuned = {name: tensor + (0 if "layers.2" in name else 1e-3) for name, tensor in tensors.items()}
    paths = write_checkpoint(tmp_path / "base", tensors), write_checkpoint(tmp_path / "tuned", tuned)
    store = SpectrumStore(tmp_path / "store")
    spectra = read_spectra(scanned(paths, store), store)
    row = assess(next(m for m in spectra.weights if m.weight.name == "model.layers.2.mlp.up.weight"), "dg_hard", {})
    assert (row.rank, row.noise_share, row.dropped_energy, row.spectrum.stable_rank, row.mp_fit) == (
        0,
        0,
        0,
        None,
        None,
    )
    whole = sum_up(ModelCut(RepairPlan(), (row,)))
    assert whole.energy_kept == 1 and whole.emptied == 0
    assert row.frozen and not row.unchanged and whole.unchanged == 0  # nobody has kept anything of no update


def test_totals_add_up(pair_and_store):
    pair, store = pair_and_store
    rows = [assess(matrix, "dg_hard", {}) for matrix in read_spectra(pair, store).weights]
    whole = sum_up(ModelCut(RepairPlan(), tuple(rows)))
    assert whole.matrices == 9 and whole.rank == sum(row.rank for row in rows) > 9
    kept = sum(np.sum(row.spectrum.s[: row.rank] ** 2) for row in rows)
    assert whole.energy_kept == pytest.approx(kept / sum(row.spectrum.energy for row in rows))
    everything = sum_up(cut_model(rows, RepairPlan("manual", {"tau": 0})))
    assert everything.unchanged == 9 and everything.energy_kept == 1
    nothing = sum_up(cut_model(rows, RepairPlan("fixed_rank", {"rank": 0})))
    assert (nothing.emptied, nothing.kept_parameters, nothing.energy_kept) == (9, 0, pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt2", "whisper", "clip", "mamba"])
def test_the_map_of_every_architecture_holds_every_matrix_once(tmp_path, family):
    store = SpectrumStore(tmp_path / "store")
    pair = scanned(write_tiny_pair(tmp_path, family), store)
    spectra = read_spectra(pair, store)
    rows = [assess(matrix, "dg_hard", {}) for matrix in spectra.weights]
    names = [matrix.weight.tensor.name for matrix in spectra.weights]
    grids = [map_tower(rows, (), FIGURES["rank_share"], tower) for tower in [*towers(names), ""]]
    held = [row.weight.name for grid in grids for cell in grid.cells for row in cell.rows]
    assert sorted(held) == sorted(matrix.weight.name for matrix in spectra.weights)
    for grid in grids[:-1]:
        assert len({(cell.row, cell.column) for cell in grid.cells}) == len(grid.cells)
        assert grid.rows == ("0", "1")
    for quantity in FIGURES.values():
        for row in rows:
            value = quantity.value(row)
            assert value is None or np.isfinite(value)
            assert quantity.text(value)


def test_experts_are_folded_and_laid_out(pair_and_store):
    pair, store = pair_and_store
    spectra = read_spectra(pair, store)
    rows = [assess(matrix, "fixed_rank", {"rank": 3}) for matrix in spectra.weights]
    module, quantity = "mlp.experts.gate_up_proj", FIGURES["energy_kept"]
    assert expert_modules((row.weight for row in rows), "model.layers") == [module]
    experts = [quantity.value(row) for row in rows if row.weight.index is not None]
    for statistic, expected in (("mean", np.mean(experts)), ("low", min(experts)), ("high", max(experts))):
        grid = map_tower(rows, (), quantity, "model.layers", statistic)
        cell = next(cell for cell in grid.cells if grid.columns[cell.column] == module)
        assert cell.value == pytest.approx(expected) and (cell.low, cell.high) == (min(experts), max(experts))
        extreme = min(experts) if statistic == "low" else max(experts)
        assert quantity.value(cell.extreme) == extreme
    eighth = Weight(pair["model.layers.2.mlp.experts.gate_up_proj"], 7)
    laid = map_tower(rows[:-1], (eighth,), quantity, "model.layers", "mean", module)
    assert laid.columns == ("0", "1", "2", "3", "7") and laid.rows == ("2",)
    assert [cell.value is None for cell in sorted(laid.cells, key=lambda c: c.column)] == [False] * 4 + [True]


def test_the_noise_table_adds_up(pair_and_store):
    pair, store = pair_and_store
    rows = [assess(matrix, "fixed_rank", {"rank": 3}) for matrix in read_spectra(pair, store).weights]
    table = noise_table(rows)
    for groups in (table.classes, table.thirds):
        assert sum(row.norm_share for row in groups) == pytest.approx(1)
        assert sum(row.dropped_share for row in groups) == pytest.approx(table.whole.dropped_share)
        assert sum(row.matrices for row in groups) == len(rows)
    assert {row.group for row in table.classes} == {"MLP", "experts", "embedding", "convolution", "other"}
    assert [row.group for row in table.thirds] == ["first third", "middle third", "outside the layers"]
    energy = sum(np.sum(row.spectrum.s**2) for row in rows)
    experts = [row.spectrum.s for row in rows if row.weight.index is not None]
    found = next(row for row in table.classes if row.group == "experts")
    assert found.norm_share == pytest.approx(sum(np.sum(s**2) for s in experts) / energy)
    assert found.mean_noise == pytest.approx(np.mean([np.sum(s[3:] ** 2) / np.sum(s**2) for s in experts]))
    assert found.product == pytest.approx(found.mean_noise * found.norm_share)
    assert found.dropped_share == pytest.approx(sum(np.sum(s[3:] ** 2) for s in experts) / energy)
    lines = noise_csv(table).splitlines()
    assert len(lines) == 1 + len(table.classes) + len(table.thirds) + 1
    assert lines[-1].startswith("all,all,9,")


def test_what_is_kept_whole_is_so_in_every_figure(tmp_path):
    """An exact low-rank update in float64, and one that training has left alone."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    base = {f"layers.{n}.mlp.up.weight": draw(64, 64) for n in range(2)}
    tuned = base | {"layers.0.mlp.up.weight": base["layers.0.mlp.up.weight"] + 0.01 * draw(64, 20) @ draw(20, 64)}
    sides = [write_checkpoint(tmp_path / name, own, {"a": 1}) for name, own in (("base", base), ("tuned", tuned))]
    pair, store = open_pair(*sides), SpectrumStore(tmp_path / "store")
    for weight in weights_of(pair):
        OpenWeight(weight, "cpu", store).spectrum()
    for rule in ("dg_hard", "iqr", "screenot"):
        low, frozen = (assess(stored, rule, {}) for stored in read_spectra(pair, store).weights)
        assert (low.rank, low.energy_kept, low.unchanged, low.noise_share) == (20, 1.0, True, 0.0)
        assert (frozen.rank, frozen.unchanged, frozen.frozen) == (0, False, True)
        row = matrix_row(low.spectrum, rule, {})
        assert (row["rank"], row["energy_kept"]) == (20, 1.0)
    noisy = replace(low, threshold=replace(low.threshold, whole=False), energy_kept=0.75)
    table = noise_table([noisy, frozen])
    assert table.whole.mean_noise == 0.25  # the mean over what has changed
    assert FIGURES["rank_share"].pool([low, frozen]) == pytest.approx(100 * 20 / 64)
