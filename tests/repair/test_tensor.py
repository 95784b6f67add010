"""Repair against a float64 reference, the two exact ends, and the honesty of its report."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import open_pair, read_bytes
from dgviz.errors import DgvizError, ExportError, SpectrumError, ThresholdError
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.rmt.spectrum import Spectrum
from tests.checkpoints import write_checkpoint, write_pair


def reference_repair(base: torch.Tensor, tuned: torch.Tensor, tau: float) -> torch.Tensor:
    """Return base + D* in float64 by the textbook."""
    matrices = [tensor.double().reshape(tensor.shape[0], -1) for tensor in (base, tuned)]
    u, s, vh = torch.linalg.svd(matrices[1] - matrices[0], full_matrices=False)
    keep = s > tau
    return (matrices[0] + (u[:, keep] * s[keep]) @ vh[keep]).reshape(base.shape)


@pytest.fixture(scope="module")
def pair_paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def pair(pair_paths):
    return open_pair(*pair_paths)


@pytest.fixture(scope="module")
def tensors(pair_paths):
    return [load_file(path / "model.safetensors") for path in pair_paths]


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("model.embed_tokens.weight", RepairPlan()),
        ("model.layers.2.mlp.up.weight", RepairPlan("mp_edge")),
        ("model.conv.weight", RepairPlan("fixed_rank", {"rank": 5})),
        ("model.pos", RepairPlan("energy", {"fraction": 0.5})),
    ],
)
def test_matrices_and_kernels_equal_a_float64_reference(pair, tensors, name, plan):
    repaired = repair_tensor(pair[name], plan, "cpu")
    row, (figures,) = repaired.report, repaired.report.matrices
    squeezed = [side[name].squeeze() for side in tensors]
    expected = reference_repair(*squeezed, figures.tau).reshape(pair[name].tuned.shape)
    assert repaired.tensor.dtype == torch.float32 and repaired.tensor.shape == expected.shape
    torch.testing.assert_close(repaired.tensor.double(), expected, rtol=0, atol=1e-7)
    assert row.action == "repair" and row.written == "repaired" and figures.rank >= 1
    assert figures.gain == pytest.approx(1.0, abs=1e-4)
    assert 0 < figures.energy_kept < 1
    assert set(figures.mp_fit) == {"tuned", "repaired", "discarded", "discarded_own", "noise"}


def test_planted_directions_are_found(pair):
    (row,) = repair_tensor(pair["model.embed_tokens.weight"], RepairPlan(), "cpu").report.matrices
    assert row.rank == 3
    assert row.sigma == pytest.approx(1e-3, rel=0.08)


def test_a_stack_is_repaired_matrix_by_matrix(pair, tensors):
    name = "model.layers.2.mlp.experts.gate_up_proj"
    repaired = repair_tensor(pair[name], RepairPlan(), "cpu")
    assert len(repaired.report.matrices) == 4
    for expert, row in enumerate(repaired.report.matrices):
        expected = reference_repair(tensors[0][name][expert], tensors[1][name][expert], row.tau)
        torch.testing.assert_close(repaired.tensor[expert].double(), expected, rtol=0, atol=1e-7)


def test_tau_zero_is_tuned_and_tau_infinity_is_base_bit_for_bit(pair):
    for paired in pair.repairable:
        kept = repair_tensor(paired, RepairPlan("manual", {"tau": 0}), "cpu")
        assert kept.tensor is None and kept.source == paired.tuned and kept.report.written == "tuned bytes"
        dropped = repair_tensor(paired, RepairPlan("manual", {"tau": math.inf}), "cpu")
        assert dropped.tensor is None and dropped.source == paired.base and dropped.report.written == "base bytes"


def test_bfloat16_is_rounded_once_and_its_cost_is_reported(tmp_path):
    pair = open_pair(*write_pair(tmp_path, torch.bfloat16))
    paired = pair["model.embed_tokens.weight"]
    base, tuned = (load_file(path / "model.safetensors")[paired.name] for path in (pair.base.path, pair.tuned.path))
    repaired = repair_tensor(paired, RepairPlan(), "cpu")
    (row,) = repaired.report.matrices
    expected = reference_repair(base, tuned, row.tau)
    assert repaired.tensor.dtype == torch.bfloat16
    # One rounding: nowhere further from the exact value than half a unit in bfloat16's last place.
    assert bool(((repaired.tensor.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-9).all())
    written, exact = repaired.tensor.double() - base.double(), expected - base.double()
    assert row.gain == pytest.approx(float((written * exact).sum() / (exact * exact).sum()), abs=1e-4)
    removed = tuned.double() - expected
    assert row.noise_restored == pytest.approx(float((written - exact).norm() / removed.norm()), rel=1e-3)
    as_float = repair_tensor(paired, RepairPlan(dtype="float32"), "cpu")
    assert as_float.tensor.dtype == torch.float32
    assert as_float.report.matrices[0].noise_restored < 1e-3 < row.noise_restored


def test_float64_stays_float64(tmp_path):
    pair = open_pair(*write_pair(tmp_path, torch.float64))
    paired = pair["model.layers.2.mlp.up.weight"]
    base, tuned = (load_file(path / "model.safetensors")[paired.name] for path in (pair.base.path, pair.tuned.path))
    repaired = repair_tensor(paired, RepairPlan(), "cpu")
    assert repaired.tensor.dtype == torch.float64
    expected = reference_repair(base, tuned, repaired.report.matrices[0].tau)
    torch.testing.assert_close(repaired.tensor, expected, rtol=0, atol=1e-14)


def test_a_merged_lora_keeps_tuned_and_says_why(tmp_path):
    rng = torch.Generator().manual_seed(3)
    base = torch.randn(128, 64, generator=rng, dtype=torch.float64)
    lora = torch.randn(128, 4, generator=rng, dtype=torch.float64) @ torch.randn(
        4, 64, generator=rng, dtype=torch.float64
    )
    write_checkpoint(tmp_path / "base", {"w.weight": base})
    write_checkpoint(tmp_path / "tuned", {"w.weight": base + lora})
    repaired = repair_tensor(open_pair(tmp_path / "base", tmp_path / "tuned")["w.weight"], RepairPlan(), "cpu")
    assert repaired.report.written == "tuned bytes" and repaired.report.matrices[0].rank == 4
    assert "low-rank delta: only 4 of 64" in repaired.report.warnings[0]


def test_an_untrained_weight_is_copied_and_said_to_be_one(tmp_path):
    base = torch.randn(64, 32)
    other = torch.randn(64, 32)
    write_checkpoint(tmp_path / "base", {"a.weight": base, "b.weight": other})
    write_checkpoint(tmp_path / "tuned", {"a.weight": base, "b.weight": other + 1})
    repaired = repair_tensor(open_pair(tmp_path / "base", tmp_path / "tuned")["a.weight"], RepairPlan(), "cpu")
    assert repaired.source.file.parent.name == "tuned" and repaired.report.matrices[0].rank == 0
    assert repaired.report.matrices[0].energy_kept == 1.0
    assert "exactly zero" in repaired.report.warnings[0]


def test_a_non_finite_update_is_an_error_that_names_it(tmp_path):
    base = torch.randn(64, 32)
    tuned = base + torch.randn(64, 32)
    tuned[5, 7] = math.nan
    save_file({"w.weight": base}, write_checkpoint(tmp_path / "base", {"w.weight": base}) / "model.safetensors")
    write_checkpoint(tmp_path / "tuned", {"w.weight": tuned})
    with pytest.raises(SpectrumError, match=r"w\.weight.*\[5, 7\].*nan"):
        repair_tensor(open_pair(tmp_path / "base", tmp_path / "tuned")["w.weight"], RepairPlan(), "cpu")


def test_kept_tensors_are_tuned_bytes_or_cast(pair):
    paired = pair["model.norm.weight"]
    kept = repair_tensor(paired, RepairPlan(), "cpu")
    assert kept.source == paired.tuned and kept.tensor is None and kept.report.written == "tuned bytes"
    cast = repair_tensor(paired, RepairPlan(dtype="bfloat16"), "cpu")
    stored = torch.frombuffer(read_bytes(paired.tuned), dtype=torch.float32)
    assert cast.report.written == "tuned, cast" and torch.equal(cast.tensor, stored.bfloat16())
    whole_numbers = repair_tensor(pair["model.position_ids"], RepairPlan(dtype="bfloat16"), "cpu")
    assert whole_numbers.report.written == "tuned bytes" and whole_numbers.report.dtype == "int64"


def test_a_plan_survives_json():
    plan = RepairPlan("manual", {"tau": math.inf}, include="mlp", dtype="float32")
    text = json.dumps(plan.to_json(), allow_nan=False)
    assert RepairPlan.from_json(json.loads(text)) == plan


def test_a_bad_plan_is_refused():
    with pytest.raises(ThresholdError, match="no threshold rule"):
        RepairPlan("median")
    with pytest.raises(ThresholdError, match="needs 'tau'"):
        RepairPlan("manual")
    with pytest.raises(ExportError, match="no output dtype 'int8'"):
        RepairPlan(dtype="int8")
    with pytest.raises(DgvizError, match="no repair method"):
        RepairPlan(method="soup")


def test_energy_kept_at_extreme_scales():
    s = np.array([3.0, 2.0, 1.0])
    for scale in (1e-200, 1.0, 1e200):
        assert Spectrum(scale * s, (3, 3), {}).energy_kept(1) == pytest.approx(9 / 14)
    assert Spectrum(np.zeros(3), (3, 3), {}).energy_kept(0) == 1.0


@pytest.mark.parametrize("fate", ["repair", "keep", "base"])
def test_a_value_that_does_not_fit_the_output_dtype_is_an_error(tmp_path, fate):
    base = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)) * 1e5
    update = torch.randn(64, 48, generator=torch.Generator().manual_seed(1))
    update += 20 * torch.ones(64, 48)
    bias = torch.full((48,), 1e30)
    write_checkpoint(tmp_path / "base", {"a.weight": base, "bias": bias})
    write_checkpoint(tmp_path / "tuned", {"a.weight": base + update, "bias": bias})
    pair = open_pair(tmp_path / "base", tmp_path / "tuned")
    rule = {"repair": ("dg_hard", {}), "keep": ("dg_hard", {}), "base": ("manual", {"tau": math.inf})}[fate]
    paired = pair["bias" if fate == "keep" else "a.weight"]
    with pytest.raises(ExportError, match=rf"{paired.name}: \d+ values do not fit float16 .* limit 6.55e\+04"):
        repair_tensor(paired, RepairPlan(*rule, dtype="float16"), "cpu")


def test_equal_infinities_are_no_update(tmp_path):
    mask = torch.full((64, 64), -math.inf).triu(1)
    weight = torch.randn(64, 64)
    write_checkpoint(tmp_path / "base", {"mask": mask, "w": weight})
    write_checkpoint(tmp_path / "tuned", {"mask": mask, "w": weight + torch.randn(64, 64)})
    repaired = repair_tensor(open_pair(tmp_path / "base", tmp_path / "tuned")["mask"], RepairPlan(), "cpu")
    assert repaired.report.written == "tuned bytes" and "exactly zero" in repaired.report.warnings[0]
