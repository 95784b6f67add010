"""What a GPU is asked to do, counted by a pretend accelerator: bytes copied in, waits and launches.

No time is measured, and no device is needed; tests hold budgets for these counts. Bytes are shares of what is stored
of both sides.

Run: ``python -m tests.bench.bench_accelerator [--out FILE.md]``.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from dgviz.export.made import MakeTensors
from dgviz.jobs.executor import InProcess
from dgviz.repair.ahead import Ahead
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import decompose_stack
from tests.accelerator import pretend_accelerator
from tests.deltas import spiked
from tests.spectra.test_gpu_budget import FAST, SLOW, scan, write_spiked

DEVICE = "cuda:0"
HEADER = "| what | copied in | waits | launches |\n|---|---|---|---|"
ONE, TALL, EXPERT = (1024, 768), (2100, 1000), (256, 192)
SCANS = {  # shapes, experts of a stack, and the precision of Gram matrices
    "scan of 1024 x 768": ([ONE], None, FAST),
    "scan of 2100 x 1000": ([TALL], None, FAST),
    "scan of 1024 x 768, float64 being slow": ([ONE], None, SLOW),
    "scan of a stack of 16 experts of 256 x 192": ([EXPERT], 16, FAST),
    "scan of 16 separate experts of 256 x 192": ([EXPERT] * 16, None, FAST),
}
REPAIRS = {
    "repair of 300 x 200, DG-Hard": ((300, 200), None, "dg_hard"),
    "repair of 3000 x 2000, DG-Hard": ((3000, 2000), None, "dg_hard"),
    "repair of 3000 x 2000, WiSE-FT": ((3000, 2000), None, "wise_ft"),
    "repair of 2100 x 1000, TIES tensor by tensor": (TALL, None, "ties_per_tensor"),
    "repair of a stack of 16 experts": (EXPERT, 16, "dg_hard"),
}


def counted(work, gram=FAST):
    """Return what a device was asked to do for a piece of work: bytes copied in, waits, and launches."""
    with pretend_accelerator(gram=gram) as gpu:
        work()
        return gpu.bytes_in, sum(gpu.waits.values()), sum(gpu.launches.values())


def row(title, stored, counts):
    """Return a row of the table."""
    copied, waits, launches = counts
    return f"| {title} | {f'{copied / stored:.2f}' if stored else '-'} | {waits} | {launches} |"


def rows(folder, scans=SCANS, repairs=REPAIRS, batch=16, separate=12):
    """Yield all rows."""

    def pair_of(shapes, experts):
        place = Path(tempfile.mkdtemp(dir=folder))
        pair = write_spiked(place, shapes, experts)
        return pair, place, sum(side.nbytes for own in pair.tensors for side in (own.base, own.tuned))

    for title, (shapes, experts, gram) in scans.items():
        pair, place, stored = pair_of(shapes, experts)
        yield row(title, stored, counted(lambda pair=pair, place=place: scan(pair, place / "store"), gram))
    deltas = [spiked(*EXPERT, 5, 6, seed=seed).float() for seed in range(batch)]
    with pretend_accelerator() as gpu:
        there = [delta.to(DEVICE) for delta in deltas]
        gpu.reset()
        decompose_stack(there, DEVICE, list(map(str, range(batch))))
        counts = gpu.bytes_in, sum(gpu.waits.values()), sum(gpu.launches.values())
    yield row(f"decomposition of {batch} matrices together", 0, counts)
    for title, (shape, experts, method) in repairs.items():
        pair, place, stored = pair_of([shape], experts)
        plan, store = RepairPlan(method=method), SpectrumStore(place / "store")
        yield row(
            title, stored, counted(lambda pair=pair, own=(plan, DEVICE, store): repair_tensor(pair.tensors[0], *own))
        )
    pair, place, stored = pair_of([EXPERT] * separate, None)

    def export():
        plan = RepairPlan()
        task = MakeTensors([(plan, None)], None, root=place / "store")
        make = Ahead(InProcess(DEVICE), task, pair.tensors, [plan])
        for paired in pair.tensors:
            assert make(paired)[0].data is not None

    yield row(f"export of {separate} separate experts", stored, counted(export))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="dgviz-bench-") as folder:
        lines = [HEADER, *rows(Path(folder))]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
