"""Methods on a whole model from stored spectra, against the comparison that computes every tensor."""

import pytest

from dgviz.analysis.methods import comparison_table, iter_comparison
from dgviz.analysis.model_spectra import read_spectra
from dgviz.analysis.preview import preview_matrices, preview_model
from dgviz.checkpoint import open_pair
from dgviz.checkpoint.module_path import block_depths
from dgviz.errors import MethodError
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.checkpoints import planted_update, random_tensors, write_checkpoint

TEXTS = (
    "dg_hard:alpha=0.7",
    "dg_hard:rule=mp_edge:shrinker=frobenius",
    "rank_r:rank=5",
    "wise_ft:alpha=0.3",
    "lines:alpha=0.2",
    "norm_matched",
    "norm_matched_global:scale=2",
    "complement",
    "flat_fro:alpha=0.8",
    "flat_nuclear:rule=mp_edge:shrinker=nuclear",
    "random_k:seed=3",
    "bottom_k:scale=0.5",
    "norm_capped:cap=0.2",
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Matrices only: methods for every tensor are measured on vectors too, which have no spectrum."""
    directory = tmp_path_factory.mktemp("pair")
    base = {name: tensor for name, tensor in random_tensors().items() if tensor.is_floating_point()}
    base = {name: base[name] for name in base if "norm" not in name and "scalar" not in name and "small" not in name}
    return open_pair(
        write_checkpoint(directory / "base", base), write_checkpoint(directory / "tuned", planted_update(base))
    )


@pytest.fixture(scope="module")
def matrices(pair, tmp_path_factory):
    store = SpectrumStore(tmp_path_factory.mktemp("store"))
    for weight in weights_of(pair):
        OpenWeight(weight, "cpu", store).spectrum()
    spectra = read_spectra(pair, store)
    assert not spectra.missing
    return spectra.weights


def test_figures_are_those_of_what_would_be_written(pair, matrices):
    plans = [read_plan(text) for text in TEXTS]
    table = comparison_table(list(iter_comparison(pair, plans, "cpu")), plans)
    depths = block_depths(item.name for item in pair.tensors)
    for plan, row in zip(plans, table, strict=True):
        found = preview_model(matrices, plan, depths)
        assert found.norm_kept == pytest.approx(row["norm_kept"], rel=1e-4)
        assert found.distance == pytest.approx(row["distance"], abs=1e-4)
        assert found.effective_rank == pytest.approx(row["effective_rank"], rel=0.02)
    assert preview_model(matrices, plans[2], depths).directions == 5 * len(matrices)


@pytest.mark.parametrize("text", [*TEXTS, "keep"])
def test_matrices_add_up_to_the_model(pair, matrices, text):
    plan = RepairPlan(keep="base") if text == "keep" else read_plan(text)
    depths = block_depths(item.name for item in pair.tensors)
    rows, whole = preview_matrices(matrices, plan, depths), preview_model(matrices, plan, depths)
    energy = sum(row.spectrum.energy for row in rows)
    kept = sum(row.energy_kept * row.spectrum.energy for row in rows)
    assert kept / energy == pytest.approx(whole.norm_kept**2)
    assert sum(row.rank for row in rows) == whole.directions


def test_methods_that_change_entries_are_refused(matrices):
    with pytest.raises(MethodError, match="changes entries, not singular values"):
        preview_model(matrices, read_plan("dare"), {})
