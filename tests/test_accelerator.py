"""The pretend accelerator itself: it says what a device says, refuses what one refuses, and counts."""

import pytest
import torch

from dgviz.jobs.executor import InProcess
from tests.accelerator import pretend_accelerator
from tests.bench import bench_accelerator, bench_cuda
from tests.bench.bench_engine import Case

ROWS = torch.arange(6.0).reshape(2, 3)


def test_what_is_on_it_says_so_and_computes_as_the_cpu_does():
    with pretend_accelerator() as gpu:
        x = ROWS.to("cuda:0")
        assert x.is_cuda and x.T.device == torch.device("cuda:0") and x.T.stride() == (1, 3)
        y = torch.zeros(2, 3, device=x.device)
        y += x
        y[0] = 7
        assert (x @ y.T).tolist() == (ROWS @ torch.tensor([[7.0, 7, 7], [3, 4, 5]]).T).tolist()
        assert gpu.bytes_in == 24 and gpu.launches["mm"] == 1 and gpu.live == 48
    with pytest.raises(RuntimeError, match="no longer there"):
        x + 1


def test_devices_do_not_mix():
    with pretend_accelerator():
        with pytest.raises(RuntimeError, match="on the same device, but add found"):
            ROWS.to("cuda:0") + ROWS
        with pytest.raises(TypeError, match="numpy"):
            ROWS.to("cuda:0").numpy()


@pytest.mark.parametrize(
    "look",
    [float, bool, lambda x: x.cpu(), lambda x: x.tolist(), lambda x: x.nonzero(), lambda x: x[x > 0]],
)
def test_whoever_looks_waits(look):
    with pretend_accelerator() as gpu:
        x = ROWS[:1, 1:2].pin_memory().to("cuda:0", non_blocking=True)
        assert not gpu.waits
        look(x)
        assert sum(gpu.waits.values()) == 1


def test_a_copy_that_nobody_waited_for_has_not_arrived():
    with pretend_accelerator():
        x = ROWS.to("cuda:0")
        there = x.to("cpu", non_blocking=True)
        assert there.isnan().all()
        float(x.sum())
        assert torch.equal(there, ROWS)


def test_memory_ends():
    with pretend_accelerator(capacity=100) as gpu:
        x = ROWS.to("cuda:0")
        del x
        rows = [torch.zeros(12, device="cuda:0") for _ in range(2)]
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(12, device="cuda:0")
        assert len(rows) == 2 and gpu.live == 96


@pytest.mark.slow
def test_the_bench_of_a_device_runs_through(monkeypatch):
    monkeypatch.setattr(bench_cuda, "SWEEPS", {"dgviz.device._GPU_BLOCK": [2**20]})
    monkeypatch.setattr(bench_cuda, "WHERE", {"in between": InProcess})  # what is pretended is so in this thread only
    case = Case((30, 20), 2, 12, "-", 1, quick=True)
    with pretend_accelerator():
        lines = list(bench_cuda.tables(True, (50, 40), (40, 30), 2, [case], crowd=((40, 30), 2), crowds=()))
    rows = [line for line in lines if line.startswith("| ")]
    first = [line.split("|")[1].strip() for line in rows][:3]
    assert first == ["cuda:0", "2 experts of 40 x 30: scan", "2 experts of 40 x 30: scan, 32 together"]
    assert rows[-1].startswith("| dgviz.device._GPU_BLOCK | 1048576 |")


@pytest.mark.slow
def test_the_counts_of_the_bench(tmp_path):
    """Every side is copied once, and a stack of experts waits as often as separate ones."""
    scans = {str(experts): ([(90, 70)] * (1 if experts else 3), experts, torch.float64) for experts in (3, None)}
    rows = list(bench_accelerator.rows(tmp_path, scans, {"repair": ((90, 70), None, "wise_ft")}, 3, 3))
    cells = [[cell.strip() for cell in line.split("|")[2:5]] for line in rows]
    assert cells[0] == cells[1] and [copied for copied, *_ in cells] == ["1.00", "1.00", "-", "1.00", "1.00"]
    assert all(0 < int(waits) < int(launches) for _, waits, launches in cells)


@pytest.mark.slow
def test_the_bench_of_exports_runs_through(tmp_path):
    rows = list(bench_cuda.export_rows((40, 30), 3, tmp_path, "cpu"))
    cells = [[cell.strip() for cell in row.split("|")[1:3]] for row in rows]
    assert cells == [[method, said] for method in ("dg_hard", "wise_ft") for said in bench_cuda.WHERE]


@pytest.mark.slow
def test_the_bench_of_several_processes_runs_through(tmp_path):
    rows = list(bench_cuda.crowd_rows((40, 30), 5, tmp_path, "cpu", (1, 2)))
    assert [row.split("|")[1].strip() for row in rows] == ["1", "2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_device_the_bench_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench_cuda"])
    bench_cuda.main()
    assert capsys.readouterr().out.startswith("There is no CUDA device on this machine")
