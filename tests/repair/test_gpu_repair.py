"""What a GPU is asked to do for a repair, counted by a pretend accelerator; budgets hold for every size."""

import pytest
import torch

from dgviz.export.made import MakeTensors
from dgviz.jobs.executor import InProcess
from dgviz.repair.ahead import Ahead
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import factor_tensor, repair_tensor
from dgviz.repair.whole_model import prepare_method
from dgviz.spectra.store import SpectrumStore
from tests.accelerator import pretend_accelerator
from tests.spectra.test_gpu_budget import write_spiked

# Random words are drawn on the host, the same for every device: four bytes an entry.
DRAWN = [name for name, method in METHODS.items() if method.seeded and not method.by_matrix]


def repairing(pair, plan, device, folder):
    """Return what repairs one tensor of a pair, the whole of which has been looked at."""
    facts = prepare_method(pair, plan, device, SpectrumStore(folder / "before"))
    return lambda: repair_tensor(pair.tensors[0], plan, device, SpectrumStore(folder / "store"), facts)


def ahead(tensors, plan, store):
    """Return what an export makes tensors by on a GPU."""
    return Ahead(InProcess("cuda:0"), MakeTensors([(plan, None)], None, root=store), tensors, [plan])


# One of each kind for every change, all of them now and then.
KINDS = ("dg_hard", "wise_ft", "ties", "ties_per_tensor", "della", "fapm", "norm_capped")
ALL = [pytest.param(name, marks=[] if name in KINDS else [pytest.mark.soak]) for name in METHODS]


@pytest.mark.parametrize("method", ALL)
def test_a_repair_sends_every_byte_once_fetches_the_result_and_seldom_waits(tmp_path, method):
    settings = {"cap": 0.5} if method == "norm_capped" else {}  # by default it leaves what is not the largest
    plan, counts = RepairPlan(method=method, method_params=settings), []
    for number, shape in enumerate([(240, 180), (420, 330)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        pair = write_spiked(folder, [shape] * 2)
        expected = repairing(pair, plan, "cpu", folder)().tensor
        with pretend_accelerator() as gpu:
            repair = repairing(pair, plan, "cuda:0", folder)
            gpu.reset()
            found = repair()
            stored = pair.tensors[0].base.nbytes + pair.tensors[0].tuned.nbytes
            drawn = 4 * expected.numel() if method in DRAWN else 0
            assert gpu.bytes_in <= 1.1 * stored + drawn
            assert gpu.bytes_out <= 1.1 * expected.nbytes + 2**21  # counts of 65536 keys, where entries are trimmed
            counts.append((sum(gpu.waits.values()), sum(gpu.launches.values())))
        assert found.report.warnings == () and found.tensor.device.type == "cpu"
        # Two roundings of one sum fall differently only where it lies half-way.
        assert float((found.tensor != expected).float().mean()) < 1e-3
        torch.testing.assert_close(found.tensor, expected, rtol=2**-7, atol=1e-6)
    assert counts[0][0] == counts[1][0] <= 20
    assert counts[0][1] == pytest.approx(counts[1][1], abs=10)


def test_experts_of_a_stack_are_decomposed_together(tmp_path):
    pair = write_spiked(tmp_path, [(90, 70)], experts=6)
    expected = repairing(pair, RepairPlan(), "cpu", tmp_path)().tensor
    with pretend_accelerator() as gpu:
        found = repairing(pair, RepairPlan(), "cuda:0", tmp_path)()
        assert gpu.launches["_linalg_eigh"] == 1
        assert gpu.bytes_in <= 1.1 * (pair.tensors[0].base.nbytes + pair.tensors[0].tuned.nbytes)
    assert float((found.tensor != expected).float().mean()) < 1e-3


def test_separate_experts_that_are_written_next_are_decomposed_together(tmp_path):
    pair = write_spiked(tmp_path, [(90, 70), (70, 90)] * 3)
    tensors, plan = pair.tensors, RepairPlan(overrides=("model.layers.4.*: keep=base",))
    alone = {paired.name: repair_tensor(paired, plan, "cpu", SpectrumStore(tmp_path / "s")) for paired in tensors}
    with pretend_accelerator() as gpu:
        repairs = ahead(tensors, plan, tmp_path / "store")
        for paired in tensors[:1] + tensors[2:]:  # one is passed over, as those of a finished shard are
            found = repairs(paired)[0]
            expected = alone[paired.name]
            assert found.report.written == expected.report.written
            if found.data is not None:
                tensor = torch.from_numpy(found.data).view(expected.tensor.dtype).reshape(expected.tensor.shape)
                assert float((tensor != expected.tensor).float().mean()) < 1e-3
        assert gpu.launches["_linalg_eigh"] == 2  # one for each shape
        most = gpu.peak
    with pretend_accelerator(capacity=0.9 * most) as gpu:
        repairs = ahead(tensors, plan, tmp_path / "less")
        assert all(repairs(paired)[0].report.warnings == () for paired in tensors)
        assert gpu.launches["_linalg_eigh"] > 2


@pytest.mark.parametrize(("method", "experts"), [("dg_hard", None), ("wise_ft", None), ("dg_hard", 3)])
def test_where_memory_ends_the_cpu_repairs_and_it_is_said(tmp_path, method, experts):
    pair, plan = write_spiked(tmp_path, [(90, 70)], experts), RepairPlan(method=method)
    expected = repairing(pair, plan, "cpu", tmp_path)()
    with pretend_accelerator(capacity=30_000):
        found = repairing(pair, plan, "cuda:0", tmp_path)()
        if method == "dg_hard":
            factors, row = factor_tensor(pair.tensors[0], plan, "cuda:0", SpectrumStore(tmp_path / "factors"))
            assert len(factors) == (experts or 1) and row.warnings == found.report.warnings
    assert torch.equal(found.tensor, expected.tensor)
    assert found.report.warnings == ("cuda:0 ran out of memory, so this was computed on the CPU",)
