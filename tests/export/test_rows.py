"""One tensor has one row of figures, whatever format it is written in."""

import pytest
import torch

from dgviz.checkpoint import open_pair
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import factor_tensor, repair_tensor
from tests.checkpoints import planted_update, random_tensors, write_checkpoint

UNTRAINED, STACK, LORA = "model.embed_tokens.weight", "model.layers.2.mlp.experts.gate_up_proj", "model.lora.weight"
ROUNDED = {"gain", "noise_restored", "update_square", "sparsity"}
"""What only an added and rounded sum has; and factors alone have a rank of theirs."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rows")
    base = random_tensors()
    base[LORA] = torch.randn(64, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tuned = planted_update(base)
    tuned[UNTRAINED][10:70] = base[UNTRAINED][10:70]
    tuned[LORA] = base[LORA] + torch.ones(64, 1, dtype=torch.float64) @ torch.ones(1, 48, dtype=torch.float64)
    return open_pair(write_checkpoint(directory / "base", base), write_checkpoint(directory / "tuned", tuned))


@pytest.mark.parametrize("plan", [RepairPlan(), RepairPlan(method="rank_r", method_params={"rank": 2})])
def test_rows_are_equal_in_every_format(pair, plan):
    assert {UNTRAINED, STACK, LORA} <= {tensor.name for tensor in pair.repairable}
    for tensor in pair.repairable:
        full = repair_tensor(tensor, plan, "cpu").report
        _, factors = factor_tensor(tensor, plan, "cpu")
        assert full.warnings == factors.warnings
        for one, other in zip(full.matrices, factors.matrices, strict=True):
            for name in vars(one).keys() - ROUNDED - {"factor_rank"}:
                assert getattr(one, name) == getattr(other, name), (tensor.name, name)


def test_the_noise_law_is_that_of_the_nonzero_block(pair):
    """Rows that were never trained are no part of the noise: the rest fits the law."""
    full, factors = (
        repair_tensor(pair[UNTRAINED], RepairPlan(), "cpu"),
        factor_tensor(pair[UNTRAINED], RepairPlan(), "cpu"),
    )
    for report in (full.report, factors[1]):
        assert report.matrices[0].mp_fit["discarded"] > 80
